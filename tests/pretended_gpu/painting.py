"""Pictures of the tiny model, for tests that make them here and there."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.generate import Settings, generate, load_loras
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.world import MODEL

from . import PretendedGpu

SETTINGS = Settings("a rocket and a robot", "blurred", steps=2, seed=5, cfg_scale=3, width=64, height=64)


def moved_pipeline():
    """The tiny model on the pretended GPU, wherever that is entered."""
    with PretendedGpu():
        return load_pipeline(MODEL, device="cpu").to("gpu")


def painted(pipe, recipe, settings=SETTINGS, every=1, **options):
    """every: which of the LoRAs' layers are left; of every fifth there are some of every shape. options: `generate`'s.
    """
    recipe = parse_recipe(recipe)
    loras = [replace(lora, layers=dict(list(lora.layers.items())[::every]))
             for lora in load_loras(recipe, MODEL / "loras")]
    return generate(pipe, recipe, settings, loras, **options)
