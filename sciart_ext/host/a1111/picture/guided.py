"""Contrastive guidance in the host: the look ahead and the updates, beside the fusion of the rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from modules import shared
from torch import Tensor

from ....errors import SciArtError, UnseenAttentionError, quoted
from ....guidance.attention import AttentionMaps
from ....guidance.guide import Guide
from ....guidance.words import subjects_in
from ....memory import is_out_of_memory
from ....recipe import PassPlan, Row
from ....recipe.guidance import GuidanceSettings
from ...protocols import SetGates
from ..model.parts import model_parts, update_weights
from ..neighbours.controlnet import gradients_kept
from ..neighbours.others import Others, named
from ..prompts.encoding import EncodedRows
from .fused import Evaluation, FusedPass, model_on
from .subjects import Subjects, check_can_see


def check_can_guide() -> None:
    """Raises `SciArtError` where the host's settings leave no room for guidance."""
    if shared.cmd_opts.lowvram:
        raise SciArtError("compose", "contrastive needs the whole UNet on the device: it cannot work with --lowvram; "
                                     "accepted: merge, or --medvram")


class GuidedPass(FusedPass):
    """Guidance of one call of a sampler, on the model that is loaded now; its hooks last until `stack` closes."""

    def __init__(self, stack: ExitStack, sampler, plan: PassPlan, settings: GuidanceSettings, encoded: EncodedRows):
        unet = model_parts(shared.sd_model)["unet"]
        # the built-in Lora extension must not find weights of ours, or update its own with gradients on
        for target in unet.layers.values():
            update_weights(target.updated_by)
        self.unet = unet.root
        check_can_see("contrastive", sampler.model_wrap_cfg, unet.root)
        maps = stack.enter_context(AttentionMaps(unet.root, unet.layers))
        self.guide = Guide(settings, maps, subjects_in(plan), [plan.loras[k].region for k in plan.subjects],
                           by_image=True)
        super().__init__(sampler, plan, encoded, self.guide)
        self.subjects = Subjects(sampler, plan, encoded, self.guide)

    def follow(self, before: GuidedPass) -> None:
        """Goes on with the masks of the model before, and its losses."""
        self.guide.take_from(before.guide)
        self.guide.losses = before.guide.losses
        super().follow(before)

    def looking_away(self) -> AbstractContextManager:
        return self.guide.maps.looking_away()

    def begin(self, progress: float, now: Evaluation) -> None:
        """Also the prompts of this moment."""
        super().begin(progress, now)
        self.subjects.begin()

    def look_ahead(self, set_gates: SetGates) -> None:
        """Finds the masks, and the noise to begin with."""
        self.subjects.look_ahead(self.now, set_gates)

    def update(self, step: int, steps: int, set_gates: SetGates) -> None:
        """Updates the sampler's own latent in place, as often as this step wants it.

        The step size is that of the model's input: k-diffusion's latent is larger by √(σ² + 1).
        """
        now = self.now
        scale = self.subjects.scale(now)
        times = self.guide.times(step, steps)
        if times:
            plain = model_on(self.denoiser, self.encoded.plain, now.sigma, now.image_cond)

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
