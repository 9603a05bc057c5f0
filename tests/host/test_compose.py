"""Ways to compose LoRAs in the WebUI: the standalone engine's pictures, every sampler and pass, and a clean leave."""

from __future__ import annotations

import base64
import functools
import io
from contextlib import contextmanager

import numpy as np
import pytest
from pictures import difference, with_recipe
from PIL import Image
from server import ONE_THREAD, HostServer

pytest.importorskip("diffusers")

from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.generate import Settings, generate, load_loras
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.world import MODEL

PROMPT = "a red striped rocket and a yellow visor robot in space"
ROCKET, ROBOT, STYLE = ({"name": name, "weight": weight} for name, weight in
                        (("red-striped-rocket", 1.0), ("yellow-visor-robot", 1.0), ("watercolor", 0.6)))
LEFT, RIGHT, WHOLE = [0, 0, 0.5, 1], [0.5, 0, 1, 1], [0, 0, 1, 1]
SIZE, STEPS = {"width": 128, "height": 128}, 6
HIRES = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7,
         "hr_second_pass_steps": 3}


def as_mask(values: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray((values * 255).astype(np.uint8)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


CORNER = np.zeros((32, 32))
CORNER[16:, 8:] = 1
RECIPES = {
    "switch": {"compose": "switch", "composition": {"period": 2}, "loras": [
        STYLE, {**ROCKET, "subject": "rocket"}, ROBOT]},
    "composite": {"compose": "composite", "loras": [ROCKET, {"name": ROBOT["name"], "schedule": "0.5@0, 1@1"}, STYLE]},
    "by row": {"compose": "composite", "loras": [{**ROCKET, "apply_to": "cond"}, ROBOT]},
    "spatial": {"compose": "spatial", "loras": [ROCKET, ROBOT, STYLE], "composition": {"patch": 4}},
    "regions": {"compose": "regions", "loras": [{**ROCKET, "region": LEFT}, {**ROBOT, "region": RIGHT}, STYLE],
                "composition": {"feather": 0.2}},
    "masks": {"compose": "regions", "loras": [{**ROCKET, "region": as_mask(CORNER)}, {**ROBOT, "region": WHOLE}]},
}


@pytest.fixture
def as_before(tiny):
    """The plain picture and the model's fingerprint are the same afterwards."""
    tiny.post("/probe/reset")
    plain, state = hosted(tiny), tiny.probe()
    yield
    tiny.post("/probe/reset")
    assert hosted(tiny).pngs[0] == plain.pngs[0] and tiny.probe() == state


@contextmanager
def options(tiny, **changed):
    """Settings of the host while it lasts; `override_settings` leaves those changed that were never saved."""
    before = tiny.get("/sdapi/v1/options").json
    assert tiny.post("/sdapi/v1/options", changed).status == 200
    try:
        yield
    finally:
        assert tiny.post("/sdapi/v1/options", {name: before[name] for name in changed}).status == 200


def for_host(recipe):
    return {**recipe, "loras": [{**lora, "name": f"sciart-tiny-{lora['name']}"} for lora in recipe["loras"]]}


def hosted(tiny: HostServer, recipe=None, prompt=PROMPT, **settings):
    answer = asked(tiny, recipe, prompt, **settings)
    assert answer.status == 200, answer.text
    return answer


def asked(tiny: HostServer, recipe=None, prompt=PROMPT, **settings):
    given = {"negative_prompt": "planet", "steps": STEPS, "seed": 11, "sampler_name": "Euler", "cfg_scale": 5.0, **SIZE}
    return tiny.txt2img(prompt=prompt, **{**given, **settings}, **(with_recipe(for_host(recipe)) if recipe else {}))


ONE, MERGED = [{**ROCKET, "region": WHOLE}], {"loras": [ROCKET]}
EVERYWHERE = {"compose": "regions", "loras": ONE}


@functools.lru_cache
def alone_model():
    return load_pipeline(MODEL, device="cpu")


def alone(recipe, sampler):
    settings = Settings(PROMPT, negative_prompt="planet", steps=STEPS, seed=11, sampler=sampler, cfg_scale=5.0)
    recipe = parse_recipe(recipe)
    return np.asarray(generate(alone_model(), recipe, settings,
                               load_loras(recipe, MODEL / "loras")).image)


@pytest.mark.parametrize("sampler", ["Euler", "Heun", "DPM++ 2M", "DDIM"])
@pytest.mark.parametrize("given", RECIPES)
def test_host_and_standalone_compose_to_the_same_picture(tiny, given, sampler):
    given = RECIPES[given]
    largest, mean = difference(alone(given, sampler), hosted(tiny, given, sampler_name=sampler).pictures[0])
    assert largest <= 3 and mean <= 0.6, f"largest {largest}, mean {mean:.3f}"  # the host cuts values off: 0.5


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M SDE", "DPM++ SDE", "Heun", "DDIM", "DDIM CFG++", "UniPC",
                                     "PLMS"])
