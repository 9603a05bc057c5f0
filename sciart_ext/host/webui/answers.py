"""Answers of our routes: JSON, written and handed over in parts, so that the server goes on with others in between."""

from __future__ import annotations

import json
from collections.abc import Iterator

from fastapi import Response

LIST_AT_ONCE = 1000
"""entries of a long list that are written at once"""
CHUNK = 256 << 10
"""bytes of an answer that are handed over, and perhaps compressed, at once"""


class Answer(Response):
    """JSON data, rendered where it is made, and handed over in parts: the WebUI compresses them one by one."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        # of a file's name that is no Unicode what is left over is escaped as JSON has it
        return b"".join(part.encode("utf-8", "backslashreplace") for part in json_parts(content))

    async def __call__(self, scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for start in range(0, max(len(self.body), 1), CHUNK):
            await send({"type": "http.response.body", "body": self.body[start:start + CHUNK],
                        "more_body": start + CHUNK < len(self.body)})


def json_parts(value: object) -> Iterator[str]:
    """A JSON text in parts: while Python writes one, nothing else of the process runs."""
    if isinstance(value, dict):
        for number, (key, inner) in enumerate(value.items()):
            yield f"{',' if number else '{'}{json.dumps(str(key), ensure_ascii=False)}:"
            yield from json_parts(inner)
        yield "}" if value else "{}"
    elif isinstance(value, (list, tuple)) and len(value) > LIST_AT_ONCE:
        for start in range(0, len(value), LIST_AT_ONCE):
            yield ("," if start else "[") + _text(value[start:start + LIST_AT_ONCE])[1:-1]
        yield "]"
    elif isinstance(value, (list, tuple)) and any(isinstance(one, (dict, list, tuple)) for one in value):
        for number, one in enumerate(value):
            yield "," if number else "["
            yield from json_parts(one)
        yield "]"
    else:
        yield _text(value)


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
