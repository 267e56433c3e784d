"""Routes that control: agents, limits, kill switches."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from agent_meter_mcp.faces.wire import controls as give
from agent_meter_mcp.faces.wire import reports

from . import parameters as take
from .answers import answer, problems, told
from .asking import Asked

router = APIRouter(prefix="/v1", tags=["control"], responses=problems(404, 409, 507))


@router.put("/agents/{agent:path}", response_model=told(reports.AgentSet))
async def set_agent(call: Asked, agent: str, body: take.AgentChanges) -> Response:
    """Set an agent's name, tier, owner or parent; null clears. For operators."""
    return answer(reports.AgentSet.of(await call.ledger.set_agent(call.caller, agent, body.changes())))


@router.get("/limits", response_model=told(give.Limits))
async def list_limits(call: Asked, query: Annotated[take.LimitsParameters, Query()]) -> Response:
    """All limits and where they stand; with agent, those that match it: which bind, and which were replaced
    by a more specific one."""
    views = await call.ledger.limits(call.caller, query.who(call.caller))
    return answer(give.Limits.of([view for view in views if query.concerns(view)]))


@router.put("/limits", response_model=told(give.LimitSet))
async def set_limit(call: Asked, body: take.SetLimit) -> Response:
    """Create a limit, or change the one with the same subject, service, metric and window. Subject: one of
    agent, tier, project, session ("*": each separately), or none (all together). For operators."""
    limit, state = await call.ledger.set_limit(
        call.caller,
        body.key(),
        body.maximum(),
        action=body.action,
        zone=body.timezone,
        thresholds=None if body.thresholds is None else tuple(body.thresholds),
    )
    return answer(give.LimitSet.of(limit, state))


@router.delete("/limits", response_model=told(give.LimitRemoved))
async def remove_limit(call: Asked, query: Annotated[take.RemovedLimit, Query()]) -> Response:
    """Remove a limit, by limit_id or by what it was set with. For operators."""
    removed = await call.ledger.remove_limit(call.caller, query.limit_id, query.key())
    return answer(give.LimitRemoved.of(removed))


@router.put("/kill-switch", response_model=told(give.KillSwitchSet))
async def set_kill_switch(call: Asked, body: take.SetKillSwitch) -> Response:
    """Stop an agent (and those it spawned), a service or everything at once; engaged=false releases. An agent
    may stop itself; the rest is for operators."""
    kind, name = body.target()
    switched = await call.ledger.set_switch(call.caller, kind, name, body.engaged, body.reason)
    known = name is None or await call.ledger.knows(call.caller, kind, name)
    return answer(give.KillSwitchSet.of(switched, kind, name, known=known))