def test_a_region_that_is_everything_is_merge_with_every_sampler(tiny, sampler):
    found, merged = (hosted(tiny, one, sampler_name=sampler).pictures[0] for one in (EVERYWHERE, MERGED))
    largest, mean = difference(found, merged)
    assert largest <= 3 and mean <= 0.1, f"largest {largest}, mean {mean:.3f}"


@pytest.mark.parametrize("given", ["switch", "composite", "spatial", "regions"])
def test_the_host_is_left_as_it_was(tiny, as_before, given):
    assert difference(hosted(tiny, RECIPES[given]).pictures[0], hosted(tiny).pictures[0])[1] > 2


@pytest.mark.parametrize("given", ["switch", "composite", "spatial", "regions"])
def test_an_interrupted_or_failed_picture_leaves_the_host_as_it_was(tiny, as_before, given):
    for where, status in (("interrupt", 200), ("unet", 500 if given == "switch" else 422)):
        tiny.post("/probe/fault", {"where": where, "at": 3})
        reply = asked(tiny, RECIPES[given])
        assert reply.status == status, reply.text[:500]
    assert "probe: fault in unet" in reply.text and ("sciart_probe.py" in reply.text) == (status == 422)


@pytest.mark.parametrize("given", ["switch", "composite", "spatial", "masks"])
def test_infotext_makes_the_picture_again(tiny, given):
    first = hosted(tiny, RECIPES[given])
    assert len(first.infotext) < 1500 and '\\"compose\\"' in first.infotext
    again = tiny.post("/sdapi/v1/txt2img", {"infotext": first.infotext})
    assert again.status == 200 and again.pngs[0] == first.pngs[0]


@pytest.mark.parametrize("given", ["switch", "composite", "spatial", "regions"])
def test_batches_are_composed_picture_by_picture(tiny, given):
    whole = hosted(tiny, RECIPES[given], batch_size=2)
    assert len(whole.pictures) == 2
    for i, picture in enumerate(whole.pictures):
        assert difference(picture, hosted(tiny, RECIPES[given], seed=11 + i).pictures[0])[1] <= 1.0


@pytest.mark.parametrize("given", ["by row", "spatial"])
def test_without_batching_of_cond_and_uncond_it_is_the_same_picture(tiny, given):
    with options(tiny, batch_cond_uncond=False):
        apart = hosted(tiny, RECIPES[given], batch_size=2)
    for a, b in zip(apart.pictures, hosted(tiny, RECIPES[given], batch_size=2).pictures):
        assert difference(a, b)[1] <= 0.5


@pytest.mark.parametrize("prompt", ["space " * 80 + PROMPT, "a red striped [rocket:planet:0.5] and a (robot:1.3)"])
def test_long_and_edited_prompts_are_composed_as_they_are_merged(tiny, prompt):
    with options(tiny, pad_cond_uncond=True):  # rows of one picture are all of one length
        found, merged = (hosted(tiny, one, prompt).pictures[0] for one in (EVERYWHERE, MERGED))
    assert difference(found, merged)[1] <= 0.1


