"""Files as strangers could have written them: the forms that readers know, with what is not known in some places."""

from __future__ import annotations

import io
import json
import math
import struct

import torch
from hypothesis import strategies as st

LAYERS = ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", "unet.mid_block.attentions.0.proj_in",
          "lora_te_text_model_encoder_layers_0_mlp_fc1", "lora_unet_output_blocks_3_1_proj_in", "unet.mid_block.aaa")
ODD_LAYERS = ("x" * 600, "lora_unet_up_blocks_" + "9" * 200 + "_resnets_0_conv1", "bundle_emb.word", "")
OUT, IN, RANK, KERNEL = 8, 12, 2, 3
KINDS = {
    "LoRA": {"lora_down.weight": (RANK, IN), "lora_up.weight": (OUT, RANK), "alpha": ()},
    "PEFT": {"lora_A.weight": (RANK, IN), "lora_B.weight": (OUT, RANK), "lora_magnitude_vector": (OUT,)},
    "LoCon": {"lora_down.weight": (RANK, IN, KERNEL, KERNEL), "lora_up.weight": (OUT, RANK, 1, 1), "scale": ()},
    "Tucker": {"lora_down.weight": (RANK, IN, 1, 1), "lora_mid.weight": (RANK, RANK, KERNEL, KERNEL),
               "lora_up.weight": (OUT, RANK, 1, 1), "alpha": (1,)},
    "DoRA": {"lora_down.weight": (RANK, IN), "lora_up.weight": (OUT, RANK), "dora_scale": (OUT, 1)},
    "LoHa": {"hada_w1_a": (OUT, RANK), "hada_w1_b": (RANK, IN), "hada_w2_a": (OUT, RANK), "hada_w2_b": (RANK, IN),
             "alpha": ()},
    "LoHa with cores": {"hada_w1_a": (RANK, OUT), "hada_w1_b": (RANK, IN), "hada_t1": (RANK, RANK, KERNEL, KERNEL),
                        "hada_w2_a": (RANK, OUT), "hada_w2_b": (RANK, IN), "hada_t2": (RANK, RANK, KERNEL, KERNEL)},
    "LoKr": {"lokr_w1": (2, 2), "lokr_w2_a": (4, RANK), "lokr_w2_b": (RANK, 6), "alpha": ()},
    "LoKr with a core": {"lokr_w1": (2, 2), "lokr_w2_a": (RANK, 4), "lokr_w2_b": (RANK, 6),
                         "lokr_t2": (RANK, RANK, KERNEL, KERNEL)},
    "OFT": {"oft_blocks": (2, 4, 4), "alpha": (), "rescale": (OUT, 1)},
    "BOFT": {"oft_blocks": (2, 2, 4, 4)},
    "IA3": {"weight": (OUT,), "on_input": ()},
    "differences": {"diff": (OUT, IN), "diff_b": (OUT,)},
    "norms": {"w_norm": (OUT,), "b_norm": (OUT,)},
    "GLoRA": {"a1.weight": (IN, RANK), "a2.weight": (RANK, IN), "b1.weight": (OUT, RANK), "b2.weight": (RANK, IN)},
}
PARTS = sorted({part for parts in KINDS.values() for part in parts}
               | {"unknown", "bias", "ia3_l", "clip_l", "oft_diag"})
WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1}
SIZES = st.one_of(st.integers(0, 9), st.sampled_from([1, 2, 2, 4, 8, 16, 64, 320, 5000]))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 2**70), st.floats(), st.text(max_size=20)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=8)
NUMBERS = st.one_of(st.integers(-2, 64), st.floats(), st.sampled_from([1e-320, 1e300, 0, -1, 2**64]), VALUES)
PATTERNS = st.one_of(st.sampled_from(["to_q", "(a+)+b", "a{9999}", "(", "^unet.mid_block.aaa$", ".*", "(.*)*x"]),
                     st.text("ab.*+?()[]{}|^$\\12,", max_size=20))
CONFIGURATIONS = st.dictionaries(
    st.sampled_from(["unet.r", "r", "unet.lora_alpha", "lora_alpha", "alpha", "use_rslora", "text_encoder.r"]), NUMBERS,
    max_size=5)
