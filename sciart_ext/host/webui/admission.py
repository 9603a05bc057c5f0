"""Who may ask our routes, and how much: what is looked at before a request is worked on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fastapi import Request

from ...errors import SciArtError, quoted
from ...json_text import MOST_VALUES, check_json, read_json
from .errors import SciArtRequestError

DISCARDED = 8
"""a body of up to so many times what is accepted is read to its end, so that the client hears why it is refused"""


def check_origin(headers: Mapping[str, str], is_trusted: Callable[[str], bool]) -> None:
    """Raises an error of status 403 for a page of another site, which could ask in the name of whoever looks at it."""
    origin = headers.get("origin")
    if origin is None:
        foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
    else:
        own = [one.strip() for name in ("host", "x-forwarded-host") for one in headers.get(name, "").split(",")]
        asked_by = origin.partition("://")[2]  # empty of a page that hides where it is from
        foreign = not (asked_by and asked_by in own) and not is_trusted(origin)
    if foreign:
        raise SciArtRequestError("origin", f"a page of {quoted(origin or 'another site')} may not ask this; the "
                                           "WebUI's option --cors-allow-origins can allow it", 403)


def check_said_json(headers: Mapping[str, str]) -> None:
    """Raises an error of status 415 where a body is not said to be JSON, as forms of other sites cannot say."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise SciArtRequestError("content-type", "expected application/json", 415)


async def body_of(request: Request, most: int) -> bytes:
    """Raises an error of status 413 for what is larger than `most` bytes, of which no more is kept."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size <= most:
            parts.append(part)
        elif size > DISCARDED * most:
            break
    if size > most:
        raise SciArtRequestError("body", f"more than {most} bytes; at most so many are accepted", 413)
    return b"".join(parts)


def json_of(body: bytes) -> object:
    """Raises `SciArtError` for what is no JSON, or too much of it."""
    if body.count(b",") > MOST_VALUES:
        raise SciArtError("body", f"more than {MOST_VALUES} values")
    try:
        data = read_json(body)
    except ValueError as error:
        raise SciArtError("body", f"not valid JSON: {error}") from None
    check_json(data, "body")
    return data
