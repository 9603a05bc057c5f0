"""Weights of a recipe that hold for a whole picture: what a file, or a checkpoint, can have of each LoRA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..errors import SciArtError
from ..lora.kinds import BIAS
from ..recipe import LoraEntry, Recipe, dump_recipe
from ..recipe.layer_factors import LayerFactors

_ONE = "one file has one weight of each LoRA"
_HELD = {"name", "role", "weight", "schedule", "curve", "te_weight", "blocks", "subject", "trigger", "region"}
"""fields of a LoRA that a file can hold, or that say nothing about its weights"""


class ConstantWeights(NamedTuple):
    """Of one LoRA: in the UNet, where the blocks' factors multiply it, and in the text encoders."""

    unet: float
    text: float
    blocks: Mapping[str, float] | Sequence[float] = ()

    @property
    def acts(self) -> bool:
        return bool(self.unet or self.text)

    def of(self, layer: str) -> float:
        """λ of one layer, by its canonical name, or of its bias."""
        if not layer.startswith("unet_"):
            return self.text
        return self.unet * LayerFactors(self.blocks).of(layer.removesuffix(BIAS)).constant

    def __str__(self) -> str:
        more = [f"text encoders {self.text:g}"] if self.text != self.unet else []
        more += ["with block weights"] if self.blocks else []
        return f"{self.unet:g}" + (f" ({', '.join(more)})" if more else "")

    def as_data(self) -> dict:
        """As JSON data, without what is usual."""
        data: dict = {"weight": self.unet}
        if self.text != self.unet:
            data["te_weight"] = self.text
        if self.blocks:
            data["blocks"] = dict(self.blocks) if isinstance(self.blocks, Mapping) else list(self.blocks)
        return data


def constant_weights(recipe: Recipe) -> list[ConstantWeights]:
    """Of each LoRA of the recipe. Raises `SciArtError` for weights that change over the picture, or are not the same in
    all of it."""
    if recipe.compose != "merge":
        raise SciArtError("compose", f"{_ONE} in the whole picture; accepted: merge")
    return [_constant(entry, given, f"loras[{i}]")
            for i, (entry, given) in enumerate(zip(recipe.loras, dump_recipe(recipe)["loras"]))]


def _constant(entry: LoraEntry, given: Mapping[str, object], where: str) -> ConstantWeights:
    for field in given:
        if field not in _HELD:
            raise SciArtError(f"{where}.{field}", f"{_ONE}; leave it out")
    weight = entry.weight
    if entry.schedule is not None:
        weight = _value_of(entry.schedule, f"{where}.schedule")
    blocks = entry.blocks
    if isinstance(blocks, Mapping):
        blocks = {name: _value_of(factor, f"{where}.blocks.{name}") if isinstance(factor, list) else factor
                  for name, factor in blocks.items()}
    text = weight if entry.te_weight is None else entry.te_weight
    return ConstantWeights(weight, text * LayerFactors(blocks).text_encoder, blocks)


def _value_of(points: Sequence[Sequence], field: str) -> float:
    """The one weight that all points of a schedule have."""
    weights = {point[1] for point in points}
    if len(weights) > 1:
        raise SciArtError(field, f"{_ONE}, which does not change from step to step; accepted: a number, or a schedule "
                                 "of one weight")
    return weights.pop()