TABLES = st.dictionaries(st.sampled_from(["unet.alpha_pattern", "alpha_pattern", "unet.rank_pattern"]),
                         st.one_of(st.dictionaries(PATTERNS, NUMBERS, max_size=4), VALUES), max_size=2)
CONFIGURATIONS = st.tuples(CONFIGURATIONS, TABLES).map(lambda both: {**both[0], **both[1]})
BYTES = st.one_of(st.sampled_from([b"\0", b"\0\0\0\x40", b"\x3c", b"\xff"]), st.binary(min_size=1, max_size=16))


@st.composite
def safetensors(draw) -> bytes:
    """Layers of one kind or two, of which some parts are others; now and then the header or the data is spoiled."""
    tensors: dict[str, tuple[str, list[int]]] = {}
    for layer in draw(st.lists(st.sampled_from(LAYERS), min_size=1, max_size=3, unique=True)):
        kind = KINDS[draw(st.sampled_from(sorted(KINDS)))]
        tensors.update({f"{layer}.{part}": ("F32", list(shape)) for part, shape in kind.items()})
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2, 4]))):
        draw(changed(tensors))
    header, end = {}, 0
    for key, (dtype, shape) in tensors.items():
        size = math.prod(shape) * WIDTHS[dtype]
        if size <= 2**20:
            header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
            end += size
    if draw(st.booleans()):
        header["__metadata__"] = {"lora_adapter_metadata": draw(CONFIGURATIONS.map(json.dumps) | st.text(max_size=30))}
    spoiling = draw(st.sampled_from([None] * 6 + ["an entry", "the header", "the length", "the data"]))
    if spoiling == "an entry" and header:
        entry = header[draw(st.sampled_from(sorted(header)))]
        entry[draw(st.sampled_from(["dtype", "shape", "data_offsets", "more"]))] = draw(VALUES)
    text = json.dumps(header).encode()
    if spoiling == "the header":
        text = draw(spoiled(text))
    length = draw(st.integers(0, 2**64 - 1)) if spoiling == "the length" else len(text)
    pattern = draw(BYTES)
    data = (pattern * (end // len(pattern) + 1))[:end]
    return struct.pack("<Q", length) + text + (data[:-1] if spoiling == "the data" else data)


@st.composite
def changed(draw, tensors: dict[str, tuple[str, list[int]]]) -> None:
    """One of the tensors has another size, shape, precision or name, is not there, or there is one more."""
    key = draw(st.sampled_from(sorted(tensors))) if tensors else "x"
    dtype, shape = tensors.get(key, ("F32", [1]))
    what = draw(st.sampled_from(["size", "shape", "dtype", "name", "gone", "more"]))
    if what == "size" and shape:
        number = draw(st.integers(0, len(shape) - 1))
        tensors[key] = dtype, [*shape[:number], draw(SIZES), *shape[number + 1:]]
    elif what == "shape":
        tensors[key] = dtype, draw(st.lists(SIZES, max_size=9))
    elif what == "dtype":
        tensors[key] = draw(st.sampled_from(sorted(WIDTHS))), shape
    elif what == "gone":
        tensors.pop(key, None)
    else:
        layer = draw(st.sampled_from(LAYERS + ODD_LAYERS)) if what == "more" else key.rpartition(".")[0]
        tensors[f"{layer}.{draw(st.sampled_from(PARTS))}"] = "F32", draw(st.lists(SIZES, max_size=4))


@st.composite
def spoiled(draw, whole: bytes) -> bytes:
    """With some of its bytes changed, taken out or put in."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, len(data)))
        data[place:place + draw(st.integers(0, 3))] = draw(st.binary(max_size=4))
    return bytes(data)


def pickled(legacy: bool) -> bytes:
    file = io.BytesIO()
    stem = LAYERS[0]
    torch.save({f"{stem}.lora_down.weight": torch.ones(2, 8), f"{stem}.lora_up.weight": torch.ones(8, 2),
                f"{stem}.alpha": torch.tensor(2.0)}, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


PICKLES = st.sampled_from([pickled(False), pickled(True)]).flatmap(spoiled)
