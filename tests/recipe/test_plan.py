"""The plan: which gate each LoRA has at which step, in which rows, in both passes."""

from __future__ import annotations

import pytest

from sciart_ext.recipe import Pair, Row, compile_plan, parse_recipe


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


def test_the_text_encoder_of_the_hires_pass_follows_its_weight_unless_its_own_is_given():
    off, scheduled, own, rest = {"weight": 0}, {"schedule": "0.1@0, 0.3@1"}, {"weight": 0, "te_weight": 0.2}, {}
    plan = plan_of(*({"weight": 0.8, "hires": hires} for hires in (off, scheduled, own, rest)),
                   {"weight": 0.8, "te_weight": 0.5, "hires": off}, {"weight": 0.8, "te_weight": 0.5}, hires_steps=3)
    assert plan.first.te_gates() == (0.8, 0.8, 0.8, 0.8, 0.5, 0.5)
    assert plan.hires.te_gates() == (0, 0.3, 0.2, 0.8, 0.5, 0.5)


def test_the_factor_of_the_text_encoders_holds_in_both_passes():
    plan = plan_of({"weight": 0.8, "te_weight": 0.6, "blocks": {"BASE": 0.5}, "hires": {"te_weight": 0.2}},
                   hires_steps=2)
    assert plan.first.te_gates() == (0.3,) and plan.hires.te_gates() == (0.1,)


def both_prompts(part):
    return part.gates(0.5), part.gates(0.5, MINUS), part.te_gates(), part.te_gates(MINUS)


def test_the_negative_prompt_may_have_its_own_weights():
    plan = plan_of({"weight": 0.8, "negative": {"weight": 0.2}}, {"weight": 0.5},
                   {"weight": 0.5, "negative": {"te_weight": 0.1}}, {"weight": 0.5, "te_weight": 0.3, "negative": {}},
                   {"weight": 0.5, "negative": {"schedule": "0@0, 1@1", "te_weight": -0.5}}, hires_steps=3)
    assert both_prompts(plan.first) == ((0.8, 0.5, 0.5, 0.5, 0.5), (0.2, 0.5, 0.5, 0.5, 0.5),
                                        (0.8, 0.5, 0.5, 0.3, 0.5), (0.2, 0.5, 0.1, 0.3, -0.5))
    assert both_prompts(plan.hires) == ((0.8, 0.5, 0.5, 0.5, 0.5), (0.2, 0.5, 0.5, 0.5, 1),
                                        (0.8, 0.5, 0.5, 0.3, 0.5), (0.2, 0.5, 0.1, 0.3, -0.5))
    assert plan.first.rows_differ and plan.hires.rows_differ
    assert plan.first.changes() == 5 and plan.hires.changes() == 1


def test_the_hires_pass_says_both_prompts_or_the_negative_one_alone():
    plan = plan_of({"weight": 0.8, "negative": {"weight": 0.2}, "hires": {"weight": 0.4}},
                   {"weight": 0.8, "hires": {"weight": 0.4, "negative": {"weight": 0.1}}},
                   {"weight": 0.8, "hires": {"negative": {"schedule": "0.3@s1, 0.1@s2"}}},
                   {"weight": 0.8, "negative": {"weight": 0.2}, "hires": {"te_weight": 0.6}},
                   {"weight": 0.8, "negative": {"weight": 0.2}, "hires": {"negative": {"te_weight": 0.6}}},
                   hires_steps=3)
    assert both_prompts(plan.hires) == ((0.4, 0.4, 0.8, 0.8, 0.8), (0.4, 0.1, 0.1, 0.2, 0.2),
                                        (0.4, 0.4, 0.8, 0.6, 0.8), (0.4, 0.1, 0.3, 0.6, 0.6))


