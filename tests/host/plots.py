"""Asking the host for an X/Y/Z plot over HTTP."""

from __future__ import annotations

from server import HostServer, Reply

SCRIPT = "x/y/z plot"


def axis_labels(host: HostServer, is_img2img: bool = False) -> list[str]:
    """What the plot offers, in the order in which its arguments count them."""
    info = [script for script in host.get("/sdapi/v1/script-info").json if script["name"] == SCRIPT]
    return next(script for script in info if script["is_img2img"] == is_img2img)["args"][0]["choices"]


def plot(host: HostServer, *axes: tuple[str, str | list[str]], **payload) -> Reply:
    """A plot of up to three axes, each a label and its values: text, as it is typed, or a list, as it is chosen. Its
    pictures are the grid, then the cells, x running first."""
    labels, arguments = axis_labels(host), []
    for label, values in [*axes, *[("Nothing", "")] * (3 - len(axes))]:
        typed = isinstance(values, str)
        arguments += [labels.index(label), values if typed else "", [] if typed else values]
    csv_mode = all(isinstance(values, str) for _, values in axes)
    assert csv_mode or all(not isinstance(values, str) or not _has_choices(label) for label, values in axes)
    more = [True, True, False, False, False, False, False, 0, csv_mode]  # a legend, the cells, no sub-grids
    return host.txt2img(script_name=SCRIPT, script_args=[*arguments, *more], **payload)


def _has_choices(label: str) -> bool:
    return label.endswith((" name", "Preset", "Combine", "Compose", "Enabled"))
