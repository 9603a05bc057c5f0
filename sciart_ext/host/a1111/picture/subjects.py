"""Where the subjects are in one call of the host's sampler: the look ahead on the model that is loaded now."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from modules import prompt_parser, sd_samplers_timesteps, shared
from torch import Tensor, nn

from ....errors import SciArtError
from ....guidance.layout import Layout
from ....guidance.words import mixed_prompt, subjects_in, words_of
from ....recipe import PassPlan, Row
from ...protocols import SetGates
from ...webui.replaced import is_replaced
from ..neighbours.others import Others, named
from ..prompts.encoding import Conditioning, EncodedRows
from ..prompts.tokens import Tokens
from .fused import Evaluation, model_on
from .other_noises import other_noises


def check_can_see(compose: str, denoiser, unet: nn.Module, accepted: str = "merge, switch") -> None:
    """Raises `SciArtError` where another extension evaluates the model, or its cross-attention, in its own way.
    accepted: what would work beside it."""
    for owner, method in ((denoiser.inner_model, "forward"), (shared.sd_model, "apply_model")):
        if is_replaced(owner, method):
            raise SciArtError("compose", f"{compose} does not work with extensions that cut the picture into tiles, "
                                         f"such as Tiled Diffusion{_by(owner, method)}; accepted: {accepted}")
    for name, module in unet.named_modules():
        if name.endswith("attn2") and is_replaced(module, "forward"):
            raise SciArtError("compose", f"{compose} does not work with extensions that compute the cross-attention, "
                                         f"such as Regional Prompter{_by(module, 'forward')}; accepted: {accepted}")


def check_reads_alone(compose: str, unet: nn.Module, accepted: str) -> None:
    """Raises `SciArtError` where another extension looks into the cross-attention, which reads several texts. accepted:
    as of `check_can_see`."""
    others = Others()
    for name, module in unet.named_modules():
        if name.endswith("attn2") and (files := others.in_hooks(module)):
            raise SciArtError("compose", f"{compose} does not work with extensions that read or change the "
                                         f"cross-attention (here {named(files)}), which reads one text after the other"
                                         f"; accepted: {accepted}")


def _by(owner: object, method: str) -> str:
    """Who has replaced the method, where it is known."""
    files = Others().of_function(getattr(owner, method))
    return f" (here {files[0]})" if files else ""


class Subjects:
    """A layout in the host. Raises `SciArtError` where a subject is not in a prompt, at whatever step."""

    def __init__(self, sampler, plan: PassPlan, encoded: EncodedRows, layout: Layout):
        self.denoiser = sampler.model_wrap_cfg
        self.is_vp = isinstance(sampler, sd_samplers_timesteps.CompVisSampler)
        self.encoded = encoded
        self.layout = layout
        self.alphas = shared.sd_model.alphas_cumprod.float().cpu()
        self.sigmas = ((1 - self.alphas) / self.alphas).sqrt()
        tokens, subjects = Tokens(shared.sd_model), subjects_in(plan)
        self.schedules = [self._scheduled(prompt, mixed_prompt(subjects, prompt)) for prompt in encoded.prompts]
        self.words = functools.lru_cache(maxsize=None)(
            lambda prompt, mixed: words_of(plan, prompt, mixed, tokens.of_words, tokens.chunks))
        for texts in {texts for schedule in self.schedules for _, texts in schedule}:
            self.words(*texts)  # what is not in the prompt is refused now, not at the step where it is missing

    def begin(self) -> None:
        """Takes the prompts of this evaluation: each image's, as it was given and as the mixture's."""
        self.layout.words = [self.words(*_at(schedule, self.denoiser.step)) for schedule in self.schedules]

    def look_ahead(self, now: Evaluation, set_gates: SetGates) -> None:
        """Finds the masks, where it must, before the first evaluation; changes the sampler's own latent in place where
        the picture begins with another noise."""
        if self.layout.must_look_ahead:
            level = now.sigma[0].item()
            start = int(level) if self.is_vp else int((self.sigmas - level).abs().argmin())
            scale = self.scale(now)
            inputs = now.x / scale
            denoised, plain = (functools.partial(call, now, set_gates) for call in (self._denoised, self._call_plain))
            other = other_noises(self.denoiser.p, inputs) if self.layout.settings.noises > 1 else None
            chosen = self.layout.look_ahead(inputs, start, self.alphas, denoised, plain, other)
            if chosen is not inputs:
                now.x.copy_(chosen * scale)

    def scale(self, now: Evaluation) -> float | Tensor:
        """How much larger the sampler's latents are than the model's input."""
        return 1.0 if self.is_vp else (now.sigma.square() + 1).sqrt().view(-1, 1, 1, 1)

    def _denoised(self, now: Evaluation, set_gates: SetGates, inputs: Tensor, time: int, progress: float) -> Tensor:
        """What the plain row and its negative prompt make of variance preserving latents at a training time."""
        cond = self._call_plain(now, set_gates, inputs, time, progress)
        if now.cond_scale != 1:
            without = self._called(Row(uncond=True, plain=True), now, set_gates, inputs, time, progress)
            cond = without + now.cond_scale * (cond - without)
        alpha = float(self.alphas[time])
        return (inputs - (1 - alpha) ** 0.5 * cond) / alpha**0.5 if self.is_vp else cond

    def _call_plain(self, now: Evaluation, set_gates: SetGates, inputs: Tensor, time: int, progress: float) -> Tensor:
        """The same of the plain row alone, as the sampler takes it."""
        return self._called(Row(plain=True), now, set_gates, inputs, time, progress)

    def _called(self, row: Row, now: Evaluation, set_gates: SetGates, inputs: Tensor, time: int, progress: float,
                ) -> Tensor:
        """inputs: as many of each image, one after another."""
        scale = 1.0 if self.is_vp else float(self.alphas[time]) ** -0.5
        sigma = inputs.new_full((len(inputs),), float(time) if self.is_vp else float(self.sigmas[time]))
        each = len(inputs) // len(now.x)
        set_gates([row] * each, progress)
        text = self.encoded.negative if row.uncond else self.encoded.plain
        text = Conditioning(text.shape, [one for one in text.batch for _ in range(each)])
        return model_on(self.denoiser, text, sigma, now.image_cond.repeat_interleave(each, 0))(inputs * scale)

    def _scheduled(self, *prompts: str) -> list[tuple[int, tuple[str, ...]]]:
        """(last step, what each of the prompts then is): prompt editing changes them on the way."""
        schedules = prompt_parser.get_learned_conditioning_prompt_schedules(
            list(prompts), self.encoded.steps, self.encoded.hires_steps, shared.opts.use_old_scheduling)
        ends = sorted({end for schedule in schedules for end, _ in schedule})
        return [(end, tuple(_at(schedule, end) for schedule in schedules)) for end in ends]


def _at(schedule: Sequence[tuple[int, object]], step: int):
    """What a schedule of (last step, value) has at a step."""
    return next((value for end, value in schedule if step <= end), schedule[-1][1])
