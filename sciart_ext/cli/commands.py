"""The command line: `python -m sciart_ext generate | influence | plan | presets | loras | geometry | combine |
bake | export-webui`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import standalone
from ..errors import SciArtError
from ..presets import PresetStore
from ..presets.files import one_line
from ..recipe import compile_plan
from ..recipe.doubtful import in_plan
from ..recipe.schedule import MAX_WEIGHT, check_number
from ..recipe.schedule_text import numbers_in
from ..whole_file import NoRoomError, is_full, write_text, written_whole
from ..world import MODEL
from .bake import add_bake_command
from .combine import add_combine_command
from .command import add_command
from .picture import add_picture_commands
from .progress import show_progress
from .recipe import add_recipe_options, read_json, recipe_data, resolved_recipe, self_bound


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status: 0, 2 where the request cannot be carried out, 1 where there is no room
    on the disk, 130 where it was interrupted."""
    try:
        args = build_parser().parse_args(arguments)
        args.run(args)
        sys.stdout.flush()
    except SciArtError as error:
        print(f"sciart: {error}", file=sys.stderr)
        return 1 if isinstance(error, NoRoomError) else 2
    except KeyboardInterrupt as error:
        print("sciart: interrupted" + (f": {error}" if str(error) else ""), file=sys.stderr)
        return 130
    except OSError as error:
        if not is_full(error):
            raise
        print(f"sciart: standard output cannot be written: {error.strerror}", file=sys.stderr)
        sys.stdout = None  # or Python tries once more, and fails, when it ends
        return 1
    return 0


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(
        prog="sciart", description="SciArt without a WebUI: draws with several LoRAs whose weights may change over the "
        "steps, tells what each of them did, and compares and combines LoRA files. Without --model it draws with the "
        "tiny model that comes with it.", epilog="Each command tells more: sciart generate --help")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")

    add_picture_commands(commands)

    command = add_command(commands, "plan", "show each LoRA's weight at every step; needs no files",
                          '--lora child="0.2@0, 0.65@0.5" --steps 10')
    add_recipe_options(command)
    command.add_argument("--steps", type=int, default=20, help="of the first pass; default: 20")
    command.add_argument("--hires-steps", type=int, default=0, help="of the hires pass; default: 0, none")
    command.add_argument("--json", action="store_true", help="as JSON instead of a table")
    command.add_argument("--png", type=Path, metavar="FILE", help="also draw it, into this file")
    command.set_defaults(run=_plan)

    command = add_command(commands, "presets", "list, show, save or delete presets", "show science-imagination")
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION", title="actions")
    actions.add_parser("list", help="their names and titles").set_defaults(run=_presets_list)
    for action, run, what in (("show", _presets_show, "one of them, as JSON"),
                              ("delete", _presets_delete, "delete one of your own"),
                              ("save", _presets_save, "keep one of your own")):
        sub = actions.add_parser(action, help=what)
        sub.add_argument("name", help="of the preset: a-z, 0-9, _ and -")
        sub.set_defaults(run=run)
    sub.add_argument("file", help="the preset: a JSON file, or - for standard input")

    command = add_command(commands, "loras", "tell what LoRA files contain, and whether they fit a model",
                          "models/Lora/child.safetensors --json")
    command.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a LoRA file")
    command.add_argument("--model", type=Path, help="tell whether they fit this one: a diffusers folder, .safetensors "
                                                    "or .ckpt")
    command.add_argument("--config", type=Path, help="for a single file: a diffusers folder of the same architecture")
    command.add_argument("--json", action="store_true", help="as JSON instead of a line for each")
    command.set_defaults(run=_loras)

    command = add_command(commands, "geometry", "tell what LoRA files have in common, and where they conflict",
                          "child.safetensors watercolor.safetensors --out geometry.html")
    command.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a LoRA file; two or more")
    command.add_argument("--weights", help="of each in the mixture: 0.65,0.55,0.5; default: 1")
    command.add_argument("--json", action="store_true", help="every layer's numbers instead of sentences")
    command.add_argument("--out", type=Path, metavar="FILE", help="also as a page with pictures: geometry.html")
    command.add_argument("--quiet", action="store_true", help="no progress bar")
    command.set_defaults(run=_geometry)

    add_combine_command(commands)
    add_bake_command(commands)

    command = add_command(commands, "export-webui", "put the tiny model and its LoRAs into a WebUI",
                          "stable-diffusion-webui/models")
    command.add_argument("models_dir", type=Path, help="the WebUI's folder `models`")
    command.add_argument("--model", type=Path, default=MODEL,
                         help="another diffusers folder of SD 1's kind, its LoRAs in `loras`; default: the tiny model")
    command.add_argument("--name", default="sciart-tiny", help="of the checkpoint, and before the LoRAs' names; "
                                                               "default: sciart-tiny")
    command.set_defaults(run=_export_webui)
    return parser


