"""LoRA files: what is refused and how, and that every dialect of the supported kinds reads as the same deltas."""

from __future__ import annotations

import gc
import inspect
import json
import math
import os
import pickle
import random
from pathlib import Path

import pytest
import torch
from lora_files import (
    deltas_for,
    dotted,
    kohya,
    ldm,
    matrices,
    pair,
    raw_safetensors,
    save,
    select,
    tiny_clip,
    tiny_unet,
)

from sciart_ext.errors import SciArtError
from sciart_ext.lora import file as file_module
from sciart_ext.lora import safetensors_file
from sciart_ext.lora.file import inspect_lora, load_lora
from sciart_ext.lora.opened import fingerprint
from sciart_ext.lora.safetensors_file import MAX_HEADER_BYTES

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

STEM = "lora_unet_mid_block_attentions_0_proj_in"
LAYER = "unet_middle_block_1_proj_in"
ATTENTION = r"attn[12]\.to_|ff\.net|proj_(in|out)$"
ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


# --- files that are refused --------------------------------------------------------------------------------------

def _tensors(state, metadata=None):
    return lambda path: save(path, state, metadata)


def _raw(header, data=b"", length=None):
    return lambda path: raw_safetensors(path, header, data, length)


def _bytes(content):
    return lambda path: path.write_bytes(content)


def _pickle(content):
    return lambda path: torch.save(content, path)


def _pickle_of_fp8(path):
    if torch.__version__ < "2.2":
        pytest.skip("this torch cannot write what newer ones do")
    torch.save({**pair(), DOWN: torch.ones(2, 6).to(torch.float8_e4m3fn)}, path)


def _truncated(path):
    save(path, pair())
    path.write_bytes(path.read_bytes()[:-20])


def _huge_header(path):
    with path.open("wb") as file:
        file.write((MAX_HEADER_BYTES + 1).to_bytes(8, "little"))
        file.truncate(MAX_HEADER_BYTES + 100)


