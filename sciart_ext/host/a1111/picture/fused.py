"""LoRAs with rows of their own in the host: AND parts of its own batch, which become one before the host joins them.

The fused prediction is put in place of every row that it was made of, and the host is left with one row for each
prompt. So it joins them as those of prompts without AND, and so does whatever another extension has put in the place
of that.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields

import torch
from modules import prompt_parser, sd_samplers_timesteps, shared
from torch import Tensor

from ....compose.fusion import Fusion, fused
from ....errors import SciArtError
from ....memory import rows_that_fit, too_many_rows
from ....mixer.gates import sent
from ....recipe import Pair, PassPlan, Row
from ...protocols import SetGates
from ..neighbours.others import Others, named
from ..prompts.encoding import Conditioning, EncodedRows


def check_can_compose(compose: str, p) -> None:
    """Raises `SciArtError` where the model, or what the host is asked for, leaves no room for rows of single LoRAs."""
    if compose in ("merge", "switch"):
        return
    # where this is 1 the host evaluates such a model as any other, AND included; p of txt2img has none
    if shared.sd_model.cond_stage_key == "edit" and getattr(p, "image_cfg_scale", 0) not in (1, None):
        raise SciArtError("compose", f"{compose} does not work with InstructPix2Pix models; accepted: merge, switch; "
                                     "or in img2img an image CFG scale of 1")
    if shared.sd_model.model.conditioning_key == "crossattn-adm":
        raise SciArtError("compose", f"{compose} does not work with unCLIP models; accepted: merge, switch")


@dataclass(frozen=True)
class Evaluation:
    """What the host's denoiser is called with."""

    x: Tensor
    sigma: Tensor
    cond: object
    cond_scale: float
    image_cond: Tensor

    @staticmethod
    def of(given: Mapping[str, object]) -> Evaluation:
        """From the denoiser's arguments by name, of which it has more."""
        return Evaluation(**{field.name: given[field.name] for field in fields(Evaluation)})


