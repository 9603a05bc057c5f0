"""Code of other extensions in what evaluates the model, told by the files that it is from."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import CellType, ModuleType

import torch
import torch.nn.functional
from modules import extensions, paths, script_callbacks
from torch import nn

OURS = Path(__file__).parents[4]
DEPTH = 4
"""how far functions within functions are followed"""
NAMED = 3
"""files that a refusal names"""


class Others:
    """The extensions that are neither the host's own nor this one, and the scripts of the host's folder."""

    def __init__(self) -> None:
        folders = [Path(paths.script_path) / "scripts",
                   *(Path(one.path) for one in extensions.extensions if one.enabled and not one.is_builtin)]
        self._given = folders
        self.folders = [folder.resolve() for folder in folders if folder.resolve() != OURS.resolve()]
        self._named = functools.lru_cache(maxsize=None)(self._name)

    def in_evaluation(self, denoiser: nn.Module, model: nn.Module) -> list[str]:
        """Files of the hooks, replaced methods and modules that an evaluation of the model goes through, each as
        `extension/…/file.py`, in the order in which they are found; empty where there are none.

        denoiser: k-diffusion's wrapper of the host's model, or its own.
        """
        every = [denoiser, model, model.model, *model.model.diffusion_model.modules()]
        found = [file for module in every for file in self._of_module(module)]
        classes = list(dict.fromkeys(base for module in every for base in type(module).__mro__))
        for one in classes:
            found += self._of_class(one)
        homes = dict.fromkeys(one.__module__ for one in classes)
        for home in (torch, torch.nn.functional, *(sys.modules[name] for name in homes if name in sys.modules)):
            found += self._of(value for name, value in vars(home).items() if not name.startswith("__"))
        return list(dict.fromkeys(found))

    def in_callbacks(self, category: str) -> list[str]:
        """Files of the host's callbacks of a category, such as `cfg_denoiser`."""
        return list(dict.fromkeys(self._of(one.callback for one in script_callbacks.ordered_callbacks(category))))

    def in_hooks(self, module: nn.Module) -> list[str]:
        """Files of the hooks of a module and of those within it."""
        return list(dict.fromkeys(file for one in module.modules() for file in self._of_hooks(one)))

    def of_function(self, function: Callable) -> list[str]:
        """Files of theirs that a function is from."""
        return list(dict.fromkeys(self._of([function])))

    def named_in(self, message: str) -> str:
        """The first line of a message of the host's, with files of extensions as they are told."""
        line = message.splitlines()[0]
        for folder in self._given:
            for slash in "/\\":
                line = line.replace(f"{folder}{slash}", f"{folder.name}/")
        return line

    def in_error(self, error: BaseException) -> str | None:
        """The file in which an error arose, or through which it came last; None where it went through none of them."""
        files = (self._named(frame.f_code.co_filename) for frame, _ in traceback.walk_tb(error.__traceback__))
        return next(iter(reversed([file for file in files if file is not None])), None)

    def _of_module(self, module: nn.Module) -> Iterator[str]:
        yield from self._of_hooks(module)
        own = (value for name, value in vars(module).items() if name == "_forward" or not name.startswith("_"))
        yield from self._of(value for value in own if callable(value) and not isinstance(value, nn.Module))

    def _of_hooks(self, module: nn.Module) -> Iterator[str]:
        return self._of([*module._forward_pre_hooks.values(), *module._forward_hooks.values()])

    def _of_class(self, one: type) -> Iterator[str]:
        if one.__module__ in sys.modules:
            yield from self._of_files([getattr(sys.modules[one.__module__], "__file__", None)])
        yield from self._of(value for value in vars(one).values() if callable(value))

    def _of(self, values: Iterable[object]) -> Iterator[str]:
        for value in values:
            yield from self._of_files(files_of(value))

    def _of_files(self, files: Iterable[str | None]) -> Iterator[str]:
        yield from (name for name in map(self._named, files) if name is not None)

    def _name(self, file: str | None) -> str | None:
        """The file as it is told, if it is in one of the folders."""
        path = Path(file).resolve() if file else None
        folder = next((one for one in self.folders if path is not None and one in path.parents), None)
        return path.relative_to(folder.parent).as_posix() if folder is not None else None


def named(files: Iterable[str]) -> str:
    """The first of them, as a refusal names them."""
    return " or ".join(list(dict.fromkeys(files))[:NAMED])


def files_of(value: object, depth: int = DEPTH) -> Iterator[str]:
    """The source files of a function and of those that it holds: what it wraps, is a part of, or has around it."""
    if depth == 0 or isinstance(value, (ModuleType, type, torch.Tensor, nn.Module)):
        return
    code = getattr(value, "__code__", None)
    if code is not None:
        yield code.co_filename
    elif callable(value) and hasattr(sys.modules.get(type(value).__module__), "__file__"):
        yield sys.modules[type(value).__module__].__file__
    for inner in _held_by(value):
        yield from files_of(inner, depth - 1)


def _held_by(value: object) -> Iterator[Callable]:
    if isinstance(value, functools.partial):
        held = [value.func, *value.args, *value.keywords.values()]
    elif hasattr(value, "__func__"):
        held = [value.__func__]
    elif hasattr(value, "__code__"):
        held = [getattr(value, "__wrapped__", None), *map(_content, value.__closure__ or ())]
    elif hasattr(value, "__dict__"):  # also the host's stand-in for torch, in which others replace functions
        held = list(vars(value).values())
    else:
        held = []
    yield from (one for one in held if callable(one))


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # nothing has been put into it yet
        return None
