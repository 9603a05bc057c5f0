"""Prompts of the rows, and where in them the words are whose attention is looked at."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import SciArtError, did_you_mean, shown
from ..mixer.gates import sent

if TYPE_CHECKING:
    from ..recipe import PassPlan, Row

CHUNK = 77
"""columns of the text embedding per chunk of the prompt: begin mark, 75 tokens, end mark"""


@dataclass(frozen=True)
class Subject:
    """What a LoRA is about: words of the prompt, and words put before them in the LoRA's own prompt.

    mention: where several LoRAs have the same words, which mention of them (0-based) is this one's; None: all.
    """

    words: str
    trigger: str = ""
    mention: int | None = None

    @property
    def full(self) -> str:
        """The words with the trigger before them."""
        return f"{self.trigger} {self.words}".strip()


def own_prompt(subject: Subject, subjects: Sequence[Subject], prompt: str) -> str:
    """The prompt of a subject's own row: every subject in it is this one, with its trigger.

    A row that also named the others would put them where it likes; so all rows have the same things at the same
    places, each row its own kind of thing, and the masks choose.
    """
    return _retold(subjects, prompt, lambda words, number, as_it_is: subject.full)


def mixed_prompt(subjects: Sequence[Subject], prompt: str) -> str:
    """The prompt of the mixture's row: every subject with its trigger; of those with the same words one mention each,
    and a further mention as it is."""
    def told(words: str, number: int, as_it_is: str) -> str:
        return next((one.full for one in subjects if one.words.lower() == words and one.mention in (None, number)),
                    as_it_is)
    return _retold(subjects, prompt, told)


def row_prompt(plan: PassPlan, row: Row, prompt: str, negative_prompt: str) -> str:
    """What a row's cross-attention reads: the prompt, with every subject's trigger in the mixture's row, and everywhere
    the LoRA's own in its row."""
    if row.uncond or row.plain or not plan.subjects:
        return negative_prompt if row.uncond else prompt
    subjects = subjects_in(plan)
    if row.own is None:
        return mixed_prompt(subjects, prompt)
    return own_prompt(subjects[plan.subjects.index(row.own)], subjects, prompt)


def _retold(subjects: Sequence[Subject], prompt: str, told: Callable[[str, int, str], str]) -> str:
    """The prompt with told(words in lower case, how many of them were before, the mention as it is) for each mention
    of a subject, its trigger included where that is there. Where words are part of longer ones, the longer are meant.
    """
    choices = []
    for words in sorted({one.words.lower() for one in subjects}, key=len, reverse=True):
        triggers = {one.trigger for one in subjects if one.words.lower() == words and one.trigger}
        before = "".join(rf"(?:{re.escape(trigger)}\s+)?" for trigger in sorted(triggers))
        choices.append(f"{before}({re.escape(words)})")
    seen: dict[str, int] = {}

    def replaced(mention: re.Match) -> str:
        words = mention[mention.lastindex].lower()
        number = seen.setdefault(words, 0)
        seen[words] += 1
        return told(words, number, mention[0])

    return re.sub(rf"(?<!\w)(?:{'|'.join(choices)})(?!\w)", replaced, prompt, flags=re.IGNORECASE)


def subjects_of(words: Sequence[tuple[str, str]]) -> list[Subject]:
    """Subjects from (words, trigger) of each LoRA: those that share their words take one mention each, in order."""
    seen: dict[str, int] = {}
    result = []
    for text, trigger in words:
        shared = sum(text.lower() == other.lower() for other, _ in words) > 1
        number = seen.setdefault(text.lower(), 0)
        seen[text.lower()] += 1
        result.append(Subject(text, trigger, number if shared else None))
    return result


def subjects_in(plan: PassPlan) -> list[Subject]:
    """What each LoRA that is kept to a subject is about."""
    return subjects_of([(plan.loras[k].subject, plan.loras[k].trigger or "") for k in plan.subjects])


def mentions_of(tokens: Sequence[int], chunks: Sequence[Sequence[int]]) -> list[list[int]]:
    """The columns of the text embedding of each occurrence of a run of tokens.

    chunks: the prompt's token ids, up to 75 a chunk, without begin and end marks.
    """
    return [list(range(first := CHUNK * number + 1 + start, first + len(tokens)))
            for number, chunk in enumerate(chunks) for start in range(len(chunk) - len(tokens) + 1)
            if list(chunk[start:start + len(tokens)]) == list(tokens)]


