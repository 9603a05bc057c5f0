"""The oracle: says which objects and individuals are in a picture, how many, where, and how strong each style is.

A small network, trained on the world program's own drawings alone, never on pictures of a model that it judges.
Objects are peaks of a map of centres, one channel per kind (Zhou et al., Objects as Points, arXiv 1904.07850).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from .scenes import INDIVIDUALS, KINDS, SIDE, STYLES

WEIGHTS = Path(__file__).with_name("oracle.safetensors")
STRIDE = 4
"""pixels per cell of the maps"""
NOBODY = len(INDIVIDUALS)
"""class of things that are no individual"""
STYLE_PRESENT = 0.3
"""strength from which a style counts as present; its LoRA is taught 1, the weakest drawn is 0.5"""


@dataclass(frozen=True)
class Seen:
    """One object in a picture; `box`: x0 y0 x1 y1 in pixels; `certainty` 0 to 1."""

    kind: str
    individual: str | None
    box: tuple[float, float, float, float]
    certainty: float


@dataclass(frozen=True)
class Reading:
    """What the oracle sees in one picture: objects, most certain first, and style → strength (0 to about 1)."""

    objects: tuple[Seen, ...]
    styles: dict[str, float]

    def count(self, kind: str | None = None, individual: str | None = None) -> int:
        """How many objects of a kind, or which are a certain individual."""
        return sum((kind is None or seen.kind == kind) and (individual is None or seen.individual == individual)
                   for seen in self.objects)

    def present(self, style: str) -> bool:
        return self.styles[style] >= STYLE_PRESENT


class OracleNet(nn.Module):
    """Pictures (n, 3, 128, 128), -1 to 1 → maps at a quarter of the side, and style strengths (n, 3)."""

    def __init__(self, width: int = 24):
        super().__init__()
        self.stem = nn.Sequential(_conv(3, width, 2), _conv(width, 2 * width, 2))
        self.fine = nn.Sequential(_Residual(2 * width), _Residual(2 * width))
        self.coarse = nn.Sequential(_conv(2 * width, 3 * width, 2), _Residual(3 * width), _Residual(3 * width),
                                    _conv(3 * width, 4 * width, 2), _Residual(4 * width), _Residual(4 * width))
        self.join = _conv(6 * width, 3 * width)
        self.last = _Residual(3 * width)
        self.centres = nn.Conv2d(3 * width, len(KINDS), 1)
        self.boxes = nn.Conv2d(3 * width, 4, 1)
        self.individuals = nn.Conv2d(3 * width, NOBODY + 1, 1)
        self.styles = nn.Sequential(nn.Linear(6 * width, 2 * width), nn.SiLU(), nn.Linear(2 * width, len(STYLES)))
        nn.init.constant_(self.centres.bias, -4.0)

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        fine = self.fine(self.stem(pictures))
        coarse = self.coarse(fine)
        joined = self.last(self.join(torch.cat([fine, F.interpolate(coarse, scale_factor=4.0)], 1)))
        pooled = torch.cat([fine.mean((2, 3)), coarse.mean((2, 3))], 1)
        return {"centres": self.centres(joined), "boxes": self.boxes(joined).exp(),
                "individuals": self.individuals(joined), "styles": self.styles(pooled)}


class Oracle:
    """Reads pictures with trained weights. `certainty`: from which a peak counts as an object."""

    def __init__(self, net: OracleNet, certainty: float = 0.4):
        self.net = net.eval()
        self.certainty = certainty

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> Oracle:
        net = OracleNet()
        net.load_state_dict({name: value.float() for name, value in load_file(path).items()})
        return cls(net)

    @torch.no_grad()
    def read(self, pictures: Sequence[np.ndarray] | np.ndarray, batch: int = 64) -> list[Reading]:
        """pictures: (n, h, w, 3) uint8, brought to 128 × 128 where they have another size."""
        readings = []
        for start in range(0, len(pictures), batch):
            chunk = as_tensor(np.stack(list(pictures[start:start + batch])))
            if chunk.shape[-2:] != (SIDE, SIDE):
                chunk = F.interpolate(chunk, (SIDE, SIDE), mode="bilinear", antialias=True)
            maps = self.net(chunk)
            readings += [self._reading({name: value[i] for name, value in maps.items()}) for i in range(len(chunk))]
        return readings

    def _reading(self, maps: dict[str, Tensor]) -> Reading:
        heat = maps["centres"].sigmoid()
        best = heat.amax(0)
        peaks = (best == F.max_pool2d(best[None], 3, 1, 1)[0]) & (best >= self.certainty)
        seen = []
        for y, x in peaks.nonzero()[best[peaks].argsort(descending=True)].tolist():
            kind = int(heat[:, y, x].argmax())
            left, top, right, bottom = (float(v) * STRIDE for v in maps["boxes"][:, y, x])
            cx, cy = (x + 0.5) * STRIDE, (y + 0.5) * STRIDE
            box = (cx - left, cy - top, cx + right, cy + bottom)
            if all(_shared(box, other.box) < 0.5 for other in seen):
                seen.append(Seen(list(KINDS)[kind], _individual(maps["individuals"][:, y, x], list(KINDS)[kind]), box,
                                 float(best[y, x])))
        return Reading(tuple(seen), dict(zip(STYLES, maps["styles"].tolist())))


def as_tensor(pictures: np.ndarray) -> Tensor:
    """(n, h, w, 3) uint8 → (n, 3, h, w) float, -1 to 1."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def _individual(scores: Tensor, kind: str) -> str | None:
    """The best class among nobody and the individuals of this kind."""
    allowed = [i for i, owner in enumerate(INDIVIDUALS.values()) if owner == kind] + [NOBODY]
    best = max(allowed, key=lambda i: float(scores[i]))
    return None if best == NOBODY else list(INDIVIDUALS)[best]


def _shared(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return width * height / (areas - width * height)


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.GroupNorm(8, outputs), nn.SiLU())


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(_conv(width, width), nn.Conv2d(width, width, 3, 1, 1, bias=False),
                                    nn.GroupNorm(8, width))

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x + self.layers(x))
