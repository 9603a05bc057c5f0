"""What a recipe says that its way to compose does not look at."""

from __future__ import annotations

from collections.abc import Iterator

from ..recipe import Recipe
from ..recipe.composition import READ_BY, CompositionSettings


def unread(recipe: Recipe) -> list[str]:
    """Notes on the result: fields that differ from their defaults and change nothing."""
    fields = [*_settings(recipe), *_regions(recipe)]
    return [f"{', '.join(fields)}: no effect with compose {recipe.compose}"] if fields else []


def _settings(recipe: Recipe) -> Iterator[str]:
    usual = CompositionSettings()
    for name in CompositionSettings.__fields__:
        if name not in READ_BY.get(recipe.compose, ()) and \
                getattr(recipe.composition, name) != getattr(usual, name):
            yield f"composition.{name}"


def _regions(recipe: Recipe) -> Iterator[str]:
    if recipe.compose not in ("contrastive", "regions"):
        yield from (f"loras[{i}].region" for i, lora in enumerate(recipe.loras) if lora.region)
