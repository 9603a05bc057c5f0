"""Requests to the routes as strangers could send them: valid ones in which something is of another type, size or name,
missing, or no JSON any more."""

from __future__ import annotations

import copy
import json
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass

from hypothesis import strategies as st
from strangers import VALUES, spoiled

RECIPE = {"loras": [{"name": "child", "schedule": [[0, 0.2], [0.5, 0.65]], "blocks": {"out": 0.5}},
                    {"name": "watercolor", "weight": 0.5, "hires": {"weight": 0.4}}]}
PICTURE = {"prompt": "a rocket in space", "negative_prompt": "", "steps": 1, "seed": 7, "cfg_scale": 5.0, "width": 64,
           "height": 64, "sampler_name": "Euler", "scheduler": "Automatic", "styles": [], "enable_hr": False,
           "alwayson_scripts": {"SciArt": {"args": [RECIPE]}}, "override_settings": {"CLIP_stop_at_last_layers": 1}}
INFOTEXT = ("a rocket\nNegative prompt: dull\nSteps: 1, Sampler: Euler, CFG scale: 5, Seed: 7, Size: 64x64, "
            'SciArt: "{\\"loras\\":[{\\"weight\\":0.55,\\"name\\":\\"watercolor\\"}]}"')
BODIES = {
    "plan": {"recipe": RECIPE, "steps": 3, "hires_steps": 2, "picture": True},
    "roles": {"child": "child", "watercolor": ""},
    "presets": {"name": "mine", "preset": {"title": "Mine", "description": "", "recipe": RECIPE, "prompts": ["a"],
                                           "txt2img": {"prompt": "a", "steps": 3, "cfg_scale": 6}}},
    "geometry": {"loras": ["child", "watercolor"], "weights": [0.6, 0.5], "page": False},
    "styles": {},
    "influence": {"txt2img": PICTURE, "recipe": RECIPE, "subsets": "solo", "words": ["rocket"], "orders": 2,
                  "at_once": 4, "page": False},
    "pipeline": {"txt2img": PICTURE, "recipe": RECIPE, "pipeline": {"img2img": {"denoising_strength": 0.3, "steps": 1}},
                 "without": ["controlnet", "adetailer"], "save_images": False, "preset": None},
}
ODD = st.one_of(
    st.sampled_from([None, True, False, [], {}, "", 0, -1, 0.5, 1e308, -1e308, 2**63, 2**70, 10**99, [[]], [{}],
                     [None], {"": None}, {"args": []}, {"args": None}, {"__type__": "update"}, "a" * 300, "a" * 30_000,
                     "\ud800", "\0", "../../x", "CON", "<script>", "-1", "1e5", "NaN", [0] * 2000,
                     {str(k): k for k in range(500)}]),
    VALUES).map(copy.deepcopy)  # what is drawn is changed further
INFOTEXTS = st.one_of(
    st.sampled_from([INFOTEXT.replace("Seed: 7", "Seed: x"), INFOTEXT.replace("64x64", "x"), INFOTEXT + ", Steps: ,",
                     INFOTEXT.replace("Steps: 1", "Steps: 1e9"), INFOTEXT.replace('SciArt: "', 'SciArt: "['),
                     INFOTEXT.replace("Steps: 1", "Steps: None"), "a, " * 500, "word " * 2000, 'aa: "' * 500,
                     INFOTEXT + ', SciArt pipeline: "{\\"txt2img\\": []}"', INFOTEXT + ", SciArt pipeline: [1]",
                     INFOTEXT + ", Clip skip: x, ENSD: y, Size: 0x0", INFOTEXT + ", Denoising strength: strong"]),
    st.text(max_size=60).map(lambda text: f"{INFOTEXT}, {text}"))
NAMES = st.one_of(st.sampled_from(["science-imagination", "mine", "..", ".", "%00", "con", "a" * 5000, "\ud800"]),
                  st.text(min_size=1, max_size=20))
TYPES = st.sampled_from([*["application/json"] * 20, "application/json; charset=utf-8", "text/plain", ""])


@dataclass(frozen=True)
class StrangeRequest:
    """path: under the routes' own, with its parameters."""

    method: str
    path: str
    body: bytes | None = None
    content_type: str = "application/json"


@st.composite
def requests(draw, routes: tuple[str, ...] = tuple(BODIES)) -> StrangeRequest:
    """Of one of the routes, or of those without a body."""
    route = draw(st.sampled_from([*routes, *routes, "a name", "a parameter"]))
    if route == "a name":
        name = urllib.parse.quote(draw(NAMES).encode("utf-8", "replace"), safe="")
        return StrangeRequest(draw(st.sampled_from(["GET", "DELETE"])), f"/presets/{name}")
    if route == "a parameter":
        given = urllib.parse.urlencode({draw(st.sampled_from(["refresh", "x"])): draw(st.text(max_size=5))},
                                       errors="replace")
        return StrangeRequest("GET", f"/{draw(st.sampled_from(['presets', 'roles', 'loras']))}?{given}")
    body = copy.deepcopy(BODIES[route])
    if "txt2img" in body and draw(st.integers(0, 4)) == 0:
        body["txt2img"] = {"infotext": draw(INFOTEXTS)}
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        body = draw(changed(body))
    text = json.dumps(body).encode()
    if draw(st.integers(0, 5)) == 0:
        text = draw(spoiled(text))
    if draw(st.integers(0, 40)) == 0:
        text = b"[" * draw(st.sampled_from([40, 100_000])) + text
    return StrangeRequest("POST", f"/{route}", text, draw(TYPES))


@st.composite
def changed(draw, body: object) -> object:
    """The same with one of its values another, taken away, or under another name."""
    places = list(_places(body))
    if not places:
        return draw(ODD)
    holder, key = draw(st.sampled_from(places))
    what = draw(st.sampled_from(["value", "value", "value", "gone", "name", "all"]))
    if what == "all":
        return draw(ODD)
    if what == "value":
        holder[key] = draw(ODD)
    elif what == "gone":
        del holder[key]
    elif isinstance(holder, dict):
        holder[draw(st.text(max_size=300))] = holder[key]
    else:
        holder.append(holder[key])
    return body


def _places(value: object) -> Iterator[tuple[dict | list, object]]:
    """Wherever something is in it: (holder, key or number)."""
    if isinstance(value, (dict, list)):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])
