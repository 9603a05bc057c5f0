"""The command `plan`: each LoRA's weight at every step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import rich_click as click

from ..errors import SciArtError
from ..presets import PresetStore
from ..recipe import compile_plan
from ..recipe.doubtful import in_plan
from ..whole_file import written_whole
from .command import PICTURES, RESULT, Command
from .mixture import RECIPE_OPTIONS, recipe_data, resolved_recipe, self_bound, tell
from .outputs import check_file, keep
from .values import Number

STEPS = "Steps"


@click.command(cls=Command, panel=PICTURES, examples=('--lora child="0.2@0, 0.65@0.5" --steps 10',))
@RECIPE_OPTIONS
@click.option("--steps", type=Number(1, 1000), default=20, panel=STEPS, help="Of the first pass; default: 20.")
@click.option("--hires-steps", type=Number(0, 1000), default=0, panel=STEPS,
              help="Of the hires pass; default: 0, none.")
@click.option("--json", "as_json", is_flag=True, panel=RESULT, help="As JSON instead of a table.")
@click.option("--png", type=click.Path(path_type=Path), metavar="FILE", panel=RESULT,
              help="Also draw it, into this file.")
def plan(**options: Any) -> None:
    """Show each LoRA's weight at every step; needs no files."""
    given = SimpleNamespace(**options)
    store = PresetStore()
    data = recipe_data(given, store)
    if not data:
        raise SciArtError("recipe", "missing; give --recipe, --preset or --lora")
    compiled = compile_plan(resolved_recipe(self_bound(data, store), store), given.steps, given.hires_steps)
    if given.png:
        check_file(given.png, (".png",), "png")
        from ..report.plan_plot import plan_png

        drawn = plan_png(compiled)
        keep(given.png, lambda path: _write(path, drawn))
    table = compiled.table()
    if given.as_json:
        click.echo(json.dumps(table, ensure_ascii=False, indent=2))
        return
    for title, part in (("first pass", table["first"]), ("hires pass", table["hires"])):
        if part:
            click.echo(f"{title}, {part['steps']} steps\n{plan_text(part)}\n")
    for note in [*in_plan(compiled.first), *(in_plan(compiled.hires, True) if compiled.hires else ())]:
        tell(note)


def plan_text(part: Mapping) -> str:
    """One pass of a plan's table as aligned text: a row per step, a column per LoRA and, where its weights in the
    negative prompt are others, one for these; text-encoder weights last."""
    columns = []
    for lora in part["loras"]:
        applies = "cond" if "negative" in lora else lora["apply_to"]
        columns.append((lora["name"] + {"both": "", "cond": " (prompt)", "uncond": " (negative)"}[applies], lora))
        if "negative" in lora:
            columns.append((f"{lora['name']} (negative)", lora["negative"]))
    rows = [["step", "progress", *(name for name, _ in columns)]]
    for step, progress in enumerate(part["progress"]):
        rows.append([str(step + 1), f"{progress:.3f}", *(f"{column['weights'][step]:.3f}" for _, column in columns)])
    rows.append(["text", "encoder", *(f"{column['te_weight']:.3f}" for _, column in columns)])
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows)


def _write(path: Path, data: bytes) -> None:
    with written_whole(path) as temporary:
        temporary.write_bytes(data)
