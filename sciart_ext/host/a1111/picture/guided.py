"""Contrastive guidance in the host: the look ahead and the updates, beside the fusion of the rows."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

from modules import prompt_parser, shared
from torch import Tensor, nn

from ....errors import SciArtError, UnseenAttentionError, quoted
from ....guidance.attention import AttentionMaps
from ....guidance.guide import Guide
from ....guidance.words import mixed_prompt, subjects_in, words_of
from ....memory import is_out_of_memory
from ....recipe import PassPlan, Row
from ....recipe.guidance import GuidanceSettings
from ...protocols import SetGates
from ...webui.replaced import is_replaced
from ..model.parts import model_parts, update_weights
from ..neighbours.controlnet import gradients_kept
from ..neighbours.others import Others, named
from ..prompts.encoding import EncodedRows
from ..prompts.tokens import Tokens
from .fused import Evaluation, FusedPass


def check_can_guide() -> None:
    """Raises `SciArtError` where the host's settings leave no room for guidance."""
    if shared.cmd_opts.lowvram:
        raise SciArtError("compose", "contrastive needs the whole UNet on the device: it cannot work with --lowvram; "
                                     "accepted: merge, or --medvram")


def check_can_see(denoiser, unet: nn.Module) -> None:
    """Raises `SciArtError` where another extension evaluates the model, or its cross-attention, in its own way."""
    for owner, method in ((denoiser.inner_model, "forward"), (shared.sd_model, "apply_model")):
        if is_replaced(owner, method):
            raise SciArtError("compose", "contrastive does not work with extensions that cut the picture into tiles, "
                                         f"such as Tiled Diffusion{_by(owner, method)}; accepted: merge, switch")
    for name, module in unet.named_modules():
        if name.endswith("attn2") and is_replaced(module, "forward"):
            raise SciArtError("compose", "contrastive does not work with extensions that compute the cross-attention, "
                                         f"such as Regional Prompter{_by(module, 'forward')}; accepted: merge, switch")


def _by(owner: object, method: str) -> str:
    """Who has replaced the method, where it is known."""
    files = Others().of_function(getattr(owner, method))
    return f" (here {files[0]})" if files else ""


