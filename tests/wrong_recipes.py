"""Recipes that are refused: (what is wrong, recipe, field of the error, part of its message)."""

from __future__ import annotations

CHILD = {"name": "child", "weight": 0.5}


def _loras(**changes):
    """A recipe of one LoRA with other values; None removes a field."""
    entry = {**CHILD, **changes}
    return {"loras": [{key: value for key, value in entry.items() if value is not None}]}


def _scheduled(schedule, **changes):
    return _loras(weight=None, schedule=schedule, **changes)


def _hires(**values):
    return _loras(hires=values)


def _composed(**settings):
    return {**_loras(), "composition": settings}


PNG = "data:image/png;base64,"
TOO_MANY = {"loras": [{"name": f"n{i}", "weight": 1} for i in range(33)]}

WRONG = [
    ("a list", [CHILD], "recipe", "expected one JSON object, got list"),
    ("a number", 3, "recipe", "expected one JSON object, got int"),
    ("a text that is no JSON", "{loras", "recipe", "not valid JSON"),
    ("NaN in JSON", '{"loras": [{"name": "a", "weight": NaN}]}', "recipe", "NaN is not a JSON number"),
    ("infinity in JSON", '{"loras": [{"name": "a", "weight": Infinity}]}', "recipe", "Infinity is not a JSON"),
    ("a JSON list", "[1]", "recipe", "expected one JSON object, got list"),
    ("nothing in it", {}, "loras", "give at least one LoRA or a preset"),
    ("no LoRA", {"loras": []}, "loras", "give at least one LoRA or a preset"),
    ("an unknown field", {**_loras(), "lora": []}, "lora", "did you mean 'loras'?"),
    ("a case-changed field", {**_loras(), "Compose": "merge"}, "Compose", "unknown field"),
    ("enabled is a text", {**_loras(), "enabled": "yes"}, "enabled", "expected true or false, got 'yes'"),
    ("enabled is a number", {**_loras(), "enabled": 1}, "enabled", "expected true or false, got 1"),
    ("an unknown way to compose", {**_loras(), "compose": "blend"}, "compose", "accepted: 'merge', 'switch', "),
    ("an unknown way to combine", {**_loras(), "combine": "sum"}, "combine", "'orthogonal', 'ties'"),
    ("an unknown combining", {**_loras(), "combining": {"densty": 1}}, "combining.densty", "did you mean 'density'?"),
    ("a density of nothing", {**_loras(), "combining": {"density": 0}}, "combining.density", "from 0.01 to 1"),
    ("a density over 1", {**_loras(), "combining": {"density": 1.5}}, "combining.density", "out of range"),
    ("an unknown majority", {**_loras(), "combining": {"majority": "all"}}, "combining.majority", "'frequency'"),
    ("a seed that is no whole number", {**_loras(), "combining": {"seed": 1.5}}, "combining.seed", "whole number"),
    ("a negative seed", {**_loras(), "combining": {"seed": -1}}, "combining.seed", "from 0 to 4294967295"),
    ("no directions", {**_loras(), "combining": {"directions": 0}}, "combining.directions", "from 1 to 4096, got 0"),
    ("directions that are true", {**_loras(), "combining": {"directions": True}}, "combining.directions", "got True"),
    ("combining as a word", {**_loras(), "combining": "ties"}, "combining", "not a valid dict"),
    ("contrastive without a subject", {**_loras(), "compose": "contrastive"}, "loras[0].subject", "missing"),
    ("a trigger without a subject", _loras(trigger="red"), "loras[0].trigger", "needs a subject"),
    ("a region without a subject", _loras(region=[0, 0, 1, 1]), "loras[0].region", "needs a subject"),
    ("a region of three numbers", _loras(subject="x", region=[0, 0, 1]), "loras[0].region", "four numbers"),
    ("a region turned round", _loras(subject="x", region=[0.5, 0, 0.2, 1]), "loras[0].region", "x0 < x1"),
    ("a region outside", _loras(subject="x", region=[0, 0, 2, 1]), "loras[0].region", "out of range"),
    ("a region that is no picture", _loras(region="left"), "loras[0].region", "begins with 'left'"),
    ("a broken picture", _loras(region=PNG + "AAAA"), "loras[0].region", "cannot be read"),
    ("a picture that is not base64", _loras(region=PNG + "?"), "loras[0].region", "cannot be read"),
    ("regions without a region", {**_loras(), "compose": "regions"}, "loras[0].region", "missing; compose regions"),
    ("an unknown composition", _composed(perod=2), "composition.perod", "did you mean 'period'?"),
    ("a period of half a step", _composed(period=0.5), "composition.period", "a whole number from 1 to 1000, got 0.5"),
    ("a period of none", _composed(period=0), "composition.period", "from 1 to 1000"),
    ("a patch that is true", _composed(patch=True), "composition.patch", "from 1 to 64, got True"),
    ("a temperature of 0", _composed(temperature=0), "composition.temperature", "out of range"),
    ("too much of the base model", _composed(recenter=1.5), "composition.recenter", "from 0 to 1"),
    ("a feather wider than the half", _composed(feather=0.6), "composition.feather", "from 0 to 0.5"),
    ("hires as a number", _composed(hires=1), "composition.hires", "true or false, got 1"),
    ("an order in words", _composed(order="child"), "composition.order", "a list of LoRA names"),
    ("an order of none", _composed(order=[]), "composition.order", "a list of LoRA names"),
    ("an order with one twice", _composed(order=["child", "child"]), "composition.order", "each LoRA once"),
    ("an order of others", _composed(order=["chlid"]), "composition.order[0]", "did you mean 'child'?"),
    ("an order that lacks one", {**_composed(order=["child"]), "loras": [CHILD, {**CHILD, "name": "b"}]},
     "composition.order", "b never acts"),
    ("an empty subject", _loras(subject=""), "loras[0].subject", "at least 1 char"),
    ("an unknown guidance", {**_loras(), "guidance": {"power": 1}}, "guidance.power", "unknown field"),
    ("a negative strength", {**_loras(), "guidance": {"strength": -1}}, "guidance.strength", "out of range"),
    ("a mask threshold over 1", {**_loras(), "guidance": {"mask_threshold": 2}}, "guidance.mask_threshold", "from 0"),
    ("refinement at no progress", {**_loras(), "guidance": {"refine": {"2": 5}}}, "guidance.refine.2", "from 0 to 1"),
    ("no refinement", {**_loras(), "guidance": {"refine": {"0": 0}}}, "guidance.refine.0", "1 to 100, got 0"),
    ("refinement as a list", {**_loras(), "guidance": {"refine": [5]}}, "guidance.refine", "expected an object"),
    ("masks as a word", {**_loras(), "guidance": {"masks": "yes"}}, "guidance.masks", "true or false, got 'yes'"),
    ("regions of no kind", {**_loras(), "guidance": {"regions": "all"}}, "guidance.regions", "'whole', 'attention'"),
    ("an opacity over 1", {**_loras(), "guidance": {"opacity": [[0, 1.5]]}}, "guidance.opacity", "out of range"),
    ("an opacity in words", {**_loras(), "guidance": {"opacity": "half"}}, "guidance.opacity", ""),
    ("an unknown execution", {**_loras(), "execution": "fast"}, "execution", "accepted: 'auto', 'merge', 'branch'"),
    ("a negative memory limit", {**_loras(), "memory_limit_mb": -1}, "memory_limit_mb", "out of range"),
    ("a memory limit in words", {**_loras(), "memory_limit_mb": "2GB"}, "memory_limit_mb", "expected a number"),
    ("roles are a list", {**_loras(), "roles": ["child"]}, "roles", "not a valid dict"),
    ("loras are an object", {"loras": CHILD}, "loras", "not a valid list"),
    ("a LoRA is a text", {"loras": ["child"]}, "loras[0]", "not a valid dict"),
    ("too many LoRAs", TOO_MANY, "loras", "at most 32"),
    ("the same LoRA twice", {"loras": [CHILD, CHILD]}, "loras[1].name", "'child' is listed twice"),
    ("neither name nor role", _loras(name=None), "loras[0].name", "give a name or a role"),
    ("name and role", _loras(role="child"), "loras[0].name", "give a name or a role, one of them"),
    ("an empty name", _loras(name=""), "loras[0].name", "at least 1 characters"),
    ("an empty role", _loras(name=None, role=""), "loras[0].role", "at least 1 characters"),
    ("no weight", _loras(weight=None), "loras[0].weight", "missing; give a weight or a schedule"),
    ("the second without weight", {"loras": [CHILD, {"name": "b"}]}, "loras[1].weight", "missing"),
    ("a weight in words", _loras(weight="half"), "loras[0].weight", "expected a number from -10 to 10, got 'half'"),
    ("a weight as text", _loras(weight="0.5"), "loras[0].weight", "expected a number from -10 to 10, got '0.5'"),
    ("a weight that is true", _loras(weight=True), "loras[0].weight", "got True"),
    ("a weight too large", _loras(weight=10.5), "loras[0].weight", "10.5 is out of range"),
    ("a weight too small", _loras(weight=-11), "loras[0].weight", "-11 is out of range"),
    ("a weight of NaN", _loras(weight=float("nan")), "loras[0].weight", "nan is out of range"),
    ("a weight of infinity", _loras(weight=float("inf")), "loras[0].weight", "inf is out of range"),
    ("a weight as a list", _loras(weight=[0.5]), "loras[0].weight", "got [0.5]"),
    ("a text-encoder weight too large", _loras(te_weight=11), "loras[0].te_weight", "11 is out of range"),
    ("weight and schedule", _loras(schedule="0.2@0"), "loras[0].schedule", "a weight or a schedule, not both"),
    ("an empty schedule", _scheduled([]), "loras[0].schedule", "expected points"),
    ("an empty schedule text", _scheduled(""), "loras[0].schedule", "cannot read ''"),
    ("a schedule that is a number", _scheduled(0.5), "loras[0].schedule", "expected points"),
    ("a point of three", _scheduled([[0, 0.5, 1]]), "loras[0].schedule[0]", "expected a pair"),
    ("a point that is a number", _scheduled([[0, 1], 0.5]), "loras[0].schedule[1]", "expected a pair"),
    ("a point that is a text", _scheduled(["ab"]), "loras[0].schedule[0]", "expected a pair"),
    ("progress above 1", _scheduled([[0, 1], [1.5, 0]]), "loras[0].schedule[1].progress", "from 0 to 1"),
    ("progress in steps", _scheduled("0.2@0, 0.65@10"), "loras[0].schedule[1].progress", "10.0 is out of range"),
    ("negative progress", _scheduled([[-0.1, 1]]), "loras[0].schedule[0].progress", "out of range"),
    ("a scheduled weight too large", _scheduled("20@0"), "loras[0].schedule[0].weight", "20.0 is out of range"),
    ("progress twice", _scheduled("0.2@0.5, 0.3@0.5"), "loras[0].schedule", "two points at progress 0.5"),
    ("a schedule text without number", _scheduled("a@0"), "loras[0].schedule", "cannot read 'a@0'"),
    ("a schedule text with two signs", _scheduled("1@0@1"), "loras[0].schedule", "cannot read '1@0@1'"),
    ("too many points", _scheduled([[i / 2000, 0] for i in range(1001)]), "loras[0].schedule", "at most 1000"),
    ("an unknown curve", _scheduled("1@0", curve="spline"), "loras[0].curve", "accepted: 'linear', 'step', 'cosine'"),
    ("an unknown block", _loras(blocks={"down": 1}), "loras[0].blocks.down", "accepted: "),
    ("a block's factor in words", _loras(blocks={"in": "x"}), "loras[0].blocks.in", "expected WEIGHT@PROGRESS"),
    ("a block's factor too large", _loras(blocks={"out": 99}), "loras[0].blocks.out", "99 is out of range"),
    ("too few block weights", _loras(blocks=[1, 1, 1]), "loras[0].blocks", "accepted: lists of 12, 17, 20, 26"),
    ("block weights in words", _loras(blocks="1,one"), "loras[0].blocks", "expected numbers with commas"),
    ("a block weight too large", _loras(blocks=[1] * 16 + [11]), "loras[0].blocks[16]", "11 is out of range"),
    ("a block weight that is true", _loras(blocks=[True] * 17), "loras[0].blocks[0]", "got True"),
    ("blocks as a number", _loras(blocks=0.5), "loras[0].blocks", "or a list of block weights, got 0.5"),
    ("a kind's schedule in disorder", _loras(blocks={"attention": [[0, 1], [0, 2]]}), "loras[0].blocks.attention",
     "two points at progress 0"),
    ("text encoders on a schedule", _loras(blocks={"BASE": "0@0, 1@1"}), "loras[0].blocks.BASE", "accepted: a number"),
    ("an unknown part", _loras(apply_to="prompt"), "loras[0].apply_to", "accepted: 'both', 'cond', 'uncond'"),
    ("an unknown field of a LoRA", _loras(weigth=1), "loras[0].weigth", "did you mean 'weight'?"),
    ("a field of the second LoRA", {"loras": [CHILD, {**CHILD, "x": 1}]}, "loras[1].x", "unknown field"),
    ("hires is a number", _loras(hires=0.5), "loras[0].hires", "not a valid dict"),
    ("an unknown field of hires", _hires(wieght=1), "loras[0].hires.wieght", "did you mean 'weight'?"),
    ("a hires weight in words", _hires(weight="x"), "loras[0].hires.weight", "expected a number"),
    ("a hires point", _hires(schedule="1@2"), "loras[0].hires.schedule[0].progress", "2.0 is out of range"),
    ("hires weight and schedule", _hires(weight=1, schedule="1@0"), "loras[0].hires.schedule", "not both"),
    ("an unknown hires curve", _hires(weight=1, curve="x"), "loras[0].hires.curve", "accepted: 'linear'"),
]
