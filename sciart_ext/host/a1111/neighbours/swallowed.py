"""Errors of scripts and upscalers that the host prints and goes on without: a picture made so is not what was asked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from modules import errors, shared

from ....errors import SciArtError
from .others import Others


@contextmanager
def nothing_swallowed(field: str, accepted: str = "") -> Iterator[None]:
    """While it lasts such an error stops what is being made, and is raised in the end, as of this field, with what is
    accepted instead."""
    reported, told, named = errors.report, [], Others().named_in

    def report(message: str, *, exc_info: bool = False) -> None:
        reason = sys.exc_info()[1] if exc_info else None
        told.append(named(message) + (f": {reason or type(reason).__name__}" if reason is not None else ""))
        shared.state.interrupt()
        reported(message, exc_info=exc_info)

    def refused() -> SciArtError:
        return SciArtError(field, f"failed: {told[0]}" + (f"; {accepted}" if accepted else ""))

    errors.report = report
    try:
        yield
    except Exception as error:
        if told:  # what came of going on
            raise refused() from error
        raise
    finally:
        errors.report = reported
    if told:
        raise refused()
