"""The OpenAPI document. FastAPI makes it from the routes; what it cannot know is put in here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from anyio import to_thread
from fastapi import Response
from fastapi.openapi.utils import get_openapi

from .answers import JSON, PROBLEM

if TYPE_CHECKING:
    from fastapi import FastAPI

PATH = "/openapi.json"
DESCRIPTION = """\
Exact budgets, usage metering and a kill switch for AI agents.

Every request but `/healthz` and `/readyz` needs a key, `Authorization: Bearer <key>`, unless the meter serves
its own machine only and has no keys. Times are ISO 8601 with an offset;
costs are US dollars. Bodies are JSON, at most 4 MiB, by choice packed by gzip. A field or parameter that is
not known is an error that names it. Every error is a problem (RFC 9457), with a stable `code`."""
_KEY = {"type": "http", "scheme": "bearer", "description": "`agent-meter keys create` makes one"}
_PROBLEM: dict[str, Any] = {
    "type": "object",
    "title": PROBLEM,
    "description": "What went wrong (RFC 9457). Further members depend on `code`.",
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "what is wrong, where, and how to put it right"},
        "code": {"type": "string", "description": "the stable name of the error"},
        "field": {"type": "string", "description": "the field that is wrong"},
        "violated-policies": {
            "type": "array",
            "items": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
            "description": "over a limit: the limits that say no, each by its id as `name`",
        },
    },
    "required": ["type", "title", "status", "detail", "code"],
}


def serve_document(api: FastAPI) -> None:
    """At `/openapi.json`. It does not change while the process lives."""
    text: list[bytes] = []

    async def get_document() -> Response:
        if not text:  # in a thread: it takes most of a second
            text.append(await to_thread.run_sync(lambda: json.dumps(api.openapi()).encode()))
        return Response(text[0], media_type=JSON)

    api.openapi = lambda: _document(api)
    api.add_api_route(PATH, get_document, include_in_schema=False)


def _document(api: FastAPI) -> dict[str, Any]:
    if api.openapi_schema is None:
        made = get_openapi(
            title=api.title, version=api.version, description=api.description, routes=api.routes
        )
        parts = made.setdefault("components", {})
        parts.setdefault("schemas", {})[PROBLEM] = _PROBLEM
        parts["securitySchemes"] = {"key": _KEY}
        made["security"] = [{"key": []}]
        for operation in [operation for path in made["paths"].values() for operation in path.values()]:
            operation["description"] = " ".join(operation.get("description", "").split())
            for parameter in operation.get("parameters", ()):
                parameter["schema"] = _without_null(parameter["schema"])
        opened: dict[str, Any] = _with_open_objects(made)
        api.openapi_schema = opened
    return api.openapi_schema


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that may be left out; in a query there is no null."""
    options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    if len(options) != 1:
        return schema
    return {**{name: told for name, told in schema.items() if name != "anyOf"}, **options[0]}


def _with_open_objects(part: Any) -> Any:
    """The same, where an object of which nothing is said takes anything. That is so anyway, but generators of
    clients make one of it that takes nothing; the tools' schemas, which this comes from, have to be short."""
    if isinstance(part, list):
        return [_with_open_objects(entry) for entry in cast("list[Any]", part)]
    if not isinstance(part, dict):
        return part
    inner = {name: _with_open_objects(told) for name, told in cast("dict[str, Any]", part).items()}
    return {**inner, "additionalProperties": True} if inner == {"type": "object"} else inner
