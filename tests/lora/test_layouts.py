"""Layouts of key names: every layer lands where the loader that the layout is of, or made for, puts it."""

from __future__ import annotations

import inspect

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("lycoris")

from diffusers.loaders import lora_conversion_utils

from benchmarks.widening.layout_writers import ldm_name, models, quiet
from benchmarks.widening.layouts import LAYOUTS, check, places

PROGRAMS = ("kohya", "LyCORIS", "diffusers", "PEFT", "ComfyUI", "OneTrainer", "A1111", "LDM", "sgm")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "family", "part"), places(), ids=map(" ".join, places()))
def test_every_layer_lands_where_the_reference_puts_it(name, family, part):
    quiet()
    if name == "kohya, SDXL, read by diffusers" and "label.emb" not in inspect.getsource(lora_conversion_utils):
        pytest.skip("this diffusers does not read all of kohya's layers of SDXL")
    written = LAYOUTS[name].write(models(family), part)
    assert check(written, family, part) > 0.9 * len(models(family).modules(part))


def test_every_program_is_there():
    assert {name.split(",")[0].split("'")[0].split(" ")[0] for name in LAYOUTS} == set(PROGRAMS)


@pytest.mark.parametrize("family", ["SD1", "SD2", "SDXL"])
def test_ldms_names_are_those_that_diffusers_converts(family):
    """diffusers' converter of checkpoints tells which of its own names each is."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    names = list(models(family).modules("unet"))
    ours = {ldm_name(name, family): name for name in names}
    checkpoint = {f"model.diffusion_model.{ldm}.{end}": f"{name}.{end}" for ldm, name in ours.items()
                  for end in ("weight", "bias")}
    config = {**models(family).parts["unet"].config, "class_embed_type": None}
    converted = convert_ldm_unet_checkpoint(checkpoint, config)
    told = {key: name for key, name in converted.items() if name is not None}
    assert told == {f"{name}.{end}": f"{name}.{end}" for name in names for end in ("weight", "bias")}