class GuidedPass(FusedPass):
    """Guidance of one call of a sampler, on the model that is loaded now; its hooks last until `stack` closes."""

    def __init__(self, stack: ExitStack, sampler, plan: PassPlan, settings: GuidanceSettings, encoded: EncodedRows):
        subjects = subjects_in(plan)
        unet = model_parts(shared.sd_model)["unet"]
        # the built-in Lora extension must not find weights of ours, or update its own with gradients on
        for target in unet.layers.values():
            update_weights(target.updated_by)
        self.unet = unet.root
        check_can_see(sampler.model_wrap_cfg, unet.root)
        maps = stack.enter_context(AttentionMaps(unet.root, unet.layers))
        self.guide = Guide(settings, maps, subjects, [plan.loras[k].region for k in plan.subjects], by_image=True)
        super().__init__(sampler, plan, encoded, self.guide)
        self.alphas = shared.sd_model.alphas_cumprod.float().cpu()
        self.sigmas = ((1 - self.alphas) / self.alphas).sqrt()
        tokens = Tokens(shared.sd_model)
        self.schedules = [self._scheduled(prompt, mixed_prompt(subjects, prompt)) for prompt in encoded.prompts]
        self.words = functools.lru_cache(maxsize=None)(
            lambda prompt, mixed: words_of(plan, prompt, mixed, tokens.of_words, tokens.chunks))
        for texts in {texts for schedule in self.schedules for _, texts in schedule}:
            self.words(*texts)  # what is not in the prompt is refused now, not at the step where it is missing

    def follow(self, before: GuidedPass) -> None:
        """Goes on with the masks of the model before, and its losses."""
        self.guide.masks, self.guide.first = before.guide.masks, before.guide.first
        self.guide.alike, self.guide.losses = before.guide.alike, before.guide.losses
        super().follow(before)

    def looking_away(self) -> AbstractContextManager:
        return self.guide.maps.looking_away()

    def begin(self, progress: float, now: Evaluation) -> None:
        """Also the prompts of this moment."""
        super().begin(progress, now)
        self.guide.words = [self.words(*texts) for texts in self._texts()]

    def update(self, step: int, steps: int, set_gates: SetGates) -> None:
        """Finds the masks before the first step; updates the sampler's own latent in place, as often as this step wants
        it.

        The step size is that of the model's input: k-diffusion's latent is larger by √(σ² + 1).
        """
        now = self.now
        scale = 1.0 if self.is_vp else (now.sigma.square() + 1).sqrt().view(-1, 1, 1, 1)
        if self.guide.must_look_ahead:
            level = now.sigma[0].item()
            start = int(level) if self.is_vp else int((self.sigmas - level).abs().argmin())
            self.guide.look_ahead(now.x / scale, start, self.alphas, functools.partial(self._denoised, now, set_gates))
        times = self.guide.times(step, steps)
        if times:
            plain = self._model(self.encoded.plain, now.sigma, now.image_cond)

            def call(inputs: Tensor) -> None:
                set_gates([Row(plain=True)], self.progress)
                with gradients_kept(self.unet):
                    plain(inputs * scale)

            with self._gradient_told():
                now.x.copy_(self.guide.update(now.x / scale, self.progress, times, call) * scale)
        if step + 1 == steps:
            self.guide.watch(self.progress)

    @contextmanager
    def _gradient_told(self) -> Iterator[None]:
        """Where the gradient fails beside others in the model, that is a refusal by their names: it says no word of
        them, whoever cut it off or wrote into what it needs."""
        try:
            yield
        except UnseenAttentionError:
            raise
        except RuntimeError as error:
            files = Others().in_evaluation(self.denoiser.inner_model, shared.sd_model)
            if not files or is_out_of_memory(error):
                raise
            raise SciArtError("compose", f"contrastive finds no gradient beside {named(files)}: {quoted(str(error))}; "
                                         "accepted: merge, switch") from error

    def _denoised(self, now: Evaluation, set_gates: SetGates, inputs: Tensor, time: int, progress: float) -> Tensor:
        """What the plain row and its negative prompt make of variance preserving latents at a training time."""
        alpha = float(self.alphas[time])
        scale = 1.0 if self.is_vp else alpha**-0.5
        sigma = inputs.new_full((len(inputs),), float(time) if self.is_vp else float(self.sigmas[time]))
        set_gates([Row(plain=True)], progress)
        cond = self._model(self.encoded.plain, sigma, now.image_cond)(inputs * scale)
        if now.cond_scale != 1:
            set_gates([Row(uncond=True, plain=True)], progress)
            without = self._model(self.encoded.negative, sigma, now.image_cond)(inputs * scale)
            cond = without + now.cond_scale * (cond - without)
        return (inputs - (1 - alpha) ** 0.5 * cond) / alpha**0.5 if self.is_vp else cond

    def _scheduled(self, *prompts: str) -> list[tuple[int, tuple[str, ...]]]:
        """(last step, what each of the prompts then is): prompt editing changes them on the way."""
        schedules = prompt_parser.get_learned_conditioning_prompt_schedules(
            list(prompts), self.encoded.steps, self.encoded.hires_steps, shared.opts.use_old_scheduling)
        ends = sorted({end for schedule in schedules for end, _ in schedule})
        return [(end, tuple(_at(schedule, end) for schedule in schedules)) for end in ends]

    def _texts(self) -> list[tuple[str, ...]]:
        """Each image's prompt, as it was given and as the mixture's, at this evaluation."""
        return [_at(schedule, self.denoiser.step) for schedule in self.schedules]


def _at(schedule: Sequence[tuple[int, object]], step: int):
    """What a schedule of (last step, value) has at a step."""
    return next((value for end, value in schedule if step <= end), schedule[-1][1])
