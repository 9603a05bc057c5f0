"""Whether other extensions see the rows of single LoRAs as what they are; before the first step one evaluation tells.

With no LoRA acting, one text for all rows with the prompt and one for all without, these rows are the same picture's,
and their predictions must be the same. Where they are not, an extension takes some rows for others: the picture would
be nobody's. The evaluation is spent only where something of another extension is on the model's way.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from operator import ne

import torch
from modules import devices, sd_samplers_cfg_denoiser, shared
from torch import Tensor, nn

from ....errors import SciArtError
from ....recipe import Row
from .others import Others

NAMED = 3
"""files of other extensions that a refusal names"""
NOT_TEXT = ("c_concat", "c_adm")
"""what the host's model is called with beside the texts of its rows"""


class RowsSeen:
    """Of one pass; raises `SciArtError` where another extension tells apart what is the same.

    rows: of each image, the host's negative prompt last; noise(x, predictions): predicted noise up to a factor;
    silent(): a context in which the model is called as without LoRAs; accepted: what a refusal says is.
    """

    def __init__(self, denoiser: nn.Module, rows: Sequence[Row], images: int, noise: Callable[[Tensor, Tensor], Tensor],
                 silent: Callable[[], AbstractContextManager], accepted: str):
        self.denoiser = denoiser
        self.first = _first_alike(rows, images)
        self.noise = noise
        self.silent = silent
        self.accepted = accepted
        self.others = Others()
        self._is_checked = self._is_within = False
        self._rehearsed: set[tuple[bool, ...]] = set()
        """which of what others are given they have changed so far"""
        self._text: dict[str, Tensor] = {}
        self._suspects: list[str] = []
        self._found: list[Tensor] = []
        self._hook = None

    def conditioned(self, original: Callable, params) -> None:
        """In the place of the host's call of what others do to latents and texts before each evaluation."""
        if params.denoiser is not self.denoiser or len(params.x) != len(self.first):
            return original(params)
        changing = self.others.in_callbacks("cfg_denoiser")
        alike, versions = (self._alike(params), _versions(params)) if changing else (None, [])
        original(params)
        if changing:
            self._rehearse(original, alike, tuple(map(ne, versions, _versions(params))), changing)
        if not self._is_checked:
            self._is_checked = True
            self._suspects = self.others.in_evaluation(self.denoiser.inner_model, shared.sd_model)
            if self._suspects:
                self._text = {name: rows[self.first] for name, rows in _by_row(params, texts=True).items()}
                self._hook = self.denoiser.inner_model.register_forward_pre_hook(self._called, with_kwargs=True)

    def predicted(self) -> None:
        """All rows of an evaluation have their predictions; to be called before anything is made of them."""
        if self._hook is None:
            return
        self.leave()
        found = torch.cat(self._found)  # where the host leaves out its negative prompts, fewer than there are rows
        self._found = []
        error = (found - found[self.first[:len(found)]]).square().mean((1, 2, 3)).sqrt().max()
        if not error <= _tolerance() * found.square().mean().sqrt():
            raise self._refused(self._suspects)

    def leave(self) -> None:
        """Takes back what is on the model."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _called(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        """The host is about to call its model with the next rows: the same call before it, without LoRAs."""
        if self._is_within:
            return
        x, sigma, *_ = args
        start = sum(map(len, self._found))
        text = {name: rows[start:start + len(x)] for name, rows in self._text.items()}
        texts = text if "crossattn" in kwargs["cond"] else {"c_crossattn": [text["crossattn"]]}
        others = {name: value for name, value in kwargs["cond"].items() if name in NOT_TEXT}
        self._is_within = True
        try:
            with self.silent(), torch.no_grad():
                self._found.append(self.noise(x, model(x, sigma, cond={**texts, **others})).float())
        finally:
            self._is_within = False

    def _alike(self, params):
        """A copy of what others are given, in which rows that are alike have one text."""
        alike = copy.copy(params)
        alike.x, alike.image_cond = params.x.clone(), params.image_cond.clone()
        images = len(alike.x) - len(next(_texts(params.text_cond)))
        with_prompt, last = self.first[:-images], self.first[-images:]
        alike.text_cond = _rows_of(params.text_cond, with_prompt)
        own = last[0] < len(with_prompt)  # the text of negative prompts is in both; here all have one length
        alike.text_uncond = _rows_of(params.text_cond if own else params.text_uncond, last if own else range(images))
        return alike

    def _rehearse(self, original: Callable, alike, changed: tuple[bool, ...], changing: Sequence[str]) -> None:
        """Raises where others, who have just changed so much, make different rows of rows that are alike."""
        if not any(changed) or changed in self._rehearsed:
            return
        self._rehearsed.add(changed)
        original(alike)
        for rows in _by_row(alike).values():
            if len(rows) != len(self.first) or not torch.equal(rows, rows[self.first]):
                raise self._refused(changing)

    def _refused(self, files: Sequence[str]) -> SciArtError:
        named = " or ".join(files[:NAMED])
        return SciArtError("compose", f"{named} does not know the rows in which LoRAs act alone, and treats alike ones "
                                      f"in different ways; {self.accepted}; or that extension off for this picture")


def _first_alike(rows: Sequence[Row], images: int) -> list[int]:
    """Of each row in the host's order the first that is alike: of the same image, with the prompt or without."""
    told = [(image, row.uncond) for image in range(images) for row in rows[:-1]]
    told += [(image, True) for image in range(images)]
    return [told.index(one) for one in told]