class RunsCode:
    """Unpickling it would make a file beside the LoRA."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def _with_code(path):
    torch.save({**pair(), "x": RunsCode(path.parent / "the code ran")}, path)


def _with_code_unzipped(path):
    path.write_bytes(pickle.dumps({"x": RunsCode(path.parent / "the code ran")}))


def _part(part, *shape, value=1.0, dtype=torch.float32):
    return pair(**{part: torch.full(shape, value, dtype=dtype)})


def _matrix(stem, down, up):
    return {f"{stem}.lora_down.weight": torch.ones(down), f"{stem}.lora_up.weight": torch.ones(up)}


def _metadata(**config):
    return {"lora_adapter_metadata": json.dumps(config)}


DOWN, UP = f"{STEM}.lora_down.weight", f"{STEM}.lora_up.weight"
FOUR = torch.ones(4, 4)
# (what is wrong, suffix, maker, piece of the message, whether the header alone tells)
WRONG = [
    ("no such file", ".safetensors", lambda path: None, "no such file", True),
    ("no such pickle", ".pt", lambda path: None, "no such file", True),
    ("another suffix", ".png", _tensors(pair()), "not a LoRA file; accepted: .safetensors, .pt", True),
    ("an empty file", ".safetensors", _bytes(b""), "an empty file (zero bytes)", True),
    ("shorter than the header's length", ".safetensors", _bytes(b"\x02\0\0"), "header reaches beyond the end", True),
    ("truncated data", ".safetensors", _truncated, "lies beyond the end of the file", True),
    ("a header longer than the file", ".safetensors", _raw({}, length=1000), "header reaches beyond the end", True),
    ("a header over the limit", ".safetensors", _huge_header, f"at most {MAX_HEADER_BYTES} are accepted", True),
    ("a header that is no JSON", ".safetensors", _raw(b"{lora}"), "header is not valid JSON", True),
    ("a header that is no text", ".safetensors", _raw(b"\xff\xfe\xfd"), "header is not valid JSON", True),
    ("a header nested too deep", ".safetensors", _raw(b"[" * 100_000), "header is not valid JSON", True),
    ("a header that is a list", ".safetensors", _raw([1]), "header is not a table of tensors", True),
    ("a header of numbers", ".safetensors", _raw({"a": 1}), "header is not a table of tensors", True),
    ("metadata that is no text", ".safetensors", _raw({"__metadata__": {"ss_base_model_version": 3}}),
     "metadata is not a table of texts", True),
    ("a negative shape", ".safetensors", _raw({DOWN: {**ENTRY, "shape": [-1, -2]}}, bytes(8)), "no proper shape", True),
    ("a shape of words", ".safetensors", _raw({DOWN: {**ENTRY, "shape": "2"}}, bytes(8)), "no proper shape", True),
    ("a shape larger than its data", ".safetensors", _raw({DOWN: {**ENTRY, "shape": [10**15]}}, bytes(8)),
     "no proper shape", True),
    ("no offsets", ".safetensors", _raw({DOWN: {"dtype": "F32", "shape": [2]}}, bytes(8)), "no proper shape", True),
    ("a shape of nothing that is huge", ".safetensors",
     _raw({DOWN: {**ENTRY, "shape": [10**30, 0], "data_offsets": [0, 0]}}), "no proper shape", True),
    ("a shape of more dimensions than torch has", ".safetensors",
     _raw({DOWN: {**ENTRY, "shape": [1] * 100, "data_offsets": [0, 4]}}, bytes(4)), "no proper shape", True),
    ("tensors that overlap", ".safetensors", _raw({DOWN: ENTRY, UP: ENTRY}, bytes(8)), "tensors overlap", True),
    ("a gap between tensors", ".safetensors",
     _raw({DOWN: ENTRY, UP: {**ENTRY, "data_offsets": [9, 17]}}, bytes(17)), "something between them", True),
    ("data after the last tensor", ".safetensors", _raw({DOWN: ENTRY}, bytes(11)), "3 bytes follow the last", True),
    ("no tensor", ".safetensors", _raw({}), "contains no tensors", True),
    ("metadata alone", ".safetensors", _raw({"__metadata__": {"ss_base_model_version": "sdxl"}}),
     "contains no tensors", True),
    ("more tensors than a LoRA has", ".safetensors", _raw({str(i): ENTRY for i in range(50_001)}, bytes(8)),
     "50001 tensors; at most 50000", True),
    ("int8", ".safetensors", _tensors({**pair(), DOWN: torch.ones(2, 6, dtype=torch.int8)}), "stored as I8", True),
    ("fp8", ".safetensors", _tensors({**pair(), DOWN: torch.ones(2, 6).to(torch.float8_e4m3fn)}),
     "stored as F8_E4M3; accepted: BF16, F16, F32, F64", True),
    ("int8 in a pickle", ".pt", _pickle({**pair(), DOWN: torch.ones(2, 6, dtype=torch.int8)}), "stored as I8", True),
    ("fp8 in a pickle", ".pt", _pickle_of_fp8, "stored as F8_E4M3; accepted", True),
    ("a sparse matrix", ".pt", _pickle({**pair(), DOWN: torch.eye(2, 6).to_sparse()}), "not a plain tensor", True),
    ("a matrix without data", ".pt", _pickle({**pair(), DOWN: torch.empty(2, 6, device="meta")}),
     "not a plain tensor", True),
    ("NaN", ".safetensors", _tensors({**pair(), DOWN: torch.full((2, 6), math.nan)}), "holds NaN or infinity", False),
    ("infinity", ".safetensors", _tensors({**pair(), UP: torch.full((8, 2), -math.inf)}), "NaN or infinity", False),
    ("alpha is NaN", ".safetensors", _tensors(pair(alpha=torch.tensor(math.nan))), "NaN or infinity", False),
    ("down without up", ".safetensors", _tensors({DOWN: torch.ones(2, 6)}), f"{LAYER} has no up matrix", True),
    ("up without down", ".safetensors", _tensors({UP: torch.ones(8, 2)}), f"{LAYER} has no down matrix", True),
    ("alpha alone", ".safetensors", _tensors({f"{STEM}.alpha": torch.tensor(1.0)}), "has no down matrix", True),
    ("ranks that differ", ".safetensors", _tensors(_matrix(STEM, (2, 6), (8, 3))), "down has rank 2, up has rank 3",
     True),
    ("a matrix of three dimensions", ".safetensors", _tensors(_matrix(STEM, (2, 6, 3), (8, 2))),
     "down has shape (2, 6, 3); accepted: 2 or 4", True),
    ("a vector", ".safetensors", _tensors(_matrix(STEM, (2, 6), (8,))), "up has shape (8,)", True),
    ("a matrix of no rows", ".safetensors", _tensors(_matrix(STEM, (0, 6), (8, 0))), "down has shape (0, 6)", True),
    ("a rank over the limit", ".safetensors", _tensors(_matrix(STEM, (4097, 1), (1, 4097))),
     "rank 4097; at most 4096", True),
    ("alpha of two numbers", ".safetensors", _tensors(_part("alpha", 2)), "alpha has shape (2,); accepted: one", True),
    ("scale of two numbers", ".safetensors", _tensors(_part("scale", 1, 2)), "scale has shape (1, 2)", True),
    ("an up matrix with a kernel", ".safetensors", _tensors(_matrix(STEM, (2, 6, 3, 3), (8, 2, 3, 3))),
     "its kernel must be 1 × 1", True),
    ("IA3 without its side", ".safetensors", _tensors({f"{STEM}.weight": FOUR[0]}), "unknown key", True),
    ("OFT of PEFT", ".safetensors", _tensors({"base_model.model.mid_block.x.oft_R.weight": FOUR}),
     "OFT of PEFT is not supported; supported are LoRA, LoCon, LoHa", True),
    ("BOFT of PEFT", ".safetensors", _tensors({"base_model.model.mid_block.x.boft_R": FOUR}),
     "BOFT of PEFT is not supported", True),
    ("a bias within", ".safetensors", _tensors({**pair(), f"{STEM}.lora_down.bias": FOUR[0]}),
     "LoRA with biases within is not supported", True),
    ("embeddings alone", ".safetensors", _tensors({"bundle_emb.word.string_to_param.*": FOUR}),
     "holds embeddings alone", True),
    ("a bundled embedding without vectors", ".safetensors", _tensors({**pair(), "bundle_emb.word.x": FOUR[0]}),
     "bundle_emb.word.x has shape (4,)", True),
    ("an embedding in a pickle", ".pt", _pickle({"string_to_param": {"*": FOUR}}), "an embedding (textual", True),
    ("several such keys", ".safetensors", _tensors({"b": FOUR, "a": FOUR}), "(2 such keys)", True),
    ("a part of no known model", ".safetensors", _tensors(_matrix("vae.decoder.conv", (2, 6), (8, 2))),
     "unknown key 'vae.decoder.conv.lora_", True),
    ("a pickle that runs code", ".pt", _with_code, "refused: it holds more than tensors", True),
    ("an old pickle that runs code", ".ckpt", _with_code_unzipped, "refused: it holds more than tensors", True),
    ("a pickle of a list", ".pt", _pickle([FOUR]), "expected a table of tensors, got list", True),
    ("a pickle of a tensor", ".bin", _pickle(FOUR), "expected a table of tensors, got Tensor", True),
    ("a pickle with numbered keys", ".pt", _pickle({1: FOUR}), "expected a table of tensors", True),
    ("a pickle with a list", ".pt", _pickle({**pair(), "steps": [3]}), "steps is list, not a tensor", True),
    ("an empty table", ".pt", _pickle({}), "contains no tensors", True),
    ("a text named .pt", ".pt", _bytes(b"<!DOCTYPE html>"), "", True),
    ("one layer under two names", ".safetensors",
     _tensors({**pair(), **pair("lora_unet_middle_block_1_proj_in")}), f"{LAYER} occurs twice", True),
    ("adapter metadata that is no JSON", ".safetensors", _tensors(pair(), {"lora_adapter_metadata": "{r: 4}"}),
     "lora_adapter_metadata is not a JSON object", True),
    ("adapter metadata that is a list", ".safetensors", _tensors(pair(), {"lora_adapter_metadata": "[4]"}),
     "lora_adapter_metadata is not a JSON object", True),
    ("alpha in the metadata is a word", ".safetensors", _tensors(pair(), _metadata(**{"unet.lora_alpha": "4"})),
     "unet.lora_alpha is '4', not a number", True),
    ("PEFT alpha patterns that are a list", ".safetensors", _tensors(pair(), _metadata(**{"unet.alpha_pattern": [1]})),
     "unet.alpha_pattern is [1], not a table of numbers", True),
    ("a PEFT alpha pattern that is a word", ".safetensors", _tensors(pair(), _metadata(alpha_pattern={"to_q": "8"})),
     "alpha_pattern: to_q is '8', not a number", True),
    ("a PEFT alpha pattern that is none", ".safetensors", _tensors(pair(), _metadata(alpha_pattern={"(": 8})),
     "alpha_pattern has a key that is no pattern", True),
]
IDS = [row[0] for row in WRONG]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("suffix", "make", "message", "told_by_header"), [row[1:] for row in WRONG], ids=IDS)
def test_a_wrong_file_is_refused_naming_the_file_and_the_fault(tmp_path, suffix, make, message, told_by_header):
    path = tmp_path / f"wrong{suffix}"
    make(path)
    with pytest.raises(SciArtError) as caught:
        load_lora(path)
    assert caught.value.field == path.name
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert [item for item in tmp_path.iterdir() if item != path] == [], "code in the file has run"


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("suffix", "make", "message", "told_by_header"), [row[1:] for row in WRONG], ids=IDS)
def test_the_list_of_files_says_the_same_of_a_wrong_file(tmp_path, suffix, make, message, told_by_header):
    path = tmp_path / f"wrong{suffix}"
    make(path)
    if told_by_header:
        with pytest.raises(SciArtError) as caught:
            inspect_lora(path)
        assert caught.value.field == path.name
        assert message in caught.value.message
    else:  # what only the data could tell is no reason to fail
        try:
            inspect_lora(path)
        except SciArtError as error:
            assert error.field == path.name
    assert [item for item in tmp_path.iterdir() if item != path] == [], "code in the file has run"


def test_a_file_that_is_cut_short_while_it_is_read_is_refused(path, monkeypatch):
    header_of = safetensors_file._header_of

    def cut_short(file, of):
        header = header_of(file, of)
        os.truncate(of, of.stat().st_size - 20)
        return header

    monkeypatch.setattr(safetensors_file, "_header_of", cut_short)
    save(path, _matrix(STEM, (64, 600), (800, 64)))
    with pytest.raises(SciArtError, match=r"^good\.safetensors: damaged: it was cut short while it was read$"):
        load_lora(path)


@pytest.mark.parametrize("read", [load_lora, inspect_lora, fingerprint])
@pytest.mark.parametrize(("error", "message"), [
    (FileNotFoundError(2, "No such file or directory"), "no such file"),
    (PermissionError(13, "Permission denied"), "cannot be read: Permission denied"),
])
def test_a_file_that_goes_or_is_locked_as_it_is_read_is_named(path, monkeypatch, read, error, message):
    def refuse(*args, **options):
        raise error

    save(path, pair())
    monkeypatch.setattr(Path, "is_file", lambda self: True)
    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(SciArtError) as caught:
        read(path)
    assert caught.value.field == path.name and message in caught.value.message


def test_a_file_that_does_not_fit_in_memory_is_refused(path, monkeypatch):
    raw_safetensors(path, {DOWN: {"dtype": "F32", "shape": [2**29, 2**24], "data_offsets": [0, 2**55]}})
    checked = safetensors_file._entries
    monkeypatch.setattr(safetensors_file, "_entries", lambda path, header, room: checked(path, header, 2**55))
    with pytest.raises(SciArtError, match=r"^good\.safetensors: does not fit in main memory; accepted: a smaller"):
        load_lora(path)


@pytest.mark.parametrize("on", [True, False])
def test_pythons_collector_is_as_it_was_before(path, on):
    save(path, pair())
    was = gc.isenabled()
    try:
        (gc.enable if on else gc.disable)()
        load_lora(path)
        assert gc.isenabled() == on
        path.write_bytes(b"no file")
        with pytest.raises(SciArtError):
            load_lora(path)
        assert gc.isenabled() == on
    finally:
        (gc.enable if was else gc.disable)()


def test_every_wrong_file_is_wrong_in_its_own_way():
    assert len(set(IDS)) == len(IDS) > 20


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".old.pt"])
def test_no_damage_gives_anything_but_a_clear_error(tmp_path, suffix):
    path = tmp_path / f"good{suffix}"
    if suffix == ".safetensors":
        save(path, pair(alpha=torch.tensor(1.0)), _metadata(**{"unet.lora_alpha": 2}))
    else:
        torch.save(pair(), path, _use_new_zipfile_serialization=suffix == ".pt")
    good, rng = path.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(250):
        damaged = bytearray(good)
        for _ in range(rng.choice((1, 3, 20))):
            damaged[rng.randrange(len(good))] = rng.randrange(256)
        path.write_bytes(damaged[:rng.randrange(len(good))] if rng.random() < 0.2 else damaged)
        for read in (load_lora, inspect_lora):
            try:
                read(path)
            except SciArtError as error:
                refused += read is load_lora
                assert error.field == path.name
    assert refused > 60


# --- files that are read -----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def unet():
    return tiny_unet("sd1")


@pytest.fixture(scope="module")
def sdxl():
    return tiny_unet("sdxl")


@pytest.fixture(scope="module")
def attention(unet):
    """Deltas of rank 2 for the linear layers of attention and feed-forward blocks, by diffusers' names."""
    return deltas_for(select(matrices(unet), ATTENTION))


