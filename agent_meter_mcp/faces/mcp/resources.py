"""What can be read without a tool: the same figures as JSON, to be shown or watched."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from anyio import to_thread
from mcp.server import MCPServer
from mcp.server.mcpserver import ResourceSecurity
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError
from pydantic import BaseModel, TypeAdapter

from agent_meter_mcp.core.errors import InvalidInput, MeterError, NotFound
from agent_meter_mcp.core.models import Who
from agent_meter_mcp.core.queries import AgentsQuery
from agent_meter_mcp.core.text import name, shown
from agent_meter_mcp.faces.errors import text_of
from agent_meter_mcp.faces.wire import controls
from agent_meter_mcp.faces.wire import queries as take
from agent_meter_mcp.faces.wire import reports as give

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_meter_mcp.faces.wire.calls import Call

ALERTS, LIMITS = "meter://alerts", "meter://limits"
SUMMARY, AGENT = "meter://summary/{window}", "meter://agents/{agent_id}"
JSON = "application/json"
ALERTS_SHOWN = 100


def add_resources(server: MCPServer[Any], call_of: Callable[[], Call]) -> None:
    """`call_of` says who reads."""

    @server.resource(SUMMARY, name="summary", title="Usage summary", mime_type=JSON)
    async def summary(window: str) -> str:
        """Usage in a window ("day", "24h", "total"), in total and by agent and service."""
        with told():
            call = call_of()
            arguments = take.GetUsageSummary(window=window, group_by=["agent", "service"])
            query = await to_thread.run_sync(arguments.query, call.ledger.now_us(), call.timezone)
            return json_of(give.UsageSummary.of_query(query, await call.ledger.summary(call.caller, query)))

    # An agent's id is no path: any text that can be a name is one.
    any_text = ResourceSecurity(exempt_params={"agent_id"})

    @server.resource(AGENT, name="agent", title="Agent", mime_type=JSON, security=any_text)
    async def agent(agent_id: str) -> str:
        """An agent: status, spend, and the limits that bind it."""
        with told():
            return json_of(await agent_card(call_of(), agent_id))

    @server.resource(LIMITS, name="limits", title="Limits", mime_type=JSON)
    async def limits() -> str:
        """All limits and where they stand."""
        with told():
            call = call_of()
            return json_of(controls.Limits.of(await call.ledger.limits(call.caller)))

    @server.resource(ALERTS, name="alerts", title="Alerts", mime_type=JSON)
    async def alerts() -> str:
        """The newest thresholds that were reached."""
        with told():
            call = call_of()
            raised = await call.ledger.alerts(call.caller, limit=ALERTS_SHOWN)
            found = [controls.Alert.of(view) for view in raised]
            return TypeAdapter(list[controls.Alert]).dump_json(found, indent=2).decode()


async def agent_card(call: Call, agent_id: str) -> give.AgentCard:
    """Raises InvalidInput, NotFound, Forbidden, StoreError."""
    query = AgentsQuery(agent=name(agent_id, "agent_id"), limit=1)
    page = await call.ledger.agents(call.caller, query)
    if not page.agents:
        raise NotFound(f"no agent {shown(agent_id)!r} is known; list_agents shows those that are")
    views = await call.ledger.limits(call.caller, Who(agent_id))
    return give.AgentCard.of_view(page.agents[0], views)


def json_of(model: BaseModel) -> str:
    return model.model_dump_json(indent=2)


@contextmanager
def told() -> Generator[None]:
    """What is wrong, in the words of a resource: unknown (-32602) or failed (-32603)."""
    try:
        yield
    except (InvalidInput, NotFound) as error:
        raise ResourceNotFoundError(str(error)) from error
    except MeterError as error:
        raise ResourceError(text_of(error)) from error
