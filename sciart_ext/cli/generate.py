"""The command `generate`: pictures of one mixture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import rich_click as click

from .. import standalone
from ..errors import SciArtError
from ..presets import PresetStore
from ..standalone.model_facts import model_facts
from ..standalone.prompts.check import check_prompts
from .command import PICTURES, RESULT, Command
from .mixture import RECIPE_OPTIONS, check_loras, lora_dir_option, lora_folder, recipe_data, resolved_recipe, tell
from .model import MODEL_OPTIONS, check_device, loaded, name_of
from .outputs import PICTURES as ENDINGS
from .outputs import check_file, keep
from .progress import progress, working
from .settings import PICTURE_OPTIONS, preset_settings, settings_of
from .values import MOST_SEEDS, Number, Seeds


@click.command(cls=Command, panel=PICTURES, examples=(
    '--prompt "a rocket" --lora child=0.8',
    '--preset science-imagination --seeds 1-4'))
@PICTURE_OPTIONS
@RECIPE_OPTIONS
@lora_dir_option()
@MODEL_OPTIONS
@click.option("--count", type=Number(1, MOST_SEEDS), default=1, panel=RESULT,
              help="Batches to make, the WebUI's batch count; each picture's seed is the one before plus 1.")
@click.option("--batch", type=Number(1, 64), default=1, panel=RESULT,
              help="Pictures made at once, the WebUI's batch size.")
@click.option("--seeds", type=Seeds(), panel=RESULT, help="A picture of each of these seeds: 1-20 or 3,7,11.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("sciart.png"), metavar="FILE", panel=RESULT,
              help="The picture: .png, .jpg or .webp, with its infotext; of several -SEED comes before the ending. "
                   "Default: sciart.png.")
@click.option("--quiet", is_flag=True, panel=RESULT, help="No progress bar.")
def generate(**options: Any) -> None:
    """Make pictures."""
    given = SimpleNamespace(**options)
    store, folder = PresetStore(), lora_folder(given)
    data = recipe_data(given, store)
    recipe, preset = resolved_recipe(data, store, folder), preset_settings(data, store)
    facts = model_facts(given.model, given.config)
    settings, notes = settings_of(given, preset, facts)
    seeds = _seeds(given, settings["seed"])
    places = places_of(given.out, seeds)
    for place in places:
        check_file(place, ENDINGS)
    check_loras(recipe, folder, settings["prompt"])
    check_prompts(recipe, settings["prompt"], settings["negative_prompt"], settings["steps"])
    standalone.prepare()
    check_device(given.device)
    with working("Loading", given.quiet):
        from ..mixer.fit import check_families
        from ..standalone.generate import Settings, generate_batch, load_loras

        loras = load_loras(recipe, folder, settings["prompt"])
        check_families(loras, facts.family, name_of(given))
    pipe = loaded(given, given.quiet)
    made = 0
    try:
        for batch in _batches(seeds, given.batch):
            what = f"Seed {batch[0]}" if len(batch) == 1 else f"Seeds {batch[0]} to {batch[-1]}"
            with progress(what, given.quiet) as on_step:
                pictures = generate_batch(pipe, recipe, Settings(**settings), loras, batch, name_of(given), on_step)
            for picture in pictures:
                _save(picture, places[made])
                if made == 0:
                    for note in [*notes, *picture.notes]:
                        tell(note)
                click.echo(f"{places[made]} ({picture.seconds:.1f} s)")
                made += 1
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{made} of {len(seeds)} pictures are made" if len(seeds) > 1 else "") from None


def places_of(out: Path, seeds: Sequence[int]) -> list[Path]:
    """A file for each picture: of several with their seeds in their names."""
    return [out] if len(seeds) == 1 else [out.with_name(f"{out.stem}-{seed}{out.suffix}") for seed in seeds]


def _seeds(given: Any, first: int) -> list[int]:
    if given.seeds is None:
        if given.count * given.batch > MOST_SEEDS:
            raise SciArtError("count", f"{given.count} batches of {given.batch} are more than {MOST_SEEDS} pictures; "
                                       "accepted: fewer")
        return [first + k for k in range(given.count * given.batch)]
    if given.seed is not None or given.count != 1:
        other = "seed" if given.seed is not None else "count"
        raise SciArtError("seeds", f"--{other} says otherwise; accepted: one of the two")
    return given.seeds


def _batches(seeds: Sequence[int], size: int) -> Iterator[list[int]]:
    for first in range(0, len(seeds), size):
        yield list(seeds[first:first + size])


def _save(picture: Any, place: Path) -> None:
    """Keeps a picture, and what its guidance looked at."""
    from ..standalone.infotext import save_picture

    keep(place, lambda path: save_picture(picture.image, path, picture.infotext))
    if picture.subjects is not None:
        keep(place.with_name(f"{place.stem}.subjects{place.suffix}"),
             lambda path: save_picture(picture.subjects, path, picture.infotext))