def test_a_subject_with_a_mask_has_a_share_of_its_weight_in_the_negative_prompt():
    subjects = [{"weight": 0.8, "subject": "a"}, {"weight": 0.8, "subject": "b", "negative": {"weight": 0.3}},
                {"weight": 0.8, "subject": "c", "apply_to": "cond"}, {"weight": 0.8},
                {"weight": 0.8, "subject": "d", "hires": {"weight": 0.6}},
                {"weight": 0.8, "subject": "e", "hires": {"negative": {"weight": 0.1}}}]

    def plan(share, compose="masked"):
        loras = [{"name": f"n{i}", **lora} for i, lora in enumerate(subjects)]
        return compile_plan(parse_recipe({"compose": compose, "masking": {"negative": share}, "loras": loras}), 5, 5)

    halved = plan(0.5)
    assert halved.first.gates(0, MINUS) == (0.4, 0.3, 0, 0.8, 0.4, 0.4)
    assert halved.hires.gates(0, MINUS) == (0.4, 0.3, 0, 0.8, 0.3, 0.1)
    assert halved.first.gates(0) == (0.8,) * 6 and halved.first.te_gates(MINUS) == (0.8, 0.3, 0, 0.8, 0.8, 0.8)
    told = halved.table()["first"]["loras"]
    assert told[0]["negative"]["weights"] == [0.4] * 5 and "negative" not in told[3]
    alone = [halved.first.with_only(1 << k).rows_differ for k in (0, 3)]
    assert alone == [True, False] and not plan(1).first.with_only(1).rows_differ
    assert plan(0, "merge").first.gates(0, MINUS) == (0.8, 0.3, 0, 0.8, 0.8, 0.8)


def test_rows_differ_only_where_weights_of_the_unet_do():
    assert not plan_of({"weight": 0.5, "negative": {"weight": 0.5, "te_weight": 0}}).first.rows_differ
    assert not plan_of({"weight": 0.5, "negative": {}}).first.rows_differ
    assert plan_of({"schedule": "0@0, 1@1", "negative": {"schedule": "0@0, 1@1", "curve": "step"}}).first.rows_differ
    plan = plan_of({"weight": 0.5, "negative": {"weight": 0.1}}, {"weight": 0.5}).first
    assert plan.with_only(0b01).rows_differ and not plan.with_only(0b10).rows_differ


def test_a_lora_that_acts_in_the_negative_prompt_alone_acts():
    plan = plan_of({"weight": 0, "negative": {"weight": 0.5}}, {"weight": 0, "negative": {"te_weight": 0.1}},
                   {"weight": 0, "negative": {"weight": 0}})
    assert plan.acting(0b111) == 0b011


def test_each_lora_s_own_rows_have_its_weights_of_their_prompts():
    plan = rows_of([{**A, "negative": {"weight": 0.2}}, B], compose="composite")
    assert [plan.gates(0, row) for row in plan.rows()] == [(1, 0), (0, 0.5), (0, 0.5), (0.2, 0)]
    assert [plan.te_gates(row) for row in plan.rows()] == [(1, 0.5), (1, 0.5), (0.2, 0.5), (0.2, 0.5)]
    turns = switched({**A, "negative": {"weight": 0.2}}, {**B, "negative": {"weight": 0.1}}, period=2).first
    assert [turns.gates(p, MINUS) for p in turns.progress()[1:5]] == [(0.2, 0), (0.2, 0), (0, 0.1), (0, 0.1)]
    assert turns.te_gates(MINUS) == (0.2, 0)


def test_the_table_tells_the_negative_prompt_s_weights_where_they_are_others():
    first, second = plan_of({"weight": 0.5, "negative": {"schedule": "0@0, 1@1"}}, {"weight": 0.5, "negative": {}},
                            steps=3).table()["first"]["loras"]
    assert first["negative"] == {"te_weight": 1, "weights": [0, 0.5, 1]} and "negative" not in second


def test_steps_after_the_last_are_told():
    plan = plan_of({"schedule": "0@s1, 1@s6"}, {"schedule": "0@s1, 1@s5"}, {"weight": 1, "blocks": {"in": "1:stop=9"}},
                   {"weight": 1, "negative": {"schedule": "1:start=7"}}, {"weight": 1, "hires": {"schedule": "1@s4"}},
                   steps=5, hires_steps=3)
    assert plan.first.late() == ["n0", "n2", "n3"] and plan.hires.late() == ["n2", "n4"]