def _plan(args: argparse.Namespace) -> None:
    for name, value, low in (("steps", args.steps, 1), ("hires-steps", args.hires_steps, 0)):
        if not low <= value <= 1000:
            raise SciArtError(name, f"{value} is out of range; accepted: {low} to 1000")
    store = PresetStore()
    data = recipe_data(args)
    if not data:
        raise SciArtError("recipe", "missing; give --recipe, --preset or --lora")
    plan = compile_plan(resolved_recipe(self_bound(data, store), store), args.steps, args.hires_steps)
    if args.png:
        from ..report.plan_plot import plan_png
        with written_whole(args.png) as temporary:
            temporary.write_bytes(plan_png(plan))
    table = plan.table()
    if args.json:
        print(json.dumps(table, ensure_ascii=False, indent=2))
        return
    for title, part in (("first pass", table["first"]), ("hires pass", table["hires"])):
        if part:
            print(f"{title}, {part['steps']} steps\n{plan_text(part)}\n")
    for note in [*in_plan(plan.first), *(in_plan(plan.hires, True) if plan.hires else ())]:
        print(f"note: {note}", file=sys.stderr)


def plan_text(part: dict) -> str:
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


def _presets_list(args: argparse.Namespace) -> None:
    store = PresetStore()
    presets = store.listed()
    width = max((len(preset["name"]) for preset in presets), default=0)
    for preset in presets:
        told = f"cannot be used: {preset['error']}" if "error" in preset else one_line(preset["title"])
        print(f"{preset['name']:{width}}  {'shipped' if preset['builtin'] else 'own    '}  {told}")
    wrong = store.listed_bindings()[1]
    if wrong:
        print(f"sciart: {wrong}", file=sys.stderr)


def _presets_show(args: argparse.Namespace) -> None:
    print(json.dumps(PresetStore().read(args.name, "name").to_json(), ensure_ascii=False, indent=2))


def _presets_save(args: argparse.Namespace) -> None:
    PresetStore().save(args.name, read_json(args.file, "file"))


def _presets_delete(args: argparse.Namespace) -> None:
    PresetStore().delete(args.name)


def _loras(args: argparse.Namespace) -> None:
    from ..lora.file import load_lora

    files, reports = [], []
    for path in args.files:
        try:
            files.append(load_lora(path))
            reports.append(files[-1].report())
        except SciArtError as error:
            if len(args.files) == 1:
                raise
            files.append(None)
            reports.append({"file": path.name, "error": error.message})
    if args.model:
        standalone.prepare()
        from ..mixer.fit import check_fit
        from ..standalone.generate import model_layers
        from ..standalone.models import load_pipeline

        layers = model_layers(load_pipeline(args.model, args.config, "cpu"))
        for lora, report in zip(files, reports):
            if lora is None:
                continue
            try:
                report["fit"] = check_fit([lora], layers, args.model.stem) or ["fits"]
            except SciArtError as error:
                report["fit"] = [str(error)]
    if args.json:
        print(json.dumps(reports, ensure_ascii=False, indent=2))
    else:
        _print_loras(reports)
    wrong = sum(lora is None for lora in files)
    if wrong:
        raise SciArtError("files", f"{wrong} of {len(files)} cannot be used")


def _print_loras(reports: Sequence[dict]) -> None:
    for report in reports:
        if "error" in report:
            print(f"{report['file']}: {report['error']}")
            continue
        ranks = f"rank {', '.join(report['ranks'])}, " if report["ranks"] else ""
        words = "".join(f", embedding {word!r}" for word in report.get("embeddings", []))
        print(f"{report['file']}: {report['kind']} for {report['base']}, {ranks}{report['unet_layers']} UNet "
              f"and {report['text_encoder_layers']} text encoder layers, {report['megabytes']} MB{words}")
        for line in report.get("fit", report.get("notes", [])):
            print(f"  {line}")


def _geometry(args: argparse.Namespace) -> None:
    from ..geometry.comparison import compare
    from ..geometry.page import geometry_page
    from ..geometry.report import as_data, in_words
    from ..lora.file import load_lora

    weights = _weights(args.weights) if args.weights else None
    loras = [load_lora(path) for path in args.files]
    comparison = compare(loras, weights, None if args.quiet else show_progress)
    if args.out:
        write_text(args.out, geometry_page(comparison))
    if args.json:
        print(json.dumps(as_data(comparison), ensure_ascii=False))
    else:
        print("\n".join(in_words(comparison)))


def _weights(text: str) -> list[float]:
    try:
        numbers = numbers_in(text)
    except SciArtError as error:
        raise SciArtError("weights", f"{error.message}; such as 0.65,0.55 or 0,65;0,55") from None
    return [check_number(number, "weights", -MAX_WEIGHT, MAX_WEIGHT) for number in numbers]


def _export_webui(args: argparse.Namespace) -> None:
    standalone.prepare()
    from ..standalone.export import export_webui

    for path in export_webui(args.model, args.models_dir, args.name):
        print(path)
