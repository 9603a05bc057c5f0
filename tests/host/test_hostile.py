"""Strangers at a real WebUI: whatever they send, it answers, goes on, and stays as it was."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from pictures import recipe, with_recipe
from served import check_answer
from server import ONE_THREAD, HostServer
from strange_requests import BODIES, PICTURE, RECIPE, StrangeRequest, requests

SMALL = {"prompt": "a rocket", "steps": 2, "seed": 7, "width": 64, "height": 64, "sampler_name": "Euler"}
TWO = recipe({"child": 0.6, "watercolor": 0.5})
REFUSED_PICTURES = [
    ({"steps": None}, "steps"), ({"prompt": None}, "prompt"), ({"cfg_scale": None}, "cfg_scale"),
    ({"width": None}, "width"), ({"seed": None}, "seed"), ({"steps": 0}, "steps"), ({"steps": -3}, "steps"),
    ({"width": 1}, "width"), ({"width": 16_384, "height": 16_384}, "width"), ({"cfg_scale": -1e308}, "cfg_scale"),
    ({"seed": 2**70}, "seed"), ({"prompt": "a" * 30_000}, "prompt"), ({"alwayson_scripts": {"SciArt": None}},
                                                                      "alwayson_scripts.SciArt"),
    ({"alwayson_scripts": {"SciArt": []}}, "alwayson_scripts.SciArt"),
    ({"alwayson_scripts": {"SciArt": {"args": None}}}, "alwayson_scripts.SciArt.args"),
    ({"alwayson_scripts": {"SciArt": {"args": {"0": 1}}}}, "alwayson_scripts.SciArt.args"),
    ({"override_settings": {"nonsense": 1}}, "override_settings.nonsense"),
    ({"override_settings": {"CLIP_stop_at_last_layers": "two"}}, "override_settings.CLIP_stop_at_last_layers"),
    ({"infotext": "a\nSteps: many, Sampler: Euler, CFG scale: 7, Seed: 7"}, "infotext"),
    ({"infotext": "word " * 20_000}, "infotext"), ({"infotext": 'aa: "\\",' * 20_000}, "infotext"),
    ({"infotext": ["a"]}, "infotext"), ({"batch_size": 4}, "batch_size"), ({"styles": "a"}, "styles"),
]


def send(host: HostServer, request: StrangeRequest) -> int:
    """The status of the answer, which is one of ours."""
    connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=host.request_timeout)
    headers = {} if request.body is None else {"Content-Type": request.content_type}
    connection.request(request.method, f"/sciart/v1{request.path}", request.body, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    check_answer(answer.status, content)
    return answer.status


@pytest.fixture
def as_it_was(host: HostServer):
    """The model, its hooks and the user's settings are the same afterwards."""
    host.txt2img(**SMALL)
    before, options = host.probe(), host.get("/sdapi/v1/options").json
    yield host
    host.txt2img(**SMALL)
    assert host.get("/sdapi/v1/options").json == options
    after = host.probe()
    assert after == before


@pytest.mark.parametrize("route", BODIES)
def test_what_the_strange_requests_are_made_of_is_accepted(host: HostServer, route):
    assert send(host, StrangeRequest("POST", f"/{route}", json.dumps(BODIES[route]).encode())) == 200


@pytest.mark.parametrize("route", ["influence", "pipeline"])
@pytest.mark.parametrize(("wrong", "field"), REFUSED_PICTURES, ids=lambda value: str(value)[:40])
def test_a_picture_that_cannot_be_is_refused(host: HostServer, route, wrong, field):
    given = {"txt2img": {**PICTURE, **wrong}, "recipe": RECIPE}
    if "infotext" in wrong:
        given["txt2img"] = wrong
    if route == "pipeline":
        given["pipeline"] = {"img2img": {}}
    refused = host.post(f"/sciart/v1/{route}", given)
    assert refused.status == 422, refused.text
    assert refused.json["detail"]["field"] == f"txt2img.{field}" and len(refused.text) < 2000


