"""The command `presets`: they are listed, shown, saved and deleted."""

from __future__ import annotations

import json

import rich_click as click

from ..presets import PresetStore
from ..presets.files import one_line
from .command import FILES, Command, Group
from .mixture import read_json
from .values import Word

_NAME = Word("NAME", lambda: PresetStore().names())


@click.group(cls=Group, panel=FILES)
def presets() -> None:
    """List, show, save or delete presets."""


@presets.command("list", cls=Command, examples=("",))
def list_() -> None:
    """Their names and titles."""
    store = PresetStore()
    found = store.listed()
    width = max((len(preset["name"]) for preset in found), default=0)
    for preset in found:
        told = f"cannot be used: {preset['error']}" if "error" in preset else one_line(preset["title"])
        click.echo(f"{preset['name']:{width}}  {'shipped' if preset['builtin'] else 'own    '}  {told}")
    wrong = store.listed_bindings()[1]
    if wrong:
        click.echo(f"sciart: {wrong}", err=True)


@presets.command("show", cls=Command, examples=("science-imagination",))
@click.argument("name", type=_NAME, help="Of the preset.")
def show(name: str) -> None:
    """One of them, as JSON."""
    click.echo(json.dumps(PresetStore().read(name, "name").to_json(), ensure_ascii=False, indent=2))


@presets.command("save", cls=Command, examples=(
    """mine '{"title": "Mine", "recipe": {"loras": [{"name": "child", "weight": 1}]}}'""",))
@click.argument("name", help="Of the preset: a-z, 0-9, _ and -.")
@click.argument("file", metavar="FILE|JSON", help="The preset: a JSON file, JSON, or - for standard input.")
def save(name: str, file: str) -> None:
    """Keep one of your own."""
    PresetStore().save(name, read_json(file, "file"))


@presets.command("delete", cls=Command, examples=("mine",))
@click.argument("name", type=_NAME, help="Of the preset.")
def delete(name: str) -> None:
    """Delete one of your own."""
    PresetStore().delete(name)
