"""Requests of the host with a recipe and other extensions' arguments, and recipes of every way to compose."""

from __future__ import annotations

from pictures import difference, recipe
from server import HostServer, Reply

WEIGHTS = {"child": 0.7, "watercolor": 0.5}
SETTINGS = {"prompt": "a rocket and a robot", "steps": 6, "width": 128, "height": 128, "seed": 3,
            "sampler_name": "Euler"}
MERGED = {
    "constant": recipe(WEIGHTS),
    "schedule": {"loras": [{"name": "child", "schedule": "0.1@0, 1@1"}]},
    "switch": recipe(WEIGHTS, compose="switch"),
}
OWN_ROWS = {
    "by row": {"loras": [{"name": "child", "weight": 0.8, "apply_to": "cond"}]},
    "composite": recipe(WEIGHTS, compose="composite"),
    "spatial": recipe(WEIGHTS, compose="spatial"),
    "regions": {"compose": "regions", "loras": [{"name": "child", "weight": 0.8, "region": [0, 0, 0.5, 1]},
                                                {"name": "watercolor", "weight": 0.8, "region": [0.5, 0, 1, 1]}]},
    "contrastive": {"compose": "contrastive", "guidance": {"refine": {"0": 2}}, "loras": [
        {"name": "child", "weight": 0.8, "subject": "rocket"},
        {"name": "watercolor", "weight": 0.8, "subject": "robot"}]},
}
MASKED = {"compose": "masked", "loras": [{"name": "child", "weight": 0.7, "subject": "rocket",
                                          "region": [0, 0, 0.5, 1]}]}
"""in one half, which reads the same text as the other"""
REGIONS_IN_ONE_ROW = {"compose": "regions", "composition": {"rows": "one"}, "loras": [
    {"name": "child", "weight": 0.7, "region": [0, 0, 0.5, 1]}, {"name": "watercolor", "weight": 0.5}]}
EVERY_WAY = {**MERGED, **OWN_ROWS, "masked": MASKED, "regions in one row": REGIONS_IN_ONE_ROW}


def made(host: HostServer, recipe: dict | None = None, scripts: dict | None = None, **settings) -> Reply:
    """A picture; scripts: arguments of other extensions by title."""
    every = {name: {"args": list(args)} for name, args in (scripts or {}).items()}
    if recipe is not None:
        every["SciArt"] = {"args": [recipe]}
    return host.txt2img(**{**SETTINGS, **settings}, alwayson_scripts=every)


def is_first_picture_same(a: Reply, b: Reply) -> bool:
    """Within the tolerance of two routes to one picture; extensions add further pictures to the answer."""
    assert a.status == b.status == 200, (a.text[:500], b.text[:500])
    largest, mean = difference(a.pictures[0], b.pictures[0])
    return largest <= 2 and mean <= 0.1


def is_first_picture_other(a: Reply, b: Reply) -> bool:
    """Visibly another one."""
    assert a.status == b.status == 200, (a.text[:500], b.text[:500])
    return difference(a.pictures[0], b.pictures[0])[1] > 1.0
