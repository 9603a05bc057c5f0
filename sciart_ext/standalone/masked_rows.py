"""What the rows of a picture read whose LoRAs have masks: a text for each of them, one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from ..recipe import PassPlan, Row
from .prompts.encoding import Embeddings, encode, is_xl
from .sampling import PromptRow

Read = Callable[[Row, Row], PromptRow]
"""(row, gates): the text of a row, encoded with the text-encoder gates of another"""


def masked_rows(pipe, plan: PassPlan, read: Read, clip_skip: int) -> list[PromptRow]:
    """The row with the prompt and the one with the negative prompt; where subjects are to be found both without any
    subject's LoRA too."""
    plain, plain_uncond = Row(plain=True), Row(uncond=True, plain=True)
    told = [read(Row(), plain), *(read(Row(own=k), Row(own=k)) for k in plan.masked)]
    negative = [read(Row(uncond=True), Row(uncond=True, own=k)) for k in plan.masked]
    negative = [read(Row(uncond=True), plain_uncond), *negative]
    rows = [_one_after_another(pipe, clip_skip, texts, read(row, row) if is_xl(pipe) else texts[0])
            for row, texts in ((Row(), told), (Row(uncond=True), negative))]
    return [*rows, read(plain, plain), read(plain_uncond, plain_uncond)] if plan.subjects else rows


def _one_after_another(pipe, clip_skip: int, texts: Sequence[PromptRow], merged: PromptRow) -> PromptRow:
    """One row that has all these texts in its context, of one length, shorter ones with empty chunks after them.
    merged: what SDXL reads beside them, encoded with all LoRAs, is of this."""
    longest = max(one.embeddings.tokens.shape[1] for one in texts)
    is_even = all(one.embeddings.tokens.shape[1] == longest for one in texts)
    empty = None if is_even else encode(pipe, "", 1, clip_skip).tokens

    def padded(read: Embeddings) -> torch.Tensor:
        missing = longest - read.tokens.shape[1]
        return torch.cat([read.tokens, empty.repeat(1, missing // empty.shape[1], 1)], 1) if missing else read.tokens

    def joined(last: int) -> Embeddings:
        return merged.at(last)._replace(tokens=torch.cat([padded(one.at(last)) for one in texts], 1))

    ends = sorted({last for one in (merged, *texts) for last, _ in one.edits})
    edits = tuple((last, joined(last)) for last in ends)
    return replace(merged, embeddings=edits[0][1] if edits else joined(0), edits=edits)
