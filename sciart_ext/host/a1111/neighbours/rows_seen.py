"""Whether other extensions see the rows of single LoRAs as what they are; before the first step it is tried.

With no LoRA acting, and with one text for all rows with the prompt and one for all without, these rows are the same
picture's, and their predictions must be those of that picture's own two rows. Where they are not, an extension takes
some rows for others, and the picture would be nobody's. It is tried only where something of another extension is on the
model's way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from modules import devices, shared
from torch import Tensor, nn

from ....errors import SciArtError
from ....recipe import Row
from .given import Text, by_row, copied, length, noting_who_changes, of_one_length, parts_of
from .others import Others, named


class RowsSeen:
    """Of one pass; raises `SciArtError` where another extension treats in different ways what is the same.

    rows: of each image, the host's negative prompt last; noise(x, predictions): predicted noise up to a factor;
    silent(): a context in which the model is called as without LoRAs; accepted: what a refusal says is.
    """

    def __init__(self, denoiser: nn.Module, rows: Sequence[Row], images: int, noise: Callable[[Tensor, Tensor], Tensor],
                 silent: Callable[[], AbstractContextManager], accepted: str):
        self.denoiser = denoiser
        self.images = images
        self.told = _told(rows, images)
        self.noise = noise
        self.silent = silent
        self.accepted = accepted
        self.others = Others()
        self._is_tried = False
        self._rehearsed: set[Callable] = set()

    def conditioned(self, original: Callable, params) -> None:
        """In the place of the host's call of what others do to latents and texts before each evaluation."""
        if params.denoiser is not self.denoiser or len(params.x) != len(self.told):
            return original(params)
        given = copied(params) if self.others.in_callbacks("cfg_denoiser") else None
        with noting_who_changes() as who:
            original(params)
        if given is not None and who:
            self._compare(given, params, who)
            if not self._rehearsed.issuperset(who):
                self._rehearsed.update(who)
                self._rehearse(self._alike(given), who)
        if not self._is_tried:
            self._is_tried = True
            suspects = self.others.in_evaluation(self.denoiser.inner_model, shared.sd_model)
            if suspects:
                self._try(params, suspects)

    def _compare(self, before, after, who: Sequence[Callable]) -> None:
        """Raises where rows were the same before others changed something, and are not afterwards."""
        for one, other in zip(by_row(before), by_row(after)):
            if len(other) != len(self.told) or (self._same(one) & ~self._same(other)).any():
                raise self._refused(self._files_of(who))

    def _rehearse(self, alike, who: Sequence[Callable]) -> None:
        """Raises where one of them makes different rows of rows that are all the same."""
        for callback in who:
            after = copied(alike)
            callback(after)
            if not all(len(rows) == len(self.told) and self._same(rows).all() for rows in by_row(after)):
                raise self._refused(self._files_of([callback]))

    def _files_of(self, who: Sequence[Callable]) -> list[str]:
        return [file for callback in who for file in self.others.of_function(callback)]

    def _same(self, rows: Tensor) -> Tensor:
        """Whether each row is the same as the first that is meant to be."""
        firsts = [self.told.index(number) for number in self.told]
        return (rows == rows[firsts]).flatten(1).all(1)

    def _alike(self, params):
        """A copy of what others are given, in which rows that are alike have one text."""
        alike, own = copied(params), self._own_text(params)
        with_prompt, last = self.told[:-self.images], self.told[-self.images:]
        alike.text_cond, alike.text_uncond = (
            type(text)({name: part[numbers] for name, part in own.items()}) if isinstance(text, Mapping)
            else own["crossattn"][numbers]
            for text, numbers in ((params.text_cond, with_prompt), (params.text_uncond, last)))
        return alike

    def _own_text(self, params) -> Text:
        """Of the pictures' own rows, those with the prompt first."""
        firsts = [self.told.index(image) for image in range(self.images)]
        cond = {name: part[firsts] for name, part in parts_of(params.text_cond).items()}
        return of_one_length(cond, parts_of(params.text_uncond))

    def _try(self, params, suspects: Sequence[str]) -> None:
        """Raises where the predictions of all rows, as without LoRAs, are not those of the pictures' own two."""
        own = list(range(2 * self.images))
        with self.silent(), torch.no_grad():
            found = self._evaluated(params, list(range(len(self.told))), self.told)  # first what may not fit in memory
            expected = self._evaluated(params, [self.told.index(number) for number in own], own)
        error = (found - expected[self.told]).square().mean((1, 2, 3)).sqrt().max()
        if not error <= _tolerance() * expected.square().mean().sqrt():
            raise self._refused(suspects)

    def _evaluated(self, params, rows: Sequence[int], told: Sequence[int]) -> Tensor:
        """Predicted noise of these rows, each with the text of a picture's own row, called as the host calls them."""
        text, found = self._own_text(params), []
        for call in self._calls(len(rows), length(params.text_cond) == length(params.text_uncond)):
            x, sigma, image = (given[rows[call]] for given in (params.x, params.sigma, params.image_cond))
            texts = {name: part[told[call]] for name, part in text.items()}
            given = texts if isinstance(params.text_cond, Mapping) else {"c_crossattn": [texts["crossattn"]]}
            found.append(self.noise(x, self.denoiser.inner_model(x, sigma, cond={**given, "c_concat": [image]})))
        return torch.cat(found).float()

    def _calls(self, rows: int, are_of_one_length: bool) -> list[slice]:
        """Which rows the host calls its model with at once."""
        together = shared.opts.batch_cond_uncond
        if are_of_one_length and together:
            return [slice(0, rows)]
        with_prompt = rows if are_of_one_length else rows - self.images
        size = self.images * 2 if together else self.images
        starts = list(range(0, with_prompt, size)) + ([] if are_of_one_length else [with_prompt])
        return [slice(start, end) for start, end in zip(starts, [*starts[1:], rows])]

    def _refused(self, files: Sequence[str]) -> SciArtError:
        return SciArtError("compose", f"{named(files)} does not know the rows in which LoRAs act alone, and takes "
                                      f"them for others; {self.accepted}; or that extension off for this picture")


def _told(rows: Sequence[Row], images: int) -> list[int]:
    """Of each row in the host's order, which of the pictures' own two it is: with the prompt the number of its image,
    without it that and the number of images."""
    of_images = [image + images * row.uncond for image in range(images) for row in rows[:-1]]
    return [*of_images, *range(images, 2 * images)]


def _tolerance() -> float:
    """How far predicted noise may be from the same, as a part of its size: what rounding makes of it."""
    return 1e-3 if devices.dtype_unet == torch.float32 else 2e-2
