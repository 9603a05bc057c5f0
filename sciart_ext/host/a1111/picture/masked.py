"""LoRAs with masks in the host: the rows of a plain picture, in which each acts where its subject is, or its region."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext

from modules import shared
from torch import Tensor

from ....guidance.attention import AttentionMaps
from ....guidance.layout import Layout
from ....guidance.masked import OwnTexts, Watching, region_gates, token_gates
from ....guidance.words import subjects_in
from ....mixer.mixer import Mixer
from ....recipe import PassPlan, Recipe
from ...protocols import SetGates
from ..model.parts import model_parts
from ..prompts.encoding import EncodedRows
from .fused import Evaluation
from .subjects import Subjects, check_can_see, check_reads_alone


class OneRowPass:
    """One call of a sampler, on the model that is loaded now; its hooks last until `stack` closes. Enter it after the
    mixer. watching: what records the attention besides."""

    called, accepted = "masked", "merge, switch"
    """in refusals: what it is, and what works where it does not"""
    layout: Layout | None = None
    """where the subjects are, if they are to be found"""

    def __init__(self, stack: ExitStack, sampler, plan: PassPlan, encoded: EncodedRows, mixer: Mixer,
                 watching: Sequence[Watching]):
        self.plan = plan
        self.mixer = mixer
        self.encoded = encoded
        unet = model_parts(shared.sd_model)["unet"]
        check_can_see(self.called, sampler.model_wrap_cfg, unet.root, self.accepted)
        check_reads_alone(self.called, unet.root, self.accepted)
        stack.enter_context(OwnTexts(mixer, unet.layers, watching))

    def follow(self, before: OneRowPass) -> None:
        """Goes on where the refiner took over."""

    def begin(self, now: Evaluation, set_gates: SetGates) -> None:
        """To be called before each evaluation."""

    def watch(self, progress: float) -> None:
        """To be called before the last step's first evaluation, which is at this progress."""

    def evaluated(self) -> None:
        """To be called after each evaluation."""

    def needed(self) -> dict:
        """What an evaluation is to be called with, by name."""
        return {"cond": self.encoded.joined, "uncond": self.encoded.without}

    def views(self, rows: int) -> list[int]:
        """Of each of so many rows of an evaluation: the images with their prompts, then with their negative prompts."""
        images = len(self.encoded.prompts)
        return [row % images for row in range(rows)]

    def looking_away(self) -> AbstractContextManager:
        """A context whose calls of the model are not seen."""
        return nullcontext()


class RegionsPass(OneRowPass):
    """Each LoRA acts in its region. latents: of the sampler, (images, channels, h, w)."""

    called, accepted = "regions in one row", "merge, switch, composition.rows own"

    def __init__(self, stack: ExitStack, sampler, plan: PassPlan, recipe: Recipe, encoded: EncodedRows, mixer: Mixer,
                 watching: Sequence[Watching], latents: Tensor):
        super().__init__(stack, sampler, plan, encoded, mixer, watching)
        mixer.token_gates = region_gates(plan, recipe.composition.feather, tuple(latents.shape[-2:]), latents.device)


class MaskedPass(OneRowPass):
    """Each LoRA acts where its subject is, which a look ahead finds."""

    def __init__(self, stack: ExitStack, sampler, plan: PassPlan, recipe: Recipe, encoded: EncodedRows, mixer: Mixer,
                 watching: Sequence[Watching]):
        unet = model_parts(shared.sd_model)["unet"]
        maps = stack.enter_context(AttentionMaps(unet.root, unet.layers))
        super().__init__(stack, sampler, plan, encoded, mixer, [maps, *watching])
        self.layout = Layout(recipe.guidance, maps, subjects_in(plan), [plan.loras[k].region for k in plan.subjects],
                             recipe.masking.threshold)
        self.subjects = Subjects(sampler, plan, encoded, self.layout)

    def follow(self, before: MaskedPass) -> None:
        """Also with the masks of the model before."""
        self.layout.take_from(before.layout)
        self.subjects.begin()
        self._place()

    def begin(self, now: Evaluation, set_gates: SetGates) -> None:
        """Before the first evaluation it finds the masks."""
        self.subjects.begin()
        if self.layout.must_look_ahead:
            self.subjects.look_ahead(now, set_gates)
            self._place()

    def _place(self) -> None:
        self.mixer.token_gates = token_gates(self.plan, self.layout.masks)

    def watch(self, progress: float) -> None:
        self.layout.watch(progress)

    def evaluated(self) -> None:
        self.layout.evaluated()

    def looking_away(self) -> AbstractContextManager:
        return self.layout.maps.looking_away()
