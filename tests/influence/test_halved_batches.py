"""Batches that do not fit in memory are made by halves."""

from __future__ import annotations

import pytest
import torch

from sciart_ext.influence.batches import in_batches

EVERYTHING = int
"""of a set acts"""
NO_MEMORY = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"


def making(most, asked):
    def make(batch):
        asked.append(list(batch))
        if len(batch) > most:
            raise RuntimeError(NO_MEMORY)
        return {one: f"run {one}" for one in batch}
    return make


def test_all_at_once_where_they_fit():
    runs, asked = {}, []
    in_batches(range(5), 4, making(8, asked), runs, EVERYTHING)
    assert asked == [[4, 3, 2, 1], [0]] and runs == {one: f"run {one}" for one in range(5)}


def test_sets_that_differ_in_what_does_not_act_have_one_run():
    runs, asked = {0: "run 0"}, []
    in_batches(range(8), 8, making(8, asked), runs, lambda one: one & 0b101)
    assert asked == [[5, 4, 1]] and runs == {one: f"run {one & 0b101}" for one in range(8)}


def test_halves_where_they_do_not_and_no_more_than_fitted_after_it():
    runs, asked = {}, []
    in_batches(range(7), 7, making(2, asked), runs, EVERYTHING)
    assert [len(batch) for batch in asked] == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert sorted(runs) == list(range(7))


def test_one_that_does_not_fit_is_an_error_and_so_is_every_other():
    runs = {}
    with pytest.raises(RuntimeError, match="can't allocate"):
        in_batches(range(4), 2, making(0, []), runs, EVERYTHING)

    def broken(batch):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        in_batches(range(4), 2, broken, runs, EVERYTHING)
    assert runs == {}


def test_a_gpu_s_error_is_known_too():
    def make(batch):
        if len(batch) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return {batch[0]: None}

    runs = {}
    in_batches([3, 5], 2, make, runs, EVERYTHING)
    assert sorted(runs) == [3, 5]