@pytest.fixture(scope="module")
def reference(attention, tmp_path_factory):
    """The attention deltas read from kohya's names, without alpha."""
    return load_lora(save(tmp_path_factory.mktemp("kohya") / "reference.safetensors", kohya(attention)))


def assert_same_layers(lora, expected, factor=1.0):
    """The same canonical layers with the same factors, and scales `factor` times those expected."""
    assert lora.layers.keys() == expected.layers.keys()
    for name, delta in lora.layers.items():
        other = expected.layers[name]
        assert torch.equal(delta.down.flatten(), other.down.flatten()), name
        assert torch.equal(delta.up.flatten(), other.up.flatten()), name
        assert delta.scale == pytest.approx(other.scale * factor, rel=1e-6), name


def read(path, state, metadata=None):
    """The loaded file, after a look whether the list of files would say the same of it."""
    lora = load_lora(save(path, state, metadata))
    assert inspect_lora(path) == lora.report()
    return lora


@pytest.fixture
def path(tmp_path):
    return tmp_path / "good.safetensors"


def test_kohya_names_give_one_layer_for_each_matrix(attention, reference, unet):
    assert len(reference.layers) == len(attention)
    assert {layer.startswith("unet_") for layer in reference.layers} == {True}
    name = "up_blocks.1.attentions.2.transformer_blocks.0.attn2.to_out.0"
    delta = reference.layers["unet_output_blocks_5_1_transformer_blocks_0_attn2_to_out_0"]
    assert torch.equal(delta.down, attention[name][0])
    assert torch.equal(delta.up, attention[name][1])
    assert delta.rank == 2
    assert delta.scale == 1.0


