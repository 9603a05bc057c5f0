"""One run of the host: carries a recipe through its prompts, passes and batches, and takes everything back."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence

import numpy as np
import torch
from modules import sd_unet, shared

from .... import __version__
from ....compose.unread import unread
from ....errors import SciArtError
from ....guidance.guide import Guide
from ....guidance.layout import Layout
from ....guidance.noises import label
from ....guidance.sheet import Seen, subject_sheet
from ....lora.opened import fingerprint
from ....mixer.mixture import Mixture
from ....presets import resolve
from ....recipe import (
    INFOTEXT_KEY,
    NOISE_KEY,
    NOTES_KEY,
    VERSION_KEY,
    PassPlan,
    Recipe,
    compile_plan,
    dump_recipe,
    parse_recipe,
    recipe_to_text,
)
from ....recipe.doubtful import in_hires_pass
from ....recipe.renamed import renamed
from ...webui.adetailer import check_can_repair, is_repair, not_repaired
from ...webui.errors import SciArtRequestError, as_request_error
from ...webui.watched import Asked, Watched
from ..lora_files import hashes, unique_name
from ..model.session import loaded_model, lora_paths, session
from ..neighbours.done import take_back
from ..prompts.embeddings import notes_on_embeddings
from ..prompts.encoding import Prompts
from ..settings import OwnPresets, version_is_told, with_memory_limit
from .fused import check_can_compose
from .guided import check_can_guide
from .pass_context import PassContext
from .sampling import Pass

LOSS_KEY, HASHES_KEY = "SciArt loss", "Lora hashes"
_NOT_IN_HASHES = str.maketrans("", "", ":,")
log = logging.getLogger("sciart")


class Run:
    """A recipe on one `StableDiffusionProcessing`; all its state lives on `p` and ends with it."""

    def __init__(self, p, argument: object, asked: Asked | None = None, whole: Run | None = None):
        """asked: what our own routes ask of it; whole: the run of the picture of which `p` repairs a part."""
        self.p = p
        self.asked = asked
        self.whole = whole
        self.recipe: Recipe = with_memory_limit(resolve(parse_recipe(argument), OwnPresets()))
        if is_repair(p):
            check_can_repair(self.recipe)
        check_can_compose(self.recipe.compose, p)
        if self.recipe.compose == "contrastive":
            check_can_guide()
        self.sampled = False
        self._is_over = False
        self._noises: dict[int, list[int]] = {}
        """by the number of the batch: the numbers of those that its images begin with, where they were chosen"""
        self.seen: list[list[Seen]] = []
        """what guidance saw in each call of a sampler, of each image"""
        self.kept = parse_recipe(renamed(dump_recipe(self.recipe), unique_name))
        """the recipe as infotext keeps it, by names that find the same files later"""
        p.extra_generation_params[INFOTEXT_KEY] = recipe_to_text(self.kept)
        if version_is_told():
            p.extra_generation_params[VERSION_KEY] = __version__
        in_hires = in_hires_pass(self.recipe) if getattr(p, "enable_hr", False) else []
        mixture = session.mixture(loaded_model(), self.recipe, masked_in(self.recipe))
        for note in [*mixture.notes, *unread(self.recipe), *in_hires]:
            self.note(note)
        files = [(fingerprint(path), self.recipe.combination) for path in lora_paths(self.recipe)]
        self.prompts = Prompts(p, files, lambda hires: self.plan(p.steps, hires), self.plans, self.mixture,
                               self.refused, self.end)
        if isinstance(asked, Watched):
            shared.state.job_no, shared.state.job_count = asked.batch, asked.batches
        if asked is not None and asked.stop():
            shared.state.interrupt()

    def check_prompt(self) -> None:
        """A note where a LoRA of the recipe is in the prompt too: both act; and where an embedding cannot be used. Not
        before the host has loaded the prompt's own LoRAs, and let go of those of the last."""
        networks = self.p.extra_network_data or {}
        for kind in ("lora", "lyco"):
            prompted = {params.items[0] for params in networks.get(kind, []) if params.items}
            for lora in self.recipe.loras:
                if lora.name in prompted:
                    self.note(f"{lora.name} is also in the prompt as <{kind}:{lora.name}:…>: both weights act")
        for note in notes_on_embeddings(session.mixture(loaded_model(), self.recipe, masked_in(self.recipe))):
            self.note(note)
        if shared.opts.lora_add_hashes_to_infotext:
            self._tell_hashes()

    def _tell_hashes(self) -> None:
        """As the host tells those of the prompt's LoRAs, which are there now; the hires pass tells them again."""
        told = dict(getattr(self.p, "lora_hashes", {}))
        for name, value in hashes(lora.name for lora in self.kept.loras).items():
            told[name.translate(_NOT_IN_HASHES)] = value
        if told:
            self.p.lora_hashes = told
            self.p.extra_generation_params[HASHES_KEY] = ", ".join(f"{name}: {value}" for name, value in told.items())

    def before_sampling(self, x: torch.Tensor) -> None:
        """Takes part in the sampling that the host is about to start with latent x (rows, channels, h, w)."""
        sampler = self.p.sampler
        original = sampler.launch_sampling

        def launch(steps, func):
            del sampler.launch_sampling
            self.sampled = True
            if sd_unet.current_unet is not None:
                raise self.refused(SciArtError("sd_unet", f"{sd_unet.current_unet.option.label} replaces the UNet; "
                                                          "SciArt cannot mix there. Set SD Unet to None"))
            try:
                with Pass(self._pass_context(), sampler, steps, x) as sampling:
                    return sampling.sample(functools.partial(original, steps, func))
            except Exception:
                self.end()
                raise

        sampler.launch_sampling = launch

    def _pass_context(self) -> PassContext:
        hires = self._is_hires()
        return PassContext(self.p, hires, self.recipe, self.asked, plan=lambda steps: self.plan(steps, hires),
                           plans=self.plans, encoded=lambda: self.prompts.encoded[hires],
                           mixture=functools.partial(self.mixture, hires),
                           note=self.note, keep=self.keep, refused=self.refused)

    def _is_hires(self) -> bool:
        """Whether the host is in its hires pass now."""
        return getattr(self.p, "is_hr_pass", False)

    def note(self, text: str) -> None:
        """Something doubtful, shown with the result and kept in its infotext."""
        self.p.comment(f"SciArt: {text}")
        known = self.p.extra_generation_params.get(NOTES_KEY)
        if text not in (known or ""):
            self.p.extra_generation_params[NOTES_KEY] = f"{known}; {text}" if known else text

    def refused(self, error: SciArtError) -> SciArtRequestError:
        """The host's form of what is refused once the run has begun; a whole picture is told of its parts'."""
        if self.whole is not None:
            self.whole.note(not_repaired(error))
        return as_request_error(error)

    def keep(self, layout: Layout) -> None:
        """What is told and shown of the subjects of a pass: the noises that its images begin with, the losses before
        its updates, means over its images."""
        if not self._is_hires():
            for note in layout.notes():
                self.note(note)
            if layout.noises is not None:
                self._noises[self.p.iteration] = layout.noises
                self.p.extra_generation_params[NOISE_KEY] = self._told_noise
        if layout.settings.show:
            self.seen.append(layout.shown())
        if isinstance(layout, Guide) and layout.losses:
            losses = " ".join(f"{sum(images) / len(images):.3f}" for images in layout.losses)
            log.info("loss of guidance before each update: %s", losses)
            self.p.extra_generation_params[LOSS_KEY] = losses

    def _told_noise(self, index: int, all_seeds: Sequence[int] = (), use_main_prompt: bool = False, **_) -> str | None:
        """As the host asks for what differs from image to image: while a batch is made, by the number in it;
        afterwards, with all seeds, and for a grid, which has the first image's, by the number in the run."""
        of_run = use_main_prompt or len(all_seeds) > self.p.batch_size
        iteration, image = divmod(index, self.p.batch_size) if of_run else (self.p.iteration, index)
        numbers = self._noises.get(iteration)
        return None if numbers is None else label(numbers[image % len(numbers)], self.recipe.guidance.noises)

    def end(self) -> None:
        """An error ends the run: the host goes no further, so other scripts are told here."""
        if not self._is_over:
            self._is_over = True
            self.prompts.detach()
            take_back(self.p, batch=True)

    def finish(self, processed) -> None:
        """The run is over: adds what is to be shown; says so where the host's sampling went past us."""
        if self._is_over:
            return
        self.prompts.detach()
        passes = 2 if getattr(self.p, "enable_hr", False) and self.recipe.guidance.hires else 1
        seen = [image for images in self.seen[passes - 1::passes] for image in images]
        first, labels = processed.index_of_first_image, [lora.label for lora in self.recipe.loras if lora.subject]
        for i, (picture, one) in enumerate(zip(processed.images[first:], seen)):
            processed.images.append(subject_sheet(picture, one, labels))
            processed.infotexts.append(processed.infotexts[first + i])
        if self.asked is not None:
            self.asked.processed, self.asked.jobs = processed, shared.state.job_no
            self.asked.interrupted = shared.state.interrupted or shared.state.skipped
        if isinstance(self.asked, Watched):
            self.asked.pictures += [np.asarray(picture.convert("RGB"))
                                    for picture in processed.images[first:first + len(self.asked.sets)]]
        if not self.sampled and not (shared.state.interrupted or shared.state.skipped):
            self.note("another extension sampled this picture in its own way; the LoRAs of the recipe did not act")

    def plan(self, steps: int, hires: bool) -> PassPlan:
        """Of the first or the hires pass."""
        if hires:
            return compile_plan(self.recipe, self.p.steps, steps).hires
        return compile_plan(self.recipe, steps).first

    def plans(self, plan: PassPlan, images: int) -> list[PassPlan]:
        """Of each image of a batch."""
        return self.asked.plans(plan, images) if self.asked is not None else [plan] * images

    def mixture(self, hires: bool = False) -> Mixture | None:
        """The LoRAs on the model that is loaded now, for the first or the hires pass; None, with a note, for a later
        model they do not fit."""
        try:
            return session.mixture(loaded_model(), self.recipe, masked_in(self.recipe, hires))
        except SciArtError as error:
            if not self.sampled:
                raise self.refused(error) from None
            self.note(f"{loaded_model().sd_checkpoint_info.name_for_extra} runs without the LoRAs ({error})")
            return None


def masked_in(recipe: Recipe, hires: bool = False) -> tuple[int, ...]:
    """Indices of the LoRAs that have masks in the first or the hires pass."""
    plan = compile_plan(recipe, 1, 1)
    return (plan.hires if hires else plan.first).masked
