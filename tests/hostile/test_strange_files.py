"""Files of strangers end in what they hold or in a `SciArtError`, soon, without memory that the file does not have."""

from __future__ import annotations

import gzip
import json
import math
import struct
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sciart_ext.errors import SciArtError
from sciart_ext.lora.adapter_config import MOST_BYTES
from sciart_ext.lora.adapter_metadata import STEPS
from sciart_ext.lora.exact_factors import exact_factors
from sciart_ext.lora.file import inspect_lora, load_lora
from sciart_ext.lora.kinds import MAX_ENTRIES
from sciart_ext.lora.unpickler import MOST_OPCODES

LAYER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
PAIR = {f"{LAYER}.lora_down.weight": (2, 8), f"{LAYER}.lora_up.weight": (8, 2)}
LONG = "unet.mid_block." + "a" * 40
PEFT = {f"{LONG}.lora_A.weight": (2, 8), f"{LONG}.lora_B.weight": (8, 2)}


def safetensors(path, shapes, metadata=None, change=lambda header: None, fill=0.0, dtype="F32"):
    """A file of single precision; change(header) may spoil it."""
    header, end = {}, 0
    for key, shape in shapes.items():
        first, end = end, end + int(np.prod(shape, dtype=object)) * (4 if dtype == "F32" else 2)
        header[key] = {"dtype": dtype, "shape": list(shape), "data_offsets": [first, end]}
    if metadata is not None:
        header["__metadata__"] = metadata
    change(header)
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    data = np.full(end // 4, fill, np.float32).tobytes().ljust(end, b"\0")
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def peft(path, **config):
    text = json.dumps({f"unet.{key}": value for key, value in config.items()})
    return safetensors(path, PEFT, {"lora_adapter_metadata": text})


def refused(path, what):
    """By the list and at loading alike."""
    for read in (inspect_lora, load_lora):
        with pytest.raises(SciArtError, match=what) as caught:
            read(path)
        assert caught.value.field == path.name and len(str(caught.value)) < 1000


@pytest.fixture
def path(tmp_path):
    return tmp_path / "stranger.safetensors"


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|a)*b", "(.*.*)*b", "(a?){30}b"])
def test_a_pattern_that_backtracks_for_ever_is_matched(path, pattern):
    (delta,) = load_lora(peft(path, r=2, lora_alpha=2, alpha_pattern={pattern: 8})).layers.values()
    assert delta.scale == 1
    (delta,) = load_lora(peft(path, r=2, lora_alpha=2, alpha_pattern={"(a+)+": 8})).layers.values()
    assert delta.scale == 4


@pytest.mark.parametrize("pattern", ["a{99999999999}", "(" * 600, "(a)\\1", "a" * 600 + "?"])
def test_a_pattern_that_cannot_be_matched_in_time_is_refused(path, pattern):
    refused(peft(path, r=2, lora_alpha=2, alpha_pattern={pattern: 1}), "alpha_pattern has a key that is no pattern")


def test_many_patterns_are_refused(path):
    refused(peft(path, r=2, lora_alpha=2, rank_pattern={f"a{i}+": 1 for i in range(51)}), "51 patterns; at most 50")


def test_patterns_of_many_layers_share_one_budget(path):
    names = [format(i * 2654435761 % 2**32, "032b").replace("0", "a").replace("1", "b") * 4 for i in range(300)]
    layers = {f"unet.mid_block.{name}.{part}.weight": shape for name in names
              for part, shape in (("lora_A", (2, 2)), ("lora_B", (2, 2)))}
    text = json.dumps({"unet.r": 2, "unet.lora_alpha": 2, "unet.alpha_pattern": {"(a|b)*a(a|b){14}c": 1}})
    refused(safetensors(path, layers, {"lora_adapter_metadata": text}), "takes too long")
    assert STEPS <= 10**6


def test_many_names_cost_no_more_than_looking_them_up(path):
    names = {f"layer{i}": 1 for i in range(20000)}
    (delta,) = load_lora(peft(path, r=2, lora_alpha=2, alpha_pattern={**names, "a" * 40: 6})).layers.values()
    assert delta.scale == 3


@pytest.mark.parametrize(("config", "what"), [
    ({"r": 1e-320, "alpha": 2}, "r is 1e-320"), ({"r": 0, "alpha": 2}, "r is 0"), ({"r": -4, "alpha": 2}, "r is -4"),
    ({"r": 2, "lora_alpha": 1e300}, "scale"), ({"r": 2, "lora_alpha": "8"}, "not a number"),
    ({"r": 2, "lora_alpha": 10**400}, "not a JSON object"),
    ({"r": 2, "lora_alpha": math.nan}, "not a JSON object")])
