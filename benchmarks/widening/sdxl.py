"""One step of SDXL's whole UNet on the CPU, with three LoRAs of rank 32 and with none: time, memory, and what they do.

The architecture is the real one at full size, with random weights in bfloat16 (5.1 GB); latents are small, those of a
256² picture. `python -m benchmarks.widening.sdxl [--quick]` prints it; --quick takes a narrow UNet of the same shape.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from sciart_ext.mixer.cost import Workload
from sciart_ext.mixer.mixer import Mixer
from sciart_ext.mixer.targets import diffusers_unet_layers

from ..mixing import memory
from ..mixing.allocator import in_fresh_process
from ..random_weights import RANK, filled, random_lora

NAMES = ("bench-a", "bench-b", "bench-c")
ROWS, SIDE, TEXT = 2, 32, 77
STEPS = {"constant": 1, "changing": 10}
"""ways to have LoRAs: constant weights, whose merged layers serve every step, and others in each of ten steps"""
NEEDED_GB = {"full": 12, "narrow": 2}
"""memory that must be free: the weights, once more those that LoRAs change, and room for the machine's other work"""
STARTS, ENDS = 0.2, 0.65


def measure(quick: bool) -> dict:
    """`step_over_none` of each way: the median of its time over that of the step without LoRAs beside it; peaks in MB;
    `acts`: the relative difference that the LoRAs make, and `ways_agree` that between the two ways at equal weights,
    which merge other layers.
    """
    size = "narrow" if quick else "full"
    free = _free_gb()
    if free is not None and free < NEEDED_GB[size]:
        return {"ran": False, "why": f"{free:.1f} GB of memory are free, {NEEDED_GB[size]} are needed"}
    return {"ran": True, **in_fresh_process(_measure, size, 3 if quick else 1)}


def _measure(size: str, rounds: int) -> dict:
    bench = Bench(size)
    first, peak = _with_peak(bench.step)
    result: dict = {
        "model": f"SDXL, {size}", "parameters": bench.parameters, "dtype": "bfloat16", "rows": ROWS, "latent": SIDE,
        "loras": len(NAMES), "rank": RANK, "lora_mb": round(sum(file.nbytes for file in bench.files) / memory.MB, 1),
        "threads": torch.get_num_threads(), "first_step": round(first, 3), "peak_mb": {"none": peak}, "seconds": {},
        "step_over_none": {}, "layers": {}, "merged_layers": {}, "merged_mb": {}, "acts": {}}
    outputs = {}
    for way in STEPS:
        with bench.mixer(way) as mixer:
            mixer.set_gates([[STARTS if way == "changing" else ENDS] * len(NAMES)])
            _, result["peak_mb"][way] = _with_peak(bench.step)
        taken: dict[str, list[float]] = {"none": [], way: []}
        for number in range(rounds):
            weight = STARTS + (ENDS - STARTS) * (number + 1) / rounds if way == "changing" else ENDS
            seconds, plain = bench.step()
            taken["none"].append(round(seconds, 3))
            with mixer:
                mixer.set_gates([[weight] * len(NAMES)])
                seconds, outputs[way] = bench.step()
            taken[way].append(round(seconds, 3))
            print("sdxl", size, taken, flush=True)
        result["seconds"][way] = taken
        result["step_over_none"][way] = round(statistics.median(b / a for a, b in zip(*taken.values())), 3)
        result["layers"][way], result["merged_layers"][way] = len(mixer.layer_names), len(mixer.merged_names)
        result["merged_mb"][way] = round(mixer.merged_bytes() / memory.MB, 1)
        result["acts"][way] = _relative(outputs[way], plain)
        mixer.release()
    result["ways_agree"] = _relative(outputs["changing"], outputs["constant"])
    for way, difference in result["acts"].items():
        if not math.isfinite(difference) or difference < 5 * result["ways_agree"]:
            raise RuntimeError(f"{way}: the output differs by {difference} from that without LoRAs, by "
                               f"{result['ways_agree']} between the ways; nothing was measured")
    return result


def _with_peak(step: Callable[[], tuple[float, Tensor]]) -> tuple[float, int | None]:
    """Seconds of a step, and the largest resident size in MB during it; None where the system tells none."""
    measurable = memory.reset_peak()
    seconds, _ = step()
    return seconds, round(memory.peak_mb()) if measurable else None


class Bench:
    """The UNet, three LoRAs, and the input of a step: prompt and negative prompt in one batch."""

    def __init__(self, size: str):
        self.unet = random_unet(size)
        self.parameters = sum(weight.numel() for weight in self.unet.parameters())
        self.layers = diffusers_unet_layers(self.unet)
        self.files = [random_lora(name, self.layers, seed, "SDXL") for seed, name in enumerate(NAMES)]
        generator = torch.Generator().manual_seed(1)

        def noise(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).bfloat16()

        config = self.unet.config
        self.latent, self.text = noise(ROWS, 4, SIDE, SIDE), noise(ROWS, TEXT, config.cross_attention_dim)
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        sizes = torch.tensor([[8 * SIDE, 8 * SIDE, 0, 0, 8 * SIDE, 8 * SIDE]]).repeat(ROWS, 1)
        self.added = {"text_embeds": noise(ROWS, pooled), "time_ids": sizes}

    def mixer(self, way: str) -> Mixer:
        """The LoRAs on the UNet; each layer merged or branched as a recipe has it by default."""
        mixer = Mixer(self.unet, self.layers, self.files)
        mixer.choose(Workload(calls=10, changes=STEPS[way], rows=ROWS, height=SIDE, width=SIDE))
        return mixer

    @torch.inference_mode()
    def step(self) -> tuple[float, Tensor]:
        """Seconds of one evaluation of the UNet, and what it gives."""
        began = time.perf_counter()
        out = self.unet(self.latent, 500, self.text, added_cond_kwargs=self.added).sample
        return time.perf_counter() - began, out.float()


def random_unet(size: str) -> nn.Module:
    """SDXL's UNet (stabilityai/stable-diffusion-xl-base-1.0, unet/config.json); narrow: at an eighth of its width."""
    part = {"full": 1, "narrow": 8}[size]
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=128, block_out_channels=tuple(width // part for width in (320, 640, 1280)),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10), attention_head_dim=tuple(max(n // part, 1) for n in (5, 10, 20)),
            cross_attention_dim=2048 // part, use_linear_projection=True, addition_embed_type="text_time",
            addition_time_embed_dim=256, projection_class_embeddings_input_dim=1280 // part + 6 * 256,
            norm_num_groups=32 // part)
    return filled(unet, torch.bfloat16, torch.device("cpu"))


def _relative(a: Tensor, b: Tensor) -> float:
    return round(float((a - b).norm() / b.norm()), 4)


def _free_gb() -> float | None:
    """Memory that can be had without swapping; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 2**20 for line in lines if line.startswith("MemAvailable:")), None)


if __name__ == "__main__":
    print(json.dumps(measure("--quick" in sys.argv[1:]), indent=1))
