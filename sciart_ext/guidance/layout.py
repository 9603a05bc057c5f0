"""Where the subjects of one batch are: a look ahead finds them, before any subject's LoRA acts.

CLoRA (arXiv 2403.19776) takes the masks of an evaluation from its own maps, which in the first steps show little and
later show what the LoRAs have done to each other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..memory import in_parts_that_fit
from ..mixer.gates import sent
from .alike import separated
from .attention import AttentionMaps
from .look_ahead import FROM, attention_ahead
from .masks import masks_from_attention, resized, told_by_boxes, with_boxes, within_boxes
from .noises import NOT_CHOSEN, Glimpse, OtherNoise, SharedNoise, least_distance

if TYPE_CHECKING:
    from ..recipe.guidance import GuidanceSettings
    from .sheet import Seen
    from .words import Subject, Words


class Layout:
    """The subjects of one batch of images, and their places.

    boxes: the region of each subject, or None where it is to be found; threshold: of the masks, if not the settings'.
    """

    def __init__(self, settings: GuidanceSettings, maps: AttentionMaps, subjects: Sequence[Subject],
                 boxes: Sequence[Sequence[float] | str | None], threshold: float | None = None):
        self.settings = settings
        self.threshold = settings.mask_threshold if threshold is None else threshold
        self.maps = maps
        self.subjects = subjects
        self.boxes = boxes
        self.alike = torch.tensor([[subject.mention is not None for subject in subjects]])
        """which subjects are like another: bool (1, subjects) by their words, (images, subjects) once they are seen; on
        the CPU, where it is known without waiting whether they have rows of their own"""
        self.words: list[Words] = []
        """of each image; where the prompt changes on the way, of the prompt now"""
        self.masks: Tensor | None = None
        """where each subject is: bool (images, subjects, h, w) of the latents; None before the look ahead"""
        self.first: Tensor | None = None
        """attention in the look ahead (images, subjects, h, w), on its own grid, in regions as they tell it"""
        self.noises: list[int] | None = None
        """the number of the noise that each image begins with; None where none was chosen"""
        self.apart: Tensor | None = None
        """how far apart the subjects of each image were seen in the look ahead: (images,), `least_distance`"""
        self.nowhere = torch.zeros(0, len(subjects), dtype=torch.bool)
        """of which images which subjects have no place: bool (images, subjects), in main memory"""
        self.last: Tensor | None = None
        """attention of the evaluation that was watched"""
        self.shared: SharedNoise | None = None
        """where all images, and those of other batches, begin with one noise"""
        self._watching = False

    @property
    def must_look_ahead(self) -> bool:
        """Whether the masks are wanted and not known yet."""
        return self.masks is None

    def take_from(self, before: Layout) -> None:
        """What the look ahead on the model before has found."""
        self.masks, self.first, self.alike, self.noises = before.masks, before.first, before.alike, before.noises
        self.apart, self.nowhere = before.apart, before.nowhere

    def notes(self) -> list[str]:
        """What of the settings did nothing: a choice of the noise where there was none, LoRAs without a place."""
        can_choose = self.noises is not None or self.settings.noises == 1 or self.must_look_ahead
        return ([] if can_choose else [NOT_CHOSEN]) + self._without_a_place()

    def _without_a_place(self) -> list[str]:
        """Notes on subjects whose LoRA acts nowhere in some images."""
        images = self.nowhere.sum(0).tolist()
        return [f"{subject.words}: found no place of its own in {count} of {len(self.nowhere)} pictures, where its "
                "LoRA does nothing" for subject, count in zip(self.subjects, images) if count]

    def look_ahead(self, latents: Tensor, start: int, alphas: Tensor, denoised: Callable[[Tensor, int, float], Tensor],
                   plain: Callable[[Tensor, int, float], object], other: OtherNoise | None = None) -> Tensor:
        """Finds the masks, where it must, and gives the latents to begin with: these, or those of the noise in which
        the subjects lie farthest apart, of as many as the settings want. Arguments: `attention_ahead`'s; denoised calls
        the model with the plain row of every image first, the prompt without any subject's LoRA, and plain, of the
        same, with that alone. other: None where the latents are more than noise.

        All noises are looked at in one batch, or as many at once as fit in memory: denoised and plain are called with
        so many times the images, each image's noises after one another.

        The only wait is for the attention: where the subjects are is decided in main memory, by many small steps.
        """
        if not self.must_look_ahead:
            return latents

        def recording(latents: Tensor, time: int, progress: float) -> Tensor:
            self.maps.record(len(latents) if progress >= FROM else 0)
            return denoised(latents, time, progress)

        def attended(latents: Tensor, time: int, progress: float) -> Tensor:
            self.maps.record(len(latents))
            with self.maps.stopping():
                plain(latents, time, progress)
            return self.maps.maps()

        size, device = tuple(latents.shape[-2:]), latents.device
        whole = self.settings.regions == "whole"
        if all(self.boxes) and whole:
            blank = torch.zeros(len(latents), len(self.boxes), *size, dtype=torch.bool)
            self._place(with_boxes(blank, self.boxes), device)
            self.first = self.masks.float()
            return latents
        may_choose = other is not None and self.settings.noises > 1 and len(self.boxes) > 1
        numbers = self._tried() if may_choose else [0]
        begun = [other(number) if number else latents for number in numbers]

        def ahead(part: Sequence[Tensor]) -> Tensor:
            each = torch.stack(part, 1).flatten(0, 1)
            maps = attention_ahead(each, start, alphas, recording, attended, self.maps.maps)
            return maps.unflatten(0, (len(latents), len(part)))

        maps = torch.cat(list(in_parts_that_fit(begun, len(begun), ahead)), 1)
        found = self._chosen([self._seen(*one) for one in zip(self._means(maps).unbind(1), numbers)])
        self.alike, self.apart = found.alike, found.apart
        masks = (with_boxes if whole else within_boxes)(resized(self._masks(found.attention), size), self.boxes)
        self._place(masks, device)
        self.first = sent(told_by_boxes(found.attention, self.boxes, whole), device)
        if not may_choose:
            return latents
        self.noises = found.noise.tolist()
        if not any(self.noises):
            return latents
        return torch.stack([begun[numbers.index(number)][image] for image, number in enumerate(self.noises)])

    def _place(self, masks: Tensor, device: torch.device) -> None:
        self.nowhere = ~masks.flatten(2).any(2)
        self.masks = sent(masks, device)

    def _tried(self) -> Sequence[int]:
        """The numbers of the noises that are looked at."""
        if self.shared is not None and self.shared.number is not None:
            return [self.shared.number]
        return range(self.settings.noises)

    def _chosen(self, seen: Sequence[Glimpse]) -> Glimpse:
        found = functools.reduce(Glimpse.or_farther_apart, seen)
        if self.shared is None:
            return found
        self.shared.number = int(found.noise[0])
        return next(one for one in seen if one.noise[0] == self.shared.number)

    def _means(self, maps: Tensor) -> Tensor:
        """Maps (images, noises, h, w, tokens) → the subjects' (images, noises, subjects, h, w), in main memory."""
        def means(maps: Tensor, words: Words) -> Tensor:
            return words.plain_means(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])

        return self._by_words(means, maps).cpu()

    def _seen(self, attention: Tensor, number: int) -> Glimpse:
        """What the attention (images, subjects, h, w) in a look ahead from one of the noises shows."""
        sought = [box is None for box in self.boxes]
        attention[:, sought], found = separated(attention[:, sought])
        alike = self.alike.repeat(len(attention), 1)
        alike[:, sought] |= found
        apart = least_distance(told_by_boxes(attention, self.boxes, self.settings.regions == "whole"))
        return Glimpse(attention, alike, apart, torch.full((len(attention),), number))

    def _masks(self, attention: Tensor) -> Tensor:
        """On the attention's grid, before subjects with a region that is theirs as a whole get it."""
        whole = self.settings.regions == "whole"
        return masks_from_attention(attention if whole else told_by_boxes(attention, self.boxes, whole), self.threshold)

    def watch(self, progress: float) -> None:
        """Keeps the mixture's attention of the next evaluation, which is at this progress, as `last`, where it is to be
        shown."""
        if self.settings.show and self.masks is not None:
            self._watching = True
            self.maps.record(len(self.words) * self._rows_until_mixtures(progress))

    def _rows_until_mixtures(self, progress: float) -> int:
        """How many rows of each image an evaluation at this progress has until all images' mixtures are seen, each the
        first of its image's."""
        return 1

    def evaluated(self) -> None:
        """To be called after each evaluation."""
        if self._watching:
            self._watching = False
            mixtures = self.maps.maps().unflatten(0, (len(self.words), -1))[:, 0]
            self.last = self._by_words(lambda maps, words: words.mixed_means(maps), mixtures)

    def shown(self) -> list[Seen]:
        """Of each image, what is to be shown; empty where nothing is."""
        from .sheet import Seen

        if self.last is None:
            return []
        return [Seen(*image) for image in zip(self.first, self.last, self.masks)]

    def _by_words(self, function: Callable[..., Tensor], maps: Tensor, *more: Tensor) -> Tensor:
        """function(maps of images, their words, more of them) for all images with the same words at once, in the
        images' order."""
        groups: dict[int, list[int]] = {}
        for image, words in enumerate(self.words):
            groups.setdefault(id(words), []).append(image)
        if len(groups) == 1:
            return function(maps, self.words[0], *more)
        found: dict[int, Tensor] = {}
        for chosen in groups.values():
            own, *others = (torch.stack([one[image] for image in chosen]) for one in (maps, *more))
            found.update(zip(chosen, function(own, self.words[chosen[0]], *others)))
        return torch.stack([found[image] for image in range(len(self.words))])