def test_numbers_of_peft_are_sane(path, config, what):
    keys = {"unet.mid_block.a.lokr_w1": (2, 2), "unet.mid_block.a.lokr_w2": (2, 2)} if "alpha" in config else PEFT
    text = json.dumps({f"unet.{key}": value for key, value in config.items()})
    refused(safetensors(path, keys, {"lora_adapter_metadata": text}), what)


@pytest.mark.parametrize("text", [b"\xff\xfe{}", b"[" * 10**5, b"[]", b"{" + b" " * MOST_BYTES + b"}"])
def test_a_configuration_beside_the_file_is_read_with_care(tmp_path, text):
    (tmp_path / "adapter_config.json").write_bytes(text)
    refused(safetensors(tmp_path / "adapter_model.safetensors", PEFT), "adapter_config.json (is not|has more)")


@pytest.mark.parametrize(("what", "change"), [
    ("stored as", lambda header: header[f"{LAYER}.lora_up.weight"].update(dtype=["F32"])),
    ("stored as", lambda header: header[f"{LAYER}.lora_up.weight"].update(dtype={"a": 1})),
    ("stored as", lambda header: header[f"{LAYER}.lora_up.weight"].update(dtype=None)),
    ("no proper shape", lambda header: header.update(z={"dtype": "F32", "shape": [9] * 10**4, "data_offsets": [0, 4]})),
    ("no proper shape", lambda header: header[f"{LAYER}.lora_up.weight"].update(shape=[0, 10**30])),
    ("no proper shape", lambda header: header[f"{LAYER}.lora_up.weight"].update(shape=[True, 16])),
    ("not valid JSON", lambda header: header[f"{LAYER}.lora_up.weight"].update(shape=[10**4000])),
    ("characters", lambda header: header.update({"1" * 5000: header.pop(f"{LAYER}.lora_up.weight")})),
    ("not a table of tensors", lambda header: header.update(z=[])),
    ("metadata is not", lambda header: header.update(__metadata__={"a": {}})),
], ids=range(10))
def test_a_spoiled_header_is_refused(path, what, change):
    refused(safetensors(path, PAIR, change=change), what)


def test_a_header_of_very_many_values_is_not_read(path):
    refused(safetensors(path, PAIR, change=lambda header: header.update(z={"shape": [0] * 500_000})), "too many values")


def test_doubles_that_single_precision_cannot_hold_are_refused(path):
    large = torch.full((8, 1), 1e300, dtype=torch.float64)
    for tensors in ({"ia3_l": large}, {"diff": large, "scale": torch.ones(())}):
        save_file({f"{LAYER}.{part}": tensor for part, tensor in tensors.items()}, path)
        refused(path, "numbers that are too large")


def test_sums_that_are_infinite_are_no_numbers_that_are(path):
    bias = torch.full((80,), 60_000.0, dtype=torch.float16)
    save_file({f"{LAYER}.diff": torch.full((80, 100), 3e38), f"{LAYER}.diff_b": bias}, path)
    assert [len(delta.tensors) for delta in load_lora(path).layers.values()] == [1, 1]


def test_more_layers_than_any_model_has_are_refused(path):
    refused(safetensors(path, {f"unet.mid_block.{i}.diff_b": (1,) for i in range(3001)}), "more than 3000 layers")


@pytest.mark.parametrize("what", ["1," * 400_000, "[]," * 200_000, '{"a":' * 150_000])
def test_a_header_that_is_slow_to_read_is_not_read(path, what):
    text = f'{{"a":{{"shape":[{what}'.ljust(10**6).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    refused(path, "too many values")


def test_a_header_of_escapes_takes_no_more_memory_than_its_length(path):
    safetensors(path, PAIR, {"a": '\\"' * 1_500_000})
    tracemalloc.start()
    assert load_lora(path).layers
    assert tracemalloc.get_traced_memory()[1] < 3 * path.stat().st_size + 2**26
    tracemalloc.stop()


@pytest.mark.parametrize("part", ["diff", "lora_up.bias"])
def test_what_a_scale_makes_infinite_is_refused(path, part):
    value = torch.full((8, 2) if part == "diff" else (8,), 1e35)
    pair = {} if part == "diff" else {key: torch.ones(shape) for key, shape in PAIR.items()}
    save_file({f"{LAYER}.{part}": value, f"{LAYER}.scale": torch.tensor(1e5), **pair}, path)
    refused(path, "times its scale 100000 is infinite")


