"""A run's prompts, encoded by the host: each row with its own text and its own text-encoder gates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from modules import prompt_parser, sd_samplers_cfg_denoiser, shared
from torch import Tensor

from ....errors import SciArtError
from ....guidance.words import row_prompt
from ....mixer.mixture import Mixture
from ....recipe import INFOTEXT_KEY, PassPlan, Row
from ...protocols import Refused
from .embeddings import known_words

Conditioning = prompt_parser.MulticondLearnedConditioning


@dataclass(frozen=True)
class EncodedRows:
    """The conditionings of a pass in which LoRAs have rows of their own, and what they were made of."""

    joined: Conditioning
    """AND parts of one, per image: the plan's rows but the last, which is the host's own negative prompt"""
    plain: Conditioning | None
    """where there are subjects: the prompt as it was given, without any subject's LoRA"""
    prompts: tuple[str, ...]
    """as they were given, per image"""
    steps: int
    hires_steps: int | None
    plain_negative: Conditioning | None = None
    """the negative prompt of the plain one, where it is not the joined one's last part"""
    without: list | None = None
    """of LoRAs with masks: the schedules of the negative prompts, per image"""

    @property
    def mixture(self) -> Conditioning:
        """The first part alone."""
        return self._alone(0)

    @property
    def negative(self) -> Conditioning:
        """The negative prompt of the own rows and of the plain one."""
        return self.plain_negative or self._alone(-1)

    def _alone(self, part: int) -> Conditioning:
        """One part of each image, which counts whole."""
        return Conditioning(self.joined.shape, [[weighted(image[part], 1.0)] for image in self.joined.batch])


