"""LoRAs that a prompt names, `<lora:name:weight>`, as the WebUI reads them; and its comments. No torch is needed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from ...errors import SciArtError, did_you_mean, shown
from ...lora.folder import find_lora
from ...recipe.recipe import MAX_LORAS
from ...recipe.schedule import MAX_WEIGHT, check_number

KINDS = ("lora", "lyco")
"""names of the same thing"""
FIELDS = ("te", "unet", "dyn")
"""what may follow the name, in this order or as `te=0.5`"""


class PromptLora(NamedTuple):
    """One `<lora:name:te:unet:dyn>`, as it stands in the prompt: weights of the text encoder and of the UNet, and the
    rank that its layers are cut to; None: their own."""

    tag: str
    name: str
    te_weight: float
    weight: float
    rank: int | None


def prompt_loras(prompt: str) -> tuple[str, list[PromptLora]]:
    """The prompt without comments and without what names LoRAs, and those LoRAs. Raises `SciArtError` ("prompt").

    The negative prompt names none: what looks like one is text there.
    """
    found = []

    def taken(tag: re.Match) -> str:
        found.append(_read(tag[0], tag[1], tag[2].split(":")))
        return ""

    text = _TAG.sub(taken, strip_comments(prompt))
    if len(found) > MAX_LORAS:
        raise SciArtError("prompt", f"{len(found)} LoRAs; at most {MAX_LORAS} are accepted")
    for number, one in enumerate(found):
        if one.name in (other.name for other in found[:number]):
            raise SciArtError("prompt", f"{shown(one.tag)}: this LoRA is there twice; accepted: each once")
    return text, found


def find_prompt_loras(prompt: str, folder: Path | None) -> list[tuple[PromptLora, Path]]:
    """The LoRAs that a prompt names, with their files, which are not read. Raises `SciArtError`."""
    return [(one, _file(one, folder)) for one in prompt_loras(prompt)[1]]


def strip_comments(text: str) -> str:
    """The text without `#` and what follows on the same line."""
    return re.sub(r"#[^\n]*(\n|$)", "\n", re.sub(r"(^|\n)#[^\n]*(\n|$)", "\n", text))


def notes_on_negative(negative_prompt: str) -> list[str]:
    """What of the negative prompt is read otherwise than it may seem."""
    tag = next((tag for tag in _TAG.finditer(strip_comments(negative_prompt)) if tag[1].lower() in KINDS), None)
    return [f"{shown(tag[0])} is in the negative prompt, where it is read as words"] if tag else []


_TAG = re.compile(r"<(\w+):([^>]+)>")


def _file(one: PromptLora, folder: Path | None) -> Path:
    try:
        return find_lora(one.name, folder)
    except SciArtError as error:
        raise SciArtError("prompt", f"{shown(one.tag)}: {error.message}") from None


def _read(tag: str, kind: str, items: list[str]) -> PromptLora:
    if kind not in KINDS:
        if kind.lower().startswith("hyper"):
            raise SciArtError("prompt", f"{shown(tag)}: hypernetworks act in the WebUI alone; accepted: "
                                        "<lora:name:weight>")
        raise SciArtError("prompt", f"{shown(tag)}: unknown {shown(kind)}; {did_you_mean(kind, KINDS)}")
    name, *others = items
    if not name.strip() or len(name) > 256:
        raise SciArtError("prompt", f"{shown(tag)}: no name; accepted: <lora:name:weight>")
    plain = [item for item in others if "=" not in item]
    if len(plain) > len(FIELDS):
        raise SciArtError("prompt", f"{shown(tag)}: {len(plain)} numbers; accepted: <lora:name:te:unet:dyn>")
    given = dict(zip(FIELDS, plain))
    for field, _, value in (item.partition("=") for item in others if "=" in item):
        if field not in FIELDS:
            raise SciArtError("prompt", f"{shown(tag)}: unknown {shown(field)}; {did_you_mean(field, FIELDS)}")
        given[field] = value
    te_weight = _weight(tag, given.get("te", "1"))
    return PromptLora(tag, name, te_weight, _weight(tag, given["unet"]) if "unet" in given else te_weight,
                      _rank(tag, given["dyn"]) if "dyn" in given else None)


def _weight(tag: str, text: str) -> float:
    try:
        return check_number(float(text), "", -MAX_WEIGHT, MAX_WEIGHT)
    except SciArtError as error:
        raise SciArtError("prompt", f"{shown(tag)}: {error.message}") from None
    except ValueError:
        raise SciArtError("prompt", f"{shown(tag)}: {shown(text)} is no number; accepted: a number from "
                                    f"{-MAX_WEIGHT:g} to {MAX_WEIGHT:g}") from None


def _rank(tag: str, text: str) -> int:
    try:
        rank = int(text)
    except ValueError:
        rank = 0
    if rank < 1:
        raise SciArtError("prompt", f"{shown(tag)}: dyn is {shown(text)}; accepted: a whole number, 1 or more")
    return rank
