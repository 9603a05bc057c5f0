"""The X/Y/Z plot: each cell is the API's picture of its own recipe, and says so in its infotext."""

from __future__ import annotations

import json
import os
from itertools import product
from pathlib import Path

import pytest
from pictures import recipe, with_recipe
from plots import axis_labels, plot
from server import HostServer

from sciart_ext.host.webui.axes import axes
from sciart_ext.recipe import parse_recipe

TWO = {"loras": [{"name": "child", "weight": 0.7}, {"name": "watercolor", "schedule": "0.1@0, 0.6@1"}]}
ROLES = {"child": "child", "watercolor": "watercolor", "science": "science"}
ONE_STEP = {"steps": 2}


def weights(child: float, watercolor: float, **more) -> dict:
    return recipe({"child": child, "watercolor": watercolor}, **more)


def said(infotext: str) -> dict:
    text = json.JSONDecoder().raw_decode(infotext, infotext.index("SciArt: ") + len("SciArt: "))[0]
    return parse_recipe(text)


def assert_cells(host: HostServer, made, recipes: list[dict], **payload) -> None:
    assert made.status == 200, made.text
    assert len(made.pngs) == 1 + len(recipes)
    for i, one in enumerate(recipes, 1):
        alone = host.txt2img(**payload, **with_recipe(one))
        assert alone.status == 200, alone.text
        assert (made.pictures[i] == alone.pictures[0]).all(), one
        assert said(made.info["infotexts"][i]) == parse_recipe(one)


def test_every_axis_is_offered_in_both_tabs(host: HostServer) -> None:
    expected = [f"[SciArt] {axis.label}" for axis in axes()]
    for is_img2img in (False, True):
        labels = axis_labels(host, is_img2img)
        assert [label for label in labels if label.startswith("[SciArt]")] == expected


def test_two_weights_and_a_compose_axis_give_the_apis_pictures(host: HostServer) -> None:
    made = plot(host, ("[SciArt] LoRA 1 weight", "0-1 (+0.5)"), ("[SciArt] LoRA 2 weight", "0.2, 0.9"),
                ("[SciArt] Compose", "merge, switch"), **with_recipe(TWO))
    cells = [weights(x, y, compose=z) for z, y, x in product(("merge", "switch"), (0.2, 0.9), (0.0, 0.5, 1.0))]
    assert_cells(host, made, cells)
    assert len({picture.tobytes() for picture in made.pictures[1:]}) > 8, "the axes change the pictures"
    if folder := os.environ.get("SCIART_SCREENSHOTS"):
        (Path(folder) / "xyz.png").write_bytes(made.pngs[0])
    grid = made.info["infotexts"][0]
    assert "X Type: [SciArt] LoRA 1 weight, X Values: 0-1 (+0.5)" in grid and "Z Values: \"merge, switch\"" in grid


def test_the_grid_leaves_the_next_picture_alone(host: HostServer) -> None:
    before, state = host.txt2img().pngs[0], host.probe()
    assert plot(host, ("[SciArt] LoRA 1 weight", "0, 1"), **ONE_STEP, **with_recipe(TWO)).status == 200
    after = host.txt2img()
    assert after.pngs[0] == before and "SciArt" not in after.infotext and host.probe() == state


def test_schedules_are_quoted_or_take_semicolons(host: HostServer) -> None:
    made = plot(host, ("[SciArt] LoRA 1 schedule (0.2@0; 0.65@0.5)", '"0.2@0, 0.65@0.5", 0.1@0; 1@1, 0.4'), **with_recipe(TWO))
    cells = [{"loras": [{"name": "child", "schedule": text}, TWO["loras"][1]]}
             for text in ("0.2@0, 0.65@0.5", "0.1@0, 1@1", "0.4@0")]
    assert_cells(host, made, cells)


def test_names_and_weights_make_a_recipe_where_there_is_none(host: HostServer) -> None:
    made = plot(host, ("[SciArt] LoRA 1 weight", "0.3, 0.8"), ("[SciArt] LoRA 1 name", "child, science"))
    assert_cells(host, made, [recipe({name: weight}) for name in ("child", "science") for weight in (0.3, 0.8)])
    by_name = plot(host, ("[SciArt] NAME=WEIGHT", "child=0.4, watercolor=0.9, science=0.2@0; 0.9@1"), **with_recipe(TWO))
    assert_cells(host, by_name, [
        {"loras": [{"name": "child", "weight": 0.4}, TWO["loras"][1]]},
        {"loras": [TWO["loras"][0], {"name": "watercolor", "weight": 0.9}]},
        {"loras": [*TWO["loras"], {"name": "science", "schedule": "0.2@0, 0.9@1"}]}])


