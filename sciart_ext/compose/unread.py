"""What a recipe says that its way to compose does not look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..recipe import Recipe
from ..recipe.composition import READ_BY
from ..recipe.guidance import OF_MASKED


def unread(recipe: Recipe) -> list[str]:
    """Notes on the result: fields that differ from their defaults and change nothing."""
    fields = [*_settings(recipe), *_regions(recipe)]
    return [f"{', '.join(fields)}: no effect with compose {recipe.compose}"] if fields else []


def _settings(recipe: Recipe) -> Iterator[str]:
    groups = {"composition": READ_BY.get(recipe.compose, ()),
              "masking": tuple(recipe.masking.__fields__) if recipe.compose == "masked" else (),
              "guidance": _of_guidance(recipe)}
    for group, read in groups.items():
        given = getattr(recipe, group)
        usual = type(given)()
        for name in given.__fields__:
            if name not in read and getattr(given, name) != getattr(usual, name):
                yield f"{group}.{name}"


def _of_guidance(recipe: Recipe) -> Sequence[str]:
    return {"masked": OF_MASKED, "contrastive": tuple(recipe.guidance.__fields__)}.get(recipe.compose, ())


def _regions(recipe: Recipe) -> Iterator[str]:
    if recipe.compose not in ("contrastive", "masked", "regions"):
        yield from (f"loras[{i}].region" for i, lora in enumerate(recipe.loras) if lora.region)
