"""What an argument of a prompt or a resource can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mcp.server import MCPServer
from mcp.types import (
    Completion,
    CompletionArgument,
    CompletionContext,
    PromptReference,
    ResourceTemplateReference,
)

from agent_meter_mcp.core.errors import MeterError
from agent_meter_mcp.core.windows import UNITS

from .resources import AGENT, SUMMARY

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_meter_mcp.faces.wire.calls import Call

COMPLETED_MAX = 100
WINDOWS = (*UNITS, "total", "1h", "24h", "7d", "30d")
_KINDS = {
    ("usage_report", "agent"): "agent",
    ("usage_report", "window"): "window",
    ("budget_review", "agent"): "agent",
    ("stay_within_budget", "agent"): "agent",
    ("stay_within_budget", "service"): "service",
    (SUMMARY, "window"): "window",
    (AGENT, "agent_id"): "agent",
}


def add_completion(server: MCPServer[Any], call: Callable[[], Call]) -> None:
    """`call` says who asks."""

    @server.completion()
    async def complete(
        ref: PromptReference | ResourceTemplateReference,
        argument: CompletionArgument,
        context: CompletionContext | None,
    ) -> Completion | None:
        where = ref.name if isinstance(ref, PromptReference) else ref.uri
        kind = _KINDS.get((where, argument.name))
        if kind is None:
            return None
        if kind == "window":
            found = [window for window in WINDOWS if window.startswith(argument.value)]
        else:
            try:
                asking = call()
                found = await asking.ledger.names(asking.caller, kind, argument.value, COMPLETED_MAX + 1)
            except MeterError:  # a suggestion that cannot be made is not made
                return None
        return Completion(values=found[:COMPLETED_MAX], has_more=len(found) > COMPLETED_MAX)
