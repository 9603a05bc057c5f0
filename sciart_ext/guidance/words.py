"""Prompts of the rows, and where in them the words are whose attention is looked at."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import SciArtError, did_you_mean
from ..plan import PassPlan

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
    ordered = sorted(subjects, key=lambda one: -len(one.words))
    told = "|".join(rf"(?:{re.escape(one.trigger)}\s+)?{re.escape(one.words)}" if one.trigger else re.escape(one.words)
                    for one in ordered)
    return re.sub(rf"(?<!\w)(?:{told})(?!\w)", lambda _: subject.full, prompt, flags=re.IGNORECASE)


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
    """What each LoRA with rows of its own is about."""
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
    """The maps that guidance compares: (n,) rows they are in, columns of the text, and subjects they belong to."""

    rows: Tensor
    columns: Tensor
    subjects: Tensor

    def pick(self, maps: Tensor) -> Tensor:
        """maps (images, rows, h, w, tokens) → (images, n, h, w)."""
        return maps[:, self.rows, :, :, self.columns].movedim(0, 1)

    def means(self, maps: Tensor) -> Tensor:
        """Base rows' maps (images, h, w, tokens) → (images, subjects, h, w): each subject's mean over its words."""
        base = self.rows == 0
        return torch.stack([maps[..., self.columns[base & (self.subjects == k)]].mean(-1)
                            for k in range(int(self.subjects.max()) + 1)], 1)


def words_of(plan: PassPlan, prompt: str, tokens: Callable[[str], Sequence[int]],
             chunks: Callable[[str], Sequence[Sequence[int]]]) -> Words:
    """Where a prompt's subjects are in every row; the two functions tokenize a few words, and a whole prompt."""
    subjects = subjects_in(plan)
    prompts = [prompt, *(own_prompt(subject, subjects, prompt) for subject in subjects)]
    return find_words(subjects, {text: tokens(text) for one in subjects for text in (one.words, one.trigger)},
                      [chunks(text) for text in prompts], [f"loras[{k}].subject" for k in plan.subjects],
                      re.findall(r"[\w-]+", prompt))


def find_words(subjects: Sequence[Subject], tokens: Mapping[str, Sequence[int]],
               prompts: Sequence[Sequence[Sequence[int]]], fields: Sequence[str], known: Sequence[str]) -> Words:
    """Where each subject is told in the base row, and in its own row at the same place, with its trigger.

    tokens: of the subjects' and triggers' texts; prompts: token chunks of row 0 and of each subject's own row; fields:
    of the recipe, per subject; known: the words of the prompt, for the error where a subject is not among them.
    """
    told = told_in(subjects, tokens, prompts[0])
    entries = [(0, column, whose) for columns, whose in told if whose is not None for column in columns]
    for number, (subject, field) in enumerate(zip(subjects, fields)):
        places = [place for place, (_, whose) in enumerate(told) if whose == number]
        if not places:
            times = f" {subject.mention + 1} times, once for each LoRA about it" if subject.mention else ""
            raise SciArtError(field, f"{subject.words!r} is not in the prompt{times}; "
                                     f"{did_you_mean(subject.words, known)}")
        own = mentions_of([*tokens[subject.trigger], *tokens[subject.words]], prompts[number + 1])
        if len(own) != len(told):
            raise SciArtError(field, f"the prompt tells of {len(told)} subjects, but with {subject.full!r} in their "
                                     f"places of {len(own)}; use words that are no part of one another")
        entries += [(number + 1, column, number) for place in places for column in own[place]]
    return Words(*torch.tensor(entries, dtype=torch.long).unbind(1))
