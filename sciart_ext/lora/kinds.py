"""The kinds of LoRA files: what a layer's tensors mean together.

The parts of one layer (`keys.parse_key`) become its delta, and the delta of its bias where the file has one. A layer
that mixes kinds, lacks a part or has one too many is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..errors import SciArtError
from .dense import BiasDifference, Dense, Difference, Hadamard, Kronecker, NormDifference
from .finite import is_finite
from .limits import MAX_RANK
from .low_rank import LowRank, Tucker
from .relative import Butterfly, Decomposed, Generalized, Rotation, Scaling

__all__ = ["BIAS", "Delta", "LowRank", "kind_of", "read_layer"]

MAX_ENTRIES = 2**27
"""of a layer's delta; the largest layer of SDXL has 29,491,200"""
MAX_SCALE = 1e6
BIAS = ".bias"
"""what the name of a bias ends with, after that of its layer"""
Delta = LowRank | Dense


def read_layer(file: str, layer: str, parts: Mapping[str, Tensor]) -> dict[str, Delta]:
    """The deltas of one layer of a file, by what their names end with: "" for its weight, `BIAS` for its bias."""
    given = Parts(file, layer, parts)
    read = next((_READERS[mark] for mark in _READERS if mark in parts), _low_rank)
    deltas = {name: delta for name, delta in read(given).items() if delta is not None}
    if BIAS not in deltas and "diff_b" in parts:
        deltas[BIAS] = BiasDifference(given.take("diff_b", (1,)))
    for name in ("dora_scale", "magnitude"):
        if name in parts:
            deltas[""] = _decomposed(given, name, deltas.get(""))
    given.check_all_taken()
    for delta in deltas.values():
        given.check_size(delta.shape)
    return deltas


def kind_of(layers: Mapping[str, Delta]) -> str:
    """What a file of these layers is: the kinds of its weights' deltas, the most frequent first."""
    kinds = [delta.kind for delta in layers.values() if not isinstance(delta, BiasDifference)]
    names = sorted(set(kinds), key=lambda kind: (-kinds.count(kind), kind))
    if "LoCon" in names and "LoRA" in names:
        names = ["LoCon", *(name for name in names if name not in ("LoCon", "LoRA"))]
    biases = any(isinstance(delta, BiasDifference) for delta in layers.values())
    trained = {NormDifference.kind, Difference.kind}
    return ", ".join(names or [BiasDifference.kind]) + (" with biases" if biases and names
                                                        and not trained & set(names) else "")


