"""Trains the oracle on drawn scenes, disturbed as a generative model's pictures may be."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from sciart_ext.world.oracle import STRIDE, WEIGHTS, Oracle, OracleNet, as_tensor
from sciart_ext.world.scenes import KINDS, SIDE

from .data import Drawn, anything, drawn_set
from .loop import Training

CELLS = SIDE // STRIDE


def train(folder: Path, steps: int = 3000, scenes: int = 16000, batch: int = 32, rate: float = 2e-3) -> None:
    torch.manual_seed(11)
    _learn("oracle", OracleNet(), folder, steps, scenes, batch, rate, seed=11)


def train_more(folder: Path, steps: int = 1000, scenes: int = 8000, batch: int = 32, rate: float = 1e-3) -> None:
    """Goes on from the weights that are there, on fresh scenes: after a change of the drawings."""
    _learn("oracle-more", Oracle.load(WEIGHTS).net.train(), folder, steps, scenes, batch, rate, seed=13)


def _learn(name: str, net: OracleNet, folder: Path, steps: int, scenes: int, batch: int, rate: float,
           seed: int) -> None:
    data = drawn_set(anything, scenes, seed, folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = net.to(device, memory_format=torch.channels_last)
    training = Training(name, steps, dict(net.named_parameters()), rate, folder,
                        {"scenes": scenes, "batch": batch}, seed, decay=0.01)
    for generator in training.run():
        chosen = torch.randint(len(data.pictures), (batch,), generator=generator).numpy()
        pictures, targets = disturbed(as_tensor(data.pictures[chosen]), generator), targets_of(data, chosen)
        with training.autocast():
            maps = net(pictures.to(device, memory_format=torch.channels_last))
        training.learn(**losses_of({name: value.float() for name, value in maps.items()},
                                   {name: value.to(device) for name, value in targets.items()}))
    save_file({name: value.half().cpu().contiguous() for name, value in training.average.items()}, WEIGHTS)


def disturbed(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Each picture with noise, blur, coarseness, and other light, or none of them. (n, 3, h, w), -1 to 1."""
    def chance(share: float) -> Tensor:
        return (torch.rand(len(pictures), generator=generator) < share).float().view(-1, 1, 1, 1)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(pictures), 1, 1, 1, generator=generator)

    for factor, share in ((2, 0.5), (4, 0.25)):
        coarse = F.interpolate(F.avg_pool2d(pictures, factor), scale_factor=float(factor), mode="bilinear")
        pictures = torch.lerp(pictures, coarse, chance(share))
    pictures = torch.lerp(pictures, F.avg_pool2d(pictures, 3, 1, 1, count_include_pad=False), chance(0.3))
    pictures = torch.lerp(pictures, pictures * uniform(0.8, 1.2) + uniform(-0.15, 0.15), chance(0.5))
    noise = torch.randn(pictures.shape, generator=generator)
    return (pictures + noise * uniform(0.0, 0.25) * chance(0.4)).clamp(-1, 1)


def targets_of(data: Drawn, chosen) -> dict[str, Tensor]:
    """Maps that the net should give: a Gaussian at each centre; box and individual at the cells about it."""
    n = len(chosen)
    ys, xs = torch.meshgrid(torch.arange(CELLS) + 0.5, torch.arange(CELLS) + 0.5, indexing="ij")
    centres = torch.zeros(n, len(KINDS), CELLS, CELLS)
    boxes = torch.zeros(n, 4, CELLS, CELLS)
    individuals = torch.full((n, CELLS, CELLS), -1)
    for i, scene in enumerate(chosen):
        for kind, individual, box in zip(data.kinds[scene], data.individuals[scene], data.boxes[scene]):
            if kind < 0:
                continue
            x0, y0, x1, y1 = (box / STRIDE).tolist()
            cx, cy = int((x0 + x1) / 2) + 0.5, int((y0 + y1) / 2) + 0.5
            spread = max(0.09 * (x1 - x0 + y1 - y0) / 2, 0.7)
            bump = torch.exp(-((xs - cx) ** 2 + (ys - cy) ** 2) / (2 * spread**2))
            centres[i, kind] = torch.maximum(centres[i, kind], bump)
            near = bump > 0.5
            sides = torch.stack([xs - x0, ys - y0, x1 - xs, y1 - ys]).clamp(min=0.5)
            boxes[i] = torch.where(near, sides, boxes[i])
            individuals[i] = torch.where(near, torch.full_like(individuals[i], int(individual)), individuals[i])
    return {"centres": centres, "boxes": boxes, "individuals": individuals,
            "styles": torch.from_numpy(data.styles[chosen])}


def losses_of(maps: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
    """Focal loss of centres (arXiv 1904.07850, equation 1); log-sides, classes and strengths where they are known."""
    heat, wanted = maps["centres"].sigmoid().clamp(1e-4, 1 - 1e-4), targets["centres"]
    peak = (wanted >= 0.999).float()
    focal = -(peak * (1 - heat) ** 2 * heat.log()
              + (1 - peak) * (1 - wanted) ** 4 * heat**2 * (1 - heat).log()).sum() / peak.sum().clamp(min=1)
    near = targets["individuals"] >= 0
    sides = (maps["boxes"].log() - targets["boxes"].clamp(min=0.5).log()).abs().mean(1)[near].mean()
    classes = F.cross_entropy(maps["individuals"].permute(0, 2, 3, 1)[near], targets["individuals"][near],
                              label_smoothing=0.02)
    styles = F.smooth_l1_loss(maps["styles"], targets["styles"], beta=0.1)
    return {"centres": focal, "sides": sides, "individuals": classes, "styles": 4 * styles}


