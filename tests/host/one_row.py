"""What the tests of LoRAs that share a row share: individuals of the tiny model, and requests for their pictures."""

from __future__ import annotations

from pictures import with_recipe
from server import HostServer, Reply

PROMPT = "a rocket and a robot in space"
ROCKET = {"name": "red-striped-rocket", "weight": 1.0, "subject": "rocket", "trigger": "red striped"}
ROBOT = {"name": "yellow-visor-robot", "weight": 1.0, "subject": "robot", "trigger": "yellow visor"}
STYLE = {"name": "watercolor", "weight": 0.5}
LEFT, RIGHT, WHOLE = [0, 0, 0.5, 1], [0.5, 0, 1, 1], [0, 0, 1, 1]
HALVES = ({**ROCKET, "region": LEFT}, {**ROBOT, "region": RIGHT})
SIZE = {"width": 128, "height": 128}
REQUEST = {"prompt": PROMPT, "negative_prompt": "planet", "steps": 8, "seed": 11, "sampler_name": "Euler",
           "cfg_scale": 5.0, **SIZE}


def masked(loras=(ROCKET, ROBOT, STYLE), prefix: str = "sciart-tiny-", **more) -> dict:
    return {"compose": "masked", "loras": named(loras, prefix), **more}


def in_regions(loras=(*HALVES, STYLE), prefix: str = "sciart-tiny-", rows: str = "one", **composition) -> dict:
    bare = [{key: value for key, value in lora.items() if key not in ("subject", "trigger")} for lora in loras]
    return {"compose": "regions", "composition": {"rows": rows, **composition}, "loras": named(bare, prefix)}


def named(loras, prefix: str) -> list[dict]:
    return [{**lora, "name": prefix + lora["name"]} for lora in loras]


def asked(tiny: HostServer, recipe: dict | None = None, **settings) -> Reply:
    return tiny.txt2img(**{**REQUEST, **settings}, **(with_recipe(recipe) if recipe else {}))


def made(tiny: HostServer, recipe: dict | None = None, **settings) -> Reply:
    answer = asked(tiny, recipe, **settings)
    assert answer.status == 200, answer.text
    return answer
