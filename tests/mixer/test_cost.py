"""What merging and branching cost: which layers are merged, within which memory."""

from __future__ import annotations

import dataclasses
import random

import pytest

from sciart_ext.mixer.cost import CPU, ENCODING, GPU, Matrix, Workload, choose_merged, costs, tokens

SD1_LEVELS = 4
EVERY_STEP = Workload(calls=20, changes=20, rows=2, height=64, width=64)
CONSTANT = dataclasses.replace(EVERY_STEP, changes=1)
UNLIMITED = float("inf")

LARGE_GRID = "unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q"  # 64 × 64
SMALL_GRID = "unet_middle_block_1_transformer_blocks_0_attn1_to_q"  # 8 × 8
TEXT_KEYS = "unet_middle_block_1_transformer_blocks_0_attn2_to_k"
TIME = "unet_input_blocks_1_0_emb_layers_1"
SHAPES = {LARGE_GRID: Matrix(320, 320, 2), SMALL_GRID: Matrix(1280, 1280, 2), TEXT_KEYS: Matrix(1280, 768, 2),
          TIME: Matrix(320, 1280, 2)}


def elements(layer, work):
    """Matrix elements that merging and branching touch, written out from the formulas."""
    m, n = SHAPES[layer][:2]
    return work.changes * m * n, work.charged_calls * tokens(layer, work, SD1_LEVELS) * (m + n)


def choose(work, limit=UNLIMITED, shapes=SHAPES, rates=CPU):
    return choose_merged(shapes, work, SD1_LEVELS, limit, rates)


def test_a_thin_layer_on_a_large_grid_merges_a_wide_one_on_a_small_grid_branches():
    merged = choose(EVERY_STEP)
    assert LARGE_GRID in merged
    assert SMALL_GRID not in merged


@pytest.mark.parametrize("calls", [1, 4, 20])
def test_constant_gates_merge_every_layer_however_short_the_pass(calls):
    assert choose(dataclasses.replace(CONSTANT, calls=calls)) == set(SHAPES)


def test_a_single_call_with_gates_that_do_not_recur_is_charged_as_one_call():
    once = dataclasses.replace(CONSTANT, calls=1, recurs=False)
    assert choose(once) == {LARGE_GRID}
    assert choose(ENCODING, shapes={"te1_text_model_encoder_layers_0_mlp_fc1": Matrix(3072, 768, 4)}) == set()


def test_fewer_changes_never_merge_less():
    before = set()
    for changes in (20, 15, 10, 5, 2, 1):
        now = choose(dataclasses.replace(EVERY_STEP, changes=changes))
        assert now >= before
        before = now


def test_the_cheaper_of_the_two_is_chosen_for_each_layer():
    for changes in (1, 2, 5, 10, 20):
        for rows in (1, 2, 8):
            work = dataclasses.replace(EVERY_STEP, changes=changes, rows=rows)
            assert choose(work) == {layer for layer in SHAPES if elements(layer, work)[0] < elements(layer, work)[1]}


def test_layers_that_see_one_number_a_row_branch_where_gates_change():
    assert TIME not in choose(EVERY_STEP)
    assert TIME in choose(CONSTANT)


def test_larger_pictures_merge_more():
    small, large = (dataclasses.replace(EVERY_STEP, height=size, width=size) for size in (64, 160))
    assert choose(large) > choose(small)
    assert SMALL_GRID in choose(large)


def test_where_rows_differ_nothing_is_merged():
    assert choose(dataclasses.replace(CONSTANT, rows_differ=True)) == set()


def dense(*names, shapes=SHAPES):
    """The shapes, of which those of these layers have a delta without thin factors."""
    return {layer: matrix._replace(is_dense=layer in names) for layer, matrix in shapes.items()}


def test_layers_without_thin_factors_merge_however_small_their_grid_and_however_often_gates_change():
    assert SMALL_GRID not in choose(EVERY_STEP)
    assert choose(EVERY_STEP, shapes=dense(SMALL_GRID, TIME)) == choose(EVERY_STEP) | {SMALL_GRID, TIME}
    differ = dataclasses.replace(EVERY_STEP, rows_differ=True)
    assert choose(differ, shapes=dense(*SHAPES)) == set()


def test_under_a_memory_limit_layers_without_thin_factors_come_first():
    shapes = {LARGE_GRID: Matrix(320, 320, 2), LARGE_GRID.replace("attn1", "attn2"): Matrix(320, 320, 2)}
    for whole in shapes:
        assert choose(CONSTANT, 320 * 320 * 2, dense(whole, shapes=shapes)) == {whole}


def test_nothing_is_chosen_where_nothing_is_there():
    assert choose(CONSTANT, shapes={}) == set()