def test_schedules_in_steps_are_of_the_pass():
    plan = plan_of({"schedule": "0.2@s1, 1@s3, 0.5@s3"}, {"weight": 1, "hires": {"schedule": "0.8:start=2"}}, steps=5,
                   hires_steps=3)
    assert weights(plan.table()["first"])[0] == [0.2, 0.6, 0.5, 0.5, 0.5]
    assert weights(plan.table()["hires"]) == [[0.5] * 3, [0, 0.8, 0.8]]
    assert plan.first.te_gates()[0] == 1


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
    assert plan.rows() == (Row(), Row(own=1), Row(own=2), Row(uncond=True, plain=True), Row(uncond=True))
    assert [plan.gates(0.5, row) for row in (*plan.rows(), Row(plain=True))] == [
        (0.5, 1, 0.5), (0.5, 1, 0), (0.5, 0, 0.5), (0.5, 0, 0), (0.5, 1, 0.5), (0.5, 0, 0)]
    assert [plan.te_gates(row) for row in plan.rows()[:4]] == [
        (0.5, 1, 0.3), (0.5, 1, 0), (0.5, 0, 0.3), (0.5, 0, 0)]
    assert plan.changes() == 5


def switched(*loras, steps=8, **composition):
    return compile_plan(parse_recipe({"loras": list(loras), "compose": "switch", "composition": composition}), steps)


A, B, C = ({"name": name, "weight": weight} for name, weight in (("a", 1), ("b", 0.5), ("c", 0.25)))
MINUS = Row(uncond=True)


def acting(plan):
    return ["".join("abc"[k] for k, gate in enumerate(plan.gates(p)) if gate) for p in plan.progress()]


def test_switch_lets_one_lora_act_at_a_time_the_first_a_step_longer():
    assert acting(switched(A, B, C, period=2).first) == ["a", "a", "a", "b", "b", "c", "c", "a"]
    assert acting(switched(A, B, C, steps=14).first) == ["a"] * 6 + ["b"] * 5 + ["c"] * 3
    assert acting(switched(A, B, period=1, steps=5).first) == ["a", "a", "b", "a", "b"]
    assert acting(switched(A, B, steps=1).first) == ["a"]


def test_switch_begins_with_subjects_or_as_told():
    subject = {**C, "subject": "rocket"}
    assert acting(switched(A, B, subject, period=2).first)[::2] == ["c", "c", "a", "b"]
    assert acting(switched(A, B, subject, period=2, order=["b", "c", "a"]).first)[::2] == ["b", "b", "c", "a"]


def test_switch_multiplies_with_schedules_and_needs_no_rows():
    plan = switched({"name": "a", "schedule": "0@0, 1@1"}, B, steps=5, period=2).first
    assert weights(switched({"name": "a", "schedule": "0@0, 1@1"}, B, steps=5, period=2).table()["first"]) == [
        [0, 0.25, 0.5, 0, 0], [0, 0, 0, 0.5, 0.5]]
    assert plan.rows() == (Row(), MINUS) and not plan.rows_differ and plan.changes() == 4


def test_switch_encodes_prompts_with_the_lora_that_acts_first_and_those_that_say_so():
    assert switched(A, B, C, order=["b", "a", "c"]).first.te_gates() == (0, 0.5, 0)
    assert switched(A, {**B, "te_weight": 0.3}, C).first.te_gates() == (1, 0.3, 0)
    assert switched({**A, "te_weight": 0}, B).first.te_gates() == (0, 0)


def test_the_hires_pass_of_switch_begins_anew_or_is_merged():
    for hires, gates in ((True, ["a", "a", "a", "b"]), (False, ["ab"] * 4)):
        recipe = {"loras": [A, B], "compose": "switch", "composition": {"period": 2, "hires": hires}}
        plan = compile_plan(parse_recipe(recipe), 7, 4).hires
        assert acting(plan) == gates
        assert plan.te_gates() == ((1, 0) if hires else (1, 0.5))


def test_composite_gives_each_lora_its_own_rows_and_all_the_same_text():
    plan = rows_of([A, B, C], compose="composite")
    assert plan.pairs() == tuple(Pair(Row(own=k), Row(uncond=True, own=k)) for k in range(3))
    assert plan.rows() == (*(Row(own=k) for k in range(3)), *(Row(uncond=True, own=k) for k in (2, 1, 0)))
    assert [plan.gates(0, row) for row in plan.rows()] == [
        (1, 0, 0), (0, 0.5, 0), (0, 0, 0.25), (0, 0, 0.25), (0, 0.5, 0), (1, 0, 0)]
    assert {plan.te_gates(row) for row in plan.rows()} == {(1, 0.5, 0.25)}
    assert plan.rows_differ and plan.looking() == (0, 1, 2)


