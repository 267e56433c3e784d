"""Routes that read: status, summary, events, agents, alerts, the audit log."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response

from agent_meter_mcp.faces.wire import records
from agent_meter_mcp.faces.wire import reports as give

from . import parameters as take
from .answers import LINKED, answer, next_page, told
from .asking import Asked

router = APIRouter(prefix="/v1", tags=["reading"])


@router.get("/status", response_model=told(records.Status))
async def get_status(call: Asked, query: Annotated[take.NoParameters, Query()]) -> Response:
    """For whoever watches: the meter's time, whether anything was written since the last look, who is asking,
    and what is stopped."""
    ledger, caller = call.ledger, call.caller
    changes = await ledger.changed(caller)
    switches = await ledger.switches(caller)
    return answer(records.Status.of(ledger.now_us(), changes, caller.role, switches))


@router.get("/summary", response_model=told(give.UsageSummary))
async def get_summary(call: Asked, query: Annotated[take.SummaryParameters, Query()]) -> Response:
    """Total and grouped usage over a time range."""
    # In a thread, because a time zone is a file.
    asked = await to_thread.run_sync(query.query, call.ledger.now_us(), call.timezone)
    return answer(give.UsageSummary.of_query(asked, await call.ledger.summary(call.caller, asked)))


@router.get("/usage", response_model=told(give.UsageEvents), responses=LINKED)
async def list_usage(
    call: Asked, request: Request, query: Annotated[take.UsageParameters, Query()]
) -> Response:
    """The single usage events, newest first, refused ones too. Follow `Link` (or pass `next_cursor` as
    `cursor`) for older ones."""
    page = give.UsageEvents.of(await call.ledger.events(call.caller, query.query()))
    return answer(page, headers=next_page(request, page.next_cursor))


@router.get("/agents", response_model=told(give.Agents), responses=LINKED)
async def list_agents(
    call: Asked, request: Request, query: Annotated[take.AgentsParameters, Query()]
) -> Response:
    """Who uses: status, last seen, spend over all time, tightest limit."""
    page = give.Agents.of(await call.ledger.agents(call.caller, query.query()))
    return answer(page, headers=next_page(request, page.next_cursor))


@router.get("/alerts", response_model=told(records.Alerts))
async def list_alerts(call: Asked, query: Annotated[take.AlertsParameters, Query()]) -> Response:
    """The thresholds that were reached, newest first."""
    return answer(records.Alerts.of(await call.ledger.alerts(call.caller, query.after, query.number())))


@router.get("/audit", response_model=told(records.Audit), responses=LINKED)
async def list_audit(
    call: Asked, request: Request, query: Annotated[take.AuditParameters, Query()]
) -> Response:
    """Who changed what: limits, agents and kill switches, newest first. For operators and viewers."""
    before, limit = query.page()
    page = records.Audit.of(await call.ledger.audit(call.caller, before, limit + 1), limit)
    return answer(page, headers=next_page(request, page.next_cursor))
