"""What PEFT and diffusers keep of an adapter beside its tensors, and what of it makes more of them than a LoRA."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from ..errors import SciArtError, quoted
from ..json_text import read_json

MOST_BYTES = 2**20
"""of `adapter_config.json`"""
_BESIDE, _WITHIN = "adapter_config.json", "lora_adapter_metadata"
_PARTS_OF_MODEL = (("unet.", "unet_"), ("text_encoder.", "te1_"), ("text_encoder_2.", "te2_"), ("", ""))
_MARK_OF_PEFT = "base_model.model."

_REPLACED = ("pissa", "olora", "corda", "lora_ga")
_PLAIN_TUNERS = (None, "LORA", "LOHA", "LOKR", "IA3")
_BY_KEYS = ("OFT", "BOFT", "VERA")
"""tuners whose keys tell them, in more words"""
_MORE = {
    "kasa_config": "parts of the model's weights were cut away when training began (KaSA)",
    "modules_to_save": "whole layers were trained beside the LoRA",
    "trainable_token_indices": "embeddings of tokens were trained beside the LoRA",
    "layer_replication": "layers of the model were repeated",
    "target_parameters": "parameters were trained that are no layers",
    "alora_invocation_tokens": "it acts after certain tokens only (aLoRA)",
    "use_qalora": "its inputs are pooled in groups (QA-LoRA)",
    "use_bdlora": "its factors are made of blocks (BD-LoRA)",
    "arrow_config": "it chooses among several LoRAs (Arrow)",
}
"""settings of PEFT by which ΔW is not s·B·A; `fan_in_fan_out` is none: for linear layers PEFT itself leaves it out"""


def adapter_config(path: Path, metadata: Mapping[str, str], keys: Collection[str]) -> dict:
    """The configuration in the file's metadata (diffusers), or in `adapter_config.json` beside it (PEFT); empty where
    there is none, or where the one beside it need not be of this file, because its keys are not PEFT's.

    Raises `SciArtError` where it cannot be read, or says that the tensors are not all that the adapter does.
    """
    beside = path.parent / _BESIDE
    if _WITHIN in metadata:
        source, read = _WITHIN, lambda: metadata[_WITHIN]
    elif (path.stem == "adapter_model" or any(_MARK_OF_PEFT in key for key in keys)) and beside.is_file():
        source, read = beside.name, lambda: _text_of(path, beside)
    else:
        return {}
    try:
        config = read_json(read())
    except OSError as error:
        raise SciArtError(path.name, f"{source} cannot be read: {error.strerror}") from None
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise SciArtError(path.name, f"{source} is not a JSON object")
    for part, _, own in parts_of(config):
        _check(path, part, own)
    return config


def parts_of(config: Mapping) -> Iterator[tuple[str, str, dict]]:
    """(name of a part of the model in the configuration, how canonical names of its layers begin, its own settings).

    Files of one part alone (diffusers' `save_lora_adapter`, and PEFT) write the configuration without the part's name.
    """
    for part, prefix in _PARTS_OF_MODEL:
        yield part, prefix, {key[len(part):]: value for key, value in config.items() if key.startswith(part)}


def _text_of(path: Path, beside: Path) -> str:
    with beside.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise SciArtError(path.name, f"{beside.name} has more than {MOST_BYTES} bytes")
    return data.decode("utf-8-sig")


def _check(path: Path, part: str, own: Mapping) -> None:
    """Refuses settings by which the tensors of the file are not all that the adapter does."""
    began = own.get("init_lora_weights")
    kind = began.lower() if isinstance(began, str) else ""
    if kind.startswith(_REPLACED):
        raise SciArtError(path.name, f"{part}init_lora_weights is {quoted(began)}: the model's weights were replaced "
                          "when training began, so these factors alone are not the LoRA; save the adapter again with "
                          "path_initial_model_for_weight_conversion, which makes a plain LoRA of it")
    if kind == "loftq":
        raise SciArtError(path.name, f"{part}init_lora_weights is {quoted(began)}: it fits only the quantised model "
                                     "that it was trained with; merge it there, and extract a LoRA from the result")
    tuner = own.get("peft_type")
    if tuner not in (*_PLAIN_TUNERS, *_BY_KEYS):
        raise SciArtError(path.name, f"{part}peft_type is {quoted(str(tuner))}; supported are LORA, LOHA, LOKR and IA3")
    for setting, why in _MORE.items():
        if own.get(setting):
            raise SciArtError(path.name, f"{part}{setting} is set: {why}, which no LoRA can do; merge it into its "
                                         "model, and extract a LoRA from the result")
    if own.get("bias") not in (None, "none", False):
        raise SciArtError(path.name, f"{part}bias is {quoted(str(own['bias']))}: biases of the model were trained "
                                     "beside the LoRA; merge it into its model, and extract a LoRA from the result")


def check_decomposed(path: Path, config: Mapping, layers: Mapping[str, Collection[str]]) -> None:
    """Refuses DoRA without its magnitudes. layers: what there is of each, by canonical name."""
    for part, prefix, own in parts_of(config):
        if own.get("use_dora"):
            without = next((layer for layer, parts in layers.items() if layer.startswith(prefix) and "down" in parts
                            and not {"magnitude", "dora_scale"} & set(parts)), None)
            if without is not None:
                raise SciArtError(path.name, f"{part}use_dora is true, but {without} has no magnitude; the file is "
                                             "incomplete")
