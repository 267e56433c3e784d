"""Whether the meter is alive, whether it can be used, and its figures for Prometheus."""

from __future__ import annotations

import logging
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from agent_meter_mcp.core.errors import MeterError
from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.faces.wire.problems import problem

from .answers import answer, problems
from .asking import Asked
from .metrics import exposition
from .parameters import NoParameters

_log = logging.getLogger(__name__)
router = APIRouter(tags=["health"])
EXPOSITIONS = ("text/plain", "application/openmetrics-text")
_ANYBODY: dict[str, Any] = {"security": []}
_READINESS = Caller("viewer", "readiness")
_EXPOSITION: dict[int | str, dict[str, Any]] = {
    200: {"content": {kind: {"schema": {"type": "string"}} for kind in EXPOSITIONS}}
}


class Health(BaseModel):
    status: str


@router.get("/healthz", response_model=Health, openapi_extra=_ANYBODY)
async def is_alive(query: Annotated[NoParameters, Query()]) -> Response:
    """The process answers."""
    return answer(Health(status="ok"))


@router.get("/readyz", response_model=Health, responses=problems(503), openapi_extra=_ANYBODY)
async def is_ready(request: Request, query: Annotated[NoParameters, Query()]) -> Response:
    """The ledger can be read."""
    try:
        await request.app.state.ledger.switches(_READINESS)
    except MeterError as error:
        _log.warning("not ready: %s", error)
        headers, detail = {"Retry-After": "1"}, "the ledger cannot be read now; the log says why"
        return problem(503, "Not ready", detail, headers=headers, code=error.code)
    return answer(Health(status="ready"))


@router.get("/metrics", response_class=Response, responses=_EXPOSITION)
async def get_metrics(call: Asked, request: Request, query: Annotated[NoParameters, Query()]) -> Response:
    """Totals, limits and answers for Prometheus. For whoever may read; an agent sees its own."""
    accepted = request.headers.get("accept", "")
    text, kind = await exposition(request.app.state.metrics, call.ledger, call.caller, accepted)
    return Response(text, headers={"Content-Type": kind})
