"""Loading a Stable Diffusion 1, 2 or XL model from local files into a diffusers pipeline."""

from __future__ import annotations

import warnings
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline

from ..errors import SciArtError
from .model_facts import SUPPORTED, first_line, is_xl, model_facts, names_in


def load_pipeline(path: Path, config: Path | None = None, device: str | None = None):
    """The pipeline of a diffusers folder or of a single checkpoint file; no weights are downloaded.

    config: for a single file, a diffusers folder of the same architecture, for its configuration and tokenizer;
    without one diffusers takes them from the Hugging Face cache, or online unless HF_HUB_OFFLINE=1 (`prepare`).
    """
    path = Path(path)
    facts = model_facts(path, config)
    quiet()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float32 if device == "cpu" else torch.float16
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # newer diffusers call torch_dtype dtype, older know that only
        pipe = _load_folder(path, dtype) if path.is_dir() else _load_file(path, config, dtype, is_xl(facts))
    if not isinstance(pipe, (StableDiffusionPipeline, StableDiffusionXLPipeline)):
        raise SciArtError("model", f"{path.name} is a {type(pipe).__name__}; accepted: {SUPPORTED}")
    pipe.unet.requires_grad_(False)  # guidance asks for gradients of the latent alone
    pipe.set_progress_bar_config(disable=True)
    if device == "cpu":
        _unmap(pipe)
    return pipe.to(device)


def _unmap(pipe) -> None:
    """Weights that may still be parts of a mapped file get memory of their own, as they do on every other device: a
    mapped file cannot be replaced on Windows, and one that is cut short meanwhile ends the program."""
    for part in pipe.components.values():
        for tensor in (*part.parameters(), *part.buffers()) if isinstance(part, torch.nn.Module) else ():
            tensor.data = tensor.data.clone()


def _load_folder(path: Path, dtype: torch.dtype):
    try:
        pipe = DiffusionPipeline.from_pretrained(path, torch_dtype=dtype, local_files_only=True,
                                                 **_without_checker(path / "model_index.json"))
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise SciArtError("model", f"{path} cannot be read: {first_line(error)}") from None
    for name in ("text_encoder", "text_encoder_2"):
        file = path / name / "model.safetensors"
        if file.is_file() and _is_unread(file, getattr(pipe, name)):
            raise SciArtError("model", f"{file} was written by transformers 5, whose names transformers "
                                       f"{transformers.__version__} does not know; update transformers")
    return pipe


def _is_unread(file: Path, encoder: torch.nn.Module) -> bool:
    """Whether transformers 4 read nothing of what transformers 5 wrote, and went on with random weights."""
    def prefixed(names) -> bool:
        return any(name.startswith("text_model.") for name in names)
    return prefixed(encoder.state_dict()) and not prefixed(names_in(file))


def _load_file(path: Path, config: Path | None, dtype: torch.dtype, xl: bool):
    options = {"torch_dtype": dtype, "local_files_only": True}
    if config is not None:
        options["config"] = str(config)
    if not xl:
        options.update(safety_checker=None, requires_safety_checker=False)
    kind = StableDiffusionXLPipeline if xl else StableDiffusionPipeline
    try:
        return kind.from_single_file(str(path), **options)
    except Exception as error:  # diffusers raises many kinds here, the cause is a file that does not fit
        hint = f"; {config} must be a model of the same architecture" if config else (
            "; where the model's configuration is not in the Hugging Face cache, give a diffusers folder of the same "
            "architecture with --config")
        raise SciArtError("model", f"{path.name} cannot be read: {first_line(error)}{hint}") from None


def _without_checker(index: Path) -> dict:
    """The safety checker is left out where the model has one: it is not part of the model."""
    if "safety_checker" not in index.read_text(encoding="utf-8"):
        return {}
    return {"safety_checker": None, "requires_safety_checker": False}


def quiet() -> None:
    """No notices and progress bars of the libraries: what matters to the user is raised."""
    diffusers.logging.set_verbosity_error()
    diffusers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

