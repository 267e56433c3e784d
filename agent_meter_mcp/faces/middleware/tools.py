"""meter_tools: every `tools/call` of an MCP server is metered, and refused when over.

A refusal is a result that is an error, with a text that explains it: that is what a model reads and can act
on, where hosts show a protocol error to nobody.
"""

from __future__ import annotations

import time
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Unpack, cast

from agent_meter_mcp.core.check import usable
from agent_meter_mcp.core.text import ID_MAX
from agent_meter_mcp.faces.wire.clients import client_name

from .answers import over_budget
from .metering import Metering
from .operations import Names

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Awaitable, Callable, Mapping

    from mcp.server.context import HandlerResult, ServerRequestContext

    from agent_meter_mcp.client.results import Decided

    from .metering import Options

DONE, FAILED = 200, 500
"""The status of a call that gave a result, and of one that gave an error."""
NO_NAME = "(no name)"
UNIDENTIFIED = "This server meters who calls its tools, and you did not say: connect with a name or a token."


def meter_tools(service: str, **options: Unpack[Options]) -> ToolMeter:
    """`MCPServer("x", middleware=[meter_tools("x")])`, or FastMCP in its place.

    The agent is the bearer, or the client's name. `identify` gets the request's context (MCPServer's, or
    FastMCP's); `units` goes by the tool's name. All else as MeterMiddleware. Raises InvalidInput.
    """
    return ToolMeter(Metering(service, **options))


class ToolMeter:
    """A middleware of the MCP SDK's servers, and of FastMCP's (4.0 and later, which stand on that SDK).

    Both call it as `await middleware(context, call_next)`. In FastMCP, a tool that fails raises, and so does
    a refusal.
    """

    def __init__(self, metering: Metering) -> None:
        self._metering = metering
        self._names = Names()

    @property
    def counters(self) -> Counter[str]:
        """What became of metering, as MeterMiddleware.counters."""
        return self._metering.counters

    async def __call__(self, ctx: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
        call = _call_in(ctx)
        if call is None:
            return await call_next(ctx)
        metering = self._metering
        agent = await metering.agent_of(ctx, lambda: _bearer() or _client(call))
        if agent is None:
            return call.refuse(UNIDENTIFIED) if metering.unidentified == "refuse" else await call_next(ctx)
        tool = self._names.few(usable(call.tool, ID_MAX) or NO_NAME)
        admission = await metering.admit(agent, tool, tool)
        if admission.refused is not None:
            return call.refuse(_explained(admission.refused, tool))
        if admission.hold is None:
            return await call_next(ctx)
        began, status = time.perf_counter(), FAILED
        try:
            result = await call_next(ctx)
            status = FAILED if _is_error(result) else DONE
            return result
        finally:
            await metering.settle(admission.hold, ctx, status, time.perf_counter() - began)

    async def check_resource_access(self, context: object) -> None:
        """FastMCP asks each middleware. Reading is not metered, so anybody may."""


class _Call(NamedTuple):
    """A `tools/call`. `request` is its context with the session; None where a program calls a tool of its own
    FastMCP server."""

    tool: object
    request: ServerRequestContext[Any, Any] | None
    refuse: Callable[[str], HandlerResult]


def _call_in(ctx: Any) -> _Call | None:
    """What is called, if this is a call that will be made."""
    if not hasattr(ctx, "fastmcp_context"):
        if ctx.method != "tools/call" or ctx.request_id is None:
            return None
        params: Mapping[str, object] = ctx.params or {}
        return _Call(params.get("name"), ctx, _refused)
    # FastMCP tells of a call that it has found to be malformed as well: with the bare message.
    if ctx.method != "tools/call" or not hasattr(ctx.message, "name"):
        return None
    context = ctx.fastmcp_context
    return _Call(ctx.message.name, None if context is None else context.request_context, _refused_by_fastmcp)


def _bearer() -> str | None:
    """Whose token it is, if the server verifies tokens."""
    from mcp.server.auth.middleware.auth_context import get_access_token

    token = get_access_token()
    return None if token is None else usable(token.subject or token.client_id)


def _client(call: _Call) -> str | None:
    return None if call.request is None else client_name(call.request)


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


def _refused_by_fastmcp(text: str) -> NoReturn:
    """FastMCP makes a result that is an error of it."""
    raise import_module("fastmcp.exceptions").ToolError(text)


def _is_error(result: object) -> bool:
    if isinstance(result, dict):
        return bool(cast("dict[str, Any]", result).get("isError"))
    return bool(getattr(result, "is_error", False))