def test_one_number_may_have_any_shape(path):
    for shape in ((), (1,), (1, 1)):
        safetensors(path, {**PAIR, f"{LAYER}.alpha": shape}, fill=1.0)
        assert [delta.scale for delta in load_lora(path).layers.values()] == [0.5]
        assert inspect_lora(path) == load_lora(path).report()


@pytest.mark.parametrize("shapes", [
    {"lora_down.weight": (1, 40000), "lora_mid.weight": (40000, 1, 1, 1), "lora_up.weight": (1, 40000)},
    {"lora_down.weight": (4, 10**6), "lora_mid.weight": (4, 4, 60, 60), "lora_up.weight": (8, 4)},
    {"lora_down.weight": (1, 2**18), "lora_up.weight": (2**18, 1)},
    {"lokr_w1": (1000, 1000), "lokr_w2": (1000, 1000)},
    {"lokr_w1": (8, 8), "lokr_w2_a": (8, 5000), "lokr_w2_b": (5000, 8)},
    {"lokr_w1_a": (8, 5000), "lokr_w1_b": (5000, 8), "lokr_w2": (8, 8)},
    {"hada_w1_a": (8, 2), "hada_w1_b": (2, 8), "hada_w2_a": (8, 5000), "hada_w2_b": (5000, 8)},
    {"hada_w1_a": (2, 9000), "hada_w1_b": (2, 9000), "hada_t1": (2, 2, 2, 2),
     "hada_w2_a": (2, 9000), "hada_w2_b": (2, 9000), "hada_t2": (2, 2, 2, 2)},
], ids=lambda shapes: " ".join(shapes))
def test_what_is_larger_than_any_layer_is_refused_before_it_is_made(path, shapes):
    assert MAX_ENTRIES == 2**27
    safetensors(path, {f"{LAYER}.{part}": shape for part, shape in shapes.items()})
    tracemalloc.start()
    refused(path, "larger than any layer|rank")
    assert tracemalloc.get_traced_memory()[1] < 3 * path.stat().st_size + 2**26
    tracemalloc.stop()


def test_a_core_is_folded_for_a_layer_only(path):
    """Up to a hundred times the file: not when it is read."""
    shapes = {"lora_down.weight": (16, 2000), "lora_mid.weight": (16, 16, 7, 7), "lora_up.weight": (320, 16)}
    file = safetensors(path, {f"{LAYER}.{part}": shape for part, shape in shapes.items()})
    (delta,) = load_lora(file).layers.values()
    assert "down" not in vars(delta) and delta.shape == (320, 2000, 7, 7) and delta.rank == 16
    assert delta.down.shape == (16, 2000, 7, 7)


def test_factors_of_a_product_are_never_larger_than_the_product(path):
    """Two halves of rank 64 make factors of rank 4096, of a matrix of 40 by 40."""
    shapes = {"hada_w1_a": (40, 64), "hada_w1_b": (64, 40), "hada_w2_a": (40, 64), "hada_w2_b": (64, 40)}
    file = safetensors(path, {f"{LAYER}.{part}": shape for part, shape in shapes.items()}, fill=0.1)
    (delta,) = load_lora(file).layers.values()
    factors = exact_factors(delta)
    assert factors.rank == 40
    assert torch.allclose(factors.of(torch.empty(40, 40)), delta.of(torch.empty(40, 40)), atol=1e-4)


