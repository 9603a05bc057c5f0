"""What `benchmarks.gpu` does on a card, done where there is none: on the CPU, whose memory is not told."""

from __future__ import annotations

import time

import pytest
import torch

from benchmarks.cuda import card, timed
from benchmarks.cuda.bench import SMALL, VARIANTS, Scene
from benchmarks.cuda.timed import NO_ROOM, Extent, Measuring, card_bench

CPU = torch.device("cpu")
SHORT = Extent(steps=1, picture_steps=1, rounds=2)


class Processor:
    """Stands for `card.Card`."""

    device = CPU

    def seconds(self, run):
        began = time.perf_counter()
        run()
        return time.perf_counter() - began

    host_seconds = seconds

    def peak(self, run):
        run()
        return 2**20


@pytest.fixture(scope="module")
def bench(one_thread):
    return card_bench(Scene(SMALL["sd15"].topology, 64), 4, CPU, torch.float32)


@pytest.fixture
def measuring():
    return Measuring(Processor(), SHORT, lambda text: None)


@torch.no_grad()
def test_every_variant_is_timed_in_every_round_beside_the_plain_call(bench, measuring):
    found = measuring.variants(bench, time.monotonic() + 600)
    assert found["rounds"] == SHORT.rounds == len(found["raw"])
    for variant in VARIANTS:
        assert found[variant.name].keys() == {"ratio", "step_ms", "first_ms"}
    assert found["plain"]["ratio"] == 1


@torch.no_grad()
def test_where_time_is_up_one_round_is_measured(bench, measuring):
    assert measuring.sets(bench, time.monotonic() - 1)["rounds"] == 1


@torch.no_grad()
def test_all_sets_at_once_give_what_they_give_one_by_one(bench, measuring):
    assert measuring.sets(bench, 0)["difference"] < 1e-4


@torch.no_grad()
def test_steered_pictures_are_timed(bench, measuring):
    found = measuring.pictures(bench, 0)
    assert found.keys() == {"plain", "guided_2", "guided_3", "masked_2", "masked_3", "rounds", "raw"}


@torch.no_grad()
def test_what_does_not_fit_is_told_and_the_others_are_measured(bench, measuring, monkeypatch):
    plain_mixer = bench.mixer

    def mixer(execution, *more):
        if execution == "merge":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return plain_mixer(execution, *more)

    monkeypatch.setattr(bench, "mixer", mixer)
    found = measuring.variants(bench, 0)
    assert found["merge_same"] == found["merge_change"] == NO_ROOM and found["branch_change"]["ratio"] > 0
    assert measuring.peaks(bench)["merge_change"] == NO_ROOM


@torch.no_grad()
def test_loras_that_do_nothing_are_not_measured(bench, measuring, monkeypatch):
    monkeypatch.setattr(timed.Variant, "gates", lambda variant, step, steps: [[0.0] * 3])
    with pytest.raises(RuntimeError, match="nothing was measured"):
        measuring.variants(bench, 0)


def test_the_bytes_that_are_held_are_those_of_storages_each_once():
    before = card.held_bytes(CPU)
    kept = torch.empty(1000, dtype=torch.float32)
    views = [kept[:10], kept.view(10, 100)]
    assert card.held_bytes(CPU) == before + 4000
    del kept, views
    assert card.held_bytes(CPU) == before
