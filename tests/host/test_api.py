"""Over HTTP: refusals name the field, routes have the host's authentication, infotext makes the picture again."""

import base64
import json
import urllib.parse

import pytest
from pictures import recipe, with_recipe
from server import ONE_THREAD, SCIART, HostServer

from sciart_ext.recipe import INFOTEXT_KEY, parse_recipe
from sciart_ext.standalone.infotext import parse_infotext

KEPT = json.loads((SCIART / "tests" / "kept" / "kept.json").read_text(encoding="utf-8"))["recipes"]

ROUTES = [("GET", "/sciart/v1/presets", None), ("GET", "/sciart/v1/presets/science-imagination", None),
          ("GET", "/sciart/v1/loras", None), ("GET", "/sciart/v1/roles", None),
          ("POST", "/sciart/v1/roles", {}), ("POST", "/sciart/v1/styles", {}), ("POST", "/sciart/v1/plan", {"recipe": recipe()})]
FULL = {"loras": [
    {"name": "child", "schedule": [[0, 0.2], [0.5, 0.65]], "curve": "cosine", "te_weight": 0.4},
    {"name": "watercolor", "weight": 0.5, "blocks": {"out": 0.5}, "apply_to": "cond", "hires": {"weight": 0.4}},
]}


@pytest.mark.parametrize(("given", "field"), [
    ({"loras": [{"name": "nobody", "weight": 1}]}, "loras[0].name"),
    ({"loras": [{"name": "child", "weight": 1, "wieght": 2}]}, "loras[0].wieght"),
    ({"loras": [{"name": "child"}]}, "loras[0].weight"),
    ({"loras": []}, "loras"),
    ({}, "loras"),
    ({"lora": []}, "lora"),
    ({"loras": [{"name": "child", "schedule": "0.2@2"}]}, "loras[0].schedule[0].progress"),
    ({"preset": "nothing-like-it"}, "preset"),
    ({"preset": "science-imagination"}, "loras[0].role"),
    ({"loras": [{"name": "child-xl", "weight": 1}]}, "child-xl.safetensors"),
    ([1, 2], "recipe"),
    ("{", "recipe"),
    (7, "recipe"),
], ids=str)
def test_a_wrong_recipe_is_refused_before_sampling(host: HostServer, given, field) -> None:
    host.post("/probe/fault", {"where": "unet", "at": 1})
    refused = host.txt2img(**with_recipe(given))
    still_armed = host.probe()["fault"]
    host.post("/probe/reset")
    assert refused.status == 422, refused.text
    assert refused.json["detail"]["field"] == field
    assert refused.json["detail"]["message"]
    assert still_armed["where"] == "unet", "sampling had begun"


def test_a_broken_file_is_refused_by_name(host: HostServer) -> None:
    (host.data / "models" / "Lora" / "broken.safetensors").write_bytes(b"\x00" * 64)
    host.post("/sdapi/v1/refresh-loras")
    refused = host.txt2img(**with_recipe(recipe({"broken": 1.0})))
    assert refused.status == 422
    assert refused.json["detail"]["field"] == "loras[0].name" and "broken.safetensors" in refused.text
    listed = {entry["name"]: entry for entry in host.get("/sciart/v1/loras").json}
    assert "error" in listed["broken"] and listed["child"]["rank"] == 4
    (host.data / "models" / "Lora" / "broken.safetensors").unlink()
    host.post("/sdapi/v1/refresh-loras")


@pytest.mark.parametrize("given", [FULL, recipe(), {**FULL, "execution": "branch", "memory_limit_mb": 10}])
def test_infotext_makes_the_picture_again(host: HostServer, given) -> None:
    first = host.txt2img(**with_recipe(given))
    again = host.post("/sdapi/v1/txt2img", {"infotext": first.infotext})
    assert again.pngs[0] == first.pngs[0]
    read = host.post("/sdapi/v1/png-info", {"image": first.json["images"][0]}).json["parameters"]["SciArt"]
    assert parse_recipe(read) == parse_recipe(given)


@pytest.mark.parametrize("name", ["changing", "blocks", "combined", "regions"])
def test_what_an_earlier_version_wrote_is_read(host: HostServer, name) -> None:
    """Its request, and the recipe out of its infotext, as one of its pictures has it."""
    asked, pasted = KEPT[name]["request"], parse_infotext(KEPT[name]["infotext"])[INFOTEXT_KEY]
    first, again = (host.txt2img(**with_recipe(given)) for given in (asked, pasted))
    assert first.status == again.status == 200, first.text + again.text
    assert first.pngs[0] == again.pngs[0] != host.txt2img().pngs[0]
    assert json.dumps(pasted, ensure_ascii=False) in first.infotext


