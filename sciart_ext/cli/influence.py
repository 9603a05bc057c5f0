"""The command `influence`: what each LoRA did to a picture."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import rich_click as click

from ..errors import SciArtError, shown
from ..influence.subsets import MAX_ORDERS, ORDERS, SUBSETS, ask
from ..recipe import dump_recipe
from ..whole_file import check_folder_place
from .asked import ASKED_OPTIONS, QUIET_OPTION, asked_of, read
from .command import PICTURES, RESULT, Command
from .mixture import tell
from .model import name_of
from .outputs import keep
from .progress import progress
from .values import Number, OneOf

QUESTION = "Question"


@click.command(cls=Command, panel=PICTURES, examples=(
    '--prompt "a rocket" --lora child=0.8 --lora science=0.5',))
@ASKED_OPTIONS
@click.option("--subsets", type=OneOf("SUBSETS", lambda: SUBSETS, listed=True), default="all", panel=QUESTION,
              help="Which pictures to make: each LoRA alone, all but one, or what it takes for shares too; default: "
                   "all.")
@click.option("--words", metavar="WORDS", panel=QUESTION,
              help="Of the prompt, whose attention is shown: rocket,robot; - for none; default: those that tell "
                   "something.")
@click.option("--orders", type=Number(2, MAX_ORDERS), panel=QUESTION,
              help=f"Of more than four LoRAs, from which their shares are estimated; default: {ORDERS}.")
@click.option("--at-once", type=Number(1, 256), default=8, panel=QUESTION,
              help="Pictures in a batch; fewer take less memory; default: 8.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("influence"), metavar="FOLDER", panel=RESULT,
              help="Default: influence.")
@QUIET_OPTION
def influence(**options: Any) -> None:
    """Tell what each LoRA did to a picture."""
    given = SimpleNamespace(**options)
    asked = asked_of(given)
    if not asked.recipe.enabled or not asked.recipe.loras:
        raise SciArtError("loras", "missing; give --recipe, --preset or --lora")
    words = None if given.words is None else [] if given.words == "-" else _words(given.words)
    check_folder_place(given.out, 2**20)
    question = ask(len(asked.recipe.loras), given.subsets, given.orders)
    pipe, loras = read(given, asked)
    from ..influence.batches import sets_to_make
    from ..influence.folder import save_report
    from ..influence.kept import KeptRuns
    from ..standalone.explain import explain
    from ..standalone.generate import Settings

    files = [(str(lora.path.resolve()), lora.path.stat().st_size, lora.path.stat().st_mtime) for lora in loras]
    runs = KeptRuns(given.out / "unfinished", [asked.settings, dump_recipe(asked.recipe), files, words,
                                                  str(given.model)])
    count = len(sets_to_make(question.sets, asked.recipe))
    try:
        with progress(f"{count} pictures", given.quiet) as on_step:
            told = explain(pipe, asked.recipe, Settings(**asked.settings), loras, question, words, given.at_once,
                           on_step, name_of(given), runs)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{len(runs)} of {count} pictures are made; the same command goes on from "
                                "there") from None
    for note in asked.notes:
        tell(note)
    click.echo("\n".join(told.sentences()))
    keep(given.out, lambda path: click.echo(save_report(told, path)))
    runs.forget()


def _words(text: str) -> list[str]:
    found = [word.strip() for word in text.split(",")]
    if not all(found):
        raise SciArtError("words", f"{shown(text)}: a word is missing between its commas; accepted: such as "
                                   "rocket,robot, or - for none")
    return found
