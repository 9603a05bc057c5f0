"""Recipes as strangers could have written them: valid ones in which some values are of any type and any size, and JSON
texts of them that are spoiled."""

from __future__ import annotations

import base64
import copy
import io
import itertools
import json
import math
import struct
import zlib
from collections.abc import Iterator

from hypothesis import strategies as st
from PIL import Image

COMPOSES = ("merge", "switch", "composite", "spatial", "regions", "contrastive")
COMBINES = ("linear", "orthogonal", "ties", "dare-linear", "dare-ties", "magnitude-prune")
BLOCKS = ("in", "mid", "out", "BASE", "IN04", "M00", "OUT11", "attention", "feed_forward", "convolution")
NAMES = ("child", "watercolor", "Ünïcode 水彩", "a, b: c", "<lora:x:1>", "__label", "$x_{1}$", "a\nb", "\u2028", "x\0y",
         "😀")
FIELDS = ("enabled", "preset", "roles", "loras", "combine", "combining", "compose", "composition", "guidance",
          "execution", "memory_limit_mb", "name", "role", "weight", "schedule", "curve", "te_weight", "blocks",
          "apply_to", "subject", "trigger", "region", "hires", "order", "period", "refine", "opacity", "strength",
          "seed", "density", "x", "__init__", "__root__", "__fields__", "weight ", "")
PREFIX = "data:image/png;base64,"


def url(png: bytes) -> str:
    return PREFIX + base64.b64encode(png).decode()