def test_a_replaced_unet_is_refused(host: HostServer) -> None:
    host.post("/probe/unet", {"label": "Probe engine"})
    try:
        refused = host.txt2img(**with_recipe(recipe()))
    finally:
        host.post("/probe/unet", {"label": None})
    assert refused.status == 422 and refused.json["detail"]["field"] == "sd_unet"
    assert "Probe engine" in refused.text
    assert host.txt2img(**with_recipe(recipe())).status == 200


def test_infotext_without_sciart_leaves_it_off(host: HostServer) -> None:
    plain = host.txt2img()
    assert "SciArt" not in plain.infotext
    assert host.post("/sdapi/v1/txt2img", {"infotext": plain.infotext}).pngs[0] == plain.pngs[0]


def test_a_presets_infotext_stands_alone(host: HostServer) -> None:
    roles = {"child": "child", "watercolor": "watercolor", "science": "science"}
    by_preset = host.txt2img(**with_recipe({"preset": "science-imagination", "roles": roles}))
    by_hand = host.txt2img(**with_recipe(recipe({"child": 0.65, "watercolor": 0.55, "science": 0.5})))
    assert by_preset.pngs[0] == by_hand.pngs[0]
    assert by_preset.infotext == by_hand.infotext


def test_presets_and_roles_are_kept(host: HostServer) -> None:
    mine = {"title": "Mine", "recipe": {"loras": [{"role": "child", "weight": 0.9}]}, "txt2img": {"steps": 12}}
    assert host.post("/sciart/v1/presets", {"name": "mine", "preset": mine}).status == 200
    assert host.get("/sciart/v1/presets/mine").json["roles"] == ["child"]
    assert host.post("/sciart/v1/presets", {"name": "../x", "preset": mine}).status == 422
    assert host.post("/sciart/v1/presets", {"name": "science-imagination", "preset": mine}).status == 422
    assert host.post("/sciart/v1/roles", {"child": "nobody"}).json["detail"]["field"] == "child"
    assert host.post("/sciart/v1/roles", {"child": "child"}).json == {"child": "child"}
    assert host.txt2img(**with_recipe({"preset": "mine"})).status == 200
    assert host.post("/sciart/v1/roles", {"child": ""}).json == {}
    assert host.request("DELETE", "/sciart/v1/presets/mine").json == {"deleted": "mine"}
    assert host.get("/sciart/v1/presets/mine").status == 422


def test_the_plan_is_numbers_and_a_picture(host: HostServer) -> None:
    reply = host.post("/sciart/v1/plan", {"recipe": FULL, "steps": 5, "hires_steps": 2, "picture": True}).json
    assert reply["plan"]["first"]["loras"][1]["weights"] == [0.5] * 5
    assert reply["plan"]["hires"]["loras"][1]["weights"] == [0.4] * 2
    assert base64.b64decode(reply["png"]).startswith(b"\x89PNG")
    refused = host.post("/sciart/v1/plan", {"recipe": FULL, "steps": 0})
    assert refused.status == 422 and refused.json["detail"]["field"] == "steps"


def test_the_routes_and_the_schema_are_on_the_openapi_page(host: HostServer) -> None:
    page = host.get("/openapi.json").json
    assert {urllib.parse.unquote(path) for _, path, _ in ROUTES if "science" not in path} <= page["paths"].keys()
    fields = page["components"]["schemas"]["PlanRequest"]["properties"]["recipe"]["properties"]
    assert fields["loras"]["items"]["properties"]["apply_to"]["enum"] == ["both", "cond", "uncond"]


@pytest.mark.parametrize("ui", [False, True], ids=["api", "page"])
def test_the_routes_have_the_hosts_authentication(tiny_models, ui: bool) -> None:
    with HostServer(models=tiny_models, args=("--api-auth", "anna:secret"), env=ONE_THREAD, ui=ui) as server:
        for method, path, payload in [*ROUTES, ("DELETE", "/sciart/v1/presets/mine", None)]:
            for auth in (None, "anna:wrong"):
                assert server.request(method, path, payload, auth=auth).status == 401, path
        for method, path, payload in ROUTES:
            assert server.request(method, path, payload).status == 200, path


def test_a_gradio_login_guards_the_routes(tiny_models) -> None:
    with HostServer(models=tiny_models, args=("--gradio-auth", "anna:secret"), env=ONE_THREAD, ui=True) as server:
        for method, path, payload in ROUTES:
            assert server.request(method, path, payload).status == 401, path


def test_the_argument_list_is_one_object(host: HostServer) -> None:
    listed = host.get("/sdapi/v1/script-info").json
    own = [entry for entry in listed if entry["name"] == "sciart"]
    assert [len(entry["args"]) for entry in own] == [1, 1]
    assert json.loads(json.dumps(own[0]["args"][0]["value"])) == ""
