"""The refusal of a pass whose rows do not fit in memory beside what the mixer holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..errors import SciArtError
from ..memory import free, rows_that_fit, too_many_rows
from .mixer import Mixer


def too_large(mixer: Mixer, call: Callable[[int], object], images: int, ways_out: Sequence[tuple[int, str]] = (),
              ) -> SciArtError | None:
    """The refusal of a pass in which all LoRAs share their rows; finds out what would fit, by trying. None where memory
    ran out before the model was called.

    call(rows): of the mixer's root, which must not need the mixer: its merged weights are let go of, to see whether it
    is for them that the rows do not fit. ways_out: as of `too_many_rows`.
    """
    rows, merged = mixer.rows_called, mixer.merged_bytes()
    megabytes = math.ceil(merged / 2**20)
    if not rows:
        return None
    fitting, without = rows_that_fit(call, rows), []
    if merged:
        mixer.release()
        free()
        if rows_that_fit(call, rows + 1) == rows:
            limit = [f"memory_limit_mb below {megabytes}"] if mixer.execution == "auto" else []
            without = [(0, way) for way in ("execution branch", *limit)]
    beside = f" beside {megabytes} MB of merged weights" if merged else ""
    return too_many_rows(rows, fitting, images, max(rows // images, 1), [*without, *ways_out], "execution", beside)
