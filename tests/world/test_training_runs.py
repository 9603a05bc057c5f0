"""Every training program, for two steps: what it leaves behind loads, fits and makes a picture."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import training.autoencoder
import training.base
import training.loop
import training.loras
import training.oracle
from benchmarks.tinyworld.sampling import COMPOSITIONS, Pictures
from sciart_ext.lora.file import inspect_lora
from sciart_ext.mixer.fit import check_fit
from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.generate import Settings, generate, load_loras, model_layers
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.world.oracle import Oracle
from training.base import Stage
from training.data import crowded


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the model, the oracle's weights and the runs' records, all hardly trained."""
    place = tmp_path_factory.mktemp("trained")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for module in (training.autoencoder, training.base, training.loras):
            patch.setattr(module, "MODEL", place / "model")
        patch.setattr(training.oracle, "WEIGHTS", place / "oracle.safetensors")
        patch.setattr(training.loop, "RUNS", place / "runs")
        few = {"steps": 2, "scenes": 12, "batch": 2}
        training.oracle.train(place / "work", **few)
        training.autoencoder.train(place / "work", **few)
        stages = [Stage("base", 2, 1e-3, 12, 1), Stage("base-more", 2, 1e-3, 12, 2)]
        training.base.train(place / "work", stages, batch=2)
        training.base.train_on(place / "work", Stage("base-crowded", 2, 1e-3, 12, 3, crowded, places=True), batch=2)
        training.loras.train(place / "work", **few, names=("child", "golden rocket"))
    torch.set_num_threads(threads)
    return place


def test_the_oracle_loads_and_reads(trained):
    reading, = Oracle.load(trained / "oracle.safetensors").read(np.zeros((1, 128, 128, 3), np.uint8))
    assert set(reading.styles) == {"child", "watercolor", "science"}


def test_the_model_loads_and_its_loras_fit_and_matter(trained):
    pipe = load_pipeline(trained / "model", device="cpu")
    assert pipe.vae.config.scaling_factor != 1.0
    pictures = []
    for given in ({"enabled": False}, {"loras": [{"name": "child", "weight": 1.0}]}):
        recipe = parse_recipe(given)
        loras = load_loras(recipe, trained / "model" / "loras")
        assert not loras or check_fit(loras, model_layers(pipe), "tiny") == []
        pictures.append(np.asarray(generate(pipe, recipe, Settings("a rocket", steps=2, cfg_scale=2.0), loras).image))
    assert pictures[0].shape == (128, 128, 3)


def test_loras_are_in_kohyas_format_for_both_networks(trained):
    report = inspect_lora(trained / "model" / "loras" / "golden-rocket.safetensors")
    assert report["kind"] == "LoRA" and report["unet_layers"] > 50 and report["text_encoder_layers"] == 18


def test_a_reduced_lora_is_the_best_of_its_rank():
    down, up = torch.randn(8, 20), torch.randn(30, 8)
    few_down, few_up = training.loras.reduced(down, up, 4)
    assert few_down.shape == (4, 20) and few_up.shape == (30, 4)
    values = torch.linalg.svdvals(up @ down)
    assert torch.allclose((up @ down - few_up @ few_down).norm(), values[4:].norm(), rtol=1e-4)
    whole_down, whole_up = training.loras.reduced(down, up, 8)
    assert torch.allclose(whole_up @ whole_down, up @ down, atol=1e-4)


def test_runs_are_written_down(trained):
    for name in ("oracle", "autoencoder", "base", "base-more", "base-crowded", "lora-child", "lora-golden-rocket"):
        record = json.loads((trained / "runs" / f"{name}.json").read_text(encoding="utf-8"))
        assert record["curve"][-1]["step"] == record["steps"] >= 2 and record["torch"]


def test_the_benchmarks_compositions_run_and_are_the_same_for_one_lora(trained):
    pictures = Pictures(trained / "model", steps=2)
    both = {"child": 1.0, "golden rocket": 1.0}
    made = {compose: pictures.make("a golden rocket", [1, 2], both, compose) for compose in COMPOSITIONS}
    plain = pictures.make("a golden rocket", [1, 2])
    assert all(value.shape == (2, 128, 128, 3) for value in made.values())
    single = pictures.make("a golden rocket", [2])
    assert np.abs(single[0].astype(int) - plain[1]).max() <= 1, "a seed's picture does not depend on its batch"
    alone = {compose: pictures.make("a golden rocket", [1], {"child": 1.0}, compose)
             for compose in COMPOSITIONS}
    for compose in COMPOSITIONS:  # of one LoRA all compositions are the same
        assert np.abs(alone[compose].astype(int) - alone["merge"]).max() <= 1
