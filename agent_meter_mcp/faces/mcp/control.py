"""The tools that control: agents, limits, kill switches."""

from __future__ import annotations

from agent_meter_mcp.faces.wire import arguments as take
from agent_meter_mcp.faces.wire import controls as give
from agent_meter_mcp.faces.wire import reports
from agent_meter_mcp.faces.wire.calls import Call

from .tools import tool


@tool("Set agent", take.SetAgent, reports.AgentSet, destroys=True, repeats=True)
async def set_agent(call: Call, arguments: take.SetAgent) -> reports.AgentSet:
    """Set an agent's name, tier, owner or parent; null clears. For operators."""
    return reports.AgentSet.of(await call.ledger.set_agent(call.caller, arguments.agent, arguments.changes()))


@tool("Set limit", take.SetLimit, give.LimitSet, destroys=True, repeats=True)
async def set_limit(call: Call, arguments: take.SetLimit) -> give.LimitSet:
    """Create a limit, or change the one with the same subject, service, metric and window. Subject: one of
    agent, tier, project, session ("*": each separately), or none (all together). For operators."""
    answer, state = await call.ledger.set_limit(
        call.caller,
        arguments.key(),
        arguments.maximum(),
        action=arguments.action,
        zone=arguments.timezone,
        thresholds=None if arguments.thresholds is None else tuple(arguments.thresholds),
    )
    return give.LimitSet.of(answer, state)


@tool("Remove limit", take.RemoveLimit, give.LimitRemoved, destroys=True, repeats=True)
async def remove_limit(call: Call, arguments: take.RemoveLimit) -> give.LimitRemoved:
    """Remove a limit, by limit_id or by what set_limit was given. To only change it use set_limit. For
    operators."""
    removed = await call.ledger.remove_limit(call.caller, arguments.limit_id, arguments.key())
    return give.LimitRemoved.of(removed)


@tool("Kill switch", take.SetKillSwitch, give.KillSwitchSet, destroys=True, repeats=True)
async def set_kill_switch(call: Call, arguments: take.SetKillSwitch) -> give.KillSwitchSet:
    """Stop an agent (and those it spawned), a service or everything at once; engaged=false releases. For a
    budget use set_limit. An agent may stop itself; the rest is for operators."""
    kind, name = arguments.target()
    answer = await call.ledger.set_switch(call.caller, kind, name, arguments.engaged, arguments.reason)
    known = name is None or await call.ledger.knows(call.caller, kind, name)
    return give.KillSwitchSet.of(answer, kind, name, known=known)
