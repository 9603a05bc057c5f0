"""The client webuiapi from PyPI: pictures with a recipe, and SciArt's own routes through its session."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import with_recipe
from server import ONE_THREAD, HostServer

webuiapi = pytest.importorskip("webuiapi", reason="webuiapi is not installed (the extra `host`)")

ROLES = {"child": "child", "watercolor": "watercolor", "science": "science"}
RECIPE = {"preset": "science-imagination", "roles": ROLES}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")


def client(host: HostServer, **login) -> webuiapi.WebUIApi:
    return webuiapi.WebUIApi(host="127.0.0.1", port=host.port, **login)


def route(host: HostServer, path: str) -> str:
    return f"http://127.0.0.1:{host.port}/sciart/v1{path}"


def settings(host: HostServer) -> dict:
    """The preset's own, but for the size."""
    return {**host.get("/sciart/v1/presets/science-imagination").json["txt2img"], "width": 64, "height": 64}


def test_it_makes_the_presets_picture(host: HostServer) -> None:
    plain = host.post("/sdapi/v1/txt2img", {**settings(host), **with_recipe(RECIPE)})
    assert plain.status == 200, plain.text
    made = client(host).txt2img(**settings(host), alwayson_scripts={"SciArt": {"args": [RECIPE]}})
    assert np.array_equal(np.asarray(made.image.convert("RGB")), plain.pictures[0])
    assert made.info["infotexts"][0] == plain.infotext and '\\"child\\"' in plain.infotext
    without = client(host).txt2img(**settings(host))
    assert not np.array_equal(np.asarray(without.image.convert("RGB")), plain.pictures[0])


def test_it_reads_presets(host: HostServer) -> None:
    listed = client(host).session.get(route(host, "/presets")).json()
    assert listed == host.get("/sciart/v1/presets").json
    assert "science-imagination" in [preset["name"] for preset in listed["presets"]]
    assert client(host).custom_get("sciart/v1/presets/science-imagination")["roles"] == list(ROLES)


def test_it_runs_an_influence_analysis(host: HostServer) -> None:
    asked = {"txt2img": {**settings(host), "steps": 4}, "recipe": RECIPE, "words": []}
    told = client(host).session.post(route(host, "/influence"), json=asked).json()
    assert [sentence.split(":")[0] for sentence in told["sentences"]] == list(ROLES)
    assert sum(told["shares"]["parts"]) == pytest.approx(1, abs=2e-6) and len(told["images"]) == 8
    assert told["shares"] == host.post("/sciart/v1/influence", asked).json["shares"]


def test_a_refusal_reaches_it(host: HostServer) -> None:
    wrong = {"SciArt": {"args": [{"loras": [{"name": "nobody", "weight": 1}]}]}}
    with pytest.raises(RuntimeError) as refused:
        client(host).txt2img(prompt="a rocket", width=64, height=64, steps=2, alwayson_scripts=wrong)
    assert refused.value.args[0] == 422 and "loras[0].name" in refused.value.args[1]


def test_its_login_opens_the_routes(tiny_models) -> None:
    with HostServer(models=tiny_models, args=("--api-auth", "anna:secret"), env=ONE_THREAD) as server:
        opened = client(server, username="anna", password="secret")
        assert opened.session.get(route(server, "/presets")).status_code == 200
        assert opened.txt2img(prompt="a rocket", width=64, height=64, steps=2, alwayson_scripts={
            "SciArt": {"args": [{**RECIPE}]}}).image.size == (64, 64)
        assert client(server).session.get(route(server, "/presets")).status_code == 401
