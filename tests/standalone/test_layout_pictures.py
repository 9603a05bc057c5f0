"""The picture of one LoRA is the same in whatever layout its file is."""

from __future__ import annotations

import numpy as np
import pytest
from lora_files import save

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("lycoris")

from benchmarks.widening.layout_writers import Models, quiet
from benchmarks.widening.layouts import LAYOUTS
from sciart_ext.lora.file import load_lora
from sciart_ext.mixer.targets import clip_layers, diffusers_unet_layers
from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.generate import Settings, generate, load_loras
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.world import MODEL

OF_OTHER_KINDS = ("kohya's OFT", "ComfyUI, LyCORIS of SimpleTuner")
WRITTEN_ALIKE = ("kohya, read by diffusers", "PEFT, torch.compile")
OF_FACTORS = [name for name, layout in LAYOUTS.items()
              if "SD1" in layout.families and name not in (*OF_OTHER_KINDS, *WRITTEN_ALIKE)]
RECIPE = parse_recipe({"loras": [{"name": "child", "weight": 0.8}]})


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline(MODEL)


@pytest.fixture(scope="module")
def deltas(pipe):
    """(down, up) by module, the scale within."""
    lora = load_lora(next(MODEL.rglob("child.safetensors")))
    layers = {**diffusers_unet_layers(pipe.unet), **clip_layers(pipe.text_encoder, "te1")}
    return {layers[name].module: (delta.down, delta.up * delta.scale) for name, delta in lora.layers.items()}


def down_of(key):
    for up, down in ((".lora_up.", ".lora_down."), (".lora_B.", ".lora_A."), (".lora.up.", ".lora.down."),
                     ("_lora.up.", "_lora.down."), (".lora_linear_layer.up.", ".lora_linear_layer.down.")):
        if up in key:
            return key.replace(up, down)
    raise AssertionError(key)


def picture(pipe, path):
    settings = Settings("a child draws a rocket", steps=1, seed=5, width=64, height=64)
    return np.asarray(generate(pipe, RECIPE, settings, load_loras(RECIPE, path.parent)).image)


@pytest.mark.filterwarnings("ignore")
def test_every_layout_makes_the_same_picture(pipe, deltas, tmp_path):
    quiet()
    given = Models("SD1", {"unet": pipe.unet, "te1": pipe.text_encoder})
    pictures, texts = {}, LAYOUTS["kohya"].write(given, "te1")
    for number, name in enumerate(OF_FACTORS):
        state = {}
        for part in sorted({"unet", "te1"} & set(LAYOUTS[name].parts)):
            for key, module in LAYOUTS[name].write(given, part).items():
                if module in deltas:
                    state[down_of(key)], state[key] = deltas[module]
        folder = tmp_path / str(number)
        folder.mkdir()
        if "te1" not in LAYOUTS[name].parts:  # beside the text encoder's layers in kohya's
            state.update((side, factor) for key, module in texts.items() if module in deltas
                         for side, factor in zip((down_of(key), key), deltas[module]))
        assert len(state) == 2 * len(deltas), name
        pictures[name] = picture(pipe, save(folder / "child.safetensors", state))
    for name, found in pictures.items():
        assert np.array_equal(found, pictures["kohya"]), name
    assert len(pictures) > 20
