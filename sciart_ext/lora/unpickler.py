"""A pickle's own machine, as far as tables of tensors need it. It calls nothing: what it meets, it describes.

Python's unpickler, and torch's with `weights_only`, make the objects that a pickle asks for, and some never end: the
key of a table may be a tuple whose hash takes years. Here keys are words and numbers, and of a tensor it is told what
would be made of which bytes.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, NamedTuple

from ..errors import SciArtError, quoted

MOST_OPCODES = 200_000
"""of a file: a tensor takes about forty"""
LONGEST_TEXT = 2**16


class Name(NamedTuple):
    """What a pickle imports, which is not imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Storage(NamedTuple):
    """Bytes that a pickle keeps elsewhere: `count` numbers of this kind (`FloatStorage`)."""

    kind: str
    key: str
    count: int


class StoredTensor(NamedTuple):
    """A view of a storage. dtype: where the storage has none of its own."""

    storage: Storage
    offset: int
    shape: tuple
    stride: tuple
    dtype: str | None = None


class Unpickled(NamedTuple):
    """What a pickle describes, all storages that it speaks of, and how many opcodes may still be read."""

    value: object
    storages: dict[str, Storage]
    left: int


def unpickled(file: BinaryIO, left: int = MOST_OPCODES) -> Unpickled:
    """The next pickle of the file. Raises `SciArtError` (without a field) for what is no table of tensors, `ValueError`
    and the like for what is damaged."""
    return _Machine(file, left).run()


def _refused(what: object) -> SciArtError:
    return SciArtError("", f"refused: it holds more than tensors, which could run code ({quoted(str(what))})")