class Prompts:
    """Takes part in how the host encodes the prompts of a run `p`.

    files: what tells the LoRAs' files and their combination apart; plan(hires): of the first or the hires pass;
    plans(plan, images): of each image; mixture(): of the LoRAs with the model that is loaded now, None where they do
    not fit it; refused(error): the host's form of a refusal; end(): is called before an error goes on to the host.
    """

    def __init__(self, p, files: Sequence[object], plan: Callable[[bool], PassPlan],
                 plans: Callable[[PassPlan, int], Sequence[PassPlan]], mixture: Callable[[], Mixture | None],
                 refused: Refused, end: Callable[[], None]):
        self.p = p
        self.files = files
        self.encoded: dict[bool, EncodedRows] = {}
        """of a pass in which LoRAs have rows of their own, as they were encoded last; of the first and the hires pass
        """
        self._plan = plan
        self._plans = plans
        self._mixture = mixture
        self._refused = refused
        self._end = end
        self._learned: tuple[Callable, Callable] | None = None
        """what is in the place of the host's function that encodes prompts, and that one"""
        self._negatives: dict[bool, list] = {}
        self._original = p.get_conds_with_caching
        self._ended = self._is_encoding = False

    def attach(self) -> None:
        """Puts itself in the place of the host's own encoding."""
        self._attached = self.p.get_conds_with_caching = self._encode_all

    def read_others(self) -> None:
        """Until the host encodes the batch's own prompts, texts that other extensions have it encode are encoded as the
        mixture's: NegPiP's negative words."""
        self._stop_reading()
        original = prompt_parser.get_learned_conditioning

        def learned(model, prompts, *args, **kwargs):
            with self._as_mixture(prompts) if self._learned is not None else nullcontext():
                return original(model, prompts, *args, **kwargs)

        self._learned = learned, original
        prompt_parser.get_learned_conditioning = learned

    @contextmanager
    def _as_mixture(self, prompts) -> Iterator[None]:
        """Prompts of others that are encoded while it lasts are encoded as the mixture's."""
        mixture = self._mixture() if not self._ended else None
        if mixture is None or not mixture.text_encoders or self._is_encoding:
            yield
            return
        row = Row(uncond=getattr(prompts, "is_negative_prompt", False))
        self._is_encoding = True
        try:
            with known_words(mixture), mixture.encoding(self._plans(self._plan(False), 1)[0].te_gates(row)):
                yield
        finally:
            self._is_encoding = False

    def _stop_reading(self) -> None:
        if self._learned is not None:
            learned, original = self._learned
            self._learned = None
            if prompt_parser.get_learned_conditioning is learned:
                prompt_parser.get_learned_conditioning = original

    def detach(self) -> None:
        """Leaves `p` as if we had not been there."""
        self._ended = True
        self._stop_reading()
        if vars(self.p).get("get_conds_with_caching") is self._attached:
            del self.p.get_conds_with_caching

    def _encode_all(self, function: Callable, prompts, steps, caches, extra_network_data, hires_steps=None):
        if self._learned is not None and function is self._learned[0]:
            function = self._learned[1]
        if not self._is_the_hosts(caches):
            with self._as_mixture(prompts):
                return self._original(function, prompts, steps, caches, extra_network_data, hires_steps)
        self._stop_reading()
        try:
            return self._encode_rows(function, prompts, steps, caches, extra_network_data, hires_steps)
        except Exception:
            self._end()
            raise

    def _is_the_hosts(self, caches: Sequence[list]) -> bool:
        """Whether it is the host that asks for the run's own prompts, and not an extension for others of its own."""
        own = [getattr(self.p, name, None) for name in ("cached_c", "cached_uc", "cached_hr_c", "cached_hr_uc")]
        return any(cache is one for cache in caches for one in own)

    def _encode_rows(self, function: Callable, prompts, steps, caches, extra_network_data, hires_steps=None):
        hires = hires_steps is not None
        first, plan, uncond = self._plan(False), self._plan(hires), getattr(prompts, "is_negative_prompt", False)
        known: dict[tuple, Conditioning | list] = {}

        def encode(row: Row, caches=None, gates_of: Row | None = None):
            texts = _retold(prompts, lambda text: row_prompt(first, row, text, text))
            gates = [one.te_gates(gates_of or row) for one in self._plans(plan, len(prompts))]
            key = tuple(texts), tuple(gates)
            if key not in known:
                known[key] = encoded(texts, gates, caches or [[None, None]])
            return known[key]

        def encoded(texts, gates, caches):
            if len(set(gates)) == 1:
                return self._encode(gates[0], function, texts, steps, caches, extra_network_data, hires_steps)
            return _side_by_side([self._encode(own, function, _retold([text], str, texts), steps, [[None, None]],
                                               extra_network_data, hires_steps) for own, text in zip(gates, texts)])

        if self._ended or not (first.own or first.masked) or self._mixture() is None:
            return encode(Row(uncond=uncond), caches)
        if first.masked:
            return self._encode_texts(encode, prompts, plan, uncond, caches, steps, hires_steps)
        if uncond:  # the host encodes these first
            *others, last = (row for row in plan.rows() if row.uncond)
            self._negatives[hires] = [encode(row) for row in others]
            return encode(last, caches)
        parts = [encode(row, caches if i == 0 else None)
                 for i, row in enumerate(row for row in plan.rows() if not row.uncond)]
        if not plan.own:  # a hires pass in which the LoRAs are merged
            return parts[0]
        try:
            rows = _joined(parts, self._negatives[hires], plan.compose)
        except SciArtError as error:
            raise self._refused(error) from None
        plain = encode(Row(plain=True)) if plan.subjects else None
        self.encoded[hires] = EncodedRows(rows, plain, tuple(prompts), steps, hires_steps)
        return rows

    def _encode_texts(self, encode: Callable, prompts, plan: PassPlan, uncond: bool, caches, steps, hires_steps):
        """Where LoRAs have masks: the texts of the rows of a plain picture, one after another (`guidance.masked`).
        encode(row, caches, row of the gates)."""
        hires, row = hires_steps is not None, Row(uncond=uncond)
        if not plan.masked:  # a hires pass in which the LoRAs are merged
            return encode(row, caches)
        told = encode(row, caches, replace(row, plain=True))
        texts = [told, *(encode(row if uncond else Row(own=k), None, replace(row, own=k)) for k in plan.masked)]
        merged = encode(row) if shared.sd_model.is_sdxl else told  # SDXL reads what is pooled of it
        if uncond:  # the host encodes these first
            self._negatives[hires] = texts, merged
            return [_after_one_another(image, pooled) for image, pooled in zip(zip(*texts), merged)]
        if any(len(image) > 1 for text in texts for image in text.batch):
            raise self._refused(SciArtError("compose", f"{plan.compose} does not work with AND in the prompt; "
                                                       "accepted: merge, switch"))
        own = [[part.schedules for part, in image] for image in zip(*(text.batch for text in texts))]
        others, merged_negative = self._negatives[hires]
        negatives = list(zip(*others))
        # else the host would pad what lies in an image's row at its end
        length, negative_length = (max(map(_longest, images)) for images in (own, negatives))
        if shared.opts.pad_cond_uncond or shared.opts.pad_cond_uncond_v0:
            length = negative_length = max(length, negative_length)
        scheduled = prompt_parser.ComposableScheduledPromptConditioning
        joined = Conditioning(told.shape, [[scheduled(_after_one_another(image, pooled[0].schedules, length))]
                                           for image, pooled in zip(own, merged.batch)])
        negative = Conditioning(told.shape, [[scheduled(image[0])] for image in negatives])
        plain = encode(Row(plain=True)) if plan.subjects else None
        self.encoded[hires] = EncodedRows(joined, plain, tuple(prompts), steps, hires_steps, negative,
                                          [_after_one_another(image, pooled, negative_length)
                                           for image, pooled in zip(negatives, merged_negative)])
        return joined

    def _encode(self, gates: Sequence[float], function: Callable, prompts, steps, caches, data, hires_steps):
        """What the host makes of the prompts, with these text-encoder gates and the words of the LoRAs' embeddings."""
        mixture = self._mixture() if not self._ended else None
        if mixture is None or not (mixture.embeddings or (mixture.text_encoders and any(gates))):
            return self._original(function, prompts, steps, caches, data, hires_steps)
        # The host's cache knows nothing of text encoders that changed: its key must say so.
        key = {**(data or {}), INFOTEXT_KEY: list(zip(self.files, gates))}
        with known_words(mixture), mixture.encoding(gates):
            return self._original(function, prompts, steps, caches, key, hires_steps)


