"""What can be said of prompts before a model is read. No torch is needed."""

from __future__ import annotations

from ...errors import SciArtError, shown
from ...recipe import PassPlan, Recipe, compile_plan
from .loras import PromptLora, prompt_loras, strip_comments
from .syntax import parts_of, pieces_of, texts_of


def check_prompts(recipe: Recipe, prompt: str, negative_prompt: str, steps: int) -> None:
    """Raises `SciArtError` for prompts that cannot be read, or not with this resolved recipe."""
    text, loras = prompt_loras(prompt)
    mixed = recipe.loras if recipe.enabled else []
    parts = [part.text for part in parts_of(text)]
    check_joining(recipe, loras)
    check_parts(compile_plan(recipe.copy(update={"loras": mixed}), steps).first, len(parts))
    for part in (*parts, strip_comments(negative_prompt)):
        for _, one in texts_of(part, steps):
            pieces_of(one)


def check_parts(plan: PassPlan, parts: int) -> None:
    """Refuses a prompt of several parts where LoRAs have rows or masks of their own."""
    if (plan.own or plan.masked) and parts > 1:
        raise SciArtError("compose", f"{plan.compose} does not work with AND in the prompt; accepted: merge, switch")


def check_joining(recipe: Recipe, loras: list[PromptLora]) -> None:
    """Refuses LoRAs of the prompt beside those of a recipe that are joined otherwise than by a sum."""
    if loras and recipe.enabled and recipe.loras and recipe.combine != "linear":
        raise SciArtError("prompt", f"{shown(loras[0].tag)} cannot be joined by combine {recipe.combine}; accepted: "
                                    "the LoRA in the recipe, or combine linear")
