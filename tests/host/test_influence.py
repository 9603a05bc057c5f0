"""Influence over the API: each set of LoRAs as the host itself would have made it, told, cancelled, refused; and after
it everything as before."""

from __future__ import annotations

import base64
import io
import threading
import time

import numpy as np
import pytest
from pictures import MAX_DIFFERENCE, MEAN_DIFFERENCE, WEIGHTS, difference, recipe, with_recipe
from PIL import Image
from server import HostServer

ROUTE = "/sciart/v1/influence"


@pytest.fixture(autouse=True)
def as_before(host: HostServer):
    """The plain picture and the model's fingerprint are the same afterwards."""
    host.post("/probe/reset")
    plain, state = host.txt2img(), host.probe()
    yield
    host.post("/probe/reset")
    assert host.txt2img().pngs[0] == plain.pngs[0] and host.probe() == state


def asked(host: HostServer, **fields) -> dict:
    picture = {**host.quick(), "prompt": "a rocket and a robot", **fields.pop("txt2img", {})}
    return {"txt2img": picture, "recipe": recipe(), **fields}


def told(host: HostServer, **fields) -> dict:
    reply = host.post(ROUTE, asked(host, **fields))
    assert reply.status == 200, reply.text
    return reply.json


def opened(png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"))


def assert_pictures(host: HostServer, answer: dict, of: dict[str, dict], **txt2img) -> None:
    """The pictures of these titles are those of these recipes, made alone."""
    for title, given in of.items():
        alone = host.txt2img(**{**host.quick(), "prompt": "a rocket and a robot", **txt2img, **with_recipe(given)})
        assert alone.status == 200, alone.text
        largest, mean = difference(opened(answer["images"][answer["pictures"].index(title)]), alone.pictures[0])
        assert largest <= MAX_DIFFERENCE and mean <= MEAN_DIFFERENCE, f"{title}: largest {largest}, mean {mean:.4f}"


ALONE = {"no LoRA": {"enabled": False}, "only child": recipe({"child": 0.7}), "all": recipe(),
         "without child": recipe({name: weight for name, weight in WEIGHTS.items() if name != "child"})}


@pytest.mark.parametrize("sampler", ["Euler", "Euler a", "DPM++ 2M SDE", "DPM++ SDE", "Heun", "DDIM", "UniPC"])
def test_each_set_is_what_it_is_alone(host: HostServer, sampler) -> None:
    answer = told(host, txt2img={"sampler_name": sampler}, words=[])
    assert len(answer["images"]) == 8 and answer["cancelled"] is False
    assert_pictures(host, answer, ALONE, sampler_name=sampler)


def test_it_says_how_much_when_and_where(host: HostServer) -> None:
    answer = told(host, page=True)
    assert [sentence.split(":")[0] for sentence in answer["sentences"]] == list(WEIGHTS)
    shares = answer["shares"]
    assert sum(shares["parts"]) == pytest.approx(1, abs=2e-6) and shares["residual"] < 1e-10 and shares["orders"] is None
    assert len(answer["alone"]["curves"]) == 3 and len(answer["alone"]["curves"][0]) == 5
    assert all(curve[0] == 0 and curve[-1] > 0 for curve in answer["alone"]["curves"])
    assert opened(answer["heatmaps"]["alone"]).shape[1] > 3 * 200
    assert answer["page"].startswith("<!doctype html>") and all(s in answer["page"] for s in answer["sentences"])
    assert "rocket" in answer["page"] and "robot" in answer["page"]
    assert answer["made"]["prompt"] == "a rocket and a robot" and answer["made"]["seed"] == 1


def test_a_lora_of_weight_0_gets_exactly_nothing(host: HostServer) -> None:
    given = {"loras": [*recipe()["loras"][:2], {"name": "science", "weight": 0}]}
    answer = told(host, recipe=given, words=[])
    assert answer["shares"]["parts"][2] == 0 and answer["alone"]["mean_delta_e"][2] == 0
    assert len(answer["images"]) == 8 and answer["images"][0] != answer["images"][1] == answer["images"][5]
    hires = {"enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.6}
    given["loras"][2]["hires"] = {"weight": 0.8}
    answer = told(host, recipe=given, words=[], txt2img=hires)
    assert answer["shares"]["parts"][2] != 0


@pytest.mark.parametrize("changes", [
    {"at_once": 3}, {"txt2img": {"sampler_name": "Euler a", "enable_hr": True, "hr_scale": 2, "denoising_strength": 0.6}},
    {"txt2img": {"cfg_scale": 1}}, {"txt2img": {"prompt": "a rocket and a robot", "negative_prompt": "noise, " * 50}}])
def test_split_with_a_hires_pass_without_cfg_and_with_long_prompts(host: HostServer, changes) -> None:
    answer = told(host, words=["rocket"], **changes)
    assert_pictures(host, answer, ALONE, **changes.get("txt2img", {}))


def test_with_text_encoders_that_differ(host: HostServer) -> None:
    loras = [{"name": "child", "weight": 0.2, "te_weight": 0.9}, {"name": "watercolor", "weight": 0.5, "te_weight": 0},
             {"name": "science", "schedule": "0.2@0, 0.8@1", "apply_to": "cond"}]
    answer = told(host, recipe={"loras": loras}, subsets="solo")
    assert answer["pictures"] == ["no LoRA", "only child", "only watercolor", "only science"]
    assert_pictures(host, answer, {f"only {lora['name']}": {"loras": [lora]} for lora in loras})


def test_of_a_steered_picture_without_one_of_its_subjects(host: HostServer) -> None:
    loras = [{"name": "child", "weight": 0.6, "subject": "rocket"}, {"name": "science", "weight": 0.6,
             "subject": "robot"}, {"name": "watercolor", "weight": 0.5}]
    steered = {"loras": loras, "compose": "contrastive"}
    answer = told(host, recipe=steered)
    assert_pictures(host, answer, {"all": steered, "without watercolor": {**steered, "loras": loras[:2]}})
    assert answer["alone"]["curves"][0][-1] > 0


def test_the_recipe_may_stand_where_the_host_has_it(host: HostServer) -> None:
    request = asked(host, subsets="left-out", words=[])
    del request["recipe"]
    request["txt2img"].update(with_recipe(recipe()))
    answer = host.post(ROUTE, request).json
    assert answer["pictures"] == ["without child", "without watercolor", "without science", "all"]
    assert answer["sentences"][0].startswith("without child: ΔE ")


def test_of_a_picture_that_was_made_before(host: HostServer) -> None:
    made = host.txt2img(prompt="a rocket and a robot", sampler_name="Euler a", seed=7, steps=5, **with_recipe(recipe()))
    answer = host.post(ROUTE, {"txt2img": {"infotext": made.infotext}, "words": []}).json
    assert answer["made"]["seed"] == 7 and answer["made"]["steps"] == 5 and len(answer["alone"]["curves"][0]) == 6
    assert difference(opened(answer["images"][answer["pictures"].index("all")]), made.pictures[0])[0] <= MAX_DIFFERENCE


def test_interrupted_it_says_how_far_it_came_and_goes_on_from_there(host: HostServer) -> None:
    request, answers = asked(host, at_once=2, words=[], txt2img={"steps": 60}), []
    working = threading.Thread(target=lambda: answers.append(host.post(ROUTE, request)))
    working.start()
    wait_until(host, lambda state: state["job_count"] == 4 and state["job_no"] >= 1)
    host.post("/sdapi/v1/interrupt")
    working.join()
    assert answers[0].status == 200, answers[0].text
    cut = answers[0].json
    assert cut["cancelled"] is True and 2 <= cut["made"] < 8 and cut["of"] == 8
    began = time.monotonic()
    whole = host.post(ROUTE, request).json
    assert whole["cancelled"] is False and len(whole["images"]) == 8 and time.monotonic() > began
    fresh = told(host, words=[], txt2img={"steps": 60})
    for one, other in zip(whole["images"], fresh["images"]):
        assert difference(opened(one), opened(other))[0] <= MAX_DIFFERENCE


def wait_until(host: HostServer, reached) -> None:
    deadline = time.monotonic() + 60
    while not reached(host.get("/sdapi/v1/progress").json["state"]):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_does_not_fit_in_memory_at_once_is_made_by_halves(host: HostServer) -> None:
    whole = told(host, words=[])
    host.post("/probe/room", {"rows": 5})
    try:
        split = told(host, words=[])
    finally:
        host.post("/probe/reset")
    for one, other in zip(split["images"], whole["images"]):
        assert difference(opened(one), opened(other))[0] <= MAX_DIFFERENCE


def test_a_failure_on_the_way_is_an_error(host: HostServer) -> None:
    host.post("/probe/fault", {"where": "unet", "at": 2})
    failed = host.post(ROUTE, asked(host, words=[]))
    assert failed.status == 422 and "probe" in failed.text  # rows of a batch have LoRAs of their own


@pytest.mark.parametrize(("changes", "field"), [
    ({"recipe": None}, "recipe"), ({"recipe": {"loras": []}}, "loras"), ({"recipe": {"loras": [{"name": "nobody",
     "weight": 1}]}}, "loras[0].name"), ({"subsets": "some"}, "subsets"), ({"orders": 1}, "orders"),
    ({"at_once": 0}, "at_once"), ({"words": ["submarine"]}, "words"), ({"txt2img": {"batch_size": 2}},
     "txt2img.batch_size"), ({"txt2img": {"steps": "many"}}, "txt2img.steps"),
    ({"txt2img": {"script_name": "x/y/z plot"}}, "txt2img.script_name")])
def test_what_cannot_be_told_is_refused(host: HostServer, changes, field) -> None:
    reply = host.post(ROUTE, asked(host, **changes))
    assert reply.status == 422 and reply.json["detail"]["field"].startswith(field), reply.text


def test_geometry_of_the_hosts_loras(host: HostServer) -> None:
    reply = host.post("/sciart/v1/geometry", {"loras": ["child", "watercolor"], "weights": [0.7, 0.5], "page": True})
    assert reply.status == 200, reply.text
    assert reply.json["loras"] == ["child", "watercolor"] and "How the LoRAs lie" in reply.json["page"]
    assert reply.json["whole"]["cosines"][0][0] == pytest.approx(1)
    for loras, field in ((["child"], "loras"), (["child", "nobody"], "loras[1]")):
        assert host.post("/sciart/v1/geometry", {"loras": loras}).json["detail"]["field"] == field
