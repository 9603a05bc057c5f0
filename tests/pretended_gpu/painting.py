"""Pictures of the random model of two levels, for tests that make them here and there."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from random_model import write_random_model

from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.generate import Settings, generate, load_loras
from sciart_ext.standalone.models import load_pipeline

from . import PretendedGpu

SETTINGS = Settings("a rocket and a robot", "blurred", steps=2, seed=5, cfg_scale=3, width=64, height=64)


@functools.cache
def _folder():
    """Of the model and its LoRAs; it goes when Python ends."""
    folder = tempfile.TemporaryDirectory(prefix="sciart-", ignore_cleanup_errors=True)
    write_random_model(Path(folder.name) / "model", Path(folder.name) / "loras", levels=2)
    return folder


def pipeline():
    """The model on the CPU."""
    return load_pipeline(Path(_folder().name) / "model", device="cpu")


def moved_pipeline():
    """The model on the pretended GPU, wherever that is entered."""
    with PretendedGpu():
        return pipeline().to("gpu")


def loras_of(recipe):
    return load_loras(recipe, Path(_folder().name) / "loras")


def painted(pipe, recipe, settings=SETTINGS, every=1, **options):
    """every: which of the LoRAs' layers are left; of every fifth there are some of every shape. options: `generate`'s.
    """
    recipe = parse_recipe(recipe)
    loras = [replace(lora, layers=dict(list(lora.layers.items())[::every]))
             for lora in loras_of(recipe)]
    return generate(pipe, recipe, settings, loras, **options)