class Parts:
    """The tensors of one layer, of which all must be used."""

    def __init__(self, file: str, layer: str, tensors: Mapping[str, Tensor]):
        self.file = file
        self.layer = layer
        self._tensors = tensors
        self._taken: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def take(self, name: str, dimensions: tuple[int, ...] = (2, 4)) -> Tensor:
        """The part of this name, with as many dimensions as are accepted."""
        tensor = self.may_take(name, dimensions)
        if tensor is None:
            raise self.error(f"has no {name} matrix; the file is incomplete", colon=False)
        return tensor

    def may_take(self, name: str, dimensions: tuple[int, ...] = (2, 4)) -> Tensor | None:
        """The same, or None where the file has none."""
        self._taken.add(name)
        tensor = self._tensors.get(name)
        if tensor is not None and (tensor.dim() not in dimensions or 0 in tensor.shape):
            accepted = " or ".join(map(str, dimensions))
            raise self.error(f"{name} has shape {tuple(tensor.shape)}; accepted: {accepted} dimensions")
        return tensor

    def number(self, name: str) -> float | None:
        """The one number that this part is."""
        self._taken.add(name)
        tensor = self._tensors.get(name)
        if tensor is None:
            return None
        if tensor.numel() != 1:
            raise self.error(f"{name} has shape {tuple(tensor.shape)}; accepted: one number")
        value = float(tensor)
        if not math.isfinite(value):
            raise self.error(f"{name} is {value}")
        return value

    def leave(self, name: str) -> None:
        """For a number that changes nothing, whatever it is."""
        self._taken.add(name)

    def scale(self, rank: int | None) -> float:
        """alpha / rank, 1 without alpha or rank; or the file's own `.scale`."""
        self.check_rank(rank)
        scale = self.number("scale")
        if scale is not None or not rank:
            self.leave("alpha")
            scale = 1.0 if scale is None else scale
        else:
            alpha = self.number("alpha")
            scale = 1.0 if alpha is None else alpha / rank
        if abs(scale) > MAX_SCALE:
            raise self.error(f"scale {scale:g}; at most {MAX_SCALE:g} is accepted")
        return scale

    def scaled(self, name: str, tensor: Tensor, scale: float) -> Tensor:
        """scale · tensor, which is as finite as the tensor is."""
        product = self.single(name, tensor).mul_(scale)
        if abs(scale) > 1 and product.device.type != "meta" and not is_finite(product):
            raise self.error(f"{name} times its scale {scale:g} is infinite")
        return product

    def single(self, name: str, tensor: Tensor) -> Tensor:
        """A copy in single precision, which may be changed; refused where it cannot hold what it is of."""
        copy = tensor.to(torch.float32, copy=True)
        if tensor.dtype == torch.float64 and copy.device.type != "meta" and not is_finite(copy):
            raise self.error(f"{name} has numbers that are too large")
        return copy

    def check_rank(self, rank: int | None) -> None:
        if rank is not None and rank > MAX_RANK:
            raise self.error(f"rank {rank}; at most {MAX_RANK} is accepted")

    def check_size(self, shape: tuple[int, ...]) -> None:
        """Refuses a delta, or what is made on the way to one, that is larger than any layer."""
        if math.prod(shape) > MAX_ENTRIES:
            raise self.error(f"has shape {tuple(shape)}, larger than any layer", colon=False)

    def check_same(self, *sizes: tuple[str, int]) -> None:
        """Refuses sizes, each told with its name, that are not all the same."""
        if len({size for _, size in sizes}) > 1:
            raise self.error(", ".join(f"{name} {size}" for name, size in sizes))

    def check_all_taken(self) -> None:
        left = sorted(self._tensors.keys() - self._taken)
        if left:
            raise self.error(f"{', '.join(left)} beside {', '.join(sorted(self._tensors.keys() & self._taken))}; "
                             "no known kind has both")

    def error(self, what: str, colon: bool = True) -> SciArtError:
        return SciArtError(self.file, f"{self.layer}{':' if colon else ''} {what}")


def _low_rank(parts: Parts) -> dict[str, Delta | None]:
    """LoRA and LoCon, perhaps with a Tucker core (`lora_mid`, rank × rank × kernel)."""
    down, up, mid = parts.take("down"), parts.take("up"), parts.may_take("mid", (4,))
    rank = down.shape[0]
    if mid is None:
        parts.check_same(("down has rank", rank), ("up has rank", up.shape[1]))
    else:
        parts.check_same(("mid takes rank", mid.shape[1]), ("down has rank", rank))
        parts.check_same(("mid gives rank", mid.shape[0]), ("up has rank", up.shape[1]))
    scale = parts.scale(rank)
    if up.dim() == 4 and up.shape[2:] != (1, 1):
        raise parts.error(f"up has shape {tuple(up.shape)}; its kernel must be 1 × 1")
    if mid is not None:
        if down.dim() == 4 and down.shape[2:] != (1, 1):
            raise parts.error(f"down has shape {tuple(down.shape)}; before mid its kernel must be 1 × 1")
        parts.check_same(("mid takes rank", mid.shape[1]), ("and gives", mid.shape[0]))
        parts.check_size((rank, down.shape[1], *mid.shape[2:]))
    delta = LowRank(down, up, scale) if mid is None else Tucker(down, mid, up, scale)
    bias = parts.may_take("up_bias", (1,))
    return {"": delta, BIAS: None if bias is None else BiasDifference(parts.scaled("up_bias", bias, scale))}


