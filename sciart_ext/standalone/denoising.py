"""The denoising loop: a sampler's evaluations on a pipeline's rows, with progress, guidance and a way to stop."""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import count

import torch
from torch import Tensor

from ..compose.fusion import Fusion
from ..guidance.guide import Guide
from .samplers.making import Sampling
from .samplers.noise import Noise
from .sampling import Rows, Time

OnStep = Callable[[int, int], None]
Watch = Callable[[Tensor], None]


@torch.no_grad()
def denoise(sampling: Sampling, rows: Rows, unit: Tensor, noise: Noise | None, fusion: Fusion | None = None,
            on_step: OnStep | None = None, watch: Watch | None = None) -> Tensor:
    """Latents (images, c, h, w) from unit noise, float32; noise: what samplers add, None for one that
    adds none.

    on_step(done, steps): progress, whose exceptions end the work; watch(latents): at the start and after each step.
    """
    guide = _Guidance(fusion, sampling, rows) if isinstance(fusion, Guide) else None
    steps = _Steps(sampling, on_step, watch)
    evaluations = sampling.begin(unit, noise)
    found = None
    for evaluation in count():
        try:
            latents, level = evaluations.send(found)
        except StopIteration as end:
            steps.end(end.value)
            return end.value
        progress = sampling.progress(evaluation, level)
        number = sampling.levels.time(level)
        time = Time(number, torch.full((), number, device=latents.device))
        if _is_first(sampling, evaluation):
            steps.begin(sampling.step(evaluation), progress, latents)
        if guide is not None:
            guide.before(evaluation, latents, level, time, progress)
        predicted = rows.predict(latents * sampling.levels.scale(level), time, progress, fusion, sampling.cfg_factor)
        found = sampling.levels.found(predicted, latents, level)


class _Steps:
    """Tells of the steps that are done, and shows the latents after each: as many times as there are steps, however
    many the sampler makes of them."""

    def __init__(self, sampling: Sampling, on_step: OnStep | None, watch: Watch | None):
        self.sampling, self.on_step, self.watch = sampling, on_step, watch
        self.done = 0
        self._seen = -1
        """the last step whose latents were shown, 0 for what it begins with"""

    def begin(self, step: int, progress: float, latents: Tensor) -> None:
        """With these latents a step begins."""
        steps = self.sampling.steps
        step = int(progress * steps) if self.sampling.is_adaptive else step
        self._reach(min(step, steps - 1), latents)

    def end(self, latents: Tensor) -> None:
        self._reach(self.sampling.steps, latents)

    def _reach(self, done: int, latents: Tensor) -> None:
        if self.watch is not None:
            for _ in range(self._seen, done):
                self.watch(latents)
        self._seen = max(self._seen, done)
        if done > self.done:
            self.done = done
            if self.on_step is not None:
                self.on_step(done, self.sampling.steps)


class _Guidance:
    """The look ahead and the updates, beside the fusion of the rows."""

    def __init__(self, guide: Guide, sampling: Sampling, rows: Rows):
        self.guide, self.sampling, self.rows = guide, sampling, rows

    def before(self, evaluation: int, latents: Tensor, level: float, time: Time, progress: float) -> None:
        """Finds the masks before the first evaluation; changes latents in place where their step wants it."""
        sampling, rows = self.sampling, self.rows
        scale = sampling.levels.scale(level)
        if self.guide.must_look_ahead:
            self.guide.look_ahead(latents * scale, sampling.levels.trained(level), rows.alphas, rows.denoised)
        if not _is_first(sampling, evaluation):
            return
        step = sampling.step(evaluation)
        times = self.guide.times(step, sampling.steps)
        if times:
            call = functools.partial(rows.call, time=time, progress=progress, rows=[rows.plain])
            latents.copy_(self.guide.update(latents * scale, progress, times, call) / scale)
        if step + 1 == sampling.steps:
            self.guide.watch(progress)


def _is_first(sampling: Sampling, evaluation: int) -> bool:
    """Whether it is the first evaluation of its step."""
    return evaluation == 0 or sampling.step(evaluation) > sampling.step(evaluation - 1)

