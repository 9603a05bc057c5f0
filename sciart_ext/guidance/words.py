"""Prompts of the rows, and where in them the words are whose attention is looked at."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
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

    def own_prompt(self, prompt: str) -> str:
        """The prompt with the trigger before the subject, where it is not there already."""
        mentions = re.finditer(rf"(?<!\w){re.escape(self.words)}(?!\w)", prompt, re.IGNORECASE)
        for number, mention in reversed(list(enumerate(mentions))):
            before = prompt[:mention.start()]
            if self.trigger and self.mention in (None, number) and not before.rstrip().endswith(self.trigger):
                prompt = f"{before}{self.trigger} {prompt[mention.start():]}"
        return prompt


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


@dataclass(frozen=True)
class Words:
    """The maps that guidance compares: (n,) rows they are in, columns of the text, and subjects they belong to."""

    rows: Tensor
    columns: Tensor
    subjects: Tensor

    def pick(self, maps: Tensor) -> Tensor:
        """maps (images, rows, h, w, tokens) → (images, n, h, w)."""
        return maps[:, self.rows, :, :, self.columns].movedim(0, 1)


def find_words(subjects: Sequence[Subject], tokens: Mapping[str, Sequence[int]],
               prompts: Sequence[Sequence[Sequence[int]]], fields: Sequence[str], known: Sequence[str]) -> Words:
    """Where each subject's words are in every row, and in its own row its trigger's too.

    tokens: of the subjects' and triggers' texts; prompts: token chunks of row 0 and of each subject's own row; fields:
    of the recipe, per subject; known: the words of the prompt, for the error where a subject is not among them.
    """
    entries = []
    for number, subject in enumerate(subjects):
        words = list(tokens[subject.words])
        for row, chunks in enumerate(prompts):
            mentions = mentions_of(words, chunks)
            if subject.mention is not None:
                mentions = mentions[subject.mention:subject.mention + 1]
            if not mentions:
                times = "" if subject.mention is None else f" {subject.mention + 1} times, once for each LoRA about it"
                raise SciArtError(fields[number], f"{subject.words!r} is not in the prompt{times}; "
                                                  f"{did_you_mean(subject.words, known)}")
            columns = [*itertools.chain(*mentions)]
            if row == number + 1 and subject.trigger:
                trigger = tokens[subject.trigger]
                columns += [column for mention in mentions_of([*trigger, *words], chunks)
                            for column in mention[:len(trigger)]]
            entries += [(row, column, number) for column in columns]
    return Words(*torch.tensor(entries, dtype=torch.long).unbind(1))
