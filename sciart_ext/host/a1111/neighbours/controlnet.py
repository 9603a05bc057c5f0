"""ControlNet beside us: it tells prompts from negative prompts by marks, and runs half the UNet without gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from modules import prompt_parser
from torch import Tensor, nn

from ....errors import SciArtError
from ....recipe import Row
from ...webui.replaced import is_replaced
from ..prompts.encoding import Conditioning, EncodedRows, tokens_of, with_tokens

MARK = 1024.0
"""Before a sampler's first step ControlNet puts a token of these before each AND part, of their opposites before a
negative prompt (`mark_prompt_context` in its hook.py), and takes them away before the model sees them."""


def told_apart(encoded: EncodedRows, rows: Sequence[Row]) -> EncodedRows:
    """Where ControlNet has marked the AND parts of a pass: the same with the parts that are negative prompts marked as
    such, and all that it has not been given. rows: of each image, the host's own negative prompt last."""
    if not any(_is_marked(part) for image in encoded.joined.batch for part in image):
        return encoded
    signs = [-1.0 if row.uncond else 1.0 for row in rows[:-1]]
    return replace(encoded, joined=_all_marked(encoded.joined, signs), plain=_all_marked(encoded.plain, [1.0]),
                   plain_negative=_all_marked(encoded.plain_negative, [-1.0]),
                   without=encoded.without and [_schedules_marked(image, -1.0) for image in encoded.without])


def check_rows_are_whole(unet: nn.Module) -> None:
    """Raises `SciArtError` where transformers will be called for some rows alone, as for ControlNet's references."""
    if any(is_replaced(module, "_forward") for module in unet.modules()):
        raise SciArtError("compose", "ControlNet's reference preprocessors and Style Align run parts of the model for "
                                     "some rows alone, where LoRAs cannot have rows or places of their own; "
                                     "accepted: merge, switch, with apply_to both and one weight for both prompts")


@contextmanager
def gradients_kept(unet: nn.Module) -> Iterator[None]:
    """While it lasts gradients flow through all of the UNet: ControlNet in its place turns them off before the first
    layer, which is `time_embed`, and back to what they were after the encoder."""
    def keep(*_) -> None:
        torch.set_grad_enabled(True)

    hook = unet.time_embed.register_forward_pre_hook(keep)
    try:
        yield
    finally:
        hook.remove()


def _is_marked(part) -> bool:
    return all(_has_mark(tokens_of(scheduled.cond)) for scheduled in part.schedules)


def _has_mark(tokens: Tensor) -> bool:
    return bool((tokens[0].abs() == MARK).all())


def _all_marked(conditioning: Conditioning | None, signs: Sequence[float]) -> Conditioning | None:
    """signs: of the parts of each image."""
    return conditioning and Conditioning(conditioning.shape, [
        [prompt_parser.ComposableScheduledPromptConditioning(_schedules_marked(part.schedules, sign), part.weight)
         for part, sign in zip(image, signs)] for image in conditioning.batch])


def _schedules_marked(schedules: Sequence, sign: float) -> list:
    def marked(cond):
        tokens = tokens_of(cond)
        rest = tokens[1:] if _has_mark(tokens) else tokens
        return with_tokens(cond, torch.cat([torch.full_like(rest[:1], sign * MARK), rest]))

    return [scheduled._replace(cond=marked(scheduled.cond)) for scheduled in schedules]