def _retold(prompts: Sequence[str], told: Callable[[str], str], like=None) -> prompt_parser.SdConditioning:
    """The prompts as told; like: whose size and kind they have, by default their own."""
    return prompt_parser.SdConditioning([told(text) for text in prompts], copy_from=like or prompts)


def _side_by_side(images: Sequence):
    """What the host makes of several prompts at once, from what it makes of each."""
    if isinstance(images[0], Conditioning):
        return Conditioning((len(images),), [image.batch[0] for image in images])
    return [image[0] for image in images]


def _after_one_another(texts: Sequence[Sequence], pooled: Sequence, length: int = 0) -> list:
    """The schedule of a text that has all these in it, each with a schedule of its own, and all so many tokens long, or
    as the longest. pooled: the schedule that has what SDXL reads beside them."""
    scheduled = prompt_parser.ScheduledPromptConditioning
    length = length or _longest(texts)
    ends = sorted({one.end_at_step for text in (*texts, pooled) for one in text})
    held = [[next(one.cond for one in text if end <= one.end_at_step) for text in (pooled, *texts)] for end in ends]
    return [scheduled(end, with_tokens(beside, torch.cat([tokens_of(_padded(cond, length)) for cond in conds])))
            for end, (beside, *conds) in zip(ends, held)]


def _longest(texts: Sequence[Sequence]) -> int:
    return max(len(tokens_of(one.cond)) for text in texts for one in text)


def _joined(parts: Sequence[Conditioning], negatives: Sequence[Sequence[Sequence]], compose: str) -> Conditioning:
    """AND parts of one, per image, whose weights sum to 1; negatives: what the host makes of the negative prompt in
    some rows, per image its schedule."""
    if any(len(image) > 1 for part in parts for image in part.batch):
        raise SciArtError("compose", f"{compose} does not work with AND in the prompt; accepted: merge, switch")
    scheduled = prompt_parser.ComposableScheduledPromptConditioning
    batch = [[*(part.batch[i][0] for part in parts), *(scheduled(negative[i]) for negative in negatives)]
             for i in range(len(parts[0].batch))]
    return Conditioning(parts[0].shape, [[weighted(part, 1 / len(image)) for part in _of_one_length(image)]
                                         for image in batch])


def weighted(part, weight: float):
    """An AND part that counts so much."""
    return prompt_parser.ComposableScheduledPromptConditioning(part.schedules, weight)


def _of_one_length(parts: Sequence) -> list:
    """The parts of an image, shorter ones with empty chunks after them, as the host pads a negative prompt."""
    longest = max(len(tokens_of(scheduled.cond)) for part in parts for scheduled in part.schedules)
    return [prompt_parser.ComposableScheduledPromptConditioning(
        [scheduled._replace(cond=_padded(scheduled.cond, longest)) for scheduled in part.schedules], part.weight)
        for part in parts]


def _padded(cond, length: int):
    """One prompt with empty chunks after it, so many tokens long."""
    missing = length - len(tokens_of(cond))
    if not missing:
        return cond
    empty = shared.sd_model.cond_stage_model_empty_prompt
    return with_tokens(cond, sd_samplers_cfg_denoiser.pad_cond(
        tokens_of(cond)[None], missing // empty.shape[1], empty)[0])


def tokens_of(cond) -> Tensor:
    """(tokens, width) of one prompt; SDXL's has more beside it."""
    return cond["crossattn"] if isinstance(cond, dict) else cond


def with_tokens(cond, tokens: Tensor):
    """The prompt with these in place of its own."""
    return {**cond, "crossattn": tokens} if isinstance(cond, dict) else tokens
