"""What the host gives other extensions before each evaluation of the model, and who of them changes it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from modules import script_callbacks, sd_samplers_cfg_denoiser, shared
from torch import Tensor

Text = Mapping[str, Tensor]
"""by the host's names of its parts, of which SDXL has two; each with one entry for every row"""


def copied(params):
    """What others are given, for them to change."""
    copied = copy.copy(params)
    copied.x, copied.image_cond = params.x.clone(), params.image_cond.clone()
    copied.text_cond, copied.text_uncond = (
        type(text)({name: part.clone() for name, part in text.items()}) if isinstance(text, Mapping) else text.clone()
        for text in (params.text_cond, params.text_uncond))
    return copied


def by_row(params) -> list[Tensor]:
    """Each with one entry for every row."""
    texts = of_one_length(parts_of(params.text_cond), parts_of(params.text_uncond))
    return [params.x, params.image_cond, *texts.values()]


def parts_of(text: Tensor | Text) -> Text:
    """Of any model's text."""
    return text if isinstance(text, Mapping) else {"crossattn": text}


def length(text: Tensor | Text) -> int:
    """Tokens of each row."""
    return parts_of(text)["crossattn"].shape[1]


def of_one_length(cond: Text, uncond: Text) -> Text:
    """Both together, the shorter with empty chunks after it, as the host pads them."""
    empty = shared.sd_model.cond_stage_model_empty_prompt
    chunks = (length(cond) - length(uncond)) // empty.shape[1]

    def padded(name: str, part: Tensor, count: int) -> Tensor:
        return sd_samplers_cfg_denoiser.pad_cond(part, count, empty) if name == "crossattn" and count > 0 else part

    return {name: torch.cat([padded(name, part, -chunks), padded(name, uncond[name], chunks)])
            for name, part in cond.items()}


def versions(params) -> list[tuple[int, object]]:
    """By which it is known, without waiting for a device, whether a tensor was replaced or written into; of one that
    does not count its writes it may have been."""
    return [_version(params.x), _version(params.image_cond), *text_versions(params)]


def text_versions(params) -> list[tuple[int, object]]:
    """The same of the texts alone."""
    return [_version(part) for text in (params.text_cond, params.text_uncond) for part in parts_of(text).values()]


def _version(tensor: Tensor) -> tuple[int, object]:
    return id(tensor), object() if tensor.is_inference() else tensor._version


@contextmanager
def noting_who_changes(versions: Callable = versions) -> Iterator[list[Callable]]:
    """The host's callbacks that change, while it lasts, something of what they are given before an evaluation.
    versions(what they are given): by which that is known."""
    ordered, who = script_callbacks.ordered_callbacks, []

    def noted(callback: Callable) -> Callable:
        def call(params) -> None:
            before = versions(params)
            callback(params)
            if versions(params) != before:
                who.append(callback)

        return call

    def noting(category: str, *args, **kwargs) -> list:
        found = ordered(category, *args, **kwargs)
        if category != "cfg_denoiser":
            return found
        return [replace(one, callback=noted(one.callback)) for one in found]

    script_callbacks.ordered_callbacks = noting
    try:
        yield who
    finally:
        script_callbacks.ordered_callbacks = ordered
