"""Off is free, and after is as before: whatever happened, the next plain picture is the same byte for byte."""

import threading
import time

import pytest
from pictures import assert_other_picture, assert_same_picture, recipe, tags, with_recipe
from server import HostServer

SCHEDULED = {"loras": [{"name": "child", "schedule": "0.1@0, 1@1"}, {"name": "watercolor", "weight": 0.5}]}
BY_ROW = {"loras": [{"name": "science", "weight": 0.8, "apply_to": "cond"}]}
RECIPES = [SCHEDULED, BY_ROW, recipe(execution="merge"), recipe(execution="branch")]


@pytest.fixture
def before(host: HostServer):
    """The plain picture and the model's fingerprint from before; both must be the same afterwards."""
    host.post("/probe/reset")
    plain = host.txt2img()
    state = host.probe()
    yield plain
    host.post("/probe/reset")
    # the host itself keeps the weights of a prompt's <lora:…> until its next picture
    assert host.txt2img().pngs[0] == plain.pngs[0]
    assert host.probe() == state


@pytest.mark.parametrize("arguments", [[], [None], [""], [{"enabled": False}], [{"enabled": False, **SCHEDULED}],
                                       ['{"enabled": false}']])
def test_switched_off_it_changes_nothing(host: HostServer, before, arguments) -> None:
    assert host.txt2img(**with_recipe(*arguments)).pngs[0] == before.pngs[0]


@pytest.mark.parametrize("given", RECIPES)
def test_a_run_that_ended_well_leaves_no_trace(host: HostServer, before, given) -> None:
    assert_other_picture(before, host.txt2img(**with_recipe(given)))


@pytest.mark.parametrize("given", RECIPES[:2])
@pytest.mark.parametrize("where", ["unet", "oom", "text_encoder"])
def test_a_failed_run_leaves_no_trace(host: HostServer, before, where, given) -> None:
    host.post("/probe/reset")
    host.post("/probe/fault", {"where": where, "at": 1 if where == "text_encoder" else 2})
    failed = host.txt2img(**with_recipe(given))
    if where == "oom":
        assert failed.status == 422
        assert failed.json["detail"]["field"] in ("execution", "compose")
        assert "out of memory: 2 rows at once do not fit" in failed.json["detail"]["message"]
    else:  # where rows have weights of their own, an error of another extension in the UNet is told as such
        assert failed.status == (422 if where == "unet" and given == BY_ROW else 500), failed.text[:500]
        assert "probe" in failed.text


@pytest.mark.parametrize("given", RECIPES[:2])
@pytest.mark.parametrize("where", ["interrupt", "skip", "callback"])
def test_a_run_cut_short_leaves_no_trace(host: HostServer, before, where, given) -> None:
    whole = host.txt2img(**with_recipe(given))
    host.post("/probe/fault", {"where": where, "at": 2})
    cut = host.txt2img(**with_recipe(given))
    if where == "callback" and given == BY_ROW:  # it may have to do with rows that have weights of their own
        assert cut.status == 422 and "sciart_probe.py" in cut.text
        return
    assert cut.status == 200
    # the host swallows what a script's callback raises: the picture is whole
    assert (cut.pngs[0] == whole.pngs[0]) == (where == "callback")


def test_an_interrupt_over_the_api_leaves_no_trace(host: HostServer, before) -> None:
    replies = []
    request = threading.Thread(target=lambda: replies.append(host.txt2img(steps=150, **with_recipe(SCHEDULED))))
    request.start()
    deadline = time.monotonic() + 60
    while host.get("/sdapi/v1/progress").json["state"]["sampling_step"] < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    host.post("/sdapi/v1/interrupt")
    request.join()
    assert replies[0].status == 200


def test_the_hosts_own_loras_work_as_before(host: HostServer, before) -> None:
    prompt = f"a rocket {tags()}"
    own = host.txt2img(prompt=prompt)
    host.txt2img(**with_recipe(SCHEDULED))
    host.txt2img(prompt=prompt, **with_recipe(BY_ROW))
    assert host.txt2img(prompt=prompt).pngs[0] == own.pngs[0]


def test_a_lora_in_the_prompt_and_in_the_recipe_acts_twice_and_says_so(host: HostServer, before) -> None:
    split = host.txt2img(prompt="a rocket <lora:child:0.3>", **with_recipe(recipe({"child": 0.4})))
    whole = host.txt2img(prompt="a rocket <lora:child:0.7>")
    assert_same_picture(split, whole)
    assert "child is also in the prompt" in split.infotext
    assert "SciArt notes" not in host.txt2img(**with_recipe(recipe())).infotext


@pytest.mark.parametrize("given", RECIPES)
def test_the_same_request_gives_the_same_bytes(host: HostServer, given) -> None:
    assert host.txt2img(**with_recipe(given)).pngs[0] == host.txt2img(**with_recipe(given)).pngs[0]


def test_prompts_encoded_with_loras_are_not_cached_for_others(host: HostServer, before) -> None:
    only_te = {"loras": [{"name": "child", "weight": 0, "te_weight": 0.9}]}
    other = host.txt2img(**with_recipe(only_te))
    assert_other_picture(before, other)
    assert host.txt2img().pngs[0] == before.pngs[0]
    assert host.txt2img(**with_recipe(only_te)).pngs[0] == other.pngs[0]
