"""Whether the rows of a batch stay where the host has put them, where LoRAs act in some images and not in others."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ....errors import SciArtError
from .given import by_row, copied, noting_who_changes
from .others import Others, named


def in_order(denoiser: nn.Module, others: Others, original: Callable, params) -> None:
    """In the place of the host's call of what others do before each evaluation. Raises `SciArtError` where
    somebody moves rows to other places."""
    if params.denoiser is not denoiser or not others.in_callbacks("cfg_denoiser"):
        return original(params)
    before = by_row(copied(params))
    with noting_who_changes() as who:
        original(params)
    if who and any(map(_is_moved, before, by_row(params))):
        files = [file for callback in who for file in others.of_function(callback)]
        raise SciArtError("at_once", f"{named(files)} puts the rows of a batch into another order, and other LoRAs "
                              "act in each; accepted: 1, or that extension off for this picture")


def _is_moved(before: Tensor, after: Tensor) -> bool:
    if before.shape != after.shape:
        return True
    same = (after.flatten(1).unsqueeze(1) == before.flatten(1)).all(-1)
    return bool((same.any(1) & ~same.diagonal()).any())
