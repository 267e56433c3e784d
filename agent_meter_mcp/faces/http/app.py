"""The application: the routes under /v1 and beside them, over one ledger. It knows who asks, not how that was
found out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

import agent_meter_mcp

from . import budgets, control, health, reading, stream
from .answers import EVERYWHERE, PROBLEM, problems
from .bodies import BoundedBodies
from .failures import UnexpectedFailures, tell_failures
from .metrics import Counted, Metrics

if TYPE_CHECKING:
    from agent_meter_mcp.ledger import Ledger

DESCRIPTION = """\
Exact budgets, usage metering and a kill switch for AI agents.

Every request but `/healthz` and `/readyz` needs a key, `Authorization: Bearer <key>`, unless the meter serves
its own machine only and has no keys. Times are ISO 8601 with an offset (in a query, write its "+" as `%2B`);
costs are US dollars. Bodies are JSON, at most 4 MiB, by choice packed by gzip. A field or parameter that is
not known is an error that names it. Every error is a problem (RFC 9457), with a stable `code`."""
ROUTERS = (
    reading.router,
    control.router,
    budgets.router,
    stream.router,
    health.router,
)
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
            "items": {"type": "string"},
            "description": "for `quota_exceeded`: the ids of the limits that say no",
        },
    },
    "required": ["type", "title", "status", "detail", "code"],
}


def build_api(ledger: Ledger, *, timezone: str = "UTC", heartbeat_s: float = stream.HEARTBEAT_S) -> FastAPI:
    """An application on an open ledger. `timezone` is where a report's day begins if it does not say;
    a stream on which nothing happens says so every `heartbeat_s` seconds.

    Who makes a request is expected in `scope[CALLER]`.
    """
    api = FastAPI(
        title="agent-meter",
        version=agent_meter_mcp.__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        responses=problems(*EVERYWHERE),
        redirect_slashes=False,
    )
    api.state.ledger = ledger
    api.state.timezone = timezone
    api.state.heartbeat_s = heartbeat_s
    api.state.metrics = Metrics()
    for router in ROUTERS:
        api.include_router(router)
    tell_failures(api)
    # The last one added is the outermost.
    api.add_middleware(BoundedBodies)
    api.add_middleware(UnexpectedFailures)
    api.add_middleware(Counted, metrics=api.state.metrics)
    api.openapi = lambda: _document(api)
    return api


def _document(api: FastAPI) -> dict[str, Any]:
    """The OpenAPI document. It does not change while the process lives."""
    if api.openapi_schema is None:
        made = get_openapi(
            title=api.title, version=api.version, description=api.description, routes=api.routes
        )
        parts = made.setdefault("components", {})
        parts.setdefault("schemas", {})[PROBLEM] = _PROBLEM
        parts["securitySchemes"] = {"key": _KEY}
        made["security"] = [{"key": []}]
        api.openapi_schema = made
    return api.openapi_schema