def test_a_preset_axis_makes_the_recipe_and_weights_change_it(host: HostServer) -> None:
    host.post("/sciart/v1/roles", ROLES)
    made = plot(host, ("[SciArt] LoRA 1 weight", "0, 0.9"),
                ("[SciArt] Preset", "science-imagination, science-imagination-watercolor"), **with_recipe())
    presets = {name: host.get(f"/sciart/v1/presets/{name}").json["recipe"]["loras"]
               for name in ("science-imagination", "science-imagination-watercolor")}
    cells = [{"loras": [{"name": ROLES[lora["role"]], "weight": weight if k == 0 else lora["weight"]}
                        for k, lora in enumerate(loras)]} for loras in presets.values() for weight in (0.0, 0.9)]
    assert_cells(host, made, cells)
    chosen = plot(host, ("[SciArt] Preset", list(presets)), **ONE_STEP)
    assert_cells(host, chosen, [{"loras": [{"name": ROLES[lora["role"]], "weight": lora["weight"]} for lora in loras]}
                                for loras in presets.values()], **ONE_STEP)
    host.post("/sciart/v1/roles", dict.fromkeys(ROLES, ""))


def test_combine_strength_and_the_switch(host: HostServer) -> None:
    methods = ["linear", "ties", "orthogonal"]
    assert_cells(host, plot(host, ("[SciArt] Combine", methods), **with_recipe(TWO)),
                 [{**TWO, "combine": method} for method in methods])
    two = {"compose": "contrastive", "loras": [{"name": "child", "weight": 1, "subject": "rocket"},
                                               {"name": "science", "weight": 1, "subject": "robot"}]}
    prompt = {"prompt": "a rocket and a robot"}
    assert_cells(host, plot(host, ("[SciArt] Guidance strength", "0, 25"), **prompt, **with_recipe(two)),
                 [{**two, "guidance": {"strength": strength}} for strength in (0.0, 25.0)], **prompt)
    for axis, values, group in (("Noises", (1, 2), "noises"), ("Mask threshold", (0.1, 0.4), "mask_threshold")):
        assert_cells(host, plot(host, (f"[SciArt] {axis}", ", ".join(map(str, values))), **prompt, **with_recipe(two)),
                     [{**two, "guidance": {group: value}} for value in values], **prompt)
    switched = plot(host, ("[SciArt] Enabled", ["True", "False"]), **with_recipe({**TWO, "enabled": False}))
    assert (switched.pictures[1] == host.txt2img(**with_recipe(TWO)).pictures[0]).all()
    assert (switched.pictures[2] == host.txt2img().pictures[0]).all()
    assert "SciArt" not in switched.info["infotexts"][2]


@pytest.mark.parametrize(("wanted", "given", "field", "message"), [
    ([("LoRA 3 weight", "0, 1")], TWO, "loras[2]", "there is no LoRA 3 for the axis; the recipe has 2"),
    ([("LoRA 1 weight", "0, 1")], None, "loras[0]", "the recipe has none"),
    ([("LoRA 1 weight", "0, 11")], TWO, "loras[0].weight", "11.0 is out of range"),
    ([("LoRA 1 schedule (0.2@0; 0.65@0.5)", "0.2@0, soon")], TWO, "loras[0].schedule", "cannot read 'soon'"),
    ([("LoRA 1 name", "child, nobody")], TWO, "loras[0].name", "no LoRA 'nobody'"),
    ([("LoRA 1 name", "child, watercolor")], TWO, "loras[1].name", "'watercolor' is listed twice"),
    ([("NAME=WEIGHT", "child")], TWO, "loras", "expected NAME=WEIGHT"),
    ([("NAME=WEIGHT", "nobody=1")], TWO, "loras[2].name", "no LoRA 'nobody'"),
    ([("Preset", "nobody")], TWO, "preset", "no preset 'nobody'"),
    ([("Compose", "merge, mix")], TWO, "compose", "unknown value; accepted: 'merge', 'switch'"),
    ([("LoRA 1 weight", "0, 1"), ("Compose", "merge, contrastive")], TWO, "loras[0].subject", "needs a LoRA with a"),
    ([("Combine", "sum")], TWO, "combine", "unknown value"),
    ([("Guidance strength", "-1")], TWO, "guidance.strength", "out of range"),
    ([("LoRA 1 weight", "0, 1")], {**TWO, "enabled": False}, "enabled", "SciArt is switched off"),
])
def test_what_cannot_be_plotted_is_refused_before_the_first_cell(host: HostServer, wanted, given, field,
                                                                 message) -> None:
    host.post("/probe/fault", {"where": "unet", "at": 1})
    refused = plot(host, *[(f"[SciArt] {label}", values) for label, values in wanted], **with_recipe(given))
    still_armed = host.probe()["fault"]
    host.post("/probe/reset")
    assert refused.status == 422, refused.text
    assert refused.json["detail"]["field"] == field and message in refused.json["detail"]["message"], refused.text
    assert still_armed["where"] == "unet", "sampling had begun"