def told_in(subjects: Sequence[Subject], tokens: Mapping[str, Sequence[int]],
            chunks: Sequence[Sequence[int]]) -> list[tuple[list[int], int | None]]:
    """The columns of every mention of a subject, in the prompt's order, and whose it is: of several with the same
    words one each, a further mention nobody's. Where words are part of longer ones, the longer are meant."""
    taken: dict[int, tuple[list[int], int | None]] = {}
    for words in sorted({subject.words.lower() for subject in subjects}, key=len, reverse=True):
        about = [k for k, subject in enumerate(subjects) if subject.words.lower() == words]
        used = {column for columns, _ in taken.values() for column in columns}
        mentions = [columns for columns in mentions_of(tokens[subjects[about[0]].words], chunks)
                    if not used.intersection(columns)]
        for number, columns in enumerate(mentions):
            whose = about[0] if len(about) == 1 else about[number] if number < len(about) else None
            taken[columns[0]] = columns, whose
    return [taken[first] for first in sorted(taken)]


@dataclass(frozen=True)
class Words:
    """Columns of the text in which each subject is told: in the prompt as it was given, and in the mixture's, with its
    trigger."""

    plain: tuple[tuple[int, ...], ...]
    mixed: tuple[tuple[int, ...], ...]
    _indices: dict[tuple, list[Tensor]] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

    def plain_means(self, maps: Tensor) -> Tensor:
        """Plain rows' maps (images, h, w, tokens) → (images, subjects, h, w): each subject's mean over its words."""
        return self._means(maps, self.plain)

    def mixed_means(self, maps: Tensor) -> Tensor:
        """The same of the mixture's rows."""
        return self._means(maps, self.mixed)

    def _means(self, maps: Tensor, subjects: tuple[tuple[int, ...], ...]) -> Tensor:
        key = subjects, maps.device
        if key not in self._indices:
            self._indices[key] = [sent(torch.tensor(columns), maps.device) for columns in subjects]
        return torch.stack([maps[..., columns].mean(-1) for columns in self._indices[key]], 1)


def words_of(plan: PassPlan, prompt: str, mixed: str, tokens: Callable[[str], Sequence[int]],
             chunks: Callable[[str], Sequence[Sequence[int]]]) -> Words:
    """Where a prompt's subjects are; mixed: the mixture's prompt; the two functions tokenize a few words, and a whole
    prompt."""
    subjects = subjects_in(plan)
    return find_words(subjects, {text: tokens(text) for one in subjects for text in (one.words, one.trigger)},
                      chunks(prompt), chunks(mixed), [f"loras[{k}].subject" for k in plan.subjects],
                      re.findall(r"[\w-]+", prompt))


def find_words(subjects: Sequence[Subject], tokens: Mapping[str, Sequence[int]], prompt: Sequence[Sequence[int]],
               mixed: Sequence[Sequence[int]], fields: Sequence[str], known: Sequence[str]) -> Words:
    """Where each subject is told in a prompt, and in the mixture's, which has the same subjects in the same order.

    tokens: of the subjects' and triggers' texts; prompt, mixed: token chunks; fields: of the recipe, per subject;
    known: the words of the prompt, for the error where a subject is not among them.
    """
    told = told_in(subjects, tokens, prompt)
    for number, (subject, field) in enumerate(zip(subjects, fields)):
        if number not in (whose for _, whose in told):
            times = f" {subject.mention + 1} times, once for each LoRA about it" if subject.mention else ""
            raise SciArtError(field, f"{shown(subject.words)} is not in the prompt{times}; "
                                     f"{did_you_mean(subject.words, known)}")
    plain: list[list[int]] = [[] for _ in subjects]
    mixture: list[list[int]] = [[] for _ in subjects]
    last = 0
    for columns, whose in told:
        if whose is None:
            run = [prompt[column // CHUNK][column % CHUNK - 1] for column in columns]
        else:
            run = [*tokens[subjects[whose].trigger], *tokens[subjects[whose].words]]
        found = next((mention for mention in mentions_of(run, mixed) if mention[0] > last), None)
        if found is None:
            raise SciArtError(fields[whose or 0], "with the triggers in it, the prompt tells of other subjects, or in "
                                                  "another order; use words that are no part of one another")
        last = found[-1]
        if whose is not None:
            plain[whose] += columns
            mixture[whose] += found
    return Words(tuple(map(tuple, plain)), tuple(map(tuple, mixture)))
