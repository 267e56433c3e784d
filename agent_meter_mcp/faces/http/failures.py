"""Whatever goes wrong becomes a problem: the ledger's errors, mistakes in a request, what nobody expected."""

from __future__ import annotations

import http
import logging
from typing import TYPE_CHECKING, Any, cast

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match

from agent_meter_mcp.core.errors import MeterError
from agent_meter_mcp.core.text import shown
from agent_meter_mcp.faces.wire.mistakes import mistakes, place
from agent_meter_mcp.faces.wire.problems import Refused, problem, problem_of

if TYPE_CHECKING:
    from fastapi import FastAPI, Request
    from pydantic_core import ErrorDetails
    from starlette.responses import Response
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_log = logging.getLogger(__name__)
NOTHING = "Nothing was changed."
METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE")
PATH_WIDTH = 100


def tell_failures(api: FastAPI) -> None:
    """All but what nobody expected: for that there is `UnexpectedFailures`."""
    api.add_exception_handler(Refused, _refused)
    api.add_exception_handler(MeterError, _of_meter)
    api.add_exception_handler(RequestValidationError, _of_validation)
    api.add_exception_handler(HTTPException, _of_http)


class UnexpectedFailures:
    """ASGI middleware: an exception is logged here, once, and its client learns that it happened."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            _log.exception("a request failed unexpectedly")
            if begun or scope["type"] != "http":
                raise
            detail = "the meter failed unexpectedly; its log says why"
            await problem(500, "Internal error", detail, code="internal_error")(scope, receive, send)


class Heads:
    """ASGI middleware: HEAD is answered with the status and headers of GET. What asks whether a server lives,
    such as `wget --spider`, asks so."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                # At once, so that a stream, which has no end, is told that its client has gone.
                await send({"type": "http.response.body", "body": b""})

        await self._app(as_get(scope), receive, without_body)


def as_get(scope: Scope) -> Scope:
    """The scope of a GET where it is that of a HEAD."""
    return {**scope, "method": "GET"} if scope.get("method") == "HEAD" else scope


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error.response


async def _of_meter(request: Request, error: Exception) -> Response:
    assert isinstance(error, MeterError)
    if not error.retryable and error.code.startswith("store_"):
        _log.error("%s", error)
    return problem_of(error)


async def _of_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = [_placed(cast("ErrorDetails", details)) for details in error.errors()]
    first = found[0]
    if first["type"] == "json_invalid":
        said, at = first.get("ctx", {}).get("error", "malformed"), place(first)
        detail = f"the body is not JSON: {said} at character {at}. {NOTHING}"
        return problem(400, "Bad request", detail, code="malformed")
    if not first["loc"]:
        return _of_whole_body(request, error.body)
    found = [details for details in found if details["loc"]]  # of a path that is wrong, the body is nothing
    detail = f"{mistakes(found, _known(request), 'this request')} {NOTHING}"
    return problem(422, "Invalid input", detail, code="invalid_input", field=place(first))


def _of_whole_body(request: Request, body: object) -> Response:
    """It is missing, no JSON by its Content-Type, or no object."""
    if isinstance(body, bytes):
        detail = f"Content-Type must be application/json. {NOTHING}"
        headers = {"Accept": "application/json"}
        return problem(415, "Unsupported media type", detail, headers=headers, code="unsupported_media_type")
    known = ", ".join(_known(request))
    return problem(
        422, "Invalid input", f"the body must be a JSON object with {known}. {NOTHING}", code="invalid_input"
    )


def _placed(details: ErrorDetails) -> ErrorDetails:
    """Without "body", "query" or "path" before the field."""
    return {**details, "loc": details["loc"][1:]}


def _known(request: Request) -> list[str]:
    """The fields that the route takes."""
    dependant: Any = getattr(request.scope.get("route"), "dependant", None)
    fields: list[Any] = [] if dependant is None else [*dependant.query_params, *dependant.body_params]
    models = [field.field_info.annotation for field in fields]
    return [
        name
        for model in models
        if isinstance(model, type) and issubclass(model, BaseModel)
        for name in model.model_fields
    ]


def _allowed(request: Request) -> list[str]:
    """The methods that there are at the request's path. Starlette names those of one route only."""
    routes: list[BaseRoute] = request.app.routes
    return [
        method
        for method in METHODS
        if any(
            route.matches(as_get({**request.scope, "method": method}))[0] is Match.FULL for route in routes
        )
    ]


async def _of_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = shown(request.url.path, width=PATH_WIDTH)
    title = http.HTTPStatus(error.status_code).phrase.capitalize()
    headers = dict(error.headers or {})
    if error.status_code == 404:
        detail, code = f"there is nothing at {path}: /openapi.json says what there is", "not_found"
    elif error.status_code == 405:
        headers = {"Allow": ", ".join(_allowed(request))}
        detail, code = (
            f"{request.method} is not possible at {path}: use {headers['Allow']}",
            "method_not_allowed",
        )
    elif error.status_code == 400:
        detail = f"the body cannot be read: it must be JSON in UTF-8, and not nested deeply. {NOTHING}"
        code = "malformed"
    else:
        detail, code = str(error.detail), title.lower().replace(" ", "_")
    return problem(error.status_code, title, detail, headers=headers, code=code)
