"""The command `combine`: several LoRA files as one, for this and other programs."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import SciArtError, shown
from ..lora.base_model import BASES
from .command import add_command
from .mixture import add_mixture_options, recipe_of
from .progress import show_progress


def add_combine_command(commands) -> None:
    """Adds it to the parser's commands."""
    command = add_command(commands, "combine", "join several LoRA files into one",
                          "child=0.65 watercolor=0.55 --method ties --out combined.safetensors")
    add_mixture_options(command)
    command.add_argument("--rank", type=int, help="of the result; default: the sum of the LoRAs' ranks, which loses "
                                                  "nothing of linear and orthogonal")
    command.add_argument("--svd", default="auto", help="of dense results: exact, randomised or auto, by the rank; "
                                                       "default: auto")
    command.add_argument("--base", help=f"which base model it is for, where the files do not tell: {', '.join(BASES)}")
    command.add_argument("--precision", default="fp16", help="fp16 or fp32; default: fp16")
    command.add_argument("--out", type=Path, default=Path("combined.safetensors"),
                         help="the file; default: combined.safetensors")
    command.add_argument("--quiet", action="store_true", help="no progress bar")
    command.set_defaults(run=_combine)


def _combine(args: argparse.Namespace) -> None:
    from ..combine.files import combine_files
    from ..combine.writing import PRECISIONS, check_target, write_combined
    from ..lora.file import load_lora
    from ..lora.folder import find_lora

    recipe = recipe_of(args)
    if args.precision not in PRECISIONS:
        raise SciArtError("precision", f"{shown(args.precision)} is not known; accepted: {', '.join(PRECISIONS)}")
    paths = [find_lora(lora.name, args.lora_dir) for lora in recipe.loras]
    check_target(args.out, paths)
    loras = [load_lora(path, path.stem) for path in paths]
    combined = combine_files(loras, recipe, args.rank, args.svd, None if args.quiet else show_progress, args.base)
    write_combined(combined, args.out, args.precision)
    print("\n".join(combined.sentences()))
    print(f"{args.out} ({args.out.stat().st_size / 2**20:.1f} MB)")
