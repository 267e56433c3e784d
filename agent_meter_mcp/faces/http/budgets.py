"""Routes that ask for budget: check, reserve, settle."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from agent_meter_mcp.faces.wire import records
from agent_meter_mcp.faces.wire import results as give
from agent_meter_mcp.faces.wire.settling import settled

from . import parameters as take
from .answers import answer, problems, told
from .asking import Asked
from .ratelimit import limit_headers, refusal

HOLDS_MAX = 1000
_TEXT = {"schema": {"type": "string"}}
_HEADERS = {
    "RateLimit": {"description": "What is left of the tightest limits", **_TEXT},
    "RateLimit-Policy": {"description": "The tightest limits", **_TEXT},
}
_DENIED: dict[int | str, dict[str, Any]] = problems(429)
_DENIED[429]["headers"] = {**_HEADERS, "Retry-After": {"schema": {"type": "integer", "minimum": 1}}}
router = APIRouter(prefix="/v1", tags=["budgets"])


@router.post("/check", response_model=told(give.Decided), responses={200: {"headers": _HEADERS}})
async def check_budget(call: Asked, body: take.CheckBudget) -> Response:
    """Ask if a step fits the budget and what is left. Holds nothing: when others share the budget, reserve.
    Always 200; `allowed` says it."""
    who = body.who(call.caller, body.service)
    decision = await call.ledger.check(call.caller, who, body.usage())
    shut = await call.ledger.shut(call.caller, who) if decision.allowed else ()
    return answer(
        give.Decided.of(decision, call.ledger.now_us(), shut), headers=limit_headers(decision.limits)
    )


@router.post(
    "/reservations",
    status_code=201,
    response_model=told(give.BudgetReserved),
    responses={
        200: {"model": told(give.BudgetReserved), "description": "The same id again: the hold it was given"},
        201: {"headers": _HEADERS},
        **_DENIED,
        **problems(409, 507),
    },
)
async def reserve_budget(call: Asked, body: take.ReserveBudget) -> Response:
    """Hold an estimate before expensive work, or learn why not (429, or 403 under a kill switch). Then settle
    with what was used."""
    reserved = await call.ledger.reserve(call.caller, body.report(call.caller), body.ttl_us())
    result = give.BudgetReserved.of_reserved(reserved, call.ledger.now_us())
    if reserved.status == "denied":
        return refusal(reserved.decision, result)
    status = 200 if reserved.status == "duplicate" else 201
    return answer(result, status, limit_headers(reserved.decision.limits))


@router.get("/reservations", response_model=told(records.Holds))
async def list_reservations(call: Asked, query: Annotated[take.NoParameters, Query()]) -> Response:
    """The holds that are open now, oldest first."""
    return answer(records.Holds.of(await call.ledger.reservations(call.caller), HOLDS_MAX))


@router.post(
    "/reservations/{reservation_id}/settle",
    response_model=told(give.ReservationSettled),
    responses=problems(404, 409, 507),
)
async def settle_reservation(call: Asked, reservation_id: str, body: take.Settlement) -> Response:
    """End a hold: settle with the actual amounts (none: as estimated), release if nothing was used, or extend
    it."""
    return answer(await settled(call, body.of(reservation_id)))
