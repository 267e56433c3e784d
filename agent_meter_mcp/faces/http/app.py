"""The application: the routes under /v1 and beside them, over one ledger. It knows who asks, not how that was
found out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI

import agent_meter_mcp
from agent_meter_mcp.secrets import SecretsFile
from agent_meter_mcp.settings import load_settings

from . import budgets, control, health, hooks, otlp, reading, stream, upstream
from .answers import EVERYWHERE, problems
from .bodies import BoundedBodies
from .document import DESCRIPTION, serve_document
from .failures import Heads, UnexpectedFailures, tell_failures
from .metrics import Counted, Metrics

if TYPE_CHECKING:
    from agent_meter_mcp.ledger import Ledger

ROUTERS = (
    reading.router,
    control.router,
    budgets.router,
    hooks.router,
    stream.router,
    upstream.router,
    otlp.router,
    health.router,
)


def build_api(
    ledger: Ledger,
    *,
    timezone: str = "UTC",
    secrets: SecretsFile | None = None,
) -> FastAPI:
    """An application on an open ledger.

    `timezone` is where a report's day begins if it does not say; `secrets` are the operator's, by default
    from the file that the environment names.

    Who makes a request is expected in `scope[CALLER]`.
    """
    api = FastAPI(
        title="agent-meter",
        version=agent_meter_mcp.__version__,
        description=DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        responses=problems(*EVERYWHERE),
        redirect_slashes=False,
    )
    api.state.ledger = ledger
    api.state.timezone = timezone
    api.state.heartbeat_s = stream.HEARTBEAT_S
    api.state.streams = set()
    api.state.metrics = Metrics()
    api.state.secrets = secrets or SecretsFile(load_settings().secrets)
    for router in ROUTERS:
        api.include_router(router)
    tell_failures(api)
    # The last one added is the outermost.
    api.add_middleware(BoundedBodies)
    api.add_middleware(Heads)
    api.add_middleware(UnexpectedFailures)
    api.add_middleware(Counted, metrics=api.state.metrics)
    serve_document(api)
    return api