class _Machine:
    def __init__(self, file: BinaryIO, left: int):
        self._file = file
        self._left = left
        self._stack: list = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}
        self._storages: dict[str, Storage] = {}

    def run(self) -> Unpickled:
        read, stack = self._file.read, self._stack
        for number in range(self._left):
            code = read(1)
            if code in _PUSHED:
                stack.append(_PUSHED[code]())
            elif code in _NUMBERS:
                form = _NUMBERS[code]
                stack.append(form.unpack(read(form.size))[0])
            elif code in _OTHERS:
                _OTHERS[code](self)
            elif code == b".":
                return Unpickled(stack.pop(), self._storages, self._left - number)
            elif code:
                raise _refused(f"opcode {code!r}")
            else:
                raise ValueError("it ends too early")
        raise _refused("too many opcodes")

    def _number(self, form: struct.Struct) -> int:
        return form.unpack(self._file.read(form.size))[0]

    def _text(self, form: struct.Struct, encoding: str = "utf-8") -> None:
        length = self._number(form)
        if length > LONGEST_TEXT:
            raise _refused(f"a text of {length} bytes")
        data = self._file.read(length)
        if len(data) < length:
            raise ValueError("it ends too early")
        self._stack.append(data.decode(encoding))

    def _line(self) -> str:
        return self._file.readline(LONGEST_TEXT).rstrip(b"\n").decode("utf-8")

    def _long(self) -> None:
        self._stack.append(int.from_bytes(self._file.read(self._number(_BYTE)), "little", signed=True))

    def _since_mark(self) -> list:
        place = self._marks.pop()
        values = self._stack[place:]
        del self._stack[place:]
        return values

    def _tuple(self, count: int | None) -> None:
        if count is None:
            values = self._since_mark()
        else:
            values = [self._stack.pop() for _ in range(count)][::-1]
        self._stack.append(tuple(values))

    def _append(self) -> None:
        self._extend([self._stack.pop()])

    def _appends(self) -> None:
        self._extend(self._since_mark())

    def _extend(self, values: list) -> None:
        if not isinstance(self._stack[-1], list):
            raise _refused(f"{type(self._stack[-1]).__name__} that grows")
        self._stack[-1].extend(values)

    def _set(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._keep([key], [value])

    def _sets(self) -> None:
        values = self._since_mark()
        self._keep(values[::2], values[1::2])

    def _keep(self, keys: list, values: list) -> None:
        table = self._stack[-1]
        if not isinstance(table, dict):
            raise _refused(f"{type(table).__name__} with keys")
        for key, value in zip(keys, values):
            if type(key) not in (str, int):
                raise _refused(f"a key that is {type(key).__name__}")
            table[key] = value

    def _put(self) -> None:
        self._memo[self._file.read(1)[0]] = self._stack[-1]

    def _put_long(self) -> None:
        self._memo[self._number(_LENGTH)] = self._stack[-1]

    def _memoize(self) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _get(self) -> None:
        self._stack.append(self._memo[self._file.read(1)[0]])

    def _get_long(self) -> None:
        self._stack.append(self._memo[self._number(_LENGTH)])

    def _mark(self) -> None:
        self._marks.append(len(self._stack))

    def _global(self, module: str, name: str) -> None:
        self._stack.append(Name(module, name))

    def _stored(self) -> None:
        identity = self._stack.pop()
        if not (isinstance(identity, tuple) and len(identity) in (5, 6) and identity[0] == "storage"
                and isinstance(identity[1], Name) and identity[1].module in ("torch", "torch.storage")
                and isinstance(identity[2], str) and _is_count(identity[4]) and identity[5:] in ((), (None,))):
            raise _refused("what it keeps elsewhere is no storage")
        storage = Storage(identity[1].name, identity[2], identity[4])
        if self._storages.setdefault(storage.key, storage) != storage:
            raise ValueError(f"{storage.key} is of two kinds")
        self._stack.append(storage)

    def _call(self) -> None:
        given, called = self._stack.pop(), self._stack.pop()
        if not isinstance(called, Name) or str(called) not in _CALLED:
            if str(called).startswith(_OTHER_TENSORS):
                raise SciArtError("", "holds what is not a plain tensor, but sparse, quantized or nested")
            raise _refused(called)
        if not isinstance(given, tuple):
            raise ValueError("arguments that are none")
        self._stack.append(_CALLED[str(called)](*given))

    def _build(self) -> None:
        """What a table of a whole module has beside it (`_metadata`) is not looked at."""
        self._stack.pop()
        if not isinstance(self._stack[-1], dict):
            raise _refused(f"{type(self._stack[-1]).__name__} with a state")


def _table(*given: object) -> dict:
    if given:
        raise _refused("a table made of others")
    return {}


def _tensor(storage: object, offset: object, shape: object, stride: object, *_: object) -> StoredTensor:
    if not (isinstance(storage, Storage) and _is_count(offset) and _are_counts(shape) and _are_counts(stride)
            and len(shape) == len(stride)):
        raise ValueError("a tensor that is none")
    return StoredTensor(storage, offset, shape, stride)


def _tensor_of_dtype(storage: object, offset: object, shape: object, stride: object, _gradient: object, _hooks: object,
                     dtype: object, *_: object) -> StoredTensor:
    return _tensor(storage, offset, shape, stride)._replace(dtype=str(dtype))


def _parameter(tensor: object, *_: object) -> StoredTensor:
    if not isinstance(tensor, StoredTensor):
        raise ValueError("a parameter that is no tensor")
    return tensor


def _size(sizes: object) -> tuple:
    if not _are_counts(sizes):
        raise ValueError("a size that is none")
    return sizes


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _are_counts(values: object) -> bool:
    return isinstance(values, tuple) and len(values) < 1000 and all(map(_is_count, values))


_CALLED = {
    "collections.OrderedDict": _table, "torch.Size": _size,
    "torch._utils._rebuild_tensor": _tensor, "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": _parameter, "torch._utils._rebuild_parameter_with_state": _parameter,
}
_OTHER_TENSORS = ("torch._utils._rebuild_", "torch.serialization._get_layout")
_PUSHED = {b"N": lambda: None, b"\x88": lambda: True, b"\x89": lambda: False, b"]": list, b"}": dict, b")": tuple}
_BYTE, _LENGTH = struct.Struct("B"), struct.Struct("<I")
_NUMBERS = {b"K": _BYTE, b"M": struct.Struct("<H"), b"J": struct.Struct("<i"), b"G": struct.Struct(">d")}
_OTHERS = {
    b"\x80": lambda self: self._number(_BYTE), b"\x95": lambda self: self._file.read(8),  # protocol, frame
    b"X": lambda self: self._text(_LENGTH), b"\x8c": lambda self: self._text(_BYTE),
    b"U": lambda self: self._text(_BYTE, "ascii"), b"\x8a": _Machine._long,
    b"(": _Machine._mark, b"t": lambda self: self._tuple(None), b"\x85": lambda self: self._tuple(1),
    b"\x86": lambda self: self._tuple(2), b"\x87": lambda self: self._tuple(3),
    b"a": _Machine._append, b"e": _Machine._appends, b"s": _Machine._set, b"u": _Machine._sets,
    b"q": _Machine._put, b"r": _Machine._put_long, b"\x94": _Machine._memoize, b"h": _Machine._get,
    b"j": _Machine._get_long,
    b"c": lambda self: self._global(self._line(), self._line()),
    b"\x93": lambda self: self._global(*[str(self._stack.pop()) for _ in range(2)][::-1]),
    b"Q": _Machine._stored, b"R": _Machine._call, b"b": _Machine._build,
}
