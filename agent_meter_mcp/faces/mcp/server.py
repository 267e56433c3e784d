"""The server: the tools, resources and prompts of one ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp.server import CacheHint, MCPServer

import agent_meter_mcp
from agent_meter_mcp.faces.wire.calls import Call

from .callers import current_request, remember_request
from .changes import Changes
from .completion import add_completion
from .control import remove_limit, set_agent, set_kill_switch, set_limit
from .metering import check_budget, gate, record_usage, reserve_budget, settle_reservation
from .prompts import add_prompts, guard_prompts
from .reports import get_usage_summary, list_agents, list_limits, list_usage_events
from .resources import add_resources
from .tools import MeterTool

if TYPE_CHECKING:
    from agent_meter_mcp.ledger import Ledger

    from .callers import CallerOf

INSTRUCTIONS = """\
agent-meter keeps budgets for agents: it records what was used, says what may still be
used, and stops who is over. Before expensive work call reserve_budget, afterwards settle_reservation with
what was really used; report other usage with record_usage. When an answer says it is not allowed, do not do
the work: take a cheaper step, wait, or stop and say why. `agent` is who uses (you, if left out), `parent` who
spawned it, `service` the API, tool server or LLM provider."""

TOOLS = (
    record_usage,
    check_budget,
    reserve_budget,
    settle_reservation,
    gate,
    get_usage_summary,
    list_usage_events,
    list_agents,
    set_agent,
    set_limit,
    list_limits,
    remove_limit,
    set_kill_switch,
)
_SAME_FOR_ALL = CacheHint(ttl_ms=60_000, scope="public")


def build_server(ledger: Ledger, caller_of: CallerOf, *, timezone: str = "UTC") -> MCPServer[None]:
    """A server on an open ledger. `caller_of` says who makes a request, `timezone` where a report's day
    begins if it does not say.
    """
    changes = Changes(ledger, caller_of)
    server: MCPServer[None] = MCPServer(
        "agent-meter",
        title="Agent meter",
        version=agent_meter_mcp.__version__,
        instructions=INSTRUCTIONS,
        tools=[MeterTool.of(definition, ledger, caller_of, timezone) for definition in TOOLS],
        lifespan=changes.lifespan,
        subscriptions=changes.bus,
        middleware=[remember_request, changes.guard_listening, guard_prompts(lambda: server)],
        cache_hints={"tools/list": _SAME_FOR_ALL, "prompts/list": _SAME_FOR_ALL},
        log_level="WARNING",
    )

    def call() -> Call:
        return Call(ledger, caller_of(current_request()), timezone)

    add_resources(server, call)
    add_prompts(server)
    add_completion(server, call)
    changes.serve_handshake_clients(server)
    return server
