"""Block weights: which factor a LoRA has in which layer, and when."""

from __future__ import annotations

import pytest

from sciart_ext.lora.blocks import KINDS, LABELS, LISTS, kind_of
from sciart_ext.recipe import compile_plan, dump_recipe, parse_recipe
from sciart_ext.recipe.layer_factors import LayerFactors, check_blocks, varying_factors

ATTENTION = "unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
FEED_FORWARD = "unet_output_blocks_3_1_transformer_blocks_0_ff_net_2"
RESIDUAL = "unet_middle_block_0_in_layers_2"
OUTSIDE = "unet_time_embed_0"


def constants(blocks, *layers):
    return [LayerFactors(blocks).of(layer).constant for layer in layers]


def test_a_block_s_own_factor_comes_before_its_group_s_and_multiplies_with_its_kind_s():
    blocks = {"in": 0.5, "IN04": 0.2, "attention": 3.0, "out": 0.1, "convolution": -1.0}
    assert constants(blocks, ATTENTION, FEED_FORWARD, RESIDUAL, OUTSIDE) == [pytest.approx(0.6), 0.1, -1.0, 1.0]
    assert constants(blocks, ATTENTION.replace("blocks_4", "blocks_5")) == [1.5]
    assert constants({}, ATTENTION, OUTSIDE) == [1.0, 1.0]


@pytest.mark.parametrize(("layer", "kind"), [
    (ATTENTION, "attention"), (FEED_FORWARD, "feed_forward"), (RESIDUAL, "convolution"), (OUTSIDE, None),
    ("unet_middle_block_1_proj_in", "attention"), ("unet_middle_block_1_norm", "attention"),
    ("unet_input_blocks_1_1_transformer_blocks_0_norm3", "feed_forward"), ("unet_input_blocks_3_0_op", "convolution"),
    ("unet_output_blocks_2_upsampler_conv", "convolution"), ("unet_input_blocks_0_0", "convolution"),
    ("te1_text_model_encoder_layers_0_mlp_fc1", None)])
def test_kinds_of_layers(layer, kind):
    assert kind_of(layer) == kind


@pytest.mark.parametrize("length", sorted(LISTS))
def test_a_list_s_blocks_have_its_values_and_the_others_nothing(length):
    assert len(LISTS[length]) == length and set(LISTS[length]) <= set(LABELS)
    values = check_blocks(", ".join(f"{i / 100}" for i in range(1, length + 1)))
    factors = LayerFactors(values)
    assert factors.text_encoder == 0.01
    for label in LABELS[1:]:
        side = {"I": "input", "O": "output"}.get(label[0])
        layer = f"unet_{side}_blocks_{int(label[-2:])}_0_x" if side else "unet_middle_block_0_x"
        listed = LISTS[length].index(label) + 1 if label in LISTS[length] else 0
        assert factors.of(layer).constant == listed / 100
    assert factors.of(OUTSIDE).constant == factors.of("unet_out_2").constant == 1.0


@pytest.mark.parametrize(("written", "name"), [
    ("in04", "IN04"), ("IN4", "IN04"), ("In", "in"), ("INPUT", "in"), ("middle", "mid"), ("MID", "mid"),
    ("out3", "OUT03"), ("base", "BASE"), ("m0", "M00"), ("Attention", "attention"), ("feed-forward", "feed_forward"),
    ("ＩＮ０４", "IN04")])
def test_a_block_s_name_may_be_written_otherwise(written, name):
    assert check_blocks({written: 0.5}) == {name: 0.5}


def test_a_factor_may_be_a_text_with_decimal_comma_or_percent():
    assert check_blocks({"in": "0,5", "out": "50%", "mid": "0,2@0; 1@s5"}) == {
        "in": 0.5, "out": 0.5, "mid": [[0, 0.2], ["s5", 1]]}
    assert check_blocks({"BASE": "0,5"}) == {"BASE": 0.5}


def test_a_list_leaves_layers_out():
    factors = LayerFactors([1.0] * 17)
    assert factors.unlisted([ATTENTION, FEED_FORWARD, RESIDUAL, OUTSIDE, "unet_input_blocks_3_0_op"]) == [
        "unet_input_blocks_3_0_op"]
    assert LayerFactors({"in": 0}).unlisted([ATTENTION]) == LayerFactors().unlisted([ATTENTION]) == []


def test_a_factor_in_steps_is_placed_for_the_pass():
    recipe = parse_recipe({"loras": [{"name": "a", "weight": 1, "blocks": {"in": "0@s3, 1@s3"}}]})
    plan = compile_plan(recipe, 5, 3)
    assert [plan.first.gates(p) for p in plan.first.progress()] == [(1, 0), (1, 0), (1, 1), (1, 1), (1, 1)]
    assert [plan.hires.gates(p) for p in plan.hires.progress()] == [(1, 0), (1, 0), (1, 1)]
    assert parse_recipe(dump_recipe(recipe)) == recipe


def test_the_usual_lists():
    assert LISTS[17][1:4] == ("IN01", "IN02", "IN04") and LISTS[17][7:9] == ("M00", "OUT03")
    assert LISTS[12][1] == "IN04" and LISTS[12][-1] == "OUT05" and LISTS[20][-1] == "OUT08"


def test_schedules_are_gates_of_their_own():
    blocks = {"in": [[0, 0.0], [1, 1.0]], "attention": "1@0, 0@1", "mid": 0.5}
    plan = compile_plan(parse_recipe({"loras": [{"name": "a", "weight": 1}, {"name": "b", "weight": 0.5,
                                                                            "blocks": blocks}]}), 5).first
    varying = varying_factors([{}, check_blocks(blocks)])
    assert len(varying) == 3 and {k for k, _ in varying} == {1}
    gates = dict(zip([None, "b", *(factor.schedules for _, factor in varying)], plan.gates(0.25)))
    factors = LayerFactors(check_blocks(blocks))
    assert gates["b"] == 0.5
    assert gates[factors.of(ATTENTION).schedules] == pytest.approx(0.5 * 0.25 * 0.75)
    assert gates[factors.of(ATTENTION.replace("input", "output")).schedules] == pytest.approx(0.5 * 0.75)
    assert gates[factors.of(RESIDUAL.replace("middle_block", "input_blocks_1")).schedules] == pytest.approx(0.5 * 0.25)
    assert factors.of(RESIDUAL).schedules == () and factors.of(RESIDUAL).constant == 0.5
    assert plan.changes() == 5 and plan.te_gates() == (1, 0.5)


def test_base_multiplies_the_text_encoder_s_weight():
    recipe = parse_recipe({"loras": [{"name": "a", "weight": 0.8, "blocks": [0.5] + [1] * 16},
                                     {"name": "b", "weight": 0.8, "te_weight": 0.2, "blocks": {"BASE": 2}}]})
    assert compile_plan(recipe, 3).first.te_gates() == (0.4, 0.4)


def test_block_weights_survive_the_infotext():
    for blocks in ([1.0] * 17, {"OUT03": 0.5, "feed_forward": [[0.0, 0.2], [1.0, 0.8]]}):
        recipe = parse_recipe({"loras": [{"name": "a", "weight": 1, "blocks": blocks}]})
        assert dump_recipe(recipe)["loras"][0]["blocks"] == blocks and parse_recipe(dump_recipe(recipe)) == recipe
    assert "blocks" not in dump_recipe(parse_recipe({"loras": [{"name": "a", "weight": 1, "blocks": {}}]}))["loras"][0]


def test_every_name_is_of_one_sort():
    assert len({*LABELS, *KINDS, "in", "mid", "out"}) == len(LABELS) + len(KINDS) + 3
