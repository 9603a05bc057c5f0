"""The plan: which gate each LoRA has at which step, in which rows, in both passes."""

from __future__ import annotations

import pytest

from sciart_ext.plan import Row, compile_plan
from sciart_ext.recipe import parse_recipe


def plan_of(*loras, steps=5, hires_steps=0):
    entries = [{"name": f"n{i}", **lora} for i, lora in enumerate(loras)]
    return compile_plan(parse_recipe({"loras": entries}), steps, hires_steps)


def weights(table):
    return [lora["weights"] for lora in table["loras"]]


def test_gates_follow_each_lora_s_own_schedule():
    plan = plan_of({"schedule": "0@0, 1@1"}, {"weight": 0.3}, {"schedule": "1@0, 0@0.5", "curve": "step"})
    assert weights(plan.table()["first"]) == [[0, 0.25, 0.5, 0.75, 1], [0.3] * 5, [1, 1, 0, 0, 0]]
    assert plan.first.gates(0.25) == (0.25, 0.3, 1)


def test_progress_is_step_over_steps_less_one():
    assert plan_of({"weight": 1}, steps=3).first.progress() == [0, 0.5, 1]


def test_one_step_is_progress_0():
    plan = plan_of({"schedule": "0.2@0, 0.9@1"}, steps=1)
    assert plan.first.progress() == [0]
    assert weights(plan.table()["first"]) == [[0.2]]


def test_the_hires_pass_holds_the_weight_the_first_pass_ended_with():
    plan = plan_of({"schedule": "0.2@0, 0.65@0.5"}, {"weight": 0.3}, hires_steps=3)
    assert weights(plan.table()["hires"]) == [[0.65] * 3, [0.3] * 3]


def test_with_one_step_the_first_pass_ended_at_progress_0():
    plan = plan_of({"schedule": "0.2@0, 0.9@1"}, steps=1, hires_steps=2)
    assert weights(plan.table()["hires"]) == [[0.2, 0.2]]


def test_the_hires_pass_has_its_own_progress_and_curve():
    plan = plan_of({"weight": 0.5, "hires": {"schedule": "1@0, 0@1", "curve": "cosine"}}, hires_steps=3)
    assert weights(plan.table()["hires"])[0] == pytest.approx([1, 0.5, 0])
    assert weights(plan.table()["first"]) == [[0.5] * 5]


def test_a_hires_weight_of_zero_is_a_weight():
    assert weights(plan_of({"weight": 0.5, "hires": {"weight": 0}}, hires_steps=2).table()["hires"]) == [[0, 0]]


def test_the_hires_pass_of_contrastive_may_be_merged():
    loras = [{"name": name, "weight": 1, "subject": name} for name in ("rocket", "robot")]
    for hires in (True, False):
        recipe = {"loras": loras, "compose": "contrastive", "guidance": {"hires": hires}}
        plan = compile_plan(parse_recipe(recipe), 4, 3)
        assert plan.first.subjects == (0, 1)
        assert plan.hires.subjects == ((0, 1) if hires else ())
        assert plan.hires.te_gates(Row(plain=True)) == ((0, 0) if hires else (1, 1))


def test_there_is_no_hires_pass_unless_asked_for():
    plan = plan_of({"weight": 0.5, "hires": {"weight": 0.1}})
    assert plan.hires is None and plan.table()["hires"] is None


def test_the_text_encoder_s_weight_defaults_to_the_largest():
    plan = plan_of({"weight": 0.4}, {"schedule": "0.2@0, 0.8@0.5, 0.1@1"}, {"schedule": "0.2@0, -0.9@1"},
                   {"weight": 0.4, "te_weight": 0}, hires_steps=2)
    assert plan.first.te_gates() == (0.4, 0.8, -0.9, 0)
    assert plan.hires.te_gates() == (0.4, 0.8, -0.9, 0)


def test_the_hires_pass_may_have_its_own_text_encoder_weight():
    plan = plan_of({"weight": 0.4, "hires": {"te_weight": 0.1}}, hires_steps=2)
    assert plan.first.te_gates() == (0.4,)
    assert plan.hires.te_gates() == (0.1,)
    assert weights(plan.table()["hires"]) == [[0.4, 0.4]]


