"""Beside extensions nobody has tried: a picture is right, or refused by the name of the file that would spoil it, and
the next one is as before either way. The extensions are the probe's, each as others are made."""

from __future__ import annotations

import pytest
from pictures import assert_other_picture, assert_same_picture, recipe
from server import HostServer, Reply

FILE = "probe/scripts/stranger.py"
SUBJECTS = [{"name": "child", "weight": 0.8, "subject": "rocket"}, {"name": "watercolor", "weight": 0.8,
                                                                    "subject": "robot"}]
OWN_ROWS = {
    "composite": recipe(compose="composite"),
    "spatial": recipe(compose="spatial"),
    "regions": {"compose": "regions", "loras": [{"name": "child", "weight": 0.8, "region": [0, 0, 0.5, 1]},
                                                {"name": "watercolor", "weight": 0.8, "region": [0.5, 0, 1, 1]}]},
    "contrastive": {"compose": "contrastive", "loras": SUBJECTS},
}
SPOILING = ["hook", "method", "class", "module", "function", "model", "step", "texts", "texts_in_place", "latents",
            "late"]
UNCHECKED = {"sciart_check_others": False}
SPOILT = [(kind, way) for kind in SPOILING for way in OWN_ROWS]


def made(host: HostServer, given: dict | None, kind: str | None = None, **settings) -> Reply:
    scripts = {"SciArt": {"args": [given]}} if given else {}
    if kind:
        scripts["Stranger"] = {"args": [kind]}
    prompts = {"prompt": "a rocket and a robot", "negative_prompt": "blurry"}
    return host.txt2img(**{**prompts, **settings}, alwayson_scripts=scripts)


def nearly_nothing(given: dict) -> dict:
    return {**given, "loras": [{**lora, "weight": 0.0001} for lora in given["loras"]]}


@pytest.fixture(autouse=True)
def as_before(host: HostServer):
    """The plain picture and the model are the same after each test, and the stranger is off."""
    host.post("/probe/reset")
    plain, state = made(host, None), host.probe()
    yield
    host.post("/probe/reset")
    assert made(host, None).pngs[0] == plain.pngs[0] and host.probe() == state


@pytest.mark.parametrize(("kind", "way"), SPOILT)
def test_who_takes_rows_for_others_is_refused_by_name(host: HostServer, kind: str, way: str) -> None:
    refused = made(host, OWN_ROWS[way], kind)
    assert refused.status == 422, refused.text[:500]
    assert refused.json["detail"]["field"] == "compose"
    assert FILE in refused.text and "accepted: merge, switch" in refused.text
    assert_same_picture(made(host, None, kind), made(host, nearly_nothing(recipe()), kind))


@pytest.mark.parametrize("way", OWN_ROWS)
def test_who_treats_all_rows_alike_is_welcome(host: HostServer, way: str) -> None:
    alone = made(host, None, "fair")
    assert_other_picture(alone, made(host, None))
    assert made(host, OWN_ROWS[way], "fair").status == 200
    if way != "contrastive":  # which moves the latents whatever the weights
        assert_same_picture(alone, made(host, nearly_nothing(OWN_ROWS[way]), "fair"))


@pytest.mark.parametrize("kind", ["in_place", "without_gradient", "unseen"])
def test_who_keeps_from_contrastive_what_it_reads_is_refused_by_name(host: HostServer, kind: str) -> None:
    refused = made(host, OWN_ROWS["contrastive"], kind)
    assert refused.status == 422 and FILE in refused.text and "accepted: merge, switch" in refused.text
    assert_same_picture(made(host, None, kind), made(host, nearly_nothing(OWN_ROWS["spatial"]), kind))


def influence(host: HostServer, kind: str, words: list[str], **settings) -> Reply:
    scripts = {"Stranger": {"args": [kind]}}
    return host.post("/sciart/v1/influence", {
        "txt2img": {**host.quick(), "prompt": "a rocket and a robot", "alwayson_scripts": scripts, **settings},
        "recipe": OWN_ROWS["regions"], "words": words, "subsets": "solo"})


