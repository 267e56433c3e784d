"""meter_tools: every `tools/call` of an MCP server is metered, and refused when over.

A refusal is a result that is an error, with a text that explains it: that is what a model reads and can act
on, where hosts show a protocol error to nobody.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

from agent_meter_mcp.core.text import ID_MAX

from .answers import over_budget
from .callers import usable
from .metering import Metering, Place

if TYPE_CHECKING:
    import os
    from collections import Counter
    from collections.abc import Mapping

    from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

    from agent_meter_mcp.client import Meter
    from agent_meter_mcp.client.hold import OnError
    from agent_meter_mcp.client.results import Decided

    from .callers import Identify, Unidentified
    from .metering import Units

DONE, FAILED = 200, 500
"""The status of a call that gave a result, and of one that gave an error."""
NO_NAME = "(no name)"
OTHER = "(other)"
NAMES_MAX = 1000
CLIENT_INFO = "io.modelcontextprotocol/clientInfo"
UNIDENTIFIED = "This server meters who calls its tools, and you did not say: connect with a name or a token."


def meter_tools(
    service: str,
    *,
    url: str | None = None,
    key: str | None = None,
    db: str | os.PathLike[str] | None = None,
    meter: Meter | None = None,
    identify: Identify | None = None,
    unidentified: Unidentified = "meter",
    units: Units | None = None,
    on_error: OnError = "allow",
) -> ToolMeter:
    """`MCPServer("x", middleware=[meter_tools(service="x")])`. The agent is the bearer, or the client's name.

    `identify` gets the request's context; `units` goes by the tool's name. All else as MeterMiddleware.
    Raises InvalidInput.
    """
    return ToolMeter(
        Metering(
            service,
            Place(url, key, db, meter),
            identify=identify,
            unidentified=unidentified,
            units=units,
            on_error=on_error,
        )
    )


class ToolMeter:
    """A middleware of the MCP SDK."""

    def __init__(self, metering: Metering) -> None:
        self._metering = metering
        self._names: set[str] = set()

    @property
    def counters(self) -> Counter[str]:
        """What became of metering, as MeterMiddleware.counters."""
        return self._metering.counters

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        if ctx.method != "tools/call" or ctx.request_id is None:
            return await call_next(ctx)
        metering = self._metering
        agent = await metering.agent_of(ctx, lambda: _bearer() or _client(ctx))
        if agent is None:
            return _refused(UNIDENTIFIED) if metering.unidentified == "refuse" else await call_next(ctx)
        tool = self._tool(ctx.params or {})
        admission = await metering.admit(agent, tool, tool)
        if admission.refused is not None:
            return _refused(_explained(admission.refused, tool))
        if admission.hold is None:
            return await call_next(ctx)
        began, status = time.perf_counter(), FAILED
        try:
            result = await call_next(ctx)
            status = FAILED if _is_error(result) else DONE
            return result
        finally:
            await metering.settle(admission.hold, ctx, status, time.perf_counter() - began)

    def _tool(self, params: Mapping[str, Any]) -> str:
        """The tool's name, as an operation. A client may ask for any: beyond a thousand they are one."""
        tool = usable(params.get("name"), ID_MAX) or NO_NAME
        if tool not in self._names:
            if len(self._names) >= NAMES_MAX:
                return OTHER
            self._names.add(tool)
        return tool


def _bearer() -> str | None:
    """Whose token it is, if the server verifies tokens."""
    from mcp.server.auth.middleware.auth_context import get_access_token

    token = get_access_token()
    return None if token is None else usable(token.subject or token.client_id)


def _client(ctx: ServerRequestContext[Any, Any]) -> str | None:
    """What the client calls itself: in its handshake, or, since 2026-07-28, in each request."""
    params = ctx.session.client_params
    if params is not None:
        return usable(params.client_info.name)
    told = cast("Mapping[str, object]", ctx.meta or {}).get(CLIENT_INFO)
    return usable(cast("dict[str, object]", told).get("name")) if isinstance(told, dict) else None


def _explained(decision: Decided, tool: str) -> str:
    """For a model: why not, and what to do."""
    refusal = over_budget(decision)
    step = {
        403: "Stop this work and tell the person you work for.",
        429: "Do without this tool until then, or stop and say why.",
    }.get(refusal.status, "Nothing was done.")
    return f"{tool} was not called. {refusal.detail} {step}"


def _refused(text: str) -> HandlerResult:
    from mcp.types import CallToolResult, TextContent

    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


def _is_error(result: object) -> bool:
    if isinstance(result, dict):
        return bool(cast("dict[str, Any]", result).get("isError"))
    return bool(getattr(result, "is_error", False))