DIALECTS = {
    "PEFT in diffusers": ("unet.", ".lora_A.weight", ".lora_B.weight"),
    "PEFT with an adapter's name": ("unet.", ".lora_A.default.weight", ".lora_B.default.weight"),
    "PEFT of a UNet alone": ("base_model.model.", ".lora_A.weight", ".lora_B.weight"),
    "PEFT around a pipeline": ("base_model.model.unet.", ".lora_A.weight", ".lora_B.weight"),
    "a UNet's own names": ("", ".lora_A.weight", ".lora_B.weight"),
    "lora.down": ("unet.", ".lora.down.weight", ".lora.up.weight"),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_each_dialect_of_diffusers_reads_as_kohyas_names_do(attention, reference, path, dialect):
    prefix, down, up = DIALECTS[dialect]
    assert_same_layers(read(path, dotted(attention, prefix, down, up)), reference)


@pytest.mark.parametrize("prefix", ["unet.", ""])
def test_diffusers_old_processor_names_read_as_kohyas_do(unet, path, prefix):
    deltas = deltas_for(select(matrices(unet), r"attn[12]\.to_"))
    state = {}
    for name, (down, up) in deltas.items():
        place, part = name.removesuffix(".0").rsplit(".", 1)
        state[f"{prefix}{place}.processor.{part}_lora.down.weight"] = down
        state[f"{prefix}{place}.processor.{part}_lora.up.weight"] = up
    other = load_lora(save(path.with_name("kohya.safetensors"), kohya(deltas)))
    assert_same_layers(read(path, state), other)


def test_sdxl_reads_the_same_from_ldm_and_from_diffusers_names(sdxl, path):
    deltas = deltas_for(matrices(sdxl))
    by_diffusers = read(path, kohya(deltas, alpha=1))
    by_ldm = read(path.with_name("ldm.safetensors"), kohya(ldm(deltas), alpha=1))
    assert len(by_ldm.layers) == len(deltas)
    assert_same_layers(by_ldm, by_diffusers)
    assert by_ldm.kind == "LoCon"


def test_sdxl_names_are_translated_as_diffusers_itself_does(sdxl, path):
    """An oracle that is not ours: the converter of diffusers' own LoRA loader."""
    from diffusers import StableDiffusionXLPipeline

    deltas = deltas_for(select(matrices(sdxl), r"attentions"))
    lora = read(path, kohya(ldm(deltas), alpha=1))
    state, alphas = StableDiffusionXLPipeline.lora_state_dict(str(path), unet_config=sdxl.config)
    assert len(state) == 2 * len(deltas)
    other = load_lora(save(path.with_name("by_diffusers.safetensors"), state))
    assert_same_layers(lora, other, factor=0.5)
    assert set(alphas.values()) == {1.0}


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("way", ["save_lora_adapter", "save_lora_weights"])
def test_a_file_that_diffusers_saves_has_the_scale_that_peft_computes_with(tmp_path, rslora, way):
    peft = pytest.importorskip("peft")
    from diffusers import StableDiffusionPipeline

    unet = tiny_unet("sd1")
    if "unet_lora_adapter_metadata" not in inspect.signature(StableDiffusionPipeline.save_lora_weights).parameters:
        pytest.skip("this diffusers does not keep alpha with the LoRAs that it saves")
    unet.add_adapter(peft.LoraConfig(r=4, lora_alpha=8, use_rslora=rslora, init_lora_weights=False,
                                     target_modules=["to_q", "to_out.0", "conv1", "proj_in", "conv"]), "own")
    if way == "save_lora_adapter":
        unet.save_lora_adapter(tmp_path, adapter_name="own", weight_name="a.safetensors")
    else:
        StableDiffusionPipeline.save_lora_weights(
            tmp_path, unet_lora_layers=peft.utils.get_peft_model_state_dict(unet, adapter_name="own"),
            unet_lora_adapter_metadata=unet.peft_config["own"].to_dict(), weight_name="a.safetensors")
    lora = load_lora(tmp_path / "a.safetensors")
    assert inspect_lora(tmp_path / "a.safetensors") == lora.report()
    tuned = {name: module for name, module in unet.named_modules() if hasattr(module, "get_delta_weight")}
    assert len(lora.layers) == len(tuned)
    assert lora.report()["kind"] == "LoCon"
    module = tuned["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0"]
    delta = lora.layers["unet_input_blocks_1_1_transformer_blocks_0_attn1_to_out_0"]
    assert delta.scale == pytest.approx(8 / 4**0.5 if rslora else 8 / 4)
    torch.testing.assert_close(delta.scale * delta.up @ delta.down, module.get_delta_weight("own").detach())


def test_a_file_that_peft_saves_is_read(tmp_path):
    peft = pytest.importorskip("peft")
    unet = tiny_unet("sd1")
    config = peft.LoraConfig(r=2, lora_alpha=2, init_lora_weights=False, target_modules=["to_k", "to_v", "conv2"])
    model = peft.get_peft_model(unet, config)
    model.save_pretrained(tmp_path)
    lora = load_lora(tmp_path / "adapter_model.safetensors")
    assert inspect_lora(tmp_path / "adapter_model.safetensors") == lora.report()
    tuned = {name: module for name, module in unet.named_modules() if hasattr(module, "get_delta_weight")}
    assert len(lora.layers) == len(tuned) > 10
    module = tuned["mid_block.attentions.0.transformer_blocks.0.attn2.to_k"]
    delta = lora.layers["unet_middle_block_1_transformer_blocks_0_attn2_to_k"]
    torch.testing.assert_close(delta.up @ delta.down, module.get_delta_weight("default").detach())


CLIP_NAMES = {
    "q_proj": "self_attn.q_proj", "k_proj": "self_attn.k_proj", "v_proj": "self_attn.v_proj",
    "out_proj": "self_attn.out_proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2",
}


def clip_deltas():
    """(rank 3) by the names that LoRA files use, which begin with `text_model` in every version of transformers."""
    deltas = deltas_for(matrices(tiny_clip()), rank=3)
    return {name if name.startswith("text_model.") else f"text_model.{name}": pair for name, pair in deltas.items()}


@pytest.mark.parametrize(("target", "kohya_prefix", "dotted_prefix"), [
    ("te1_", "lora_te_", "text_encoder."), ("te1_", "lora_te1_", "text_encoder."),
    ("te2_", "lora_te2_", "text_encoder_2."), ("te1_", "lora_te_", ""),
])
def test_text_encoders_read_the_same_from_kohya_and_diffusers(path, target, kohya_prefix, dotted_prefix):
    deltas = clip_deltas()
    lora = read(path, kohya(deltas, kohya_prefix))
    assert set(lora.layers) == {f"{target}text_model_encoder_layers_{n}_{name.replace('.', '_')}"
                                for n in range(2) for name in CLIP_NAMES.values()}
    for down, up in ((".lora_A.weight", ".lora_B.weight"),
                     (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight")):
        assert_same_layers(read(path, dotted(deltas, dotted_prefix, down, up)), lora)
    assert lora.report()["text_encoder_layers"] == 12
    assert lora.report()["unet_layers"] == 0


def test_diffusers_old_text_encoder_names_are_read(path):
    deltas = {name: pair for name, pair in clip_deltas().items() if "self_attn" in name}
    old = {}
    for name, (down, up) in deltas.items():
        stem = name.removesuffix("_proj").rsplit(".", 1)
        old[f"text_encoder.{stem[0]}.to_{stem[1]}_lora.down.weight"] = down
        old[f"text_encoder.{stem[0]}.to_{stem[1]}_lora.up.weight"] = up
    other = load_lora(save(path.with_name("kohya.safetensors"), kohya(deltas, "lora_te_")))
    assert_same_layers(read(path, old), other)


@pytest.mark.parametrize(("parts", "scale"), [
    ({}, 1.0),
    ({"alpha": torch.tensor(1.0)}, 0.25),
    ({"alpha": torch.tensor([6.0])}, 1.5),
    ({"alpha": torch.tensor(1.0, dtype=torch.bfloat16)}, 0.25),
    ({"scale": torch.tensor(0.7)}, 0.7),
    ({"scale": torch.tensor(0.7), "alpha": torch.tensor(1.0)}, 0.7),
    ({"alpha": torch.tensor(0.0)}, 0.0),
])
def test_alpha_counts_per_rank_and_scale_counts_as_it_is(path, parts, scale):
    lora = read(path, pair(rank=4, **parts))
    assert lora.layers[LAYER].scale == pytest.approx(scale)
    assert lora.layers[LAYER].rank == 4


@pytest.mark.parametrize(("config", "unet_scale", "te_scale"), [
    ({"unet.lora_alpha": 8}, 2.0, 1.0),
    ({"unet.lora_alpha": 8, "unet.use_rslora": True}, 4.0, 1.0),
    ({"unet.lora_alpha": 8, "text_encoder.lora_alpha": 2.0, "text_encoder.use_rslora": True}, 2.0, 1.0),
    ({"text_encoder.lora_alpha": 2}, 1.0, 0.5),
    ({"text_encoder_2.lora_alpha": 2}, 1.0, 1.0),
    ({"lora_alpha": 8, "use_rslora": True}, 4.0, 4.0),
    ({"unet.r": 4}, 1.0, 1.0),
])
def test_alpha_in_the_header_counts_for_its_part_of_the_model(path, config, unet_scale, te_scale):
    stem = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    lora = read(path, {**pair(rank=4), **pair(stem, rank=4)}, _metadata(**config))
    assert lora.layers[LAYER].scale == pytest.approx(unet_scale)
    assert lora.layers["te1_text_model_encoder_layers_0_mlp_fc1"].scale == pytest.approx(te_scale)


def test_alpha_among_the_tensors_counts_before_that_in_the_header(path):
    lora = read(path, pair(rank=4, alpha=torch.tensor(2.0)), _metadata(**{"unet.lora_alpha": 8}))
    assert lora.layers[LAYER].scale == pytest.approx(0.5)


def test_convolutions_are_read_with_their_kernels(unet, path):
    lora = read(path, kohya(deltas_for(select(matrices(unet), r"conv"), rank=3), alpha=3))
    delta = lora.layers["unet_input_blocks_1_0_in_layers_2"]
    assert delta.down.shape == (3, 8, 3, 3)
    assert delta.up.shape == (8, 3, 1, 1)
    assert lora.kind == "LoCon"


def test_factors_stay_in_the_files_precision(path):
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        lora = read(path, {key: tensor.to(dtype) for key, tensor in pair(alpha=torch.tensor(2.0)).items()})
        assert lora.layers[LAYER].down.dtype == lora.layers[LAYER].up.dtype == dtype


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".bin", ".pth", ".PT"])
def test_a_pickle_of_tensors_alone_is_read(attention, reference, tmp_path, suffix, nested):
    path, state = tmp_path / f"good{suffix}", kohya(attention)
    torch.save({"state_dict": state} if nested else state, path)
    lora = load_lora(path)
    assert_same_layers(lora, reference)
    assert inspect_lora(path) == lora.report()


MAPPINGS = Path("/proc/self/maps")


@pytest.mark.skipif(not MAPPINGS.exists(), reason="this system does not tell what is mapped")
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_no_tensor_of_a_file_that_was_read_is_a_part_of_the_file(attention, tmp_path, suffix):
    path = tmp_path / f"good{suffix}"
    (save if suffix == ".safetensors" else lambda path, state: torch.save(state, path))(path, kohya(attention))
    lora = load_lora(path)
    assert lora.layers and str(path) not in MAPPINGS.read_text()


def _deleted(path):
    path.unlink()


def _replaced(path):
    other = save(path.with_name("other.safetensors"), pair())
    os.replace(other, path)


def _overwritten(path):
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)


