"""Whether others leave the texts of rows as they are in which several lie one after another, where LoRAs have masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ....errors import SciArtError
from .given import Text, copied, noting_who_changes, parts_of, text_versions
from .others import Others, named


def texts_kept(denoiser: nn.Module, others: Others, original: Callable, params) -> None:
    """In the place of the host's call of what others do before each evaluation. Raises `SciArtError` where somebody
    changes a text: which word is where in it is another matter than in a text alone."""
    if params.denoiser is not denoiser or not others.in_callbacks("cfg_denoiser"):
        return original(params)
    before = copied(params)
    with noting_who_changes(text_versions) as who:
        original(params)
    if who and not (_same(before.text_cond, params.text_cond) and _same(before.text_uncond, params.text_uncond)):
        files = [file for callback in who for file in others.of_function(callback)]
        raise SciArtError("compose", f"{named(files)} changes what the model reads, where LoRAs with masks have "
                                     "several texts one after another; accepted: merge, switch, or that extension off "
                                     "for this picture")


def _same(one: Tensor | Text, other: Tensor | Text) -> bool:
    if isinstance(one, Mapping) != isinstance(other, Mapping):
        return False
    one, other = parts_of(one), parts_of(other)
    return one.keys() == other.keys() and all(torch.equal(part, other[name]) for name, part in one.items())
