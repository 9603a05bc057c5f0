"""Layouts of key names beside the host's own map: each of kohya's names is of the layer that the host takes it for."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

import pytest
from server import webui_folder

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from benchmarks.widening.layout_writers import models
from benchmarks.widening.layouts import LAYOUTS
from sciart_ext.lora.names import layer_name

SOURCE = "extensions-builtin/Lora/networks.py"
WANTED = ("re_digits", "re_compiled", "suffix_conversion", "convert_diffusers_name_to_compvis")


@pytest.fixture(scope="module")
def in_the_host() -> Callable[[str, bool], str]:
    """The host's function that names a model's layer, taken out of a module that wants all of the host."""
    tree = ast.parse((webui_folder() / SOURCE).read_text(encoding="utf-8"))
    chosen = [node for node in tree.body if getattr(node, "name", None) in WANTED
              or (isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) in WANTED)]
    assert len(chosen) == len(WANTED)
    names: dict = {"re": re}
    exec(compile(ast.Module(chosen, []), SOURCE, "exec"), names)
    return names[WANTED[-1]]


@pytest.mark.parametrize("family", ["SD1", "SD2", "SDXL"])
def test_kohyas_names_are_of_the_hosts_layers(in_the_host: Callable[[str, bool], str], family: str) -> None:
    """And the host's own name of the layer is taken for the same."""
    layout, checked = LAYOUTS["OneTrainer, legacy" if family == "SDXL" else "kohya"], 0
    for part in models(family).parts:
        for key in layout.write(models(family), part):
            stem = key.removesuffix(".lora_up.weight")
            name = in_the_host(stem, family == "SD2")
            if name == stem:
                continue  # the host looks for it in other ways, by which no name changes
            assert layer_name(name) == layer_name(stem) is not None, (stem, name)
            checked += 1
    assert checked > 250