@pytest.mark.parametrize(("apply_to", "cond", "uncond"), [("both", 0.5, 0.5), ("cond", 0.5, 0), ("uncond", 0, 0.5)])
def test_apply_to_decides_the_rows(apply_to, cond, uncond):
    plan = plan_of({"weight": 0.5, "te_weight": 0.3, "apply_to": apply_to}, hires_steps=2)
    for part in (plan.first, plan.hires):
        assert part.gates(0.5) == (cond,)
        assert part.gates(0.5, Row(uncond=True)) == (uncond,)
        assert part.te_gates() == (0.3 if cond else 0,)
        assert part.te_gates(Row(uncond=True)) == (0.3 if uncond else 0,)
        assert part.rows_differ == (apply_to != "both")


def test_changes_counts_how_often_gates_change():
    assert plan_of({"weight": 1}, steps=20).first.changes() == 1
    assert plan_of({"schedule": "0@0, 1@1"}, steps=20).first.changes() == 20
    assert plan_of({"schedule": "0@0, 1@0.5", "curve": "step"}, {"weight": 1}, steps=20).first.changes() == 2
    assert plan_of({"schedule": "0.2@0, 0.6@0.5"}, steps=5).first.changes() == 3
    assert plan_of({"schedule": "0@0, 1@1", "apply_to": "uncond"}, steps=4).first.changes() == 4


def test_no_lora_is_a_plan_too():
    plan = compile_plan(parse_recipe({"enabled": False}), 4, 2)
    assert plan.first.gates(0.5) == () and plan.hires.te_gates() == ()


def test_the_table_says_names_parts_and_blocks():
    table = plan_of({"weight": 0.5, "apply_to": "cond", "blocks": {"mid": 0.5}}, steps=2).table()["first"]
    assert table == {"steps": 2, "progress": [0, 1], "loras": [
        {"name": "n0", "apply_to": "cond", "te_weight": 0.5, "blocks": {"mid": 0.5}, "weights": [0.5, 0.5]}]}


def rows_of(loras, **recipe):
    return compile_plan(parse_recipe({"loras": loras, **recipe}), 5).first


def test_merged_loras_share_the_prompts_row():
    plan = rows_of([{"name": "a", "weight": 1, "subject": "rocket"}, {"name": "b", "weight": 0.5}])
    assert plan.rows() == (Row(), Row(uncond=True)) and not plan.rows_differ
    assert plan.gates(0) == (1, 0.5)


def test_contrastive_gives_each_subject_a_row_beside_the_mixtures_and_styles_every_row():
    plan = rows_of([{"name": "style", "weight": 0.5}, {"name": "a", "weight": 1, "subject": "rocket"},
                    {"name": "b", "schedule": [[0, 0], [1, 1]], "subject": "robot", "te_weight": 0.3}],
                   compose="contrastive")
    assert plan.subjects == (1, 2) and plan.rows_differ
    assert plan.rows() == (Row(), Row(subject=1), Row(subject=2), Row(uncond=True, plain=True), Row(uncond=True))
    assert [plan.gates(0.5, row) for row in (*plan.rows(), Row(plain=True))] == [
        (0.5, 1, 0.5), (0.5, 1, 0), (0.5, 0, 0.5), (0.5, 0, 0), (0.5, 1, 0.5), (0.5, 0, 0)]
    assert [plan.te_gates(row) for row in plan.rows()[:4]] == [
        (0.5, 1, 0.3), (0.5, 1, 0), (0.5, 0, 0.3), (0.5, 0, 0)]
    assert plan.changes() == 5


def test_a_lora_acts_if_it_does_at_any_step_of_any_pass_or_in_the_text_encoders():
    idle, late = {"weight": 0}, {"schedule": "0@0, 0@0.5, 1@1"}
    plan = plan_of({"weight": 1}, idle, late, {"weight": 0, "te_weight": 0.1}, {"weight": 0, "hires": {"weight": 1}})
    assert [plan.acting(one) for one in (0, 0b1, 0b10, 0b11111)] == [0, 0b1, 0, 0b01101]
    late["te_weight"] = 0
    assert [plan_of(idle, late, steps=steps).acting(0b11) for steps in (1, 5)] == [0, 0b10]
    with_hires = plan_of({"weight": 0, "hires": {"weight": 1}}, hires_steps=2)
    assert with_hires.acting(1) == 1