def test_rows_in_which_no_lora_of_its_own_acts_are_one():
    plan = rows_of([{**A, "apply_to": "cond"}, {**B, "apply_to": "cond"}, C], compose="composite")
    assert plan.rows()[3:] == (Row(uncond=True, own=2), Row(uncond=True, plain=True))
    assert [plan.rows().index(pair.uncond) for pair in plan.pairs()] == [4, 4, 3]
    assert plan.gates(0, Row(uncond=True, plain=True)) == (0, 0, 0)


def test_composite_of_one_lora_is_merge():
    assert rows_of([A], compose="composite").pairs() == (Pair(),)


def test_spatial_has_the_base_models_rows_first():
    plan = rows_of([A, B], compose="spatial")
    base = Pair(Row(plain=True), Row(uncond=True, plain=True))
    assert plan.pairs() == (base, *(Pair(Row(own=k), Row(uncond=True, own=k)) for k in (0, 1)))
    assert plan.rows()[0] == base.cond and plan.rows()[-1] == base.uncond
    assert plan.gates(0, base.cond) == plan.te_gates(base.cond) == (0, 0)
    assert plan.te_gates(Row(own=1)) == (0, 0.5) and plan.looking() == (1, 2)


def test_regions_give_rows_to_loras_with_a_region_and_the_others_act_everywhere():
    plan = rows_of([{**A, "region": [0, 0, 0.5, 1]}, B, {**C, "region": [0.5, 0, 1, 1]}], compose="regions")
    assert plan.own == (0, 2)
    assert [plan.gates(0, row) for row in plan.rows()] == [
        (0, 0.5, 0), (1, 0.5, 0), (0, 0.5, 0.25), (0, 0.5, 0.25), (1, 0.5, 0), (0, 0.5, 0)]
    assert [plan.te_gates(row) for row in plan.rows()[:3]] == [(0, 0.5, 0), (1, 0.5, 0), (0, 0.5, 0.25)]


@pytest.mark.parametrize("compose", ["composite", "spatial", "regions"])
def test_their_hires_pass_may_be_merged(compose):
    for hires in (True, False):
        loras = [{**A, "region": [0, 0, 1, 1]}, {**B, "region": [0, 0, 1, 0.5]}] if compose == "regions" else [A, B]
        plan = compile_plan(parse_recipe({"loras": loras, "compose": compose, "composition": {"hires": hires}}), 4, 3)
        assert plan.first.own == (0, 1) and plan.hires.own == ((0, 1) if hires else ())


@pytest.mark.parametrize("compose", ["switch", "composite", "spatial"])
def test_a_counterfactual_leaves_rows_and_turns_as_they_are(compose):
    plan = rows_of([A, B], compose=compose)
    without = plan.with_only(0b10)
    assert without.rows() == plan.rows()
    for row in plan.rows():
        for progress in plan.progress():
            assert without.gates(progress, row) == (0, plan.gates(progress, row)[1])


def test_a_lora_acts_if_it_does_at_any_step_of_any_pass_or_in_the_text_encoders():
    idle, late = {"weight": 0}, {"schedule": "0@0, 0@0.5, 1@1"}
    plan = plan_of({"weight": 1}, idle, late, {"weight": 0, "te_weight": 0.1}, {"weight": 0, "hires": {"weight": 1}})
    assert [plan.acting(one) for one in (0, 0b1, 0b10, 0b11111)] == [0, 0b1, 0, 0b01101]
    late["te_weight"] = 0
    assert [plan_of(idle, late, steps=steps).acting(0b11) for steps in (1, 5)] == [0, 0b10]
    with_hires = plan_of({"weight": 0, "hires": {"weight": 1}}, hires_steps=2)
    assert with_hires.acting(1) == 1
    assert [switched(A, B, steps=steps).acting(0b11) for steps in (6, 7)] == [0b01, 0b11]  # B's turn never comes
