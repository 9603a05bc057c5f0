"""How far SciArt reaches: LoRA formats, ways to combine and to compose, beside who else does it.

    python -m benchmarks.breadth [--quick] [--parts formats,layouts,combine,compose,sdxl,table]
                                 [--seeds 64 --only both,spatial]

formats: ΔW of every kind of file beside LyCORIS and PEFT. layouts: which layer each key is of, beside them, diffusers
and the rules of others; how many layouts, places (layout × family × part of the model) and layers are equal. combine:
every method beside float64 and PEFT. compose: switch and composite beside maszhongming/Multi-LoRA-Composition, a
checkout of which SCIART_MULTI_LORA names. sdxl: steps of SDXL's whole UNet. table: every combine × compose on the tiny
world, or what --only names of scenes and ways; it goes on where it was interrupted. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import time

import torch

from . import record
from .mixing.allocator import KEEPING, restart_with
from .widening import combine, compose, formats, layouts, sdxl, table
from .widening.defaults import defaults

PARTS = ("formats", "layouts", "combine", "compose", "sdxl", "table")


def main() -> None:
    options = arguments()
    restart_with(KEEPING)
    began, commit = time.monotonic(), record.commit()
    measured: dict = {}
    if "layouts" in options.parts:
        measured.update(layouts.measure(options.quick))
    for name, part in (("formats", formats), ("combine", combine), ("compose", compose), ("sdxl", sdxl)):
        if name in options.parts:
            measured[name] = part.measure(options.quick)
    if "table" in options.parts:
        measured["table"] = table.measure(options.quick, options.workers, options.seeds, options.only)
    measured["minutes"] = round((time.monotonic() - began) / 60, 1)
    measured.update(machine=record.machine(), torch=torch.__version__, commit=commit)
    if not options.quick:
        every = set(options.parts) == set(PARTS)
        parts = "breadth" if every else f"breadth-{'-'.join(options.parts)}"
        record.write(parts + ("-some" if options.only else ""), measured)
    print(json.dumps(summary(measured)))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few formats and shapes, two seeds, four rows a scene")
    parser.add_argument("--parts", default=",".join(PARTS), help="what to measure, of %(default)s")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that make the table")
    parser.add_argument("--seeds", type=int, help="pictures in a row of the table, 16 without this")
    parser.add_argument("--only", default="", help="scenes and ways of the table, all of a kind of which none is named")
    options = parser.parse_args()
    options.parts = options.parts.split(",")
    options.only = [name for name in options.only.split(",") if name]
    return options


def summary(measured: dict) -> dict:
    """Relative errors of formats and of combining; composite's time over the reference's and whether switch is the
    same, where the reference was there; the table, and which way follows from it for each scene."""
    result: dict = {}
    if "formats" in measured:
        result["formats"] = measured["formats"]
    result.update({name: measured[name] for name in layouts.COUNTED if name in measured})
    if "combine" in measured:
        result["combine"] = {method: told for method, told in measured["combine"].items() if isinstance(told, float)}
    found = measured.get("compose", {})
    result.update({name: found[name] for name in ("composite_over_reference_time", "switch_same") if name in found})
    if "table" in measured:
        result["table"] = [{**row, "there": row["there"]["share"]} for row in measured["table"]]
        result["defaults"] = defaults(measured["table"])
    return result


if __name__ == "__main__":
    main()
