"""ADetailer beside us: it repairs parts of a picture by runs of its own, in which we take part where it is told so.

Its setting "Script names to apply to ADetailer" has to name `sciart`; without it the parts are repaired without LoRAs.
"""

from __future__ import annotations

from ...errors import SciArtError
from ...recipe import Recipe

PLACED = ("contrastive", "masked", "regions")
"""ways to compose that say where in the whole picture something is"""


def is_repair(p) -> bool:
    """Whether `p` is such a run; its picture is a part of another one."""
    return getattr(p, "_ad_inner", False)


def check_can_repair(recipe: Recipe) -> None:
    """Raises `SciArtError` where the recipe says where in the whole picture something is."""
    if recipe.compose in PLACED:
        raise SciArtError("compose", f"{recipe.compose} tells where in the whole picture a LoRA acts, which a part of "
                                     "it cannot follow; accepted: merge, switch, composite, spatial; or leave sciart "
                                     "out of ADetailer's setting of script names")


def not_repaired(error: Exception) -> str:
    """What the whole picture's infotext says of a repair that was refused: the host swallows the refusal itself."""
    return f"ADetailer repaired nothing: {error}"
