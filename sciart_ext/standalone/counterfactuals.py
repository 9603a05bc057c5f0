"""The same picture with other sets of its LoRAs: from the same noise, in one batch, each set with gates of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..compose.fusion import Fusion
from ..errors import SciArtError
from ..guidance.noises import SharedNoise
from ..influence.batches import in_batches, missing_of, sets_to_make, shared_noise
from ..influence.runs import Run
from ..influence.word_maps import WordMaps, columns_of
from ..lora.file import LoraFile
from ..mixer.mixer import Mixer
from ..mixer.mixture import Mixture
from ..mixer.targets import diffusers_unet_layers
from ..recipe import PassPlan, Recipe, Row
from ..recipe.plan import Plan
from .generate import Settings, check_settings, embedded_words, encode_rows, mixture_of, sample, sampling_of
from .prompt_rows import texts_in_row, told_prompt
from .prompts.chunks import token_chunks, token_ids, words_in
from .prompts.encoding import Embeddings, encoders
from .prompts.plan import plan_with_prompt
from .prompts.syntax import plain_text
from .samplers.levels import Predicted
from .samplers.making import Sampling
from .sampling import PromptRow, Rows, Time, decode

AT_ONCE = 8
"""pictures in a batch"""


class SetRows(Rows):
    """Rows of which each image has a plan of its own, with other LoRAs silent."""

    def __init__(self, pipe, mixer: Mixer, plans: Sequence[PassPlan], rows: Sequence[PromptRow], cfg_scale: float,
                 size: tuple[int, int], cfg_plus_plus: bool = False, words: WordMaps | None = None):
        super().__init__(pipe, mixer, plans[0], rows, cfg_scale, size, cfg_plus_plus)
        self.plans = plans
        self.words = words
        self.watching = (words,) if words is not None else ()

    @contextmanager
    def acting(self) -> Iterator[None]:
        with super().acting(), self.words or nullcontext():  # the words' hooks after the LoRAs', to see what they did
            yield

    def predict(self, inputs: Tensor, time: Time, progress: float, fusion: Fusion | None,
                cfg_factor: float = 1.0) -> Predicted:
        if self.words is not None:
            images = len(inputs)
            self.words.record([[row * images + image for row in self.plan.looking()] for image in range(images)])
        prediction = super().predict(inputs, time, progress, fusion, cfg_factor)
        if self.words is not None:
            self.words.add()
        return prediction

    @property
    def differ(self) -> bool:
        return len(self.plans) > 1 or super().differ

    def too_many(self, inputs: Tensor) -> SciArtError | None:
        """Several images may still fit one by one: their error is that of memory."""
        return super().too_many(inputs) if len(self.plans) == 1 else None

    def gates(self, progress: float, row: Row, images: int) -> list[tuple[float, ...]]:
        return [plan.gates(progress, row) for plan in self.plans for _ in range(images // len(self.plans))]


def run_sets(pipe, recipe: Recipe, settings: Settings, loras: Sequence[LoraFile], sets: Sequence[int],
             runs: MutableMapping[int, Run], at_once: int = AT_ONCE, on_step: Callable[[int, int], None] | None = None,
             words: Sequence[str] = ()) -> None:
    """Makes the runs of these sets that `runs` does not have yet, and puts them in, batch by batch.

    A set is a number whose bit k tells whether LoRA k of the recipe acts; those of the prompt always do. recipe:
    resolved, enabled; loras: as `load_loras` has them. at_once: pictures in a batch, fewer where so many do not fit in
    memory. on_step(done, of all pictures' steps) reports progress; what it raises ends the work, and a later call with
    the same `runs` goes on. Sets that differ only in LoRAs of weight 0 are one run. words: of the prompt, whose
    attention is wanted. Raises `SciArtError` for what cannot be made.
    """
    size = check_settings(pipe, settings)
    sampling = sampling_of(pipe, settings)
    plan = plan_with_prompt(recipe, settings.prompt, sampling.steps)
    compiled = Plan(plan)
    columns = word_columns(pipe, plan, settings, words)
    mixture = mixture_of(pipe, recipe, plan, loras, "the model")
    if columns and words_in(encoders(pipe)[0][0], told_prompt(settings), embedded_words(pipe, mixture)[0]):
        raise SciArtError("words", "the prompt has the word of an embedding that comes with a LoRA, whose attention is "
                                   "not told apart here; accepted: no words, or another prompt")
    sets = sets_to_make(sets, recipe)
    missing = missing_of(sets, runs, compiled.acting)
    done, noise = 0, shared_noise(runs)

    def make(batch: Sequence[int]) -> dict[int, Run]:
        def report(step: int, steps: int) -> None:
            if on_step is not None:
                on_step(done * steps + step * len(batch), len(missing) * steps)

        nonlocal done
        made = _run_batch(pipe, recipe, settings, sampling, mixture, plan, size, columns, batch, noise,
                          report)
        done += len(batch)
        return made

    in_batches(sets, 1 if sampling.is_adaptive else at_once, make, runs, compiled.acting)


def word_columns(pipe, plan: PassPlan, settings: Settings, words: Sequence[str]) -> list[list[int]]:
    """Columns of the text of each word of the prompt. Raises `SciArtError` ("words") for what is not in it, and where
    the words have no one place."""
    if not words:
        return []
    (_, text), *later = (one for part in texts_in_row(plan, Row(), settings) for one in part.texts)
    if later:
        raise SciArtError("words", "the prompt has parts joined by AND, or changes by step: its words have no one "
                                   "place; accepted: no words, or another prompt")
    tokenizer = encoders(pipe)[0][0]
    return columns_of(words, plain_text(text), functools.partial(token_ids, tokenizer), token_chunks(tokenizer, text))


@torch.no_grad()
def _run_batch(pipe, recipe: Recipe, settings: Settings, sampling: Sampling, mixture: Mixture, plan: PassPlan,
               size: tuple[int, int], columns: Sequence[Sequence[int]], batch: Sequence[int],
               noise: SharedNoise, on_step: Callable[[int, int], None]) -> dict[int, Run]:
    plans = [plan.with_only(one) for one in batch]
    encoded = [encode_rows(pipe, settings, one, mixture) for one in plans]
    joined = [_joined(same_row) for same_row in zip(*encoded)]
    seen: list[Tensor] = []
    words = WordMaps(pipe.unet, diffusers_unet_layers(pipe.unet), columns) if columns else None
    rows = SetRows(pipe, mixture.unet, plans, joined, settings.cfg_scale, size, sampling.is_cfg_plus_plus, words)
    latents, _ = sample(pipe, recipe, settings, rows, sampling, [settings.seed] * len(batch), on_step,
                        lambda now: seen.append(now.clone()), noise)
    pictures = [np.asarray(picture.convert("RGB")) for picture in decode(pipe, latents)]
    told = words.maps().cpu() if words is not None else [None] * len(batch)
    return {one: Run(*found, noise.number) for one, *found in zip(batch, torch.stack(seen, 1).cpu(), pictures, told)}


def _joined(rows: Sequence[PromptRow]) -> PromptRow:
    """One row of all images."""
    edits = tuple((same[0][0], _of_all([read for _, read in same])) for same in zip(*(row.edits for row in rows)))
    return replace(rows[0], embeddings=_of_all([row.embeddings for row in rows]), edits=edits)


def _of_all(images: Sequence[Embeddings]) -> Embeddings:
    pooled = None if images[0].pooled is None else torch.cat([one.pooled for one in images])
    return Embeddings(torch.cat([one.tokens for one in images]), pooled)
