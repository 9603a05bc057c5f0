"""A route in a WebUI's server: who may ask and how much, in threads of its own, until the client leaves.

The server goes on meanwhile: nothing long is done in its event loop, nor in the threads in which the WebUI answers.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
from fastapi import FastAPI, Request, Response

from ...errors import SciArtError
from ...json_text import MOST_VALUES, check_json, read_json
from ...recipe.schema import Strict, parsed
from .bodies import inlined
from .errors import SciArtRequestError, as_request_error

THREADS = 8
"""of long work, and as many of short"""
LIST_AT_ONCE = 1000
"""entries of a long list that are written at once"""
CHUNK = 256 << 10
"""bytes of an answer that are handed over, and perhaps compressed, at once"""
DISCARDED = 8
"""a body of up to so many times what is accepted is read to its end, so that the client hears why it is refused"""


class Left(Exception):
    """Whoever asked has gone."""


@dataclass(frozen=True)
class Asking:
    """One request. body: of the route's model, or None; parameters: of path and query; stop(): whether the client has
    left."""

    body: Any = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    stop: Callable[[], bool] = lambda: False

    def check_wanted(self, *_: object) -> None:
        """Raises `Left` where nobody waits for the answer any more. It can be given as what is told of progress."""
        if self.stop():
            raise Left


@dataclass(frozen=True)
class Route:
    """work: gives the answer as JSON data; raises `SciArtError`. most_bytes: of a body. long: it takes its time."""

    method: str
    path: str
    work: Callable[[Asking], object]
    body: type[Strict] | None = None
    most_bytes: int = 1 << 20
    long: bool = False
    query: tuple[str, ...] = ()


def add_routes(app: FastAPI, prefix: str, routes: list[Route], dependencies: list,
               is_trusted: Callable[[str], bool] = lambda origin: False) -> None:
    """Adds the routes, their fields also to the page of the API. is_trusted: whether pages of this origin may ask."""
    threads = {True: _Threads(), False: _Threads()}
    for route in routes:
        app.add_api_route(
            prefix + route.path, _endpoint(route, is_trusted, threads[route.long]), methods=[route.method],
            dependencies=dependencies, tags=["SciArt"], name=f"sciart_{route.work.__name__}",
            description=route.work.__doc__, openapi_extra=_documented(route))
    _add_schemas(app, [route.body for route in routes if route.body is not None])


class _Threads:
    """How many at once; made when the server's event loop runs."""

    def __init__(self) -> None:
        self._limiter: anyio.CapacityLimiter | None = None

    def limiter(self) -> anyio.CapacityLimiter:
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(THREADS)
        return self._limiter


def _endpoint(route: Route, is_trusted: Callable[[str], bool], threads: _Threads) -> Callable:
    async def answer(request: Request) -> Response:
        if route.method != "GET" or request.query_params:
            _check_origin(request.headers, is_trusted)
        if route.method == "POST":
            _check_said_json(request.headers)
        body = await _body_of(request, route.most_bytes)
        left = threading.Event()

        def work() -> Response | Exception:
            try:
                parameters = {**request.path_params, **_query(request, route)}
                return _Answer(route.work(Asking(_read(body, route), parameters, left.is_set)))
            except SciArtError as error:
                return as_request_error(error)
            except Left:
                return Response(status_code=204)  # nobody reads it
            except Exception as error:  # as the WebUI tells of its own
                return error

        done: Response | Exception = Response()
        async with anyio.create_task_group() as group:
            group.start_soon(_wait_for_leaving, request, left)
            done = await anyio.to_thread.run_sync(work, limiter=threads.limiter())
            group.cancel_scope.cancel()
        if isinstance(done, Exception):
            raise done
        return done

    return answer


async def _wait_for_leaving(request: Request, left: threading.Event) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    left.set()


def _check_origin(headers: Mapping[str, str], is_trusted: Callable[[str], bool]) -> None:
    """Raises an error of status 403 for a page of another site, which could ask in the name of whoever looks at it."""
    origin = headers.get("origin")
    if origin is None:
        foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
    else:
        own = [one.strip() for name in ("host", "x-forwarded-host") for one in headers.get(name, "").split(",")]
        asked_by = urlsplit(origin).netloc  # empty of a page that hides where it is from
        foreign = not (asked_by and asked_by in own) and not is_trusted(origin)
    if foreign:
        raise SciArtRequestError("origin", f"a page of {origin or 'another site'} may not ask this; the WebUI's option "
                                           "--cors-allow-origins can allow it", 403)


def _check_said_json(headers: Mapping[str, str]) -> None:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise SciArtRequestError("content-type", "expected application/json", 415)


async def _body_of(request: Request, most: int) -> bytes:
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


def _read(body: bytes, route: Route) -> Strict | None:
    if route.body is None:
        return None
    if body.count(b",") > MOST_VALUES:
        raise SciArtError("body", f"more than {MOST_VALUES} values")
    try:
        data = read_json(body)
    except ValueError as error:
        raise SciArtError("body", f"not valid JSON: {error}") from None
    check_json(data, "body")
    return parsed(route.body, data)


def _query(request: Request, route: Route) -> dict[str, str]:
    for name in request.query_params:
        if name not in route.query:
            raise SciArtError(name, f"unknown; accepted: {', '.join(route.query) or 'none'}")
    return dict(request.query_params)


class _Answer(Response):
    """JSON data, rendered where it is made, and handed over in parts: the WebUI compresses them one by one."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        # of a file's name that is no Unicode what is left over is escaped as JSON has it
        return b"".join(part.encode("utf-8", "backslashreplace") for part in _written(content))

    async def __call__(self, scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for start in range(0, max(len(self.body), 1), CHUNK):
            await send({"type": "http.response.body", "body": self.body[start:start + CHUNK],
                        "more_body": start + CHUNK < len(self.body)})


def _written(value: object) -> Iterator[str]:
    """A JSON text in parts: while Python writes one, nothing else of the process runs."""
    if isinstance(value, dict):
        for number, (key, inner) in enumerate(value.items()):
            yield f"{',' if number else '{'}{json.dumps(str(key), ensure_ascii=False)}:"
            yield from _written(inner)
        yield "}" if value else "{}"
    elif isinstance(value, (list, tuple)) and len(value) > LIST_AT_ONCE:
        for start in range(0, len(value), LIST_AT_ONCE):
            yield ("," if start else "[") + _text(value[start:start + LIST_AT_ONCE])[1:-1]
        yield "]"
    elif isinstance(value, (list, tuple)) and any(isinstance(one, (dict, list, tuple)) for one in value):
        for number, one in enumerate(value):
            yield "," if number else "["
            yield from _written(one)
        yield "]"
    else:
        yield _text(value)


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _documented(route: Route) -> dict:
    told: dict = {}
    names = [name[1:-1] for name in route.path.split("/") if name.startswith("{")]
    if names or route.query:
        told["parameters"] = [{"name": name, "in": "path" if name in names else "query", "required": name in names,
                               "schema": {"type": "string"}} for name in (*names, *route.query)]
    if route.body is not None:
        schema = {"$ref": f"#/components/schemas/{route.body.__name__}"}
        told["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return told


def _add_schemas(app: FastAPI, bodies: list[type[Strict]]) -> None:
    original = app.openapi

    def openapi() -> dict:
        page = original()
        kept = page.setdefault("components", {}).setdefault("schemas", {})
        kept.update({body.__name__: inlined(body.schema()) for body in bodies if body.__name__ not in kept})
        return page

    app.openapi = openapi
