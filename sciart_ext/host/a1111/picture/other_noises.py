"""The noises of a batch in the host besides its own: as it would make them from other seeds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from modules import devices, rng
from torch import Tensor

from ....guidance.noises import OtherNoise, as_large, noise_seed

ALIKE = 0.999
"""cosine of latents and the noise they are made of"""


def other_noises(p, inputs: Tensor) -> OtherNoise | None:
    """Of a pass of `p` that begins with these inputs of the model (images, c, h, w); None where they are more than the
    noise of their seeds: in img2img, the hires pass, and where another extension has changed them."""
    if getattr(p, "is_hr_pass", False) or getattr(p, "init_images", None):
        return None
    unit = _noise(p, 0).to(inputs)
    if unit.shape != inputs.shape or F.cosine_similarity(inputs.flatten(1), unit.flatten(1)).min() < ALIKE:
        return None

    def other(number: int) -> Tensor:
        return as_large(unit, _noise(p, number).to(inputs), inputs)

    return other


def _noise(p, number: int) -> Tensor:
    """Unit noise (images, c, h, w), of variations and resized seeds too. The host seeds torch's own generator as it
    draws, or its own of the kind; both are left as they were."""
    kept = vars(rng).get("nv_rng")  # there from the first such seed on
    cards = [devices.device] if devices.device.type == "cuda" else []
    its = p.rng
    seeds, subseeds = ([noise_seed(int(seed), number) for seed in seeds or ()] for seeds in (its.seeds, its.subseeds))
    try:
        with torch.random.fork_rng(cards):
            return rng.ImageRNG(its.shape, seeds, subseeds, its.subseed_strength, its.seed_resize_from_h,
                                its.seed_resize_from_w).next()
    finally:
        if kept is not None:
            rng.nv_rng = kept