def test_who_keeps_from_word_maps_what_they_read_is_refused_by_name(host: HostServer) -> None:
    refused = influence(host, "unseen", ["rocket"])
    assert refused.status == 422 and refused.json["detail"]["field"] == "words" and FILE in refused.text
    assert influence(host, "unseen", []).status == 200


def test_the_check_changes_no_word_map(host: HostServer) -> None:
    checked, unchecked = (influence(host, "fair", ["rocket", "robot"], override_settings=settings)
                          for settings in ({}, UNCHECKED))
    assert checked.status == 200 and checked.json["heatmaps"] == unchecked.json["heatmaps"]


@pytest.mark.parametrize(("checkpoint", "suffix"), [("tiny-sdxl", "-xl"), ("tiny-sd2-v", "-v2")])
def test_whatever_the_model(host: HostServer, checkpoint: str, suffix: str) -> None:
    settings = {"override_settings": {"sd_model_checkpoint": checkpoint}}
    given = {**OWN_ROWS["regions"], "loras": [{**lora, "name": lora["name"] + suffix}
                                              for lora in OWN_ROWS["regions"]["loras"]]}
    assert_same_picture(made(host, None, "fair", **settings), made(host, nearly_nothing(given), "fair", **settings))
    for kind in ("hook", "texts", "texts_in_place", "latents"):
        refused = made(host, given, kind, **settings)
        assert refused.status == 422 and FILE in refused.text, kind


@pytest.mark.parametrize("way", OWN_ROWS)
def test_the_check_changes_no_picture(host: HostServer, way: str) -> None:
    checked, unchecked = (made(host, OWN_ROWS[way], "fair", override_settings=settings) for settings in ({}, UNCHECKED))
    assert checked.pngs == unchecked.pngs


def test_the_check_can_be_switched_off(host: HostServer) -> None:
    assert made(host, OWN_ROWS["spatial"], "hook", override_settings=UNCHECKED).status == 200


@pytest.mark.parametrize("way", [*OWN_ROWS, "merge"])
def test_an_error_of_theirs_is_told_as_theirs(host: HostServer, way: str) -> None:
    failed = made(host, OWN_ROWS.get(way, recipe()), "error")
    if way == "merge":  # the host fails just so without us
        assert failed.status == 500
    else:
        assert failed.status == 422 and FILE in failed.text
    assert "did not expect" in failed.text


@pytest.mark.parametrize("settings", [
    {"sampler_name": "DDIM"}, {"batch_size": 2},
    {"negative_prompt": " ".join(["blurry"] * 90), "override_settings": {"pad_cond_uncond": True}},
    {"sampler_name": "DPM++ 2M", "cfg_scale": 1}, {"steps": 1}], ids=str)
def test_whatever_the_settings(host: HostServer, settings: dict) -> None:
    fair = made(host, nearly_nothing(OWN_ROWS["spatial"]), "fair", **settings)
    assert_same_picture(made(host, None, "fair", **settings), fair)
    assert made(host, OWN_ROWS["spatial"], "hook", **settings).status == 422


@pytest.mark.parametrize("together", [True, False])
def test_whether_rows_are_evaluated_together_or_not(host: HostServer, together: bool) -> None:
    settings = {"override_settings": {"batch_cond_uncond": together}}
    fair = made(host, nearly_nothing(OWN_ROWS["spatial"]), "fair", **settings)
    assert_same_picture(made(host, None, "fair", **settings), fair)


@pytest.mark.parametrize("name", ["nothing.safetensors", None])
def test_what_is_refused_at_once_leaves_nothing_of_theirs(host: HostServer, name: str | None) -> None:
    assert made(host, {"loras": [{"name": name, "weight": 1}]}, "fair").status == 422


@pytest.mark.parametrize("prompt", ["a rocket AND a robot"])
def test_what_is_refused_at_the_prompt_leaves_nothing_of_theirs(host: HostServer, prompt: str) -> None:
    refused = host.txt2img(prompt=prompt, alwayson_scripts={
        "SciArt": {"args": [OWN_ROWS["composite"]]}, "Stranger": {"args": ["fair"]}})
    assert refused.status == 422 and "AND" in refused.text
