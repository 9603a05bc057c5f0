"""What torch has pickled is read as torch reads it, though nothing of it is unpickled."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict

import pytest
import torch

from sciart_ext.errors import SciArtError
from sciart_ext.lora.pickled import read_pickle
from sciart_ext.lora.unpickler import unpickled

BOTH = torch.arange(24.0)
TABLES = {
    "a table": {"a": torch.randn(3, 4), "b": torch.tensor(2.5)},
    "precisions": {str(dtype): torch.ones(2, 3, dtype=dtype) for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16)},
    "whole numbers": {str(dtype): torch.tensor(3, dtype=dtype) for dtype in (
        torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)},
    "views of one storage": {"a": BOTH[:12].view(3, 4).t(), "b": BOTH[12:].view(4, 3), "c": BOTH[3]},
    "one tensor twice": {"a": BOTH[0], "b": BOTH[0]},
    "parameters": {"a": torch.nn.Parameter(torch.ones(2, 2))},
    "an ordered table": OrderedDict(a=torch.ones(2)),
    "a module's state": torch.nn.Linear(3, 2).state_dict(),
    "no entries": {"a": torch.empty(0, 4), "b": torch.ones(1)},
    "other things beside": {"state_dict": {"a": torch.ones(2)}, "epoch": 3, "lr": [0.1, None, True, (1, "x")],
                            "buffer": torch.ones(5)},
    "many": {f"layer.{i}": torch.full((2,), float(i)) for i in range(600)},
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("archive", [True, False], ids=["archive", "in turn"])
@pytest.mark.parametrize("name", TABLES)
def test_it_is_read_as_torch_reads_it(tmp_path, name, archive, protocol):
    path = tmp_path / "file.pt"
    torch.save(TABLES[name], path, _use_new_zipfile_serialization=archive, pickle_protocol=protocol)
    table = torch.load(path, weights_only=False)
    table = table.get("state_dict", table)
    found = read_pickle(path)
    assert found.keys() == table.keys()
    for key, tensor in table.items():
        assert found[key].dtype == tensor.dtype and torch.equal(found[key], tensor.detach()), key


@pytest.mark.parametrize("value", [
    None, True, 3, -3, 255, 256, 70_000, -2**31, 2**40, -2**70, 1.5, "text", "é" * 300, [], [1, [2, 3]], (), (1,),
    (1, 2), (1, 2, 3), (1, 2, 3, 4), {}, {"a": {"b": (1, [2])}, "c": 4}, ["x"] * 3, [{"a": 1}] * 2])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_are_what_python_makes_of_them(value, protocol):
    assert unpickled(io.BytesIO(pickle.dumps(value, protocol))).value == value


@pytest.mark.parametrize("value", [{1, 2}, frozenset("a"), {(1, 2): 3}, b"bytes", 1j, object(), bytearray(3)],
                         ids=lambda value: type(value).__name__)
def test_other_things_are_not_made(value):
    with pytest.raises(SciArtError, match="holds more than tensors"):
        unpickled(io.BytesIO(pickle.dumps(value, 4)))
