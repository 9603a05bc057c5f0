"""A run's prompts, encoded by the host: each row with its own text and its own text-encoder gates."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modules import prompt_parser, sd_samplers_cfg_denoiser, shared
from torch import Tensor

from ..errors import SciArtError
from ..guidance.words import mixed_prompt, own_prompt, subjects_in
from ..mixer.mixture import Mixture
from ..plan import PassPlan, Row
from ..recipe import INFOTEXT_KEY
from .a1111_errors import as_request_error

Conditioning = prompt_parser.MulticondLearnedConditioning


@dataclass(frozen=True)
class EncodedRows:
    """The conditionings of a guided pass, and what they were made of."""

    joined: Conditioning
    """AND parts of one, per image: the mixture's, each subject's own, the negative prompt of those"""
    plain: Conditioning
    prompts: tuple[str, ...]
    """as they were given, per image"""
    steps: int
    hires_steps: int | None

    @property
    def mixture(self) -> Conditioning:
        """The mixture's part alone."""
        return Conditioning(self.joined.shape, [image[:1] for image in self.joined.batch])

    @property
    def negative(self) -> Conditioning:
        """The negative prompt of the own rows and of the plain one."""
        return Conditioning(self.joined.shape, [image[-1:] for image in self.joined.batch])


class Prompts:
    """Takes part in how the host encodes the prompts of a run `p`.

    files: what tells the LoRAs' files and their combination apart; plan(hires): of the first or the hires pass;
    plans(plan, images): of each image; mixture(): of the LoRAs with the model that is loaded now, None where they do
    not fit it.
    """

    def __init__(self, p, files: Sequence[object], plan: Callable[[bool], PassPlan],
                 plans: Callable[[PassPlan, int], Sequence[PassPlan]], mixture: Callable[[], Mixture | None]):
        self.p = p
        self.files = files
        self.encoded: dict[bool, EncodedRows] = {}
        """of a guided pass, as they were encoded last; of the first and the hires pass"""
        self._plan = plan
        self._plans = plans
        self._mixture = mixture
        self._negative: dict[bool, list] = {}
        self._original = p.get_conds_with_caching
        self._ended = False

    def attach(self) -> None:
        """Puts itself in the place of the host's own encoding."""
        self._attached = self.p.get_conds_with_caching = self._encode_all

    def detach(self) -> None:
        """Leaves `p` as if we had not been there."""
        self._ended = True
        if vars(self.p).get("get_conds_with_caching") is self._attached:
            del self.p.get_conds_with_caching

    def _encode_all(self, function: Callable, prompts, steps, caches, extra_network_data, hires_steps=None):
        hires = hires_steps is not None
        plan, uncond = self._plan(hires), getattr(prompts, "is_negative_prompt", False)

        def encode(prompts, row: Row, caches=None):
            gates = [one.te_gates(row) for one in self._plans(plan, len(prompts))]
            if len(set(gates)) == 1:
                return self._encode(gates[0], function, prompts, steps, caches or [[None, None]], extra_network_data,
                                    hires_steps)
            return _side_by_side([self._encode(own, function, _retold([text], str, prompts), steps, [[None, None]],
                                               extra_network_data, hires_steps) for own, text in zip(gates, prompts)])

        subjects = subjects_in(self._plan(False))
        if self._ended or not subjects or self._mixture() is None:
            return encode(prompts, Row(uncond=uncond), caches)
        if uncond:  # the host encodes these first
            self._negative[hires] = encode(prompts, Row(uncond=True, plain=True))
            return encode(prompts, Row(uncond=True), caches)
        mixture = encode(_retold(prompts, functools.partial(mixed_prompt, subjects)), Row(), caches)
        if not plan.subjects:  # a hires pass in which the LoRAs are merged
            return mixture
        own = [encode(_retold(prompts, functools.partial(own_prompt, subject, subjects)), Row(subject=k))
               for k, subject in zip(plan.subjects, subjects)]
        try:
            rows = _joined([mixture, *own], self._negative[hires])
        except SciArtError as error:
            raise as_request_error(error) from None
        self.encoded[hires] = EncodedRows(rows, encode(prompts, Row(plain=True)), tuple(prompts), steps, hires_steps)
        return rows

    def _encode(self, gates: Sequence[float], function: Callable, prompts, steps, caches, data, hires_steps):
        """What the host makes of the prompts, with these text-encoder gates."""
        mixture = self._mixture() if any(gates) and not self._ended else None
        if mixture is None or not mixture.text_encoders:
            return self._original(function, prompts, steps, caches, data, hires_steps)
        # The host's cache knows nothing of text encoders that changed: its key must say so.
        key = {**(data or {}), INFOTEXT_KEY: list(zip(self.files, gates))}
        with mixture.encoding(gates):
            return self._original(function, prompts, steps, caches, key, hires_steps)


def _retold(prompts: Sequence[str], told: Callable[[str], str], like=None) -> prompt_parser.SdConditioning:
    """The prompts as told; like: whose size and kind they have, by default their own."""
    return prompt_parser.SdConditioning([told(text) for text in prompts], copy_from=like or prompts)


def _side_by_side(images: Sequence):
    """What the host makes of several prompts at once, from what it makes of each."""
    if isinstance(images[0], Conditioning):
        return Conditioning((len(images),), [image.batch[0] for image in images])
    return [image[0] for image in images]


def _joined(parts: Sequence[Conditioning], negative: Sequence[Sequence]) -> Conditioning:
    """AND parts of one, per image; negative: what the host makes of the negative prompt, per image its schedule."""
    if any(len(image) > 1 for part in parts for image in part.batch):
        raise SciArtError("compose", "contrastive does not work with AND in the prompt; accepted: merge")
    batch = [[*(image[0] for image in images), prompt_parser.ComposableScheduledPromptConditioning(schedule)]
             for *images, schedule in zip(*(part.batch for part in parts), negative)]
    return Conditioning(parts[0].shape, [_of_one_length(image) for image in batch])


def _of_one_length(parts: Sequence) -> list:
    """The parts of an image, shorter ones with empty chunks after them, as the host pads a negative prompt."""
    longest = max(_tokens(scheduled.cond).shape[0] for part in parts for scheduled in part.schedules)

    def padded(cond):
        missing = longest - _tokens(cond).shape[0]
        if not missing:
            return cond
        empty = shared.sd_model.cond_stage_model_empty_prompt
        tokens = sd_samplers_cfg_denoiser.pad_cond(_tokens(cond)[None], missing // empty.shape[1], empty)[0]
        return {**cond, "crossattn": tokens} if isinstance(cond, dict) else tokens

    return [prompt_parser.ComposableScheduledPromptConditioning(
        [scheduled._replace(cond=padded(scheduled.cond)) for scheduled in part.schedules], part.weight)
        for part in parts]


def _tokens(cond) -> Tensor:
    """(tokens, width) of one prompt; SDXL's has more beside it."""
    return cond["crossattn"] if isinstance(cond, dict) else cond
