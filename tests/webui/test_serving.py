"""A route in a server: limits before work, no page of another site, work in threads, until the client leaves."""

import json
import threading
import time
from pathlib import Path

import anyio
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from sciart_ext.errors import SciArtError
from sciart_ext.host.webui.answers import CHUNK
from sciart_ext.host.webui.errors import SciArtRequestError
from sciart_ext.host.webui.routes import CommonRoutes
from sciart_ext.host.webui.serving import Asking, Route, add_routes
from sciart_ext.json_text import MOST_VALUES
from sciart_ext.presets import PresetStore

TRUSTED = "https://studio.example"
SAID = {"Content-Type": "application/json"}
RECIPE = {"loras": [{"name": "child", "weight": 0.5}]}


def _find(name: str, field: str) -> Path:
    if name != "child":
        raise SciArtError(field, f"no LoRA {name}")
    return Path("child.safetensors")


def _client(routes) -> TestClient:
    app = FastAPI()
    add_routes(app, "/sciart/v1", routes, [], TRUSTED.__eq__)

    @app.exception_handler(SciArtRequestError)
    async def refused(request, error):
        from fastapi.responses import JSONResponse

        return JSONResponse({"detail": error.detail}, error.status_code)

    return TestClient(app, base_url="http://studio:7860", raise_server_exceptions=False)


@pytest.fixture
def client(tmp_path) -> TestClient:
    return _client(CommonRoutes(lambda: PresetStore(tmp_path), _find).all())


def _refused(answer, status: int = 422) -> dict:
    assert answer.status_code == status, answer.text
    assert len(answer.text) < 4000
    return answer.json()["detail"]


def test_what_is_asked_is_answered(client):
    told = client.post("/sciart/v1/plan", json={"recipe": RECIPE, "steps": 3}).json()
    assert told["plan"]["first"]["loras"][0]["weights"] == [0.5] * 3
    assert client.post("/sciart/v1/roles", json={"child": "child"}).json() == {"child": "child"}
    assert client.get("/sciart/v1/roles").json() == {"child": "child"}


WRONG = [
    (b"", "body"), (b"{", "body"), (b"\xff", "body"), (b"[" * 100_000, "body"), (b'{"recipe": ' * 50 + b"1", "body"),
    (b'{"recipe": ' + b"[" * 40 + b"]" * 40 + b"}", "body"), (b"[" + b"1," * MOST_VALUES + b"1]", "body"),
    (b'{"recipe": {"loras": [{"name": "\\ud800", "weight": 1}]}}', "body"),
    (b'{"recipe": {}, "steps": ' + b"9" * 5000 + b"}", "body"), (b'{"recipe": {}, "steps": 1e999}', "body"),
    (b'{"recipe": {}, "steps": NaN}', "body"), (b"null", ""), (b"[]", ""), (b"7", ""), (b'"text"', ""),
    (b"{}", "recipe"), (b'{"recipe": null}', "recipe"), (b'{"recipe": []}', "recipe"), (b'{"recipe": {}}', "loras"),
    (b'{"recipe": {}, "steps": 0}', "steps"), (b'{"recipe": {}, "steps": "5"}', "steps"),
    (b'{"recipe": {}, "steps": null}', "steps"), (b'{"recipe": {}, "steps": 10001}', "steps"),
    (b'{"recipe": {}, "steps": true}', "steps"), (b'{"recipe": {}, "picture": 1}', "picture"),
    (b'{"recipe": {}, "stesp": 1}', "stesp"), (b'{"recipe": {"loras": {}}}', "loras"),
    (b'{"recipe": {"loras": [{"name": 5, "weight": 1}]}}', "loras[0].name"),
    (b'{"recipe": {"roles": [1]}}', "roles"), (b'{"recipe": {"preset": {"a": 1}}}', "preset"),
]


@pytest.mark.parametrize(("body", "field"), WRONG, ids=lambda value: str(value)[:40])
def test_a_malformed_body_is_refused_with_the_field(client, body, field):
    assert _refused(client.post("/sciart/v1/plan", content=body, headers=SAID))["field"] == field


@pytest.mark.parametrize("given", [{"a" * 300: "child"}, {"child": "c" * 300}, {"child": 1}, {"child": None}, [], None,
                                   {f"role {i}": "child" for i in range(300)}], ids=lambda value: str(value)[:20])
def test_roles_that_are_none_are_refused(client, given):
    assert _refused(client.post("/sciart/v1/roles", content=json.dumps(given), headers=SAID))["message"]


def test_a_body_has_a_limit(client):
    many = b'{"child": "' + b"x" * (2 << 20) + b'"}'
    assert _refused(client.post("/sciart/v1/roles", content=many, headers=SAID), 413)["field"] == "body"


def test_an_unknown_parameter_is_refused(client):
    assert _refused(client.get("/sciart/v1/presets?refresh=1"))["field"] == "refresh"


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data",
                                  "application/jsonp"])
def test_what_changes_something_wants_json_said(client, kind):
    headers = {} if kind is None else {"Content-Type": kind}
    answer = client.post("/sciart/v1/roles", content=b'{"child": "child"}', headers=headers)
    assert _refused(answer, 415)["field"] == "content-type"
    assert client.get("/sciart/v1/roles").json() == {}


