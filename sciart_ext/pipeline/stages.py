"""What a pipeline has made, and how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from PIL import Image

from .settings import Pipeline


@dataclass(frozen=True)
class Stage:
    """A picture that was made: name: txt2img, img2img, upscale."""

    name: str
    picture: Image.Image
    infotext: str


@dataclass(frozen=True)
class Made:
    """cancelled: before its end; stages: in their order, the last one's picture is the result."""

    stages: list[Stage]
    pipeline: Pipeline
    notes: list[str] = field(default_factory=list)
    cancelled: bool = False


@dataclass
class Progress:
    """What is being made, for whoever waits. stop(): whether it was cancelled while the host made nothing."""

    stop: Callable[[], bool] = lambda: False
    name: str = ""
    number: int = 0
    """of the stage, from 1"""
    stages: int = 1