class FusedPass:
    """One call of a sampler whose rows are fused, on the model that is loaded now."""

    def __init__(self, sampler, plan: PassPlan, encoded: EncodedRows, fusion: Fusion):
        self.denoiser = sampler.model_wrap_cfg
        self.is_vp = isinstance(sampler, sd_samplers_timesteps.CompVisSampler)
        self.plan = plan
        self.encoded = encoded
        self.fusion = fusion
        self.progress = 0.0
        self.now: Evaluation | None = None
        self._is_fused = True
        """whether nothing of the evaluation that runs is still to be fused"""
        self._parts: list[list[tuple[int, float]]] = []
        """of each image: the numbers of its rows in the host's evaluation that runs, and how much each counts"""
        self._rows_on = functools.lru_cache(maxsize=1)(self._row_numbers)

    def follow(self, before: FusedPass) -> None:
        """Goes on where the refiner took over."""
        self.begin(before.progress, before.now)

    def begin(self, progress: float, now: Evaluation) -> None:
        """To be called before each evaluation: how far the pass is, and what the denoiser is called with."""
        self.progress = progress
        self.now = now
        self._is_fused = not self.fusion.is_fusing(progress)

    def end(self) -> None:
        """To be called after each evaluation. Raises `SciArtError` where its rows were joined without being fused: an
        extension has a step of its own in the place of the host's."""
        if not self._is_fused:
            files = Others().of_function(self.denoiser.forward)
            by = named(files) if files else "another extension"
            raise SciArtError("compose", f"{by} has a step of its own, which does not know the rows in which LoRAs act "
                                         "alone; accepted: merge, switch, or that extension off for this picture")

    def look_ahead(self, set_gates: SetGates) -> None:
        """What is to be found before the first evaluation."""

    def update(self, step: int, steps: int, set_gates: SetGates) -> None:
        """What is to be done before this step (0-based) of so many."""

    def rows(self) -> tuple[Row, ...]:
        """The rows of each image in this evaluation, the host's own for the negative prompt last."""
        return self.plan.rows() if self.fusion.is_fusing(self.progress) else (Pair().cond, Pair().uncond)

    def needed(self) -> Conditioning:
        """What the evaluation is to be called with: where other rows do not count, the first alone."""
        return self.encoded.joined if self.fusion.is_fusing(self.progress) else self.encoded.mixture

    def looking_away(self) -> AbstractContextManager:
        """A context whose calls of the model are not seen."""
        return nullcontext()

    def laid_out(self, conditioning: Conditioning, parts: list[list[tuple[int, float]]]) -> None:
        """The host has made rows of a conditioning; parts: as it will join them, which `fuse` changes."""
        self._parts = parts if conditioning is self.encoded.joined else []

    def fuse(self, predictions: Tensor) -> None:
        """predictions: of all rows, those of the negative prompts last; each becomes the fused one of its image, and
        the host goes on as with one prompt for each."""
        self.fusion.evaluated()
        if not self.fusion.is_fusing(self.progress):
            return
        self._is_fused = True
        images = len(self.encoded.prompts)
        with_prompt, last = predictions[:-images].unflatten(0, (images, -1)), predictions[-images:]
        found = torch.cat([with_prompt, last.unsqueeze(1)], 1)
        told, without = (found[:, numbers] for numbers in self._rows_on(found.device))
        noise = functools.partial(self.noise_of, self.now.x.unsqueeze(1))
        cond, without = fused(told, without, self.fusion.weights(told, self.progress, noise))
        with_prompt.copy_(cond.unsqueeze(1).expand_as(with_prompt))
        last.copy_(without)
        for image in self._parts:
            image[:] = [(image[0][0], 1.0)]

    def _row_numbers(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Of each pair, the number of its row with the prompt, and of the one without."""
        rows, pairs = self.plan.rows(), self.plan.pairs()
        return (sent(torch.tensor([rows.index(pair.cond) for pair in pairs]), device),
                sent(torch.tensor([rows.index(pair.uncond) for pair in pairs]), device))

    def too_many(self, now: Evaluation, rows: int, set_gates: SetGates) -> SciArtError:
        """The refusal of an evaluation that has not fitted in memory with so many rows in a call; finds out what would.
        """
        call, images = calls_with(self.denoiser, self.encoded.mixture, now), len(self.encoded.prompts)
        set_gates(self.plan.rows()[:1], self.progress)
        fitting = rows_that_fit(call, rows)
        each, merged = (len(self.plan.rows()), images * 2) if shared.opts.batch_cond_uncond else (1, images)
        ways_out = [(images, "the setting `Batch cond/uncond` off"), (merged, "compose merge")]
        if self.encoded.hires_steps is not None:
            field = "guidance" if self.plan.subjects else "composition"
            ways_out.append((merged, f"{field}.hires false"))
        return too_many_rows(rows, fitting, images, each, ways_out)

    def noise_of(self, x: Tensor, predictions: Tensor) -> Tensor:
        """Predicted noise, up to a factor, of what the model makes of latents x: k-diffusion's are latents without it.
        """
        return predictions if self.is_vp else x - predictions


def calls_with(denoiser, conditioning: Conditioning, now: Evaluation) -> Callable[[int], Tensor]:
    """Calls of the host's inner model with so many rows, all of them the first part of the first image."""
    first = conditioning.batch[0][:1]

    @torch.no_grad()
    def call(count: int) -> Tensor:
        x, sigma, image = (tensor[:1].expand(count, *tensor.shape[1:])
                           for tensor in (now.x, now.sigma, now.image_cond))
        return model_on(denoiser, Conditioning(conditioning.shape, [first] * count), sigma, image)(x)

    return call


def model_on(denoiser, conditioning: Conditioning, sigma: Tensor, image: Tensor) -> Callable[[Tensor], Tensor]:
    """The host's inner model on latents (images, …), with one part of the conditioning for each."""
    _, text = prompt_parser.reconstruct_multicond_batch(conditioning, denoiser.step)
    given = {**(text if isinstance(text, dict) else {"c_crossattn": [text]}), "c_concat": [image]}
    return lambda x: denoiser.inner_model(x, sigma, cond=given)