def test_steps_without_the_negative_prompt_count_the_prompt_alone(tiny):
    for given in (RECIPES["composite"], RECIPES["spatial"]):
        with options(tiny, skip_early_cond=1.0):
            skipped = hosted(tiny, given)
        assert difference(skipped.pictures[0], hosted(tiny, given, cfg_scale=1.0).pictures[0])[1] <= 0.2
        assert difference(skipped.pictures[0], hosted(tiny, given).pictures[0])[1] > 2


def test_the_hires_pass_is_composed_or_merged_by_choice(tiny):
    found, merged = (hosted(tiny, one, **HIRES).pictures[0] for one in (EVERYWHERE, MERGED))
    assert found.shape == (256, 256, 3) and difference(found, merged)[1] <= 0.2
    for given in ("switch", "composite"):
        composed = hosted(tiny, RECIPES[given], **HIRES).pictures[0]
        here = {**RECIPES[given], "composition": {**RECIPES[given].get("composition", {}), "hires": False}}
        assert difference(composed, hosted(tiny, here, **HIRES).pictures[0])[1] > 0.5


@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
def test_img2img_is_composed(tiny, sampler):
    start = hosted(tiny).pictures[0]
    settings = {"prompt": PROMPT, "steps": STEPS, "seed": 3, "sampler_name": sampler, "denoising_strength": 0.8, **SIZE}
    made = {name: tiny.img2img(start, **settings, **with_recipe(for_host(given)))
            for name, given in {"switch": RECIPES["switch"], "spatial": RECIPES["spatial"], "everywhere": EVERYWHERE,
                                "merged": MERGED}.items()}
    assert {answer.status for answer in made.values()} == {200}
    assert difference(made["everywhere"].pictures[0], made["merged"].pictures[0])[1] <= 0.1
    for one, other in (("switch", "spatial"), ("switch", "merged"), ("spatial", "merged")):
        assert difference(made[one].pictures[0], made[other].pictures[0])[1] > 0.2


@pytest.mark.parametrize("given", ["switch", "spatial"])
def test_a_refiner_goes_on_with_the_same_rows(tiny, given):
    refined = hosted(tiny, RECIPES[given], refiner_checkpoint="refiner", refiner_switch_at=0.5)  # the same model again
    assert "Refiner: refiner" in refined.infotext
    assert difference(hosted(tiny, RECIPES[given]).pictures[0], refined.pictures[0])[1] <= 0.7


@pytest.mark.parametrize("given", ["switch", "composite", "regions"])
def test_influence_is_told_of_composed_pictures(tiny, as_before, given):
    given, picture = RECIPES[given], {"prompt": PROMPT, "steps": 4, "seed": 2, "sampler_name": "Euler", **SIZE}
    answer = tiny.post("/sciart/v1/influence", {"txt2img": picture, "recipe": for_host(given), "words": ["rocket"]})
    assert answer.status == 200, answer.text
    told = answer.json
    assert sum(told["shares"]["parts"]) == pytest.approx(1, abs=2e-6)
    made = dict(zip(told["pictures"], told["images"]))
    kept = [given["loras"][0], *({**lora, "weight": 0, "schedule": None} for lora in given["loras"][1:])]
    first = for_host({**given, "loras": kept})
    for title, recipe in (("no LoRA", None), ("all", for_host(given)), (f"only {first['loras'][0]['name']}", first)):
        expected = tiny.txt2img(**picture, **(with_recipe(recipe) if recipe else {}))
        found = np.asarray(Image.open(io.BytesIO(base64.b64decode(made[title]))).convert("RGB"))
        assert difference(found, expected.pictures[0])[1] <= 0.5, title