def _emptied(path):
    os.truncate(path, 0)


@pytest.mark.parametrize("happens", [_deleted, _replaced, _overwritten, _emptied])
def test_what_becomes_of_a_file_changes_nothing_of_what_was_read(attention, reference, path, happens):
    lora = load_lora(save(path, kohya(attention)))
    happens(path)
    assert_same_layers(lora, reference)


# --- the report --------------------------------------------------------------------------------------------------

def test_the_report_tells_what_the_file_is(unet, path):
    wide = deltas_for(select(matrices(unet), r"mid_block.*attn1\.to_q"), rank=8, dtype=torch.float16)
    thin = deltas_for(select(matrices(unet), r"mid_block.*attn2\.to_"), rank=2, dtype=torch.float16)
    text = {"text_model.encoder.layers.0.mlp.fc1": (torch.ones(2, 64, dtype=torch.float16),
                                                   torch.ones(2**19, 2, dtype=torch.float16))}
    state = {**kohya({**wide, **thin}, alpha=1), **kohya(text, "lora_te_", alpha=1)}
    report = load_lora(save(path, state), "alias").report()
    assert report == {"name": "alias", "file": "good.safetensors", "kind": "LoRA", "base": "unknown", "rank": 8,
                      "ranks": {"2": 5, "8": 1}, "unet_layers": 5, "text_encoder_layers": 1, "megabytes": 2.0}
    assert inspect_lora(path, "alias") == report


