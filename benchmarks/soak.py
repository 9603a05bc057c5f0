"""A WebUI under strain: does it stay as it is, and does it go on while one asks for much.

    SCIART_WEBUI=FOLDER python -m benchmarks.soak [--quick] [--pictures 1000]

In a real WebUI with toy models: pictures with changing recipes (tests/host/random_recipes.py), then strange requests
to every route (tests/hostile/strange_requests.py), then one request of each kind that takes long, while it is asked for
its progress again and again.

Keys of the last line, one JSON object: pictures, pictures_failed; memory_mb, descriptors and threads of the process,
each after a tenth of the pictures and at the end; parameters_equal, hooks_equal, settings_equal: before and after all
of it; requests, those of them that the client left, requests_500; progress_ms: the longest wait for the WebUI's
progress during each long request. On Linux.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

from . import record

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS / "host"), str(TESTS / "hostile"), str(TESTS)]  # as pytest has them

from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402
from random_recipes import ODD_NAME, random_request  # noqa: E402
from served import PREFIX, check_answer  # noqa: E402
from server import ONE_THREAD, HostServer, make_tiny_models, webui_folder  # noqa: E402
from strange_requests import requests as strange_requests  # noqa: E402

SMALL = {"prompt": "a rocket", "steps": 4, "seed": 7, "width": 64, "height": 64, "sampler_name": "Euler"}
PATIENCE = 20.0
"""seconds that an answer to a strange request is waited for"""
LORAS = ("child", "watercolor", "science")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="30 pictures, 100 requests; keeps no result")
    options = parser.parse_args()
    pictures, requests = (30, 100) if options.quick else (options.pictures, options.requests)
    with tempfile.TemporaryDirectory() as folder:
        models = make_tiny_models(webui_folder(), Path(folder) / "models")
        shutil.copy(models / "Lora" / "child.safetensors", models / "Lora" / f"{ODD_NAME}.safetensors")
        with HostServer(models=models, env=ONE_THREAD) as host:
            host.txt2img(**SMALL)
            before, options_before = host.probe(), host.get("/sdapi/v1/options").json
            told = {**soaked(host, pictures), **strained(host, requests), "progress_ms": waits(host)}
            host.txt2img(**SMALL)
            after = host.probe()
            told.update(parameters_equal=after["weights"] == before["weights"], hooks_equal=all(
                after[key] == before[key] for key in ("hooks", "shadowed_methods", "module_attributes")),
                settings_equal=host.get("/sdapi/v1/options").json == options_before)
    result = {"machine": record.machine(), "commit": record.commit(), **told}
    if not options.quick:
        print("kept in", record.write("soak", result))
    print(json.dumps(result))


def soaked(host: HostServer, count: int) -> dict:
    """Pictures one after the other, and what the process holds."""
    failed, held = 0, []
    for number in range(count):
        recipe, payload = random_request(number)
        answer = host.txt2img(**payload, alwayson_scripts={"SciArt": {"args": [recipe]}})
        if answer.status != 200:
            failed += 1
            print("FAILED:", answer.status, answer.text[:300], json.dumps(recipe), flush=True)
        if number in (count // 10, count - 1):
            held.append(_held(host.process.pid))
        if number % 100 == 99:
            print(f"{number + 1} pictures, {_held(host.process.pid)}", flush=True)
    return {"pictures": count, "pictures_failed": failed, "memory_mb": [one[0] for one in held],
            "descriptors": [one[1] for one in held], "threads": [one[2] for one in held]}


def _held(process: int) -> tuple[int, int, int]:
    """MB of memory that it has itself, open files, threads."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) // 1024, len(os.listdir(f"/proc/{process}/fd")), int(status["Threads"])


def strained(host: HostServer, count: int) -> dict:
    """So many strange requests. Some of them are right, and ask for much: the client leaves those after a while."""
    tried, left, wrong = 0, 0, []

    @settings(max_examples=count, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))
    @given(request=strange_requests())
    def send(request) -> None:
        nonlocal tried, left
        tried += 1
        headers = {} if request.body is None else {"Content-Type": request.content_type}
        connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=PATIENCE)
        try:
            connection.request(request.method, PREFIX + request.path, request.body, headers)
            answer = connection.getresponse()
            check_answer(answer.status, answer.read())
        except TimeoutError:
            left += 1
        except AssertionError as error:
            wrong.append(error)
            print("WRONG:", str(error)[:600], request, flush=True)
        finally:
            connection.close()

    send()
    return {"requests": tried, "requests_left": left, "requests_500": len(wrong)}


def waits(host: HostServer) -> dict[str, float]:
    """The longest wait for the progress during each long request, in ms."""
    many = {"loras": [{"name": f"lora {k}", "schedule": [[i / 999, 0.5] for i in range(1000)]} for k in range(32)]}
    masks = {"compose": "regions", "loras": [{"name": name, "weight": 0.5, "region": [0, 0, 1, 1]} for name in LORAS]}
    picture = {**SMALL, "steps": 20}
    asked = {
        "plan": {"recipe": many, "steps": 3000, "hires_steps": 125, "picture": True},
        "geometry": {"loras": list(LORAS), "page": True},
        "influence": {"txt2img": picture, "recipe": {"loras": [{"name": name, "weight": 0.5} for name in LORAS]},
                      "page": True},
        "pipeline": {"txt2img": picture, "recipe": masks,
                     "pipeline": {"img2img": {}, "upscale": {"upscaler": "Lanczos", "scale": 8}}},
        "presets": {"name": "large", "preset": {"title": "x", "recipe": many, "prompts": ["a" * 20_000] * 20}},
        "roles": {f"role {k}": "child" for k in range(256)},
    }
    told = {route: _wait(host, "POST", route, json.dumps(body).encode()) for route, body in asked.items()}
    told["loras"] = _wait(host, "GET", "loras?refresh=true")
    told["a body of 64 MB"] = _wait(host, "POST", "pipeline", b'{"preset": "' + b"a" * (64 << 20) + b'"}')
    told["many values"] = _wait(host, "POST", "pipeline", b"[" + b"[],[]," * (5 << 20) + b"1]")
    told["a hostile infotext"] = _wait(host, "POST", "influence", json.dumps(
        {"txt2img": {"infotext": "word " * 190_000}}).encode())
    return told


def _wait(host: HostServer, method: str, route: str, body: bytes | None = None) -> float:
    longest, done = 0.0, threading.Event()

    def look() -> None:
        nonlocal longest
        while not done.is_set():
            begun = time.monotonic()
            host.get("/sdapi/v1/progress?skip_current_image=true")
            longest = max(longest, time.monotonic() - begun)

    watching = threading.Thread(target=look)
    watching.start()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=host.request_timeout)
        begun = time.monotonic()
        connection.request(method, f"{PREFIX}/{route}", body, {"Content-Type": "application/json",
                                                               "Accept-Encoding": "gzip"})
        answer = connection.getresponse()
        size = len(answer.read())
        print(f"{route}: {answer.status}, {size} bytes in {time.monotonic() - begun:.1f} s", flush=True)
        connection.close()
    finally:
        done.set()
        watching.join()
    return round(1000 * longest, 1)


if __name__ == "__main__":
    main()