def _by_row(params, texts: bool = False) -> dict[str, Tensor]:
    """Copies of what the host is about to call its model with, each with one entry for every row; of the texts alone.
    """
    cond, uncond = (text if isinstance(text, dict) else {"crossattn": text}
                    for text in (params.text_cond, params.text_uncond))
    found = {name: torch.cat(_of_one_length(cond[name], uncond[name])) for name in cond}
    return found if texts else {"x": params.x.clone(), "image_cond": params.image_cond.clone(), **found}


def _of_one_length(cond: Tensor, uncond: Tensor) -> tuple[Tensor, Tensor]:
    """Texts (rows, tokens, width), the shorter with empty chunks after it, as the host pads them."""
    if cond.dim() < 3 or cond.shape[1] == uncond.shape[1]:
        return cond, uncond
    empty = shared.sd_model.cond_stage_model_empty_prompt
    chunks = (cond.shape[1] - uncond.shape[1]) // empty.shape[1]
    if chunks > 0:
        return cond, sd_samplers_cfg_denoiser.pad_cond(uncond, chunks, empty)
    return sd_samplers_cfg_denoiser.pad_cond(cond, -chunks, empty), uncond


def _texts(text: Tensor | Mapping[str, Tensor]) -> Iterator[Tensor]:
    """SDXL's texts have two parts."""
    yield from text.values() if isinstance(text, Mapping) else (text,)


def _rows_of(text: Tensor | Mapping[str, Tensor], numbers: Sequence[int]):
    """Copies of these rows, in the same form."""
    if isinstance(text, Mapping):
        return type(text)({name: part[list(numbers)] for name, part in text.items()})
    return text[list(numbers)]


def _versions(params) -> list[tuple[int, object]]:
    """By which it is known, without waiting for a device, whether a tensor was replaced or written into; of one that
    does not count its writes it may have been."""
    tensors = (params.x, params.image_cond, *_texts(params.text_cond), *_texts(params.text_uncond))
    return [(id(tensor), object() if tensor.is_inference() else tensor._version) for tensor in tensors]


def _tolerance() -> float:
    """How far predicted noise may be from the same, as a part of its size: what rounding makes of it."""
    return 1e-3 if devices.dtype_unet == torch.float32 else 2e-2
