"""The command `influence`: what each LoRA did to a picture."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import rich_click as click

from .. import standalone
from ..errors import SciArtError, shown
from ..influence.subsets import MAX_ORDERS, ORDERS, SUBSETS, ask
from ..presets import PresetStore
from ..recipe import dump_recipe
from ..standalone.model_facts import model_facts
from ..standalone.prompts.check import check_prompts
from .command import PICTURES, RESULT, Command
from .mixture import RECIPE_OPTIONS, check_loras, lora_dir_option, lora_folder, recipe_data, resolved_recipe, tell
from .model import MODEL_OPTIONS, check_device, loaded, name_of
from .outputs import check_folder, keep
from .progress import progress, working
from .settings import PICTURE_OPTIONS, preset_settings, settings_of
from .values import Number, OneOf

QUESTION = "Question"


@click.command(cls=Command, panel=PICTURES, examples=(
    '--prompt "a rocket" --lora child=0.8 --lora science=0.5',))
@PICTURE_OPTIONS
@RECIPE_OPTIONS
@lora_dir_option()
@MODEL_OPTIONS
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
@click.option("--quiet", is_flag=True, panel=RESULT, help="No progress bar.")
def influence(**options: Any) -> None:
    """Tell what each LoRA did to a picture."""
    given = SimpleNamespace(**options)
    store, folder = PresetStore(), lora_folder(given)
    data = recipe_data(given, store)
    recipe, preset = resolved_recipe(data, store, folder), preset_settings(data, store)
    if not recipe.enabled or not recipe.loras:
        raise SciArtError("loras", "missing; give --recipe, --preset or --lora")
    facts = model_facts(given.model, given.config)
    settings, notes = settings_of(given, preset, facts)
    words = None if given.words is None else [] if given.words == "-" else _words(given.words)
    check_folder(given.out)
    check_loras(recipe, folder, settings["prompt"])
    check_prompts(recipe, settings["prompt"], settings["negative_prompt"], settings["steps"])
    question = ask(len(recipe.loras), given.subsets, given.orders)
    standalone.prepare()
    check_device(given.device)
    with working("Loading", given.quiet):
        from ..influence.folder import save_report
        from ..influence.kept import KeptRuns
        from ..mixer.fit import check_families
        from ..standalone.explain import explain
        from ..standalone.generate import Settings, load_loras

        loras = load_loras(recipe, folder, settings["prompt"])
        check_families(loras, facts.family, name_of(given))
    pipe = loaded(given, given.quiet)
    files = [(str(lora.path.resolve()), lora.path.stat().st_size, lora.path.stat().st_mtime) for lora in loras]
    runs = KeptRuns(given.out / "unfinished", [settings, dump_recipe(recipe), files, words, str(given.model)])
    try:
        with progress(f"{len(question.sets)} pictures", given.quiet) as on_step:
            told = explain(pipe, recipe, Settings(**settings), loras, question, words, given.at_once, on_step,
                           name_of(given), runs)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{len(runs)} of {len(question.sets)} pictures are made; the same command goes on from "
                                "there") from None
    for note in notes:
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