@pytest.mark.parametrize("seed", range(5))
def test_the_memory_limit_holds_and_the_layers_that_save_most_per_byte_come_first(seed):
    rng = random.Random(seed)
    shapes = {f"unet_input_blocks_{i}_1_proj_in": Matrix(rng.choice((320, 640, 1280)), rng.choice((320, 768, 1280)),
                                                          rng.choice((2, 4))) for i in (1, 2, 4, 5, 7, 8, 10, 11)}
    sizes = {layer: matrix.nbytes for layer, matrix in shapes.items()}
    wanted = choose(CONSTANT, shapes=shapes)
    assert len(wanted) > 4

    def gain(layer):
        m, n = shapes[layer][:2]
        branch = CONSTANT.charged_calls * tokens(layer, CONSTANT, SD1_LEVELS) * (m + n)
        return (branch - CONSTANT.changes * m * n) / sizes[layer]

    for share in (0.0, 0.1, 0.3, 0.6, 0.9, 1.0):
        limit = share * sum(sizes[layer] for layer in wanted)
        merged = choose(CONSTANT, limit, shapes)
        used = sum(sizes[layer] for layer in merged)
        assert used <= limit
        assert merged <= wanted
        for left in wanted - merged:  # there was no room beside those that save at least as much per byte
            better = sum(sizes[layer] for layer in merged if gain(layer) >= gain(left))
            assert better + sizes[left] > limit
    assert choose(CONSTANT, sum(sizes[layer] for layer in wanted), shapes) == wanted


def test_a_layer_that_does_not_fit_leaves_room_for_a_smaller_one():
    shapes = {"unet_input_blocks_1_1_proj_in": Matrix(320, 320, 2),
              "unet_input_blocks_4_1_proj_in": Matrix(640, 640, 2)}
    limit = 320 * 320 * 2
    assert choose(CONSTANT, limit, shapes) == {"unet_input_blocks_1_1_proj_in"}
    assert choose(CONSTANT, limit - 1, shapes) == set()


@pytest.mark.parametrize(("layer", "expected"), [
    ("unet_input_blocks_1_1_proj_in", 2 * 64 * 48), ("unet_input_blocks_3_0_op", 2 * 32 * 24),
    ("unet_input_blocks_11_0_in_layers_2", 2 * 8 * 6), ("unet_middle_block_1_proj_in", 2 * 8 * 6),
    ("unet_output_blocks_2_upsampler_conv", 2 * 16 * 12), ("unet_output_blocks_11_1_proj_out", 2 * 64 * 48),
    ("unet_out_2", 2 * 64 * 48), ("unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k", 2 * 77),
    ("unet_input_blocks_1_1_transformer_blocks_0_attn2_to_v", 2 * 77),
    ("unet_input_blocks_1_1_transformer_blocks_0_attn2_to_q", 2 * 64 * 48),
    ("unet_input_blocks_1_0_emb_layers_1", 2), ("unet_time_embed_0", 2), ("unet_label_emb_0_0", 2),
])
def test_the_positions_that_a_call_sends_through_a_layer(layer, expected):
    assert tokens(layer, dataclasses.replace(CONSTANT, width=48), SD1_LEVELS) == expected


def test_a_tiny_grid_has_at_least_one_position():
    assert tokens(SMALL_GRID, dataclasses.replace(CONSTANT, rows=1, height=4, width=4), SD1_LEVELS) == 1


def test_on_a_gpu_a_small_weight_is_merged_however_often_gates_change_for_a_branch_is_three_launches_a_call():
    """What is quicker by arithmetic on a small grid is not worth its launches."""
    small = {SMALL_GRID: Matrix(320, 320, 2, ranks=96)}
    one = dataclasses.replace(EVERY_STEP, height=8, width=8)
    assert choose(one, shapes=small) == set()
    assert choose(one, shapes=small, rates=GPU) == {SMALL_GRID}


def test_on_a_gpu_a_wide_weight_on_a_small_grid_branches_where_gates_change():
    wide = {SMALL_GRID: Matrix(10240, 1280, 2, ranks=96)}
    assert choose(EVERY_STEP, shapes=wide, rates=GPU) == set()
    assert choose(CONSTANT, shapes=wide, rates=GPU) == {SMALL_GRID}


def test_the_ranks_count_where_launches_and_memory_do():
    thin, thick = (costs(Matrix(1280, 1280, 2, ranks), 64, EVERY_STEP, GPU) for ranks in (8, 1024))
    assert thin[0] < thick[0] and thin[1] < thick[1]
    on_cpu = [costs(Matrix(1280, 1280, 2, ranks), 64, EVERY_STEP, CPU) for ranks in (8, 1024)]
    assert on_cpu[0][0] / on_cpu[0][1] == pytest.approx(on_cpu[1][0] / on_cpu[1][1])
