"""A route in a WebUI's server: its work in threads of its own, until the client leaves.

The server goes on meanwhile: nothing long is done in its event loop, nor in the threads in which the WebUI answers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.to_thread
from fastapi import FastAPI, Request, Response

from ...errors import SciArtError
from ...recipe.schema import Strict, parsed
from .admission import body_of, check_origin, check_said_json, json_of
from .answers import Answer
from .bodies import inlined
from .errors import as_request_error

THREADS = 8
"""of long work, and as many of short"""


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
            check_origin(request.headers, is_trusted)
        if route.method == "POST":
            check_said_json(request.headers)
        body = await body_of(request, route.most_bytes)
        left = threading.Event()

        def work() -> Response | Exception:
            try:
                parameters = {**request.path_params, **_query(request, route)}
                return Answer(route.work(Asking(_read(body, route), parameters, left.is_set)))
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


def _read(body: bytes, route: Route) -> Strict | None:
    return None if route.body is None else parsed(route.body, json_of(body))


def _query(request: Request, route: Route) -> dict[str, str]:
    for name in request.query_params:
        if name not in route.query:
            raise SciArtError(name, f"unknown; accepted: {', '.join(route.query) or 'none'}")
    return dict(request.query_params)


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
