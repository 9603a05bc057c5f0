"""The same picture with other sets of its LoRAs: from the same noise, in one batch, each set with gates of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor

from ..compose.fusion import Fusion
from ..errors import SciArtError
from ..guidance.words import row_prompt
from ..influence.batches import in_batches, missing_of
from ..influence.runs import Run
from ..influence.word_maps import WordMaps, columns_of
from ..lora.file import LoraFile
from ..mixer.mixer import Mixer
from ..mixer.mixture import Mixture, bind
from ..mixer.targets import diffusers_unet_layers
from ..recipe import PassPlan, Recipe, Row, compile_plan
from .generate import Settings, check_settings, embedded_words, encode_rows, model_parts, sample, sampling_of
from .prompts import Embeddings, encoders, token_chunks, token_ids, words_in
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

    def gates(self, progress: float, row: Row, image: int) -> tuple[float, ...]:
        return self.plans[image].gates(progress, row)


def run_sets(pipe, recipe: Recipe, settings: Settings, loras: Sequence[LoraFile], sets: Sequence[int],
             runs: MutableMapping[int, Run], at_once: int = AT_ONCE, on_step: Callable[[int, int], None] | None = None,
             words: Sequence[str] = ()) -> None:
    """Makes the runs of these sets that `runs` does not have yet, and puts them in, batch by batch.

    A set is a number whose bit k tells whether LoRA k of the recipe acts. recipe: resolved, enabled; loras: its files
    in the same order. at_once: pictures in a batch, fewer where so many do not fit in memory. on_step(done, of all
    pictures' steps) reports progress; what it raises ends the work, and a later call with the same `runs` goes on. Sets
    that differ only in LoRAs of weight 0 are one run. words: of the prompt, whose attention is wanted. Raises
    `SciArtError` for what cannot be made.
    """
    size = check_settings(pipe, settings)
    sampling = sampling_of(pipe, settings)
    compiled = compile_plan(recipe, sampling.steps)
    plan = compiled.first
    columns = _word_columns(pipe, plan, settings, words)
    mixture = bind(model_parts(pipe), loras, recipe.loras, "the model", recipe.execution, recipe.memory_limit,
                   combination=recipe.combination)
    if columns and words_in(encoders(pipe)[0][0], settings.prompt, embedded_words(pipe, mixture)[0]):
        raise SciArtError("words", "the prompt has the word of an embedding that comes with a LoRA, whose attention is "
                                   "not told apart here; accepted: no words, or another prompt")
    missing = missing_of(sets, runs, compiled.acting)
    done = 0

    def make(batch: Sequence[int]) -> dict[int, Run]:
        def report(step: int, steps: int) -> None:
            if on_step is not None:
                on_step(done * steps + step * len(batch), len(missing) * steps)

        nonlocal done
        made = _run_batch(pipe, recipe, settings, sampling, mixture, plan, size, columns, batch, report)
        done += len(batch)
        return made

    in_batches(sets, 1 if sampling.is_adaptive else at_once, make, runs, compiled.acting)


def _word_columns(pipe, plan: PassPlan, settings: Settings, words: Sequence[str]) -> list[list[int]]:
    tokenizer = encoders(pipe)[0][0]
    prompt = row_prompt(plan, Row(), settings.prompt, "")
    return columns_of(words, prompt, functools.partial(token_ids, tokenizer), token_chunks(tokenizer, prompt))


@torch.no_grad()
def _run_batch(pipe, recipe: Recipe, settings: Settings, sampling: Sampling, mixture: Mixture, plan: PassPlan,
               size: tuple[int, int], columns: Sequence[Sequence[int]], batch: Sequence[int],
               on_step: Callable[[int, int], None]) -> dict[int, Run]:
    plans = [plan.with_only(one) for one in batch]
    encoded = [encode_rows(pipe, settings, one, mixture) for one in plans]
    joined = [_joined(same_row) for same_row in zip(*encoded)]
    seen: list[Tensor] = []
    words = WordMaps(pipe.unet, diffusers_unet_layers(pipe.unet), columns) if columns else None
    rows = SetRows(pipe, mixture.unet, plans, joined, settings.cfg_scale, size, sampling.is_cfg_plus_plus, words)
    latents, _ = sample(pipe, recipe, settings.prompt, rows, sampling, [settings.seed] * len(batch), on_step,
                        lambda now: seen.append(now.clone()))
    pictures = [np.asarray(picture.convert("RGB")) for picture in decode(pipe, latents)]
    told = words.maps().cpu() if words is not None else [None] * len(batch)
    return {one: Run(*found) for one, *found in zip(batch, torch.stack(seen, 1).cpu(), pictures, told)}


def _joined(rows: Sequence[PromptRow]) -> PromptRow:
    """One row of all images."""
    tokens = torch.cat([row.embeddings.tokens for row in rows])
    pooled = None if rows[0].embeddings.pooled is None else torch.cat([row.embeddings.pooled for row in rows])
    return PromptRow(rows[0].row, Embeddings(tokens, pooled))
