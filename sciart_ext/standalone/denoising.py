"""The denoising loop: a sampler's evaluations on a pipeline's rows, with progress, guidance and a way to stop."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..compose.fusion import Fusion
from ..guidance.guide import Guide
from ..recipe.schedule import step_progress
from .samplers import sampler_step, start
from .sampling import Rows, Time


@torch.no_grad()
def denoise(scheduler, rows: Rows, noise: Tensor, generators: Sequence[torch.Generator], fusion: Fusion | None = None,
            on_step: Callable[[int, int], None] | None = None,
            watch: Callable[[Tensor], None] | None = None) -> Tensor:
    """Latents (images, c, h, w) from unit noise; generators: of each image, for the noise that samplers add.

    on_step(done, steps): progress; watch(latents): at the start and after each step.
    """
    steps = rows.plan.steps
    guide = fusion if isinstance(fusion, Guide) else None
    start(scheduler, steps, noise)
    there = scheduler.timesteps.to(noise.device)
    latents = noise * scheduler.init_noise_sigma
    takes = inspect.signature(scheduler.step).parameters
    options = {"generator": list(generators)} if "generator" in takes else {}
    if watch is not None:
        watch(latents)
    for evaluation, now in enumerate(scheduler.timesteps):
        time = Time(float(now), there[evaluation])
        step = sampler_step(evaluation, scheduler.order)
        progress = step_progress(step, steps)
        inputs = scheduler.scale_model_input(latents, now)
        if guide is not None:
            guide.look_ahead(inputs, round(time.number), rows.alphas, rows.denoised)
            if evaluation == step * scheduler.order:
                times = guide.times(step, steps)
                call = functools.partial(rows.call, time=time, progress=progress, rows=[rows.plain])
                updated = guide.update(inputs, progress, times, call)
                if times:
                    latents = latents + (updated - inputs) / scheduler.scale_model_input(torch.ones_like(latents), now)
                    inputs = updated
            if evaluation + 1 == len(scheduler.timesteps):
                guide.watch(progress)
        prediction = rows.predict(inputs, time, progress, fusion)
        latents = scheduler.step(prediction, now, latents, **options).prev_sample
        last = evaluation + 1 == len(scheduler.timesteps)
        if last or sampler_step(evaluation + 1, scheduler.order) > step:
            if watch is not None:
                watch(latents)
            if on_step is not None:
                on_step(step + 1, steps)
    return latents
