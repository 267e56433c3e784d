"""The tools that report: summary, events, agents, limits."""

from __future__ import annotations

from anyio import to_thread

from agent_meter_mcp.faces.wire import controls
from agent_meter_mcp.faces.wire import queries as take
from agent_meter_mcp.faces.wire import reports as give
from agent_meter_mcp.faces.wire.calls import Call
from agent_meter_mcp.faces.wire.doubts import doubted

from .tools import tool


@tool("Usage summary", take.GetUsageSummary, give.UsageSummary, reads=True)
async def get_usage_summary(call: Call, arguments: take.GetUsageSummary) -> give.UsageSummary:
    """Total and grouped usage over a time range: who spent what, where, when. For single events
    list_usage_events; for what may still be spent check_budget."""
    # In a thread, because a time zone is a file.
    query = await to_thread.run_sync(arguments.query, call.ledger.now_us(), call.timezone)
    found = await call.ledger.summary(call.caller, query)
    answer = give.UsageSummary.of_query(query, found)
    if not found.total.events and not found.total.rejected:
        await doubted(call, answer, arguments.agent, arguments.service)
    return answer


@tool("Usage events", take.ListUsageEvents, give.UsageEvents, reads=True)
async def list_usage_events(call: Call, arguments: take.ListUsageEvents) -> give.UsageEvents:
    """The single usage events, newest first, refused ones too. For sums get_usage_summary."""
    page = await call.ledger.events(call.caller, arguments.query())
    answer = give.UsageEvents.of(page)
    return answer if page.events else await doubted(call, answer, arguments.agent, arguments.service)


@tool("Agents", take.ListAgents, give.Agents, reads=True)
async def list_agents(call: Call, arguments: take.ListAgents) -> give.Agents:
    """Who uses: status, last seen, spend over all time, tightest limit."""
    return give.Agents.of(await call.ledger.agents(call.caller, arguments.query()))


@tool("Limits", take.ListLimits, controls.Limits, reads=True)
async def list_limits(call: Call, arguments: take.ListLimits) -> controls.Limits:
    """All limits and where they stand; with agent, those that match it: which bind, and which were replaced
    by a more specific one. To ask about one step use check_budget."""
    views = await call.ledger.limits(call.caller, arguments.who(call.caller))
    answer = controls.Limits.of([view for view in views if arguments.concerns(view)])
    return await doubted(call, answer, arguments.agent, arguments.service)