@pytest.mark.parametrize(("width", "metadata", "base"), [
    (768, None, "SD1"), (1024, None, "SD2"), (2048, None, "SDXL"), (12, None, "unknown"),
    (12, {"ss_base_model_version": "sdxl_base_v1-0"}, "SDXL"),
    (12, {"ss_base_model_version": "sd_v1"}, "SD1"),
    (12, {"ss_base_model_version": "sd_v2_768_v"}, "SD2"),
    (12, {"ss_base_model_version": "flux1"}, "Flux"), (12, {"ss_base_model_version": "else"}, "unknown"),
    (12, {"modelspec.architecture": "stable-diffusion-3-medium/lora"}, "SD3"),
    (768, {"ss_base_model_version": "sdxl_base_v1-0"}, "SD1"),
])
def test_the_base_model_is_told_by_the_width_of_the_text_then_by_the_metadata(path, width, metadata, base):
    stem = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    assert read(path, _matrix(stem, (2, width), (16, 2)), metadata).base == base


def test_a_second_text_encoder_tells_of_sdxl(path):
    assert read(path, pair("lora_te2_text_model_encoder_layers_0_mlp_fc1")).base == "SDXL"


def test_the_list_of_files_reads_no_matrix_of_a_large_file(attention, path, monkeypatch):
    save(path, kohya(attention, alpha=1))
    expected = load_lora(path).report()

    def refuse(*args, **kwargs):
        raise AssertionError("tensor data was read")

    monkeypatch.setattr(file_module, "SMALL", path.stat().st_size - 1)
    monkeypatch.setattr(file_module, "read_tensors", refuse)
    data = path.read_bytes()
    start = int.from_bytes(data[:8], "little") + 8
    with path.open("r+b") as file:  # the matrices are rubbish now, and nobody looks
        for entry in json.loads(data[8:start]).values():
            first, last = entry["data_offsets"]
            if entry["shape"]:
                file.seek(start + first)
                file.write(b"\xff" * (last - first))
    assert inspect_lora(path) == expected