def png(mode: str = "L", size: tuple[int, int] = (8, 8), **options) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, 200 if mode in ("L", "P", "I", "I;16", "1") else (200,) * len(mode)).save(
        file, "PNG", **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(kind: bytes, data: bytes) -> bytes:
    """A small picture with one more chunk after its header."""
    whole = png()
    return whole[:33] + chunk(kind, data) + whole[33:]


def of_size(width: int, height: int, depth: int = 8, colour: int = 0) -> bytes:
    """A picture of which little but the header is there."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100))
            + chunk(b"IEND", b""))


BOMB = zlib.compress(b"\0" * 3 * 2**20)
PICTURES = {
    "grey": png(), "colour": png("RGB"), "transparent": png("RGBA"), "one bit": png("1"), "palette": png("P"),
    "one pixel": png(size=(1, 1)), "a line": png(size=(1, 3000)), "16 bits": png("I;16"),
    "animated": png("RGB", save_all=True, append_images=[Image.new("RGB", (8, 8), (9, 9, 9))] * 3),
    "trailing": png() + b"more" * 100, "cut short": png()[:50], "the head alone": png()[:33], "nothing": b"",
    "black": of_size(8, 8), "huge": of_size(60_000, 60_000), "larger": of_size(2**31 - 1, 2**31 - 1),
    "a long line": of_size(2**31 - 1, 1), "16 million": of_size(4096, 4096), "no width": of_size(0, 5),
    "odd depth": of_size(8, 8, 3), "odd colour": of_size(8, 8, 8, 77), "16 bits of colour": of_size(8, 8, 16, 2),
    "text that unpacks to more": with_chunk(b"zTXt", b"a\0\0" + BOMB),
    "text of another kind": with_chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB),
    "a profile that unpacks to more": with_chunk(b"iCCP", b"a\0\0" + BOMB),
    "a palette too short": with_chunk(b"tRNS", b"\0" * 300), "a chunk of no kind": with_chunk(b"\0\0\0\0", b"x"),
    "frames without end": with_chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)), "a GIF": b"GIF89a" + b"\0" * 40,
}
URLS = st.one_of(
    st.sampled_from([url(picture) for picture in PICTURES.values()]),
    st.sampled_from([PREFIX, PREFIX + "====", PREFIX + "A", PREFIX + "é", "data:image/gif;base64,R0lGODlh", "data:",
                     "file:///etc/passwd", "http://localhost/x.png", url(png()) + "\n", url(png())[:-3]]),
    st.tuples(st.sampled_from(list(PICTURES.values())), st.integers(0, 200), st.binary(max_size=4)).map(
        lambda parts: url(parts[0][:parts[1]] + parts[2] + parts[0][parts[1] + len(parts[2]):])))

ODD_TEXTS = ("", " ", "\0", "\ud800", "a\udfff", "\udc00b", "\u202e", "x" * 1000, "x" * 200_000, "é" * 5000, "1",
             "nan", "NaN", "1e400", "-0.0", "true", "None", "0.2@0", "{}", "🏴" * 300, "%s%n{0}", "../../x", "\r\n",
             "\x1b[31m")
ODD_NUMBERS = (0, -0.0, 1, -1, 0.5, 10, 10.000001, 1e308, -1e308, 5e-324, 2**31, 2**53 + 1, 2**64, 10**99, 10**100,
               10**400, -10**400, math.nan, math.inf, -math.inf)
NUMBERS = st.one_of(st.sampled_from(ODD_NUMBERS), st.floats(), st.integers(), st.integers(0, 12), st.floats(0, 1))
TEXTS = st.one_of(st.sampled_from(ODD_TEXTS), st.text(max_size=30), URLS)
SCHEDULES = st.one_of(
    st.sampled_from(["0.2@0, 0.65@0.5", "1", "1@", "@1", "@", "1@0;0@1", "1@0@1", "nan@0", "1@nan", "inf@0.5",
                     "1e400@0", "0x1@0", "1_0@0", "١@٠", "½@0", "1@0,1@0", "1@0,,2@1", "\u00a01@0", "1@0\n, 2@1",
                     "-0@-0", "1@1e-320", ",".join(f"{i % 9}@{i / 999}" for i in range(1000)),
                     ",".join(["1@0"] * 30_000), "9" * 5000 + "@0"]),
    st.text("0123456789.@,;- e+_\u0660\u00bd\n", max_size=25),
    st.lists(st.lists(NUMBERS, min_size=1, max_size=3), max_size=5),
    st.lists(st.tuples(st.floats(0, 1), st.floats(-10, 10)).map(list), min_size=1, max_size=5))


def nested(depth: int, kind: str) -> object:
    value: object = []
    for _ in range(depth):
        value = [value] if kind == "list" else {"a": value}
    return value


DEEP = st.builds(nested, st.sampled_from([5, 31, 33, 2000, 10**5]), st.sampled_from(["list", "object"]))
LONG = st.sampled_from([
    lambda: [0] * 100_000, lambda: [[0, 1]] * 5000, lambda: ["x"] * 400_000, lambda: {str(i): i for i in range(5000)},
    lambda: {"x" * 5000: 1}, lambda: [{"name": str(i), "weight": 1} for i in range(33)], lambda: [""] * 4,
    lambda: [None] * 17]).map(lambda make: make())
VALUES = st.one_of(
    st.none(), st.booleans(), NUMBERS, TEXTS, SCHEDULES,
    st.recursive(st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=5)),
                 lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
                 max_leaves=6))
STRANGE = st.one_of(VALUES, VALUES, VALUES, VALUES, VALUES, VALUES, DEEP, LONG)

WEIGHTS = st.one_of(st.floats(-10, 10), st.integers(-10, 10))
BOXES = st.sampled_from([[0, 0, 1, 1], [0.0, 0.0, 0.5, 1.0], [0.25, 0.5, 0.75, 1]])
POINTS = st.dictionaries(st.floats(0, 1).map(lambda p: round(p, 4)), WEIGHTS, min_size=1, max_size=6).map(
    lambda points: [[p, w] for p, w in points.items()])


def some(**fields: st.SearchStrategy) -> st.SearchStrategy[dict]:
    """An object with some of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


MORE = some(curve=st.sampled_from(["linear", "step", "cosine"]), te_weight=WEIGHTS)
WEIGHTED = st.one_of(
    st.tuples(MORE, st.fixed_dictionaries({"weight": WEIGHTS})),
    st.tuples(MORE, st.fixed_dictionaries({"schedule": st.one_of(POINTS, st.just("0.2@0, 0.65@0.5"))}))).map(
        lambda both: {**both[0], **both[1]})
FACTORS = st.one_of(
    st.dictionaries(st.sampled_from([block for block in BLOCKS if block != "BASE"]), st.one_of(WEIGHTS, POINTS),
                    max_size=4),
    st.dictionaries(st.sampled_from(BLOCKS), WEIGHTS, max_size=4),
    *(st.lists(WEIGHTS, min_size=count, max_size=count) for count in (12, 17, 20, 26)),
    st.just("1,0,0,0,1,1,1,1,1,1,1,1"))
STEPPED = st.lists(st.tuples(st.integers(1, 200).map("s{}".format), WEIGHTS), min_size=1, max_size=4,
                   unique_by=lambda point: point[0]).map(lambda points: [list(point) for point in points])
WEIGHTED = st.one_of(WEIGHTED, st.fixed_dictionaries({"schedule": STEPPED}))
NEGATIVE = st.tuples(st.one_of(MORE, WEIGHTED), st.one_of(st.none(), WEIGHTED)).map(
    lambda both: {"negative": both[0], **({"hires": {**both[1], "negative": both[0]}} if both[1] else {})})
LORAS = st.tuples(
    st.fixed_dictionaries({"subject": st.sampled_from(["a child", "水彩", "x" * 999])}), WEIGHTED,
    some(blocks=FACTORS, apply_to=st.sampled_from(["both", "cond", "uncond"]), hires=WEIGHTED,
         region=st.one_of(BOXES, st.just(url(PICTURES["grey"]))))).map(
             lambda parts: {**parts[0], **parts[1], **parts[2]})
LORAS = st.one_of(LORAS, st.tuples(LORAS, NEGATIVE).map(lambda both: {**both[0], **both[1], "apply_to": "both"}))
ENTRIES = st.lists(st.tuples(st.sampled_from(NAMES), LORAS), min_size=1, max_size=4,
                   unique_by=lambda pair: pair[0]).map(lambda pairs: [{"name": name, **lora} for name, lora in pairs])
WHOLE = some(
    enabled=st.booleans(), preset=st.sampled_from(NAMES), combine=st.sampled_from(COMBINES),
    roles=st.dictionaries(st.sampled_from(NAMES), st.sampled_from(NAMES), max_size=3),
    execution=st.sampled_from(["auto", "merge", "branch"]), memory_limit_mb=st.floats(0, 1e6),
    combining=some(density=st.floats(0.01, 1), seed=st.integers(0, 2**32 - 1), directions=st.integers(1, 4096),
                   strength=st.floats(0, 1), majority=st.sampled_from(["total", "frequency"])),
    composition=some(period=st.integers(1, 1000), order=st.just("reversed"), temperature=st.floats(1e-4, 100),
                     patch=st.integers(1, 64), recenter=st.floats(0, 1), feather=st.floats(0, 0.5),
                     hires=st.booleans()),
    guidance=some(strength=st.floats(0, 1e4), until=st.floats(0, 1), masks=st.booleans(), target=st.floats(0, 100),
                  refine=st.dictionaries(st.floats(0, 1).map(str), st.integers(1, 100), max_size=3),
                  opacity=st.sampled_from(["1@0, 0@1", [[0, 1], [0.5, 0]]]), offload=st.booleans(),
                  show=st.booleans()))


def _joined(entries: list[dict], whole: dict, compose: str) -> dict:
    recipe = copy.deepcopy({"loras": entries, "compose": compose, **whole})
    if compose == "regions":
        recipe["loras"][0]["region"] = [0, 0, 0.5, 1]
    if "order" in recipe.get("composition", {}):
        recipe["composition"]["order"] = [lora["name"] for lora in reversed(entries)]
    return recipe


RECIPES = st.builds(_joined, ENTRIES, WHOLE, st.sampled_from(COMPOSES))
"""those that are accepted"""


WHAT = st.sampled_from(["value", "value", "value", "gone", "more", "name", "twice"])
FIELD = st.one_of(st.sampled_from(FIELDS), TEXTS)
OWN = {field: st.one_of(own, own, STRANGE) for own, fields in (
    (TEXTS, "name role subject trigger preset order roles"), (URLS, "region"), (SCHEDULES, "schedule opacity blocks"),
    (NUMBERS, "weight te_weight period temperature patch density seed strength until target memory_limit_mb"),
) for field in fields.split()}


@st.composite
def strange_recipes(draw) -> object:
    """One of which some values, or names of fields, are others."""
    recipe = draw(RECIPES)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        draw(changed(recipe))
    return draw(STRANGE) if draw(st.integers(0, 30)) == 17 else recipe


@st.composite
def changed(draw, recipe: dict) -> None:
    """One value is another, is gone, is twice there, or there is one more."""
    places = list(itertools.islice(_places(recipe), 200))
    places += [place for place in places if place[1] in OWN]
    inside, key = draw(st.sampled_from(places)) if places else (recipe, "x")
    what = draw(WHAT)
    if what == "value":
        inside[key] = draw(_like(key))
    elif what == "twice" and isinstance(inside, list):
        inside.append(inside[key])
    elif what == "more" and isinstance(inside, dict):
        name = draw(FIELD)
        inside[name] = draw(_like(name))
    elif key in inside if isinstance(inside, dict) else True:
        value = inside.pop(key)
        if what == "name" and isinstance(inside, dict):
            inside[draw(FIELD)] = value


def _like(key: str | int) -> st.SearchStrategy:
    """Strange values for this field: mostly of the type that it has."""
    return OWN.get(key, STRANGE)


def _places(value: dict) -> Iterator[tuple[dict | list, str | int]]:
    """(list or object, key) of all values inside."""
    waiting = [value]
    for inside in waiting:
        for key in list(inside) if isinstance(inside, dict) else range(len(inside)):
            yield inside, key
            if isinstance(inside[key], (dict, list)):
                waiting.append(inside[key])


PIECES = st.sampled_from(["NaN", "Infinity", "1e999", "-", "9" * 5000, "[" * 10**5, '{"a":' * 2000, r'"\ud800"', "01",
                          r'"\u0000"', "\ufeff", "\0", "'", ",", "}", "]", "//", '"weight":1,', '"loras":[],', "\u2028",
                          "é", "1.", "", "", ""]) | st.text(max_size=2)
FEW = st.integers(0, 3)


@st.composite
def recipe_texts(draw) -> str | bytes:
    """The JSON text of one, with pieces put in or taken out."""
    text = json.dumps(draw(RECIPES), ensure_ascii=draw(st.booleans()))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(PIECES) + text[place + draw(FEW):]
    return text if draw(st.booleans()) else text.encode("utf-8", "surrogatepass") + draw(st.binary(max_size=1))
