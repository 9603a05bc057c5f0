"""The page's scripts: each name of `sciart` has one home, and a file uses its own layer and those below it."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parents[1] / "javascript").glob("*.js"))
NAMESPACES = ("dom", "host", "recipes", "plot", "schedules", "mix", "masks", "texts")


def layer(path):
    return int(path.name.split("_")[1])


def code(path):
    """Without comments and texts, in which names are no uses."""
    text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.S)
    return re.sub(r"//[^\n]*|\"[^\"\n]*\"|'[^'\n]*'", '""', text)


@functools.cache
def definitions():
    """{name, within its namespace: the file that defines it}."""
    found = {}
    for path in FILES:
        text = code(path)
        names = [f"sciart.{name}" for name in re.findall(r"^    sciart\.(\w+) = ", text, flags=re.M)]
        for space, members in re.findall(r"^    (?:Object\.assign\(|sciart\.)(\w+)(?:,| =) \{([\w\s,]+)\}", text,
                                         flags=re.M):
            names += [f"{space}.{name}" for name in re.findall(r"\w+", members)]
        for name in names:
            assert name not in found, f"{name} is defined in {path.name} and in {found[name].name}"
            found[name] = path
    return found


def uses(path):
    names = re.findall(rf"(?<!\w)(?<!\w\.)(?:sciart\.)?((?:sciart|{'|'.join(NAMESPACES)})\.\w+)\b(?! = )", code(path))
    return set(names) - {f"sciart.{space}" for space in NAMESPACES}


def test_every_file_has_a_layer_and_the_last_is_the_start():
    assert [layer(path) for path in FILES] == sorted(layer(path) for path in FILES)
    assert FILES[-1].name == "sciart_6_start.js" and len({layer(path) for path in FILES}) == 6


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_uses_its_own_layer_and_those_below(path):
    known = definitions()
    for name in uses(path):
        assert name in known, f"{name} is defined nowhere"
        assert layer(known[name]) <= layer(path), f"{name} is defined in {known[name].name}"


def test_names_and_uses_are_found():
    assert {"sciart.Panel", "dom.h", "host.find", "recipes.read", "plot.axes"} <= set(definitions())
    (curves,) = [path for path in FILES if path.name == "sciart_3_curves.js"]
    assert {"sciart.Gestures", "schedules.rounded", "plot.axes", "dom.t"} <= uses(curves)