def test_a_small_file_is_listed_as_it_is_loaded(path):
    save(path, pair())
    data = path.read_bytes()
    path.write_bytes(data[:-4] + b"\xff" * 4)  # NaN
    with pytest.raises(SciArtError, match="NaN"):
        inspect_lora(path)


def test_the_name_of_a_lora_is_the_files_unless_given(path):
    save(path, pair())
    assert load_lora(path).name == inspect_lora(path)["name"] == "good"
    assert load_lora(path, "child").name == inspect_lora(path, "child")["name"] == "child"


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_a_whole_number_as_alpha_is_read(tmp_path, dtype):
    """As kohya's trainer writes it where no alpha was given."""
    path = save(tmp_path / "a.safetensors", pair(rank=4, alpha=torch.tensor(4, dtype=dtype)))
    assert [delta.scale for delta in load_lora(path).layers.values()] == [1.0]
    assert inspect_lora(path) == load_lora(path).report()


@pytest.mark.parametrize(("rslora", "scale"), [(False, 2.0), (True, 4.0)])
def test_a_peft_folder_keeps_its_alpha_beside_the_file(tmp_path, rslora, scale):
    state = {f"base_model.model.mid_block.attentions.0.proj_in.{side}.weight": value
             for side, value in zip(("lora_A", "lora_B"), (torch.ones(4, 6), torch.ones(6, 4)))}
    path = save(tmp_path / "adapter_model.safetensors", state)
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"r": 4, "lora_alpha": 8, "use_rslora": rslora}), encoding="utf-8")
    assert [delta.scale for delta in load_lora(path).layers.values()] == [scale]
    (tmp_path / "adapter_config.json").write_text("[", encoding="utf-8")
    with pytest.raises(SciArtError, match=r"adapter_config\.json is not a JSON object"):
        load_lora(path)
