"""The influence of a recipe's LoRAs on a picture, on a diffusers pipeline."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import asdict

from ..influence.report import Report, report
from ..influence.runs import Run
from ..influence.subsets import Question
from ..influence.word_maps import telling_words
from ..lora.file import LoraFile
from ..recipe import Recipe, dump_recipe
from .counterfactuals import AT_ONCE, run_sets
from .generate import Settings
from .prompt_rows import evaluations_of, told_prompt
from .prompts.syntax import parts_of, plain_text, texts_of


def explain(pipe, recipe: Recipe, settings: Settings, loras: Sequence[LoraFile], question: Question,
            words: Sequence[str] | None = None, at_once: int = AT_ONCE,
            on_step: Callable[[int, int], None] | None = None, model_name: str = "",
            runs: MutableMapping[int, Run] | None = None) -> Report:
    """What each LoRA of a recipe did. words: whose attention is shown; None: those of the prompt that tell something.

    on_step, at_once, runs (none by default): `run_sets`'s.
    """
    words = words_told(settings) if words is None else list(words)
    runs = {} if runs is None else runs
    run_sets(pipe, recipe, settings, loras, question.sets, runs, at_once, on_step, words)
    made = {**asdict(settings), "model": model_name, "recipe": dump_recipe(recipe),
            "summary": [f"seed {settings.seed}", f"{settings.steps} steps of {settings.sampler}",
                        f"CFG {settings.cfg_scale:g}"]}
    return report([lora.label for lora in recipe.loras], question, runs, words, made)


def words_told(settings: Settings) -> list[str]:
    """The words of the prompt that tell something; none where they have no one place, because AND joins its parts or
    it changes by step."""
    steps = evaluations_of(settings)
    (_, text), *more = (one for part in parts_of(told_prompt(settings)) for one in texts_of(part.text, steps))
    return [] if more else telling_words(plain_text(text))