def test_strange_requests_are_answered_or_refused(as_it_was: HostServer):
    @settings(max_examples=200, deadline=None, derandomize=True, database=None,
              suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(request=requests())
    def sent(request):
        send(as_it_was, request)

    sent()


def test_in_parallel_the_users_settings_stay_as_they_are(as_it_was: HostServer):
    other = {**SMALL, "override_settings": {"samples_format": "jpg", "CLIP_stop_at_last_layers": 2,
                                            "eta_noise_seed_delta": 5}}
    pipeline = {"txt2img": {**other, "steps": 3}, "recipe": TWO,
                "pipeline": {"img2img": {}, "upscale": {"upscaler": "Lanczos"}}}
    asked = [("/sciart/v1/pipeline", pipeline), ("/sciart/v1/influence", {"txt2img": other, "recipe": TWO}),
             ("/sciart/v1/pipeline", pipeline), ("/sdapi/v1/txt2img", {**SMALL, **with_recipe(TWO)})]
    statuses = []

    def ask(path: str, body: dict) -> None:
        for _ in range(3):
            statuses.append(as_it_was.post(path, body).status)

    threads = [threading.Thread(target=ask, args=one) for one in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 12


@pytest.mark.parametrize("route", ["influence", "pipeline"])
def test_work_ends_when_its_client_leaves(as_it_was: HostServer, route):
    stages = {"pipeline": {"img2img": {}}} if route == "pipeline" else {}
    body = json.dumps({"txt2img": {**SMALL, "steps": 9000}, "recipe": TWO, **stages}).encode()
    with socket.create_connection(("127.0.0.1", as_it_was.port)) as connection:
        connection.sendall(f"POST /sciart/v1/{route} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                           f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        while not _is_sampling(as_it_was):
            time.sleep(0.05)
    assert as_it_was.txt2img(**SMALL).status == 200  # in its turn, long before 9000 steps


def test_a_page_of_another_site_changes_nothing(host: HostServer):
    connection = http.client.HTTPConnection("127.0.0.1", host.port)
    for headers, status in (({"Content-Type": "text/plain"}, 415),
                            ({"Content-Type": "application/json", "Origin": "https://evil.example"}, 403),
                            ({"Content-Type": "application/json", "Origin": f"http://127.0.0.1:{host.port}"}, 200)):
        connection.request("POST", "/sciart/v1/roles", b'{"child": "child"}', headers)
        answer = connection.getresponse()
        assert (answer.status, len(answer.read()) > 0) == (status, True)
    connection.close()
    assert host.post("/sciart/v1/roles", {"child": ""}).json == {}


def test_the_other_routes_go_on_while_one_works(host: HostServer):
    """A question of each kind that takes its time; meanwhile the host tells of its progress again and again."""
    wide = {"loras": [{"name": name, "schedule": [[k / 999, 0.5] for k in range(1000)]}
                      for name in ("child", "watercolor")]}
    for path, body in (("plan", {"recipe": wide, "steps": 10_000, "hires_steps": 10_000, "picture": True}),
                       ("geometry", {"loras": ["child", "watercolor"], "page": True}),
                       ("influence", {"txt2img": SMALL, "recipe": TWO, "page": True})):
        answers, done = [], threading.Event()

        def look(answers=answers, done=done) -> None:
            while not done.is_set():
                answers.append(host.get("/sdapi/v1/progress?skip_current_image=true").status)

        watching = threading.Thread(target=look)
        watching.start()
        try:
            assert host.post(f"/sciart/v1/{path}", body).status == 200
        finally:
            done.set()
            watching.join()
        assert set(answers) == {200}


def test_killed_in_the_midst_of_saves_and_of_pictures_it_starts_again_with_all_that_was_saved(tiny_models):
    with HostServer(models=tiny_models, env=ONE_THREAD) as server:
        saved: list[str] = []

        def save(writer: int) -> None:
            for number in range(10_000):
                name = f"mine-{writer}-{number}"
                try:
                    body = {"name": name, "preset": {"title": name, "recipe": RECIPE, "prompts": ["a" * 20_000]}}
                    if server.post("/sciart/v1/presets", body).status == 200:
                        saved.append(name)
                    server.post("/sciart/v1/roles", {f"role-{writer}": "child"})
                except (OSError, http.client.HTTPException):
                    return

        def explain() -> None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                server.post("/sciart/v1/influence", {"txt2img": {**SMALL, "steps": 500}, "recipe": TWO})

        threads = [threading.Thread(target=save, args=[writer]) for writer in range(3)]
        threads.append(threading.Thread(target=explain))
        for thread in threads:
            thread.start()
        while len(saved) < 20 or not _is_sampling(server):
            time.sleep(0.02)
        server.process.kill()
        server.process.wait()
        for thread in threads:
            thread.join()
        server.start()
        told = server.get("/sciart/v1/presets").json
        listed = {preset["name"]: preset for preset in told["presets"]}
        assert not [preset for preset in told["presets"] if "error" in preset]
        assert {name: listed[name]["title"] for name in saved} == {name: name for name in saved}
        assert server.post("/sciart/v1/presets", {"name": "after", "preset": {"recipe": RECIPE}}).status == 200
        left = [path.name for path in server.data.rglob("*.sciart.tmp*")]
        assert not left
        assert server.txt2img(**SMALL, **with_recipe(TWO)).status == 200


def _is_sampling(server: HostServer) -> bool:
    return bool(server.get("/sdapi/v1/progress?skip_current_image=true").json["state"]["sampling_step"])
