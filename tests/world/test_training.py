"""What the training programs are made of: vocabulary, targets, and going on after an interruption."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from sciart_ext.world.oracle import NOBODY, STRIDE, Oracle, OracleNet
from sciart_ext.world.scenes import INDIVIDUALS, KINDS, PLACES
from training import architecture, loop
from training.base import Noise, told
from training.data import Drawn, _draw_chunk, anything, plain
from training.loop import Training
from training.oracle import CELLS, disturbed, losses_of, targets_of
from training.vocabulary import WORDS


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    return architecture.tokenizer(tmp_path_factory.mktemp("words"))


def drawn(sampler, count=12):
    pictures, captions, *rest = _draw_chunk(sampler, count, (3, 0))
    return Drawn(pictures, [str(text) for text in captions], *rest)


def test_every_word_is_one_token(words):
    for word in WORDS.read_text(encoding="utf-8").split():
        assert words.tokenize(word) == [f"{word}</w>"], word


def test_every_caption_is_told_in_whole_words(words):
    known = set(WORDS.read_text(encoding="utf-8").split())
    for text in drawn(anything, 200).captions:
        assert {token.removesuffix("</w>") for token in words.tokenize(text)} <= known, text
    for name in [*KINDS.values(), *PLACES.values(), *INDIVIDUALS]:
        assert set(name.split()) <= known


def test_other_text_falls_to_bytes_and_the_ends_are_marked(words):
    ids = words("zebra 과학", padding="max_length", max_length=77).input_ids
    assert len(ids) == 77 and ids[0] == words.bos_token_id and ids[-1] == words.eos_token_id == words.pad_token_id
    assert words.decode(ids, skip_special_tokens=True).strip() == "zebra 과학"


def test_the_same_seed_draws_the_same_set():
    first, second = drawn(anything), drawn(anything)
    assert np.array_equal(first.pictures, second.pictures) and first.captions == second.captions


def test_targets_are_read_back_by_the_oracle():
    """A net that gave exactly its targets would see exactly what was drawn."""
    data = drawn(plain, 40)
    targets = targets_of(data, np.arange(40))
    maps = {"centres": torch.logit(targets["centres"].clamp(1e-4, 1 - 1e-4)), "boxes": targets["boxes"],
            "individuals": torch.nn.functional.one_hot(targets["individuals"].clamp(min=0), NOBODY + 1)
            .permute(0, 3, 1, 2).float(), "styles": targets["styles"]}
    oracle = Oracle(OracleNet())
    right = 0
    for i in range(40):
        reading = oracle._reading({name: value[i] for name, value in maps.items()})
        seen = sorted(list(KINDS).index(one.kind) for one in reading.objects)
        right += seen == sorted(kind for kind in data.kinds[i] if kind >= 0)
        assert all(one.individual is None for one in reading.objects)
        for one in reading.objects:
            assert min(np.abs(np.array(one.box) - box).max() for box in data.boxes[i]) <= STRIDE
    assert right >= 38  # two of one kind may share their cells


def test_a_perfect_net_has_hardly_any_loss_and_a_new_one_much():
    targets = targets_of(drawn(anything, 8), np.arange(8))
    classes = torch.nn.functional.one_hot(targets["individuals"].clamp(min=0), NOBODY + 1).permute(0, 3, 1, 2).float()
    perfect = {"centres": torch.logit(targets["centres"].clamp(1e-4, 1 - 1e-4)), "individuals": 8 * classes,
               "boxes": targets["boxes"].clamp(min=0.5), "styles": targets["styles"]}
    new = OracleNet()(torch.zeros(8, 3, 4 * CELLS, 4 * CELLS))
    best, worst = losses_of(perfect, targets), losses_of(new, targets)
    assert best["sides"] < 1e-6 and best["styles"] < 1e-6 and best["individuals"] < 0.2
    assert sum(worst.values()) > 5 * sum(best.values())


def test_disturbed_pictures_stay_pictures_and_differ_by_seed():
    pictures = torch.rand(6, 3, 128, 128) * 2 - 1
    first = disturbed(pictures, torch.Generator().manual_seed(1))
    assert first.shape == pictures.shape and first.abs().max() <= 1
    assert torch.equal(first, disturbed(pictures, torch.Generator().manual_seed(1)))
    assert not torch.equal(first, disturbed(pictures, torch.Generator().manual_seed(2)))


def test_captions_are_sometimes_dropped_and_sometimes_without_place():
    generator = torch.Generator().manual_seed(0)
    told_so = [told("a rocket in space", generator) for _ in range(400)]
    assert set(told_so) == {"", "a rocket", "a rocket in space"}
    assert 20 < told_so.count("") < 70 and 20 < told_so.count("a rocket") < 70


def test_the_noise_loss_of_a_net_that_knows_the_noise_is_zero():
    noise = Noise(architecture.scheduler().alphas_cumprod)
    latents = torch.randn(8, 4, 16, 16)

    def knowing(noisy, times, text):
        alpha = noise.alphas[times].view(-1, 1, 1, 1)
        return type("Output", (), {"sample": (noisy - alpha.sqrt() * latents) / (1 - alpha).sqrt()})

    assert noise.loss(knowing, latents, None, torch.Generator().manual_seed(0)) < 1e-6


def toy_training(folder, steps, stop_at=None):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    training = Training("toy", steps, dict(model.named_parameters()), 0.1, folder, save_every=5, log_every=5)
    for generator in training.run():
        training.learn(loss=(model(torch.randn(8, 3, generator=generator)) - 1).square().mean())
        if training.step + 1 == stop_at:
            raise KeyboardInterrupt
    return {**training.average, **{f"last {name}": value for name, value in model.named_parameters()}}, training


def test_an_interrupted_training_ends_as_one_that_was_not(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "RUNS", tmp_path / "runs")
    whole, training = toy_training(tmp_path / "whole", 20)
    with pytest.raises(KeyboardInterrupt):
        toy_training(tmp_path / "stopped", 20, stop_at=13)
    resumed, again = toy_training(tmp_path / "stopped", 20)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert again.curve == training.curve
    record = json.loads((tmp_path / "runs" / "toy.json").read_text(encoding="utf-8"))
    assert record["steps"] == 20 and [entry["step"] for entry in record["curve"]] == [5, 10, 15, 20]


def test_a_checkpoint_of_other_settings_is_not_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "RUNS", tmp_path / "runs")
    toy_training(tmp_path, 5)
    other = Training("toy", 10, dict(torch.nn.Linear(3, 1).named_parameters()), 0.2, tmp_path)
    with pytest.raises(SystemExit, match="other settings"):
        next(other.run())