def _hadamard(parts: Parts) -> dict[str, Delta | None]:
    w1a, w1b, w2a, w2b = (parts.take(f"hada_{name}") for name in ("w1_a", "w1_b", "w2_a", "w2_b"))
    cores = [parts.may_take(name, (4,)) for name in ("hada_t1", "hada_t2")]
    for number, a, b, core in ((1, w1a, w1b, cores[0]), (2, w2a, w2b, cores[1])):
        inner = (a.shape[1], b.shape[0]) if core is None else (a.shape[0], core.shape[0])
        parts.check_same((f"hada_w{number}_a has rank", inner[0]), (f"hada_w{number}_b has rank", inner[1]))
        if core is not None:
            parts.check_same((f"hada_t{number} has rank", core.shape[1]), (f"hada_w{number}_b has rank", b.shape[0]))
    parts.check_rank(w2b.shape[0])
    delta = Hadamard(w1a, w1b, w2a, w2b, *cores, parts.scale(w1b.shape[0]))
    sizes = [Hadamard(*half, *half, core, core, 1.0).shape for *half, core in
             ((w1a, w1b, cores[0]), (w2a, w2b, cores[1]))]
    if sizes[0][0] != sizes[1][0] or math.prod(sizes[0][1:]) != math.prod(sizes[1][1:]):
        raise parts.error(f"the halves have shapes {sizes[0]} and {sizes[1]}")
    return {"": delta}


def _kronecker(parts: Parts) -> dict[str, Delta | None]:
    w1, w1a, w1b = (parts.may_take(f"lokr_w1{end}", (2,)) for end in ("", "_a", "_b"))
    w2, w2b, t2 = (parts.may_take(f"lokr_{name}", (2, 4)) for name in ("w2", "w2_b", "t2"))
    w2a = parts.may_take("lokr_w2_a", (2,))
    for number, whole, a, b in ((1, w1, w1a, w1b), (2, w2, w2a, w2b)):
        if (whole is None) == (a is None and b is None) or (a is None) != (b is None):
            raise parts.error(f"has neither lokr_w{number} nor lokr_w{number}_a and lokr_w{number}_b, or too much",
                              colon=False)
        if a is not None and not (number == 2 and t2 is not None):
            parts.check_same((f"lokr_w{number}_a has rank", a.shape[1]), (f"lokr_w{number}_b has rank", b.shape[0]))
    if t2 is not None:
        if w2a is None or t2.dim() != 4:
            raise parts.error("lokr_t2 needs lokr_w2_a, lokr_w2_b and four dimensions")
        parts.check_same(("lokr_t2 has rank", t2.shape[0]), ("lokr_w2_a has rank", w2a.shape[0]))
        parts.check_same(("lokr_t2 has rank", t2.shape[1]), ("lokr_w2_b has rank", w2b.shape[0]))
    rank = next((half.shape[0] for half in (w2b, w1b) if half is not None), None)
    parts.check_rank(None if w1b is None else w1b.shape[0])
    return {"": Kronecker(w1, w1a, w1b, w2, w2a, w2b, t2, parts.scale(rank))}


def _rotation(parts: Parts) -> dict[str, Delta | None]:
    direct = "oft_diag" in parts
    blocks = parts.take("oft_diag" if direct else "oft_blocks", (3, 4))
    rescale = parts.may_take("rescale", (1, 2, 3, 4))
    parts.check_same(("blocks have", blocks.shape[-2]), ("rows and columns", blocks.shape[-1]))
    if blocks.dim() == 4 and (direct or blocks.shape[-1] % 2):
        raise parts.error(f"blocks have shape {tuple(blocks.shape)}; accepted: of BOFT an even size, of oft_diag three "
                          "dimensions")
    alpha = parts.number("alpha")
    delta = (Butterfly if blocks.dim() == 4 else Rotation)(blocks, alpha or 0.0, rescale, direct)
    if rescale is not None:
        parts.check_same(("blocks have outputs", delta.shape[0]), ("rescale has", rescale.numel()))
    return {"": delta}


def _generalized(parts: Parts) -> dict[str, Delta | None]:
    """GLoRA, in the two orders that LyCORIS has written: since 3 W·a1·a2 + b1·b2, before W·a2·a1 + b2·b1."""
    a1, a2, b1, b2 = (parts.take(name) for name in ("a1", "a2", "b1", "b2"))
    if b1.shape[1] != b2.shape[0] or a1.shape[1] != a2.shape[0] or a1.shape[0] < a1.shape[1]:
        a1, a2, b1, b2 = a2, a1, b2, b1
    parts.check_same(("a has rank", a1.shape[1]), ("and", a2.shape[0]))
    parts.check_same(("b has rank", b1.shape[1]), ("and", b2.shape[0]))
    parts.check_same(("a takes", a1.shape[0]), ("gives", a2[0].numel()))
    return {"": Generalized(a1.flatten(1), a2.flatten(1), b1.flatten(1), b2, parts.scale(a1.shape[1]))}


