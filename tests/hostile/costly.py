"""Files that are made to take time or memory: of at most a megabyte each, unless their name says more."""

from __future__ import annotations

import gzip
import json
import pickle
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import torch

WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1}
MEGABYTE = 10**6
HADAMARD = tuple((f"hada_{part}", (1, 1)) for part in ("w1_a", "w1_b", "w2_a", "w2_b"))
PAIR = (("lora_A.weight", (1, 1)), ("lora_B.weight", (1, 1)))
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}X\r\0\0\0little_endian\x88s."
Shape = tuple[int, ...]


def safetensors(path: Path, tensors: Mapping[str, Shape] | Iterable[tuple[str, Shape]], metadata: dict | None = None,
                dtypes: tuple[str, ...] = ("F32",)) -> Path:
    """Of zeros, in these precisions in turn."""
    header: dict[str, dict] = {} if metadata is None else {"__metadata__": metadata}
    end = 0
    for number, (key, shape) in enumerate(dict(tensors).items()):
        dtype = dtypes[number % len(dtypes)]
        first, end = end, end + int(np.prod(shape, dtype=np.int64)) * WIDTHS[dtype]
        header[key] = {"dtype": dtype, "shape": list(shape), "data_offsets": [first, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path


def layers(count: int, name: Callable[[int], str] = lambda i: f"mid_block.{i}", pair: tuple = PAIR) -> dict[str, Shape]:
    return {f"{name(i)}.{part}": shape for i in range(count) for part, shape in pair}


def peft(path: Path, tensors: Mapping[str, Shape], **config: object) -> Path:
    text = json.dumps({f"unet.{key}": value for key, value in {"r": 2, "lora_alpha": 2, **config}.items()})
    return safetensors(path, tensors, {"lora_adapter_metadata": text})


def beside(path: Path, text: str) -> Path:
    """A PEFT file and its configuration, in a folder of their own."""
    folder = path.parent / path.stem
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(text, encoding="utf-8")
    return safetensors(folder / "adapter_model.safetensors", layers(300))


def pickled(path: Path, tensors: dict, archive: bool = True) -> Path:
    torch.save(tensors, path, _use_new_zipfile_serialization=archive)
    return path


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def archived(path: Path, table: bytes, more: int = 0) -> Path:
    """An archive of this pickle, and some bytes that nothing speaks of."""
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("x/data.pkl", table)
        packed.writestr("x/data/0", bytes(more))
    return path


def many_entries(path: Path, count: int) -> Path:
    """An archive whose directory tells of many files where there is one."""
    entries = b"".join(struct.pack("<IHHHHHHIIIHHHHHII", 0x02014b50, 20, 20, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0)
                       + b"%06d" % number for number in range(count))
    end = struct.pack("<IHHHHIIH", 0x06054b50, 0, 0, count % 2**16, count % 2**16, len(entries), 30, 0)
    return written(path, b"PK\x03\x04" + bytes(26) + entries + end)


def tar(size: int) -> bytes:
    """A header that says that so many bytes of words follow."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, size
    return header.tobuf()


def hash_of_years() -> bytes:
    tuples = b"".join(bytes([104, i, 104, i, 134, 113, i + 1]) for i in range(1, 70))
    return b"\x80\x02N\x85q\x01" + tuples + b"}h\x46Ns."


def letters(count: int, of: str = "ab", seed: int = 1) -> str:
    return "".join(random.Random(seed).choices(of, k=count))


ODD = [chr(number) for number in range(0x4e00, 0x9fa5)]
OFT = {"oft_blocks": (1, 499, 499)}
SUFFIXED: dict[str, Callable[[Path], Path]] = {
    "layers of one entry.safetensors": lambda path: safetensors(path, layers(3000)),
    "more layers than any model has.safetensors": lambda path: safetensors(path, layers(4600)),
    "layers of mixed precision.safetensors": lambda path: safetensors(
        path, layers(3000), dtypes=("F64", "F16", "F32", "BF16", "F16")),
    "layers of kohya.safetensors": lambda path: safetensors(path, layers(
        2400, lambda i: f"lora_unet_up_blocks_1_attentions_{i}_transformer_blocks_0_attn1_to_q",
        (("lora_down.weight", (1, 1)), ("lora_up.weight", (1, 1)), ("alpha", ())))),
    "layers with alpha.safetensors": lambda path: safetensors(path, layers(
        3000, lambda i: f"mid_block.{i}", (*PAIR, ("alpha", ())))),
    "layers of LoHa.safetensors": lambda path: safetensors(path, layers(
        2500, lambda i: f"mid_block.{i}", HADAMARD)),
    "layers of LoKr.safetensors": lambda path: safetensors(path, layers(
        3000, lambda i: f"mid_block.{i}", (("lokr_w1", (1, 1)), ("lokr_w2", (1, 1))))),
    "layers of GLoRA.safetensors": lambda path: safetensors(path, layers(
        2500, lambda i: f"mid_block.{i}", tuple((f"{part}.weight", (1, 1)) for part in ("a1", "a2", "b1", "b2")))),
    "layers of IA3.safetensors": lambda path: safetensors(path, layers(
        3000, lambda i: f"mid_block.{i}", (("weight", (1,)), ("on_input", ())))),
    "layers of DoRA.safetensors": lambda path: safetensors(path, layers(
        3000, lambda i: f"mid_block.{i}", (*PAIR, ("dora_scale", (1, 1))))),
    "layers of BOFT.safetensors": lambda path: safetensors(path, layers(
        3000, lambda i: f"mid_block.{i}", (("oft_blocks", (1, 1, 2, 2)),))),
    "differences.safetensors": lambda path: safetensors(path, layers(
        10_000, lambda i: f"mid_block.{i}", (("diff", (1,)),))),
    "scaled differences.safetensors": lambda path: safetensors(path, layers(
        3000, lambda i: f"mid_block.{i}", (("diff", (1,)), ("scale", ())))),
    "biases.safetensors": lambda path: safetensors(
        path, layers(10_000, lambda i: f"mid_block.{i}", (("diff_b", (1,)),))),
    "norms.safetensors": lambda path: safetensors(path, layers(
        3000, lambda i: f"mid_block.{i}", (("w_norm", (1,)), ("b_norm", (1,))))),
    "unknown keys.safetensors": lambda path: safetensors(path, {str(i): (1,) for i in range(13_500)}),
    "keys of no layer.safetensors": lambda path: safetensors(path, {f"{i}.alpha": () for i in range(12_000)}),
    "weights of nothing.safetensors": lambda path: safetensors(
        path, {f"mid_block.{i}.weight": (1,) for i in range(11_000)}),
    "long names.safetensors": lambda path: safetensors(path, layers(
        800, lambda i: f"mid_block.{'.lora_A.weight' * 33}{i}")),
    "names of dots.safetensors": lambda path: safetensors(path, layers(800, lambda i: f"mid_block.{'.' * 480}{i}")),
    "names of digits.safetensors": lambda path: safetensors(path, layers(
        850, lambda i: f"unet.up_blocks.{i + 10**440}.resnets.0.conv1")),
    "names of rare characters.safetensors": lambda path: safetensors(path, layers(
        240, lambda i: f"mid_block.{''.join(ODD[i:i + 480])}😀{i}")),
    "empty tensors.safetensors": lambda path: safetensors(path, {f"mid_block.{i}.diff": (0,) for i in range(12_000)}),
    "embeddings.safetensors": lambda path: safetensors(path, {f"bundle_emb.{i}.x": (1, 1) for i in range(11_000)}),
    "metadata of many words.safetensors": lambda path: safetensors(
        path, layers(1), {str(i): "" for i in range(80_000)}),
    "one long word of metadata.safetensors": lambda path: safetensors(
        path, layers(1), {"ss_tag_frequency": "😀" + "x" * 990_000}),
    "metadata of escapes.safetensors": lambda path: safetensors(path, layers(1), {"a": "\\\"\n" * 165_000}),
    "a header of numbers.safetensors": lambda path: written(
        path, struct.pack("<Q", 999_990) + (b'{"a":{"shape":[' + b"1," * 390_000 + b"1]}}").ljust(999_990)),
    "a header of lists.safetensors": lambda path: written(
        path, struct.pack("<Q", 999_990) + (b'{"a":{"shape":[' + b"[]," * 320_000 + b"1]}}").ljust(999_990)),
    "a header nested deep.safetensors": lambda path: written(path, struct.pack("<Q", 999_990) + b'{"a":' * 199_998),
    "a pattern that spends all.safetensors": lambda path: peft(
        path, layers(3000, lambda i: f"mid_block.{letters(60, seed=i)}{i}"),
        alpha_pattern={"(a|b)*a(a|b){9}[ab]*c": 1}),
    "fifty patterns.safetensors": lambda path: peft(
        path, layers(3000, lambda i: f"mid_block.{letters(60, seed=i)}{i}"),
        alpha_pattern={f"{i}(a+b*)+{i}": 1 for i in range(50)}, rank_pattern={f"{i}(a+b*)+{i}": 1 for i in range(50)}),
    "patterns that are long to make.safetensors": lambda path: peft(
        path, layers(3000), alpha_pattern={f"(){{990}}{i}" * 10: 1 for i in range(50)},
        rank_pattern={f"(){{990}}{i}" * 10: 1 for i in range(50)}),
    "characters that are seen once.safetensors": lambda path: peft(
        path, layers(300, lambda i: "unet" + "".join(f".{char}" for char in ODD[60 * i:60 * i + 60])),
        alpha_pattern={f"(a?){{300}}{i}": 1 for i in range(50)}),
    "classes of many members.safetensors": lambda path: peft(
        path, layers(300, lambda i: "unet" + "".join(f".{char}" for char in ODD[60 * i:60 * i + 60])),
        alpha_pattern={f"[{letters(480, 'abcdefghij', i)}]{{400}}": 1 for i in range(50)}),
    "names beside patterns.safetensors": lambda path: peft(
        path, layers(400, lambda i: f"mid_block.{'a.' * 230}{i}"),
        alpha_pattern={f"{'a.' * i}x": 1 for i in range(230)}, rank_pattern={f"{'a.' * i}x": 1 for i in range(230)}),
    "a table of names.safetensors": lambda path: peft(
        path, layers(2000), alpha_pattern={f"q{i}": 1 for i in range(50_000)}),
    "a configuration of a megabyte.safetensors": lambda path: beside(
        path, json.dumps({"r": 2, "lora_alpha": 2, "alpha_pattern": {f"q{i}": 1 for i in range(70_000)}})),
    "a configuration of numbers.safetensors": lambda path: beside(path, f'{{"a":[{"1," * 500_000}1]}}'),
    "a configuration that is too long.safetensors": lambda path: beside(path, " " * 2**21),
    "a rotation.safetensors": lambda path: safetensors(path, layers(1, lambda i: "mid_block.x", tuple(OFT.items()))),
    "a product of 128 million.safetensors": lambda path: safetensors(path, layers(1, lambda i: "mid_block.x", (
        ("lora_A.weight", (1, 11_585)), ("lora_B.weight", (11_585, 1))))),
    "products of 128 million.safetensors": lambda path: safetensors(path, layers(16, lambda i: f"mid_block.{i}", (
        ("lokr_w1", (2, 2)), ("lokr_w2_a", (5700, 1)), ("lokr_w2_b", (1, 5700))))),
    "cores.safetensors": lambda path: safetensors(path, layers(20, lambda i: f"mid_block.{i}", (
        ("lora_down.weight", (8, 1400, 1, 1)), ("lora_mid.weight", (8, 8, 7, 7)), ("lora_up.weight", (8, 8, 1, 1))))),
    "LoHa with cores.safetensors": lambda path: safetensors(path, layers(20, lambda i: f"mid_block.{i}", tuple(
        (f"hada_{part}", shape) for part, shape in (
            ("w1_a", (8, 700)), ("w1_b", (8, 700)), ("t1", (8, 8, 7, 7)), ("w2_a", (8, 700)), ("w2_b", (8, 700)),
            ("t2", (8, 8, 7, 7)))))),
    "fp8.safetensors": lambda path: safetensors(path, {"mid_block.x.diff": (900, 1000)}, dtypes=("F8_E4M3",)),
    "an archive of small tensors.pt": lambda path: pickled(
        path, {f"mid_block.{i}.lora_{side}.weight": torch.zeros(1, 1) for i in range(700) for side in "AB"}),
    "small tensors in turn.pt": lambda path: pickled(
        path, {f"mid_block.{i}.lora_{side}.weight": torch.zeros(1, 1) for i in range(2400) for side in "AB"}, False),
    "names of one tensor.pt": lambda path: _names_of_one(path, torch.zeros(1, 1), 4400),
    "views of all the file.pt": lambda path: _names_of_one(path, torch.zeros(400, 500), 2000),
    "a pickle of opcodes.pt": lambda path: archived(path, b"\x80\x02" + b"]N\x85aq\0" * 24_000 + b".", 800_000),
    "opcodes in turn.pt": lambda path: written(path, LEGACY + b"\x80\x02" + b"}X\1\0\0\0a}s" * 110_000 + b"."),
    "marks.pt": lambda path: written(path, LEGACY + b"\x80\x02" + b"N" * 99_000 + b"(t" * 50_000 + b"." * 800_000),
    "tables that are kept.pt": lambda path: written(path, LEGACY + b"\x80\x02" + b"}r\1\2\3\4" * 160_000 + b"."),
    "long texts.pt": lambda path: written(path, LEGACY + b"\x80\x02X\0\0\1\0" + b"x" * 2**16 + b"2" * 900_000),
    "a key of years.pt": lambda path: archived(path, hash_of_years()),
    "many entries.pt": lambda path: many_entries(path, 19_000),
    "a tar of words.pt": lambda path: written(path, tar(MEGABYTE - 1024) + b"9" * (MEGABYTE - 1024)),
    "a packed tar.pt": lambda path: written(path, gzip.compress(tar(2**29) + bytes(2**29), 6)),
    "plain values.pt": lambda path: written(path, pickle.dumps([[]] * 300_000, 2)),
}
"""file names, as they are made"""
LARGE: dict[str, Callable[[Path], Path]] = {
    "fp8 of 200 MB.safetensors": lambda path: safetensors(
        path, {"mid_block.x.diff": (10_000, 20_000)}, dtypes=("F8_E4M3",)),
    "bf16 of 200 MB.safetensors": lambda path: safetensors(
        path, {"mid_block.x.diff": (10_000, 10_000)}, dtypes=("BF16",)),
    "scaled f16 of 200 MB.safetensors": lambda path: safetensors(
        path, {"mid_block.x.diff": (10_000, 10_000), "mid_block.x.scale": ()}, dtypes=("F16",)),
    "IA3 of 100 MB.safetensors": lambda path: safetensors(
        path, {"mid_block.x.ia3_l": (50_000_000, 1)}, dtypes=("F16",)),
    "small tensors of 46 MB.safetensors": lambda path: safetensors(
        path, layers(2900, lambda i: f"mid_block.{i}", (("diff", (4000,)), ("diff_b", (4000,)))), dtypes=("F16",)),
    "doubles of 80 MB.safetensors": lambda path: safetensors(
        path, {"mid_block.x.diff": (1000, 10_000)}, dtypes=("F64",)),
    "8 MB of metadata.safetensors": lambda path: safetensors(
        path, layers(1), {"a": "😀" + "x" * (8 * 2**20 - 300)}),
    "6 MB of names.safetensors": lambda path: safetensors(path, layers(
        2900, lambda i: f"mid_block.{'x' * 440}😀{i}", HADAMARD)),
    "an archive of 200 MB.pt": lambda path: pickled(path, {"mid_block.x.diff": torch.zeros(5000, 10_000)}),
    "200 MB in turn.pt": lambda path: pickled(path, {"mid_block.x.diff": torch.zeros(5000, 10_000)}, False),
    "a turned archive of 200 MB.pt": lambda path: pickled(path, {"mid_block.x.diff": torch.zeros(5000, 10_000).t()}),
}


def _names_of_one(path: Path, tensor: torch.Tensor, count: int) -> Path:
    return pickled(path, {f"mid_block.{i}.lora_{side}.weight": tensor for i in range(count) for side in "AB"}, False)


def size_of(path: Path) -> int:
    """Bytes of what is read: of the file and of the configuration beside it."""
    return sum(one.stat().st_size for one in path.parent.iterdir()) if path.stem == "adapter_model" else (
        path.stat().st_size)