ODD = {
    "sparse": (lambda: torch.eye(8).to_sparse(), "not a plain tensor"),
    "rows of a sparse one": (lambda: torch.eye(8).to_sparse_csr(), "not a plain tensor"),
    "quantized": (lambda: torch.quantize_per_tensor(torch.eye(8), 0.1, 0, torch.quint8),
                  "not a plain tensor|more than tensors"),  # torch 2.1 refuses what makes them
    "complex": (lambda: torch.eye(8, dtype=torch.complex64), "holds torch.complex64"),
    "a complex number": (lambda: torch.ones(1, dtype=torch.complex64), "holds torch.complex64"),
    "a truth": (lambda: torch.ones(1, dtype=torch.bool), "is stored as BOOL"),
    "4 GB of one number": (lambda: torch.ones(1).expand(10**9), "more data than the file"),
    "a view of strides 0": (lambda: torch.ones(64).as_strided((10**5, 10**4), (0, 0)), "more data than the file"),
    "windows that overlap": (lambda: torch.ones(10**4).as_strided((5000, 5000), (1, 1)), "more data than the file"),
    "twenty dimensions": (lambda: torch.ones([1] * 20), "20 dimensions"),
    "no data": (lambda: torch.empty(10**9, device="meta"), "more data than the file|not a plain tensor"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", ODD)
def test_odd_tensors_of_a_pickle_are_refused_by_name(tmp_path, name, legacy):
    make, what = ODD[name]
    path = tmp_path / "stranger.pt"
    torch.save({f"{LAYER}.lora_down.weight": make()}, path, _use_new_zipfile_serialization=not legacy)
    refused(path, what)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_view_that_shares_is_read(tmp_path, legacy):
    both = torch.arange(32.0)
    path = tmp_path / "shared.pt"
    torch.save({f"{LAYER}.lora_down.weight": both[:16].view(8, 2).t(), f"{LAYER}.lora_up.weight": both[16:].view(8, 2)},
               path, _use_new_zipfile_serialization=not legacy)
    assert [delta.shape for delta in load_lora(path).layers.values()] == [(8, 8)]


def test_an_archive_that_unpacks_to_more_is_not_unpacked(tmp_path):
    whole, path = tmp_path / "whole.pt", tmp_path / "stranger.pt"
    torch.save({f"{LAYER}.lora_down.weight": torch.zeros(1000, 1000)}, whole)
    with zipfile.ZipFile(whole) as given, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in given.infolist():
            packed.writestr(entry.filename, given.read(entry))
    assert path.stat().st_size < whole.stat().st_size / 50
    refused(path, "unpacks to more")


def test_formats_that_torch_would_unpack_or_run_are_refused(tmp_path):
    """Tar archives, which it unpacks into a folder, and TorchScript programs: before 2.6 with `weights_only` too."""
    path = tmp_path / "stranger.pt"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("storages")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "elsewhere")
        archive.addfile(link)
    refused(path, "a tar archive")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    refused(path, "a TorchScript program")


def archive(path, table):
    """An archive whose table of tensors is this pickle."""
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("x/data.pkl", table)
        packed.writestr("x/version", "3\n")
    return path


def test_a_key_whose_hash_would_take_years(tmp_path):
    """A tuple of twice a tuple of twice a tuple."""
    tuples = b"".join(bytes([104, i, 104, i, 134, 113, i + 1]) for i in range(1, 70))
    refused(archive(tmp_path / "stranger.pt", b"\x80\x02N\x85q\x01" + tuples + b"}h\x46Ns."), "a key that is tuple")


@pytest.mark.parametrize("table", [
    b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\0\0\0\0\x10\x85R.",
    b"\x80\x02ctorch\nTensor\nJ\0\0\0\x40J\0\0\0\x40\x86R.",
    b"\x80\x02ccollections\nCounter\n]\x85R.", b"\x80\x02cos\nsystem\nX\x04\0\0\0true\x85R."])
def test_what_a_pickle_calls_is_not_called(tmp_path, table):
    refused(archive(tmp_path / "stranger.pt", table), "holds more than tensors")


@pytest.mark.parametrize("table", [
    b"\x80\x02" + b"N" * 50_000 + b"(t" * 40_000 + b".", b"\x80\x02" + b"}" * 90_000 + b".",
    b"\x80\x02X\xff\xff\xff\x7f.",
    b"\x80\x02h\x05.", b"\x80\x02" + b"t" * 10, b"\x80\x02(" * 10, b"\x80\x02}q\0Nh\0s.",
    b"\x80\x02X\1\0\0\0xX\1\0\0\0ys.",
    b"\x80\x02]q\0h\0a.", b"\x80\x02}q\0X\1\0\0\0xh\0s.", b"", b"."])
def test_a_pickle_of_nonsense(tmp_path, table):
    refused(archive(tmp_path / "stranger.pt", table), "refused|damaged|expected|not a tensor|no tensors")


def test_a_tar_is_not_looked_into(tmp_path):
    """Its first header says that another follows, which tarfile would read whole, unpacked, and look for words in."""
    path, header = tmp_path / "stranger.pt", tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 10**6
    path.write_bytes(header.tobuf() + b"9" * 10**6)
    refused(path, "a tar archive")
    header.size = 2**28
    with gzip.open(path, "wb") as packed:
        packed.write(header.tobuf() + bytes(2**28))
    tracemalloc.start()
    refused(path, "a gzip archive")
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()


def test_a_long_pickle_is_not_run(tmp_path):
    path = tmp_path / "stranger.pt"
    path.write_bytes(b"\x80\x02" + b"]0" * MOST_OPCODES + b".")
    refused(path, "refused|damaged")
    torch.save({str(i): [] for i in range(50_000)}, path)
    refused(path, "more than tensors")


def test_what_no_reader_foresaw_is_a_refusal_too(path, monkeypatch):
    def fails(*_):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("sciart_ext.lora.file.read_layer", fails)
    refused(safetensors(path, PAIR), "cannot be read: ZeroDivisionError division by zero")
