"""The documentation's examples for the API, run against the real WebUI with the tiny model and its LoRAs."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT, SERVER, Block, blocks, code_spans, split_commands, tables, without_code
from PIL import Image
from server import HostServer

ASKING = [block for block in blocks() if block.asks_the_server]
ANSWERS = {id(block.after): block.text for block in blocks() if block.is_output and block.language == "json"}
API = ROOT / "docs" / "api.md"


def of_language(language: str) -> list[Block]:
    return [block for block in ASKING if block.language == language]


def test_all_of_them_are_run_here():
    assert {block.language for block in ASKING} == {"sh", "python"}
    assert len(of_language("sh")) >= 8 and len(of_language("python")) >= 3


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("block", of_language("sh"), ids=str)
def test_curl_is_answered_as_is_shown(block: Block, tiny_world: HostServer, tmp_path: Path) -> None:
    expected = json.loads(ANSWERS[id(block)]) if id(block) in ANSWERS else None
    status = 422 if expected and "detail" in expected else 200
    for words in split_commands(block.text):
        words = [word.replace(SERVER, f"127.0.0.1:{tiny_world.port}") for word in words]
        if words[0] == "python":
            run([sys.executable, *words[1:]], tmp_path)
            continue
        assert words[0] == "curl"
        answer = run([*words, "--noproxy", "*", "--write-out", "\n%{http_code}"], tmp_path)
        body, _, code = answer.rpartition("\n")
        assert int(code) == status, answer
        if "-o" in words:
            body = (tmp_path / words[words.index("-o") + 1]).read_text(encoding="utf-8")
        answered = json.loads(body)
    if expected is not None:
        assert answered == expected
    if "sdapi/v1/txt2img" in block.text and status == 200:
        assert "child" in json.loads(answered["info"])["infotexts"][0]
    if "page" in block.text:
        assert answered["page"].startswith("<!doctype html>")
    for name in re.findall(r'open\("(.+?\.png)"', block.text):
        assert Image.open(tmp_path / name).size == (128, 128)


@pytest.mark.parametrize("block", of_language("python"), ids=str)
def test_python_programs_run(block: Block, tiny_world: HostServer, tmp_path: Path) -> None:
    if "webuiapi" in block.text:
        pytest.importorskip("webuiapi")
    text = block.text.replace(SERVER, f"127.0.0.1:{tiny_world.port}").replace(
        "port=7860", f"port={tiny_world.port}")
    assert "7860" not in text
    (tmp_path / "example.py").write_text(text, encoding="utf-8")
    output = run([sys.executable, "example.py"], tmp_path)
    for name in re.findall(r'"(\w[\w-]*\.png)"', text):
        assert Image.open(tmp_path / name).size == (128, 128)
    if "told" in text:
        assert [line.split(":")[0] for line in output.splitlines()] == ["child", "watercolor", "science"]


def test_the_tables_of_request_fields_are_whole(tiny_world: HostServer) -> None:
    page = tiny_world.get("/openapi.json").json
    told = {table.heading: {code_spans(row[0])[0] for row in table.rows}
            for table in tables(API) if table.head[0] == "field"}
    assert told == {name: set(page["components"]["schemas"][f"{name}Request"]["properties"])
                    for name in ("Plan", "Influence", "Pipeline")}
    words = set(code_spans(without_code(API).split("### Geometry")[1].split("### ")[0]))
    assert set(page["components"]["schemas"]["GeometryRequest"]["properties"]) <= words


def test_the_routes_are_those_that_the_host_has(tiny_world: HostServer) -> None:
    paths = tiny_world.get("/openapi.json").json["paths"]
    there = {f"{method.upper()} {path}" for path, methods in paths.items() if path.startswith("/sciart/")
             for method in methods}
    table = next(table for table in tables(API) if table.head[0] == "route")
    assert {code_spans(row[0])[0] for row in table.rows} == there


def run(command: list[str], folder: Path) -> str:
    """What a command prints; it must not fail."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8", check=False, env={
        **os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "PYTHONUTF8": "1"})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_picture_of_the_gallery_made_over_the_api_is_that_of_the_command_line(tiny_world: HostServer) -> None:
    """The page of the API and the gallery speak of one engine."""
    shown = ROOT / "docs" / "gallery" / "mixed.png"
    loras = [{"name": "child", "weight": 0.8}, {"name": "watercolor", "weight": 1}]
    reply = tiny_world.txt2img(prompt="a submarine in the sea", sampler_name="DPM++ 2M", steps=16, seed=2, cfg_scale=6,
                               width=128, height=128, alwayson_scripts={"SciArt": {"args": [{"loras": loras}]}})
    assert reply.status == 200, reply.text
    picture = Image.open(io.BytesIO(base64.b64decode(reply.json["images"][0]))).convert("RGB")
    with Image.open(shown) as image:
        gaps = [abs(a - b) for a, b in zip(picture.tobytes(), image.convert("RGB").tobytes())]
    assert sum(gaps) / len(gaps) < 3
