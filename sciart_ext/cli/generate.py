"""The command `generate`: pictures of one mixture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import rich_click as click

from ..errors import SciArtError
from .asked import ASKED_OPTIONS, QUIET_OPTION, asked_of, read
from .command import PICTURES, RESULT, Command
from .mixture import tell
from .model import name_of
from .outputs import PICTURES as ENDINGS
from .outputs import check_file, free, keep
from .progress import progress
from .values import HIGHEST_SEED, MOST_SEEDS, Number, Seeds


@click.command(cls=Command, panel=PICTURES, examples=(
    '--prompt "a rocket" --lora child=0.8',
    '--preset science-imagination --seeds 1-4'))
@ASKED_OPTIONS
@click.option("--count", type=Number(1, MOST_SEEDS), default=1, panel=RESULT,
              help="Batch count, as in the WebUI; seeds count up.")
@click.option("--batch", type=Number(1, 64), default=1, panel=RESULT,
              help="Batch size, as in the WebUI: pictures made at once.")
@click.option("--seeds", type=Seeds(), panel=RESULT, help="One picture for each of these: 1-20 or 3,7,11.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", panel=RESULT,
              help="The picture: .png, .jpg or .webp, with its infotext; of several -SEED comes before the ending. "
                   "Default: sciart.png, or the next name that is free.")
@QUIET_OPTION
def generate(**options: Any) -> None:
    """Make pictures."""
    given = SimpleNamespace(**options)
    asked = asked_of(given)
    seeds = _seeds(given, asked.settings["seed"])
    out = given.out or free(Path("sciart.png"), lambda path: places_of(path, seeds))
    places = places_of(out, seeds)
    for place in places:
        check_file(place, ENDINGS)
    pipe, loras = read(given, asked)
    from ..standalone.generate import Settings, generate_batch

    settings = Settings(**asked.settings)
    made = 0
    try:
        for batch in _batches(seeds, given.batch):
            what = f"Seed {batch[0]}" if len(batch) == 1 else f"Seeds {batch[0]} to {batch[-1]}"
            with progress(what, given.quiet) as on_step:
                pictures = generate_batch(pipe, asked.recipe, settings, loras, batch, name_of(given), on_step)
            for picture in pictures:
                _save(picture, places[made])
                if made == 0:
                    for note in [*asked.notes, *picture.notes]:
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
        if first + given.count * given.batch - 1 > HIGHEST_SEED:
            raise SciArtError("seed", f"{first} has too few seeds after it; accepted: a smaller one")
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