def _scaling(parts: Parts) -> dict[str, Delta | None]:
    factor, on_input = parts.take("scaling", (1, 2, 4)), parts.number("on_input")
    return {"": Scaling(factor.flatten(), 1 if on_input else 0)}


def _scaling_of_peft(parts: Parts) -> dict[str, Delta | None]:
    """Of a linear layer (out, 1) or (1, in); of a convolution (1, channels, 1, 1), whose side PEFT's own configuration
    alone tells: outputs, but for layers that it calls feed-forward."""
    factor = parts.take("ia3", (2, 4))
    if factor.dim() == 4:
        raise parts.error("IA3 of PEFT on a convolution does not tell whether it scales inputs or outputs")
    factor, on_outputs = parts.single("ia3", factor.flatten()).sub_(1), factor.shape[1] == 1
    return {"": Scaling(factor, 0 if on_outputs else 1), BIAS: Scaling(factor, 0) if on_outputs else None}


def _difference(parts: Parts) -> dict[str, Delta | None]:
    value = parts.take("diff", (1, 2, 4))
    scale = parts.number("scale")
    parts.leave("alpha")  # LyCORIS writes none, others do, and all apply the difference as it is
    value = value if scale is None else parts.scaled("diff", value, scale)
    return {"": NormDifference(value) if value.dim() == 1 else Difference(value)}


def _norm(parts: Parts) -> dict[str, Delta | None]:
    weight, bias = parts.may_take("w_norm", (1,)), parts.may_take("b_norm", (1,))
    return {"": None if weight is None else NormDifference(weight),
            BIAS: None if bias is None else BiasDifference(bias)}


def _bias_alone(parts: Parts) -> dict[str, Delta | None]:
    parts.leave("alpha")
    return {BIAS: BiasDifference(parts.take("diff_b", (1,)))}


def _decomposed(parts: Parts, name: str, inner: Delta | None) -> Decomposed:
    """DoRA around a LoRA, LoHa or LoKr.

    LyCORIS' `dora_scale` is (out, 1, …) by outputs or (1, in, …) by inputs. PEFT's magnitudes are by outputs, of a
    convolution (1, out, 1, 1); diffusers gives its name to LyCORIS' (1, in) too.
    """
    magnitude = parts.take(name, (1, 2, 4))
    if not isinstance(inner, (LowRank, Hadamard, Kronecker)):
        raise parts.error(f"{name} beside what is no LoRA, LoHa or LoKr")
    count = magnitude.numel()
    if count not in magnitude.shape[:2]:
        raise parts.error(f"{name} has shape {tuple(magnitude.shape)}; accepted: (out, 1, …) or (1, in, …)")
    by_input = magnitude.dim() > 1 and magnitude.shape[0] == 1 and inner.shape[0] > 1
    if name == "magnitude" and magnitude.dim() == 4 and count == inner.shape[0]:
        by_input = False
    return Decomposed(inner, magnitude.flatten(), 1 if by_input else 0)


_READERS: dict[str, Callable[[Parts], dict[str, Delta | None]]] = {
    "down": _low_rank, "up": _low_rank,
    **dict.fromkeys(("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"), _hadamard),
    **dict.fromkeys(("lokr_w1", "lokr_w1_a", "lokr_w2", "lokr_w2_a", "lokr_w1_b", "lokr_w2_b"), _kronecker),
    "oft_blocks": _rotation, "oft_diag": _rotation,
    **dict.fromkeys(("a1", "a2", "b1", "b2"), _generalized),
    "scaling": _scaling, "on_input": _scaling, "ia3": _scaling_of_peft,
    "diff": _difference, "w_norm": _norm, "b_norm": _norm, "diff_b": _bias_alone,
}
