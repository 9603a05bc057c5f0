"""The denoising loop: a sampler's evaluations on a pipeline's rows, with progress, guidance and a way to stop."""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import count

import torch
from torch import Tensor

from ..compose.fusion import Fusion
from ..guidance.guide import Guide
from ..guidance.layout import Layout
from ..guidance.noises import as_large
from .samplers.making import Sampling
from .samplers.noise import Noise
from .sampling import Rows, Time

OnStep = Callable[[int, int], None]
Watch = Callable[[Tensor], None]


@torch.no_grad()
def denoise(sampling: Sampling, rows: Rows, unit: Tensor, noise: Noise | None,
            sharing: Fusion | Layout | None = None, on_step: OnStep | None = None, watch: Watch | None = None,
            ) -> Tensor:
    """Latents (images, c, h, w) from unit noise, float32; noise: what samplers add, None for one that adds none;
    sharing: how rows become one prediction, or where the subjects are, or both, a guide.

    on_step(done, steps): progress, whose exceptions end the work; watch(latents): at the start and after each step.
    """
    fusion, layout = (sharing if isinstance(sharing, kind) else None for kind in (Fusion, Layout))
    subjects = _Subjects(layout, sampling, rows, unit, noise) if layout is not None else None
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
        if subjects is not None:
            subjects.find(latents, level)
        if _is_first(sampling, evaluation):
            steps.begin(sampling.step(evaluation), progress, latents)
        if subjects is not None:
            subjects.before(evaluation, latents, level, time, progress)
        predicted = rows.predict(latents * sampling.levels.scale(level), time, progress, fusion, sampling.cfg_factor)
        if layout is not None:
            layout.evaluated()
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


class _Subjects:
    """The look ahead that finds them, and a guide's updates."""

    def __init__(self, layout: Layout, sampling: Sampling, rows: Rows, unit: Tensor, noise: Noise | None):
        self.layout, self.sampling, self.rows, self.unit, self.noise = layout, sampling, rows, unit, noise

    def find(self, latents: Tensor, level: float) -> None:
        """Finds the places before the first evaluation; changes latents in place where another noise is to be used."""
        levels, rows = self.sampling.levels, self.rows
        if self.layout.must_look_ahead:
            scale = levels.scale(level)
            inputs = latents * scale
            other = functools.partial(self._other, inputs) if self.noise is not None else None
            chosen = self.layout.look_ahead(inputs, levels.trained(level), rows.alphas, rows.denoised, rows.call_plain,
                                            other)
            if chosen is not inputs:
                latents.copy_(chosen / scale)
        rows.place(self.layout)

    def before(self, evaluation: int, latents: Tensor, level: float, time: Time, progress: float) -> None:
        """Changes latents in place where their step wants it."""
        sampling = self.sampling
        if not _is_first(sampling, evaluation):
            return
        step = sampling.step(evaluation)
        if isinstance(self.layout, Guide):
            self._update(self.layout, step, latents, sampling.levels.scale(level), time, progress)
        if step + 1 == sampling.steps:
            self.layout.watch(progress)

    def _other(self, inputs: Tensor, number: int) -> Tensor:
        """What these inputs are with another of the noises."""
        return as_large(self.unit, self.noise.other(number), inputs)

    def _update(self, guide: Guide, step: int, latents: Tensor, scale: float, time: Time, progress: float) -> None:
        times = guide.times(step, self.sampling.steps)
        if times:
            call = functools.partial(self.rows.call, time=time, progress=progress, rows=[self.rows.plain])
            latents.copy_(guide.update(latents * scale, progress, times, call) / scale)


def _is_first(sampling: Sampling, evaluation: int) -> bool:
    """Whether it is the first evaluation of its step."""
    return evaluation == 0 or sampling.step(evaluation) > sampling.step(evaluation - 1)

