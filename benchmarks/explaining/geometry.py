"""The geometry of LoRAs of full size against dense float64 SVDs: error, time, memory."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

from sciart_ext.geometry.comparison import RANKS, Comparison, compare
from sciart_ext.lora.file import LoraFile, load_lora
from sciart_ext.mixer.targets import diffusers_unet_layers

from ..mixing import memory
from ..mixing.allocator import in_fresh_process
from ..random_weights import LORA_LAYER

RANK, ALPHA, LORAS = 32, 16.0, 3
NULL = 1e-6
UNETS = {
    "sd15": {"cross_attention_dim": 768, "attention_head_dim": 8},
    "sdxl": {"block_out_channels": (320, 640, 1280), "cross_attention_dim": 2048, "use_linear_projection": True,
             "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
             "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
             "transformer_layers_per_block": (1, 2, 10), "attention_head_dim": (5, 10, 20),
             "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
             "projection_class_embeddings_input_dim": 2816},
}


def shapes_of(model: str) -> dict[str, tuple[int, int]]:
    """(out, in) of the layers that LoRA files usually reach, by name."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNETS[model])
    layers = {name: target.weight() for name, target in diffusers_unet_layers(unet).items()}
    return {name: (weight.shape[0], weight[0].numel()) for name, weight in layers.items() if LORA_LAYER.search(name)}


def write_files(shapes: Mapping[str, tuple[int, int]], folder: Path) -> list[Path]:
    """LoRA files of random factors in half precision, which share a fourth of their directions with the first."""
    paths = []
    for k in range(LORAS):
        generators = [torch.Generator().manual_seed(seed) for seed in (0, k + 1)]
        tensors = {}
        for name, (m, n) in shapes.items():
            common, own = ((torch.randn(RANK, n, generator=one), torch.randn(m, RANK, generator=one))
                           for one in generators)
            shared = torch.arange(RANK) < RANK // 4
            tensors[f"lora_{name}.lora_down.weight"] = torch.where(shared[:, None], common[0], own[0]).half()
            tensors[f"lora_{name}.lora_up.weight"] = torch.where(shared, common[1], own[1]).half()
            tensors[f"lora_{name}.alpha"] = torch.tensor(ALPHA)
        paths.append(folder / f"lora-{k}.safetensors")
        save_file(tensors, paths[-1])
    return paths


def measure(model: str, rounds: int, dense_layers: int) -> dict:
    """Seconds of a comparison of three LoRAs, reading the files and not; its peak memory; dense SVDs of some layers
    beside it: the largest error of any figure, and how much longer all layers would take so."""
    shapes = shapes_of(model)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_files(shapes, Path(folder))
        loras = [load_lora(path) for path in paths]
        seconds, with_reading = [], []
        for _ in range(rounds):
            began = time.perf_counter()
            found = compare(loras)
            seconds.append(time.perf_counter() - began)
            began = time.perf_counter()
            compare([load_lora(path) for path in paths])
            with_reading.append(time.perf_counter() - began)
        peak = in_fresh_process(_peak, paths)
    error, dense = _against_dense(loras, found, shapes, dense_layers)
    return {"model": model, "layers": len(shapes), "rank": RANK, "loras": LORAS,
            "seconds": round(statistics.median(seconds), 3), "with_reading": round(statistics.median(with_reading), 3),
            "peak_mb": peak, "error": error, "dense_seconds": round(dense, 1),
            "speedup": round(dense / statistics.median(seconds), 1), "threads": torch.get_num_threads()}


def _peak(paths: list[Path]) -> dict[str, float] | None:
    """How much the process grows in MB, from before the files are read: by memory of its own, and by pages of the
    files, which are mapped and which the system takes back at need. None where the system does not tell."""
    load_lora(paths[0])  # what is imported and set up once
    mapped = memory.mapped_mb()
    if mapped is None or not memory.reset_peak():
        return None
    before = memory.peak_mb()
    loras = [load_lora(path) for path in paths]
    compare(loras)
    mapped = memory.mapped_mb() - mapped
    return {"own": round(memory.peak_mb() - before - mapped, 1), "mapped": round(mapped, 1)}


def _against_dense(loras: list[LoraFile], found: Comparison, shapes: Mapping[str, tuple[int, int]],
                   most: int) -> tuple[float, float]:
    """The largest error over one layer of each shape, and seconds of all layers with dense SVDs, from those; no more
    than `most` shapes, the smallest."""
    counts = Counter(shapes.values())
    layers = {layer.name: layer for layer in found.layers}
    chosen = sorted(counts, key=lambda shape: shape[0] * shape[1] * min(shape))[:most]
    error, seconds = 0.0, 0.0
    for shape in chosen:
        name = next(name for name in shapes if shapes[name] == shape)
        began = time.perf_counter()
        told = _dense_figures([lora.layers[name] for lora in loras])
        taken = (time.perf_counter() - began) * counts[shape]
        seconds += taken
        layer = layers[name]
        ours = {"inner": layer.inner, "cosines": layer.cosines, "removed": layer.removed,
                **{f"overlap {k}": layer.overlaps[k] for k in RANKS},
                **{f"values {k}": values for k, values in enumerate(layer.spectra)},
                **{f"angles {pair}": angles.deg2rad().cos() for pair, angles in layer.angles.items()}}
        for figure, value in ours.items():
            scale = max(float(told[figure].abs().max()), 1e-300)
            error = max(error, float((value - told[figure]).abs().max()) / scale)
        if layer.rank_of_sum != told["rank_of_sum"]:
            raise RuntimeError(f"{name}: rank of the sum {layer.rank_of_sum}, dense {told['rank_of_sum']}")
        print("dense", shape, "×", counts[shape], f"{taken:.1f} s, error so far {error:.1e}", flush=True)
    return error, seconds


def _dense_figures(deltas) -> dict:
    """The same figures by the book: each ΔW formed, its SVD taken, subspaces compared."""
    dense = [delta.scale * delta.up.flatten(1).double() @ delta.down.flatten(1).double() for delta in deltas]
    flat = torch.stack([one.flatten() for one in dense])
    inner = flat @ flat.T
    norms = inner.diagonal().sqrt()
    bases = []
    figures: dict = {"inner": inner, "cosines": inner / norms[:, None] / norms}
    for k, one in enumerate(dense):
        left, values, right = torch.linalg.svd(one, full_matrices=False)
        kept = values > NULL * values[0]
        bases.append((left[:, kept], right[kept].T))
        figures[f"values {k}"] = values[kept]
    figures["removed"] = torch.eye(len(dense), dtype=torch.float64)
    overlaps = {k: torch.eye(len(dense), dtype=torch.float64) for k in RANKS}
    for a, (left_a, _) in enumerate(bases):
        for b, (left_b, right_b) in enumerate(bases):
            if a == b:
                continue
            rest = _without(dense[a], left_b, right_b)
            figures["removed"][a, b] = 1 - rest.square().sum() / dense[a].square().sum()
            shared = left_a.T @ left_b
            for k in RANKS:
                overlaps[k][a, b] = shared[:k, :k].square().sum() / min(k, *shared.shape)
            if a < b:
                figures[f"angles {(a, b)}"] = torch.linalg.svdvals(shared).clamp(max=1)
    figures.update({f"overlap {k}": matrix for k, matrix in overlaps.items()})
    values = torch.linalg.svdvals(sum(dense))
    figures["rank_of_sum"] = int((values > NULL * values[0]).sum())
    return figures


def _without(delta: Tensor, left: Tensor, right: Tensor) -> Tensor:
    rest = delta - left @ (left.T @ delta)
    return rest - (rest @ right) @ right.T
