"""What hosts do is what `sciart_ext/host/protocols.py` says, by its names and arguments.

Read in the source, because a WebUI's part can only be imported in it; what the functions do there, tests/host shows.
"""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from sciart_ext.host import protocols

PACKAGE = Path(protocols.__file__).parents[1]
A1111, STANDALONE = "host/a1111", "standalone"
KEPT = {
    "ModelParts": [(f"{A1111}/model/parts.py", "model_parts"), (f"{STANDALONE}/generate.py", "model_parts")],
    "HostWeights": [(f"{A1111}/model/parts.py", "")],
    "LoraFiles": [(f"{A1111}/lora_files.py", "")],
    "Encoding": [(f"{A1111}/prompts/encoding.py", "Prompts._encode_rows.encode"),
                 (f"{STANDALONE}/generate.py", "encode_rows.encoded")],
    "Progress": [(f"{A1111}/picture/moments.py", "Moments.progress")],
    "SetGates": [(f"{A1111}/picture/sampling.py", "Pass._set_gates"), (f"{STANDALONE}/sampling.py", "Rows.set_gates")],
    "Denoised": [(f"{A1111}/picture/subjects.py", "Subjects._denoised"),
                 (f"{STANDALONE}/sampling.py", "Rows.denoised")],
    "PlainCall": [(f"{A1111}/picture/subjects.py", "Subjects._call_plain"),
                  (f"{STANDALONE}/sampling.py", "Rows.call_plain")],
    "GradientPass": [(f"{A1111}/picture/guided.py", "GuidedPass.update.call"),
                     (f"{STANDALONE}/sampling.py", "Rows.call")],
    "Noise": [(f"{A1111}/picture/fused.py", "FusedPass.noise_of"), (f"{STANDALONE}/sampling.py", "Rows._noise")],
    "Refused": [("host/webui/errors.py", "as_request_error"), (f"{A1111}/picture/run.py", "Run.refused")],
    "Note": [(f"{A1111}/picture/run.py", "Run.note")],
}
BOUND = {"Pass._set_gates": ["images"], "Subjects._denoised": ["now", "set_gates"],
         "Subjects._call_plain": ["now", "set_gates"], "Rows._noise": ["inputs", "time"],
         "FusedPass.noise_of": ["x"], "Rows.set_gates": ["images"],
         "Rows.call": ["time", "progress", "rows"]}
"""arguments that are given beforehand, with `functools.partial`"""


def promises():
    return {name: one for name, one in vars(protocols).items()
            if inspect.isclass(one) and one.__module__ == protocols.__name__}


def methods(protocol):
    return {name: list(inspect.signature(function).parameters)[1:] for name, function in vars(protocol).items()
            if inspect.isfunction(function) and (name == "__call__" or not name.startswith("_"))}


def found(path, name):
    """The function or the file's body under a dotted name."""
    node = ast.parse((PACKAGE / path).read_text(encoding="utf-8"))
    for part in filter(None, name.split(".")):
        node = next(child for child in ast.walk(node) if isinstance(child, (ast.ClassDef, ast.FunctionDef))
                    and child.name == part)
    return node


def wanted(function):
    """Its arguments without those that have a value already."""
    arguments = [argument.arg for argument in function.args.args if argument.arg not in ("self", "cls")]
    return arguments[:len(arguments) - len(function.args.defaults)]


def test_every_promise_is_kept_by_some_host():
    assert set(KEPT) == set(promises())


@pytest.mark.parametrize(("promise", "path", "name"), [
    (promise, path, name) for promise, kept in KEPT.items() for path, name in kept])
def test_a_host_keeps_it(promise, path, name):
    for method, arguments in methods(promises()[promise]).items():
        function = found(path, name if method == "__call__" else f"{name}.{method}".lstrip("."))
        given = [argument for argument in wanted(function) if argument not in BOUND.get(name, [])]
        assert len(given) == len(arguments), f"{name or path}: {given} for {arguments}"
        if method != "__call__":  # one that is called by keyword, too
            assert given == arguments