def test_switch_takes_and_in_the_prompt(tiny):
    both = hosted(tiny, RECIPES["switch"], "a rocket AND a robot in space").pictures[0]
    assert difference(both, hosted(tiny, None, "a rocket AND a robot in space").pictures[0])[1] > 1


MISSING = {**RECIPES["composite"], "composition": {"peroid": 3}}
REFUSED = [
    (RECIPES["composite"], "a rocket AND a robot", "compose", "composite does not work with AND in the prompt; "
                                                              "accepted: merge, switch"),
    (RECIPES["masks"], "a rocket AND a robot", "compose", "regions does not work with AND"),
    (MISSING, PROMPT, "composition.peroid", "did you mean 'period'?"),
    ({**RECIPES["switch"], "composition": {"order": ["child"]}}, PROMPT, "composition.order[0]", "no LoRA 'child'"),
    ({"compose": "regions", "loras": [ROCKET]}, PROMPT, "loras[0].region", "missing; compose regions"),
    ({"compose": "regions", "loras": [{**ROCKET, "region": "/etc/passwd"}]}, PROMPT, "loras[0].region",
     "accepted: a box [x0, y0, x1, y1], or a PNG"),
]


@pytest.mark.parametrize(("given", "prompt", "field", "message"), REFUSED)
def test_what_cannot_be_composed_is_refused(tiny, as_before, given, prompt, field, message):
    answer = asked(tiny, given, prompt)
    assert answer.status == 422 and answer.json["detail"]["field"] == field, answer.text
    assert message in answer.json["detail"]["message"]


def test_a_model_of_instruct_pix2pix_takes_switch_only(tiny, as_before):
    tiny.post("/probe/kind", {"cond_stage_key": "edit"})
    try:
        for given in ("composite", "spatial", "regions"):
            answer = asked(tiny, RECIPES[given])
            assert answer.status == 422 and answer.json["detail"]["field"] == "compose", answer.text
            assert "InstructPix2Pix models; accepted: merge, switch" in answer.json["detail"]["message"]
        switched = hosted(tiny, RECIPES["switch"])
    finally:
        tiny.post("/probe/kind")
    assert difference(switched.pictures[0], hosted(tiny, RECIPES["switch"]).pictures[0])[1] <= 0.1


@pytest.mark.parametrize(("room", "message"), [
    (11, "12 rows at once do not fit, 11 would; accepted: a batch size of 1, the setting `Batch cond/uncond` off, "
         "compose merge, a smaller picture"),
    (3, "12 rows at once do not fit, 3 would; accepted: the setting `Batch cond/uncond` off, a smaller picture"),
])
def test_rows_that_do_not_fit_in_memory_are_refused_with_what_does(tiny, as_before, room, message):
    tiny.post("/probe/room", {"rows": room})
    try:
        refused = asked(tiny, RECIPES["composite"], batch_size=2)
        assert refused.status == 422 and refused.json["detail"]["field"] == "compose", refused.text
        assert refused.json["detail"]["message"] == f"out of memory: {message}"
    finally:
        tiny.post("/probe/room", {})


@pytest.mark.parametrize("flag", ["--medvram", "--lowvram"])
def test_with_little_memory_the_pictures_are_the_same(tiny, flag):
    with HostServer(models=tiny.models, checkpoint="sciart-tiny.safetensors", args=(flag,), env=ONE_THREAD) as small:
        plain = hosted(small)
        for name in ("switch", "composite", "spatial", "regions"):
            found, expected = (hosted(server, RECIPES[name]).pictures[0] for server in (small, tiny))
            assert difference(found, expected)[0] <= 2, name
        assert hosted(small).pngs[0] == plain.pngs[0]


def test_what_changes_nothing_is_noted_on_the_result(tiny):
    given = {**RECIPES["composite"], "composition": {"feather": 0.2}}
    assert "composition.feather: no effect with compose composite" in hosted(tiny, given).infotext