@pytest.mark.parametrize(("headers", "status"), [
    ({"Origin": "https://evil.example"}, 403), ({"Origin": "null"}, 403), ({"Origin": "http://studio:7861"}, 403),
    ({"Origin": "http://studio:7860.evil.example"}, 403), ({"Sec-Fetch-Site": "cross-site"}, 403),
    ({"Sec-Fetch-Site": "same-site"}, 403), ({"Origin": ""}, 403),
    ({"Origin": "http://["}, 403), ({"Origin": "x" * 5000}, 403), ({"Origin": "studio:7860"}, 403),
    ({"Origin": "http://studio:7860"}, 200), ({"Origin": TRUSTED}, 200), ({"Sec-Fetch-Site": "same-origin"}, 200),
    ({"Origin": "https://studio.org", "X-Forwarded-Host": "studio.org"}, 200), ({}, 200)], ids=str)
def test_a_page_of_another_site_changes_nothing(client, headers, status):
    answer = client.post("/sciart/v1/roles", json={"child": "child"}, headers=headers)
    assert answer.status_code == status
    assert client.get("/sciart/v1/roles").json() == ({"child": "child"} if status == 200 else {})
    assert client.delete("/sciart/v1/presets/mine", headers=headers).status_code == (422 if status == 200 else 403)


def test_the_fields_and_their_limits_are_on_the_page_of_the_api(client):
    page = client.get("/openapi.json").json()
    fields = page["components"]["schemas"]["PlanRequest"]["properties"]
    assert (fields["steps"]["minimum"], fields["steps"]["maximum"]) == (1, 10_000)
    entry = fields["recipe"]["properties"]["loras"]["items"]["properties"]
    assert fields["recipe"]["properties"]["loras"]["maxItems"] == 32
    assert (entry["name"]["maxLength"], entry["subject"]["maxLength"]) == (256, 1000)
    assert entry["schedule"]["maxItems"] == 1000


def _asked(routes, receive, path: str) -> list[dict]:
    """What the application sends to one GET request that hears what `receive` says."""
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "path": path,
             "raw_path": path.encode(), "query_string": b"", "headers": [(b"host", b"studio")], "root_path": "",
             "scheme": "http", "client": ("127.0.0.1", 1), "server": ("studio", 80)}
    anyio.run(_client(routes).app, scope, receive, send)
    return sent


def test_work_ends_when_the_client_leaves():
    begun, ended = threading.Event(), threading.Event()

    def work(asking: Asking) -> dict:
        begun.set()
        while True:
            try:
                asking.check_wanted()
            except BaseException:
                ended.set()
                raise
            time.sleep(0.01)

    messages = iter(["http.request", "http.disconnect"])

    async def receive():
        kind = next(messages)
        if kind == "http.disconnect":
            await anyio.to_thread.run_sync(begun.wait)
        return {"type": kind, "body": b"", "more_body": False}

    _asked([Route("GET", "/work", work, long=True)], receive, "/sciart/v1/work")
    assert ended.is_set()


def test_the_server_goes_on_while_one_works():
    free = threading.Event()

    def work(asking: Asking) -> dict:
        assert free.wait(60), "the other route did not answer"
        return {}

    def other(asking: Asking) -> dict:
        free.set()
        return {}

    with _client([Route("GET", "/work", work, long=True), Route("GET", "/other", other)]) as client:
        waiting = threading.Thread(target=client.get, args=["/sciart/v1/work"])
        waiting.start()
        assert client.get("/sciart/v1/other").status_code == 200
        waiting.join()


def test_a_large_answer_is_handed_over_in_parts():
    async def receive():
        await anyio.sleep(0 if not heard else 60)
        heard.append(1)
        return {"type": "http.request", "body": b"", "more_body": False}

    heard: list[int] = []
    sent = _asked([Route("GET", "/large", lambda asking: {"text": "x" * 3 * CHUNK})], receive, "/sciart/v1/large")
    parts = [message["body"] for message in sent if message["type"] == "http.response.body"]
    assert len(parts) == 4 and max(map(len, parts)) == CHUNK
    assert json.loads(b"".join(parts)) == {"text": "x" * 3 * CHUNK}
    assert [message["more_body"] for message in sent[1:]] == [True, True, True, False]


@pytest.mark.parametrize("data", [
    {}, [], None, 1.5, "x", {"a": {}}, [[]], [{}], [[], {}], list(range(5000)), {"a": [1, [2, {"b": []}], {"c": None}]},
    [["x"] * 3000] * 3, [{"a": 1}] * 2500, {"é": "ü\n\"", "": [True]}], ids=lambda data: str(data)[:30])
def test_an_answer_is_the_json_text_of_its_data(data):
    client = _client([Route("GET", "/data", lambda asking: data)])
    assert client.get("/sciart/v1/data").text == json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def test_a_plan_has_a_limit(client):
    many = {"loras": [{"name": str(k), "weight": 0.5} for k in range(32)]}
    answer = client.post("/sciart/v1/plan", json={"recipe": many, "steps": 3126})
    assert _refused(answer)["message"] == "a plan of 100032 weights; at most 100000 are accepted"


def test_a_name_of_a_file_that_is_no_text_is_answered():
    client = _client([Route("GET", "/name", lambda asking: {"file": "b\udcff"})])
    assert json.loads(client.get("/sciart/v1/name").content) == {"file": "b\udcff"}
