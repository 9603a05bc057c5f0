"""SciArt's axes in the host's X/Y/Z plot.

A cell is a copy of the plot's `p` that shares its script arguments: each gets arguments of its own with its own recipe.
"""

from __future__ import annotations

import itertools
from types import ModuleType

from modules import script_callbacks, scripts

from ....errors import SciArtError
from ....presets import resolve
from ....recipe import is_off, parse_recipe
from ...webui.axes import Axis, axes, edited, labels_of
from ...webui.errors import as_request_error
from .. import lora_files
from ..model.session import lora_paths
from ..settings import OwnPresets

PREFIX, TITLE, PLOT = "[SciArt] ", "SciArt", "xyz_grid.py"
_EDITS, _VALUES = "_sciart_plot_edits", "_sciart_plot_values"
_TYPES = (0, 3, 6)
"""where the plot's own arguments have the types of X, Y and Z"""


def register_axes() -> None:
    """Adds the axes when all scripts are loaded and before the page is built, of which the plot's list is a part. Not
    on_before_ui: without a page (--nowebui) that comes too late, and the API would know none of the axes."""
    script_callbacks.on_ui_settings(_add_axes)


def _add_axes() -> None:
    plot = next((data.module for data in scripts.scripts_data if data.script_class.__module__ == PLOT), None)
    if plot is not None:  # another host's, or a host without it
        plot.axis_options.extend(_option(plot, axis) for axis in axes())


def _option(plot: ModuleType, axis: Axis):
    def apply(p, value, values):
        edits = (*getattr(p, _EDITS, ()), (axis, value))
        setattr(p, _EDITS, edits)
        if len(edits) == len(_chosen(p)):  # what one axis changes another may have to make first
            _hand_over(p, edited(_argument(p), edits, OwnPresets()))

    def confirm(p, values):
        vars(p).setdefault(_VALUES, {})[axis.label] = [(axis, value) for value in values]
        chosen = _chosen(p)
        if all(one.label in getattr(p, _VALUES) for one in chosen):
            _check(_argument(p), [getattr(p, _VALUES)[one.label] for one in chosen])

    def told(p, option, value):
        decided = any(one.decides_loras for one in _chosen(p))
        base = _argument(p)
        labels = [] if decided or is_off(base) else labels_of(edited(base, [], OwnPresets()))
        return axis.told(value, labels)

    choices = {"loras": lora_files.names, "presets": lambda: OwnPresets().names()}.get(
        axis.choices, None if axis.choices is None else lambda: list(axis.choices))
    option = plot.AxisOption(PREFIX + axis.label, axis.kind, apply, format_value=told, confirm=confirm, choices=choices)
    option.sciart = axis
    return option


def _check(base: object, values: list[list[tuple[Axis, object]]]) -> None:
    """Every cell's recipe, before the first is made: the host leaves a cell that fails empty."""
    store = OwnPresets()
    for cell in itertools.product(*values):
        try:
            data = edited(base, cell, store)
            if not is_off(data):
                lora_paths(resolve(parse_recipe(data), store))
        except SciArtError as error:
            where = ", ".join(f"{PREFIX}{axis.label} {value}" for axis, value in cell)
            raise as_request_error(SciArtError(error.field, f"{error.message} (at {where})")) from None


def _chosen(p) -> list[Axis]:
    """SciArt's among the plot's axes."""
    plot = next(script for script in p.scripts.selectable_scripts if type(script).__module__ == PLOT)
    given = p.script_args[plot.args_from:plot.args_to]
    options = [plot.current_axis_options[given[at] or 0] for at in _TYPES]
    return [option.sciart for option in options if hasattr(option, "sciart")]


def _place(p) -> int:
    return next(script.args_from for script in p.scripts.alwayson_scripts if script.title() == TITLE)


def _argument(p) -> object:
    """The recipe of the panel or the API."""
    return p.script_args[_place(p)]


def _hand_over(p, recipe: dict) -> None:
    place = _place(p)
    p.script_args = type(p.script_args)([*p.script_args[:place], recipe, *p.script_args[place + 1:]])
