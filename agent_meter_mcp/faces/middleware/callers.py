"""Whose request it is: what the headers say, or what the app's own function finds out."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from agent_meter_mcp.core.check import usable
from agent_meter_mcp.core.text import from_header

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping
    from typing import Literal, TypeAlias

    Scope: TypeAlias = MutableMapping[str, Any]
    Identify: TypeAlias = Callable[[Any], str | Awaitable[str | None] | None]
    """From an ASGI scope, or the context of an MCP request, to an agent id; None: unidentified."""
    Unidentified: TypeAlias = Literal["meter", "refuse", "pass"]

ANONYMOUS = "anonymous"
ID_HEADER = b"x-agent-id"
NAME_HEADER = b"x-agent-name"


def agent_in_headers(scope: Scope) -> str | None:
    """`X-Agent-Id`, or, without one, `X-Agent-Name`."""
    said = {field for field, _ in scope.get("headers", ())}
    return usable(header(scope, ID_HEADER if ID_HEADER in said else NAME_HEADER))


def header(scope: Scope, wanted: bytes) -> str | None:
    """What a header says. One that is sent twice with two values says nothing."""
    said = {value for field, value in scope.get("headers", ()) if field == wanted}
    if len(said) != 1:
        return None
    return from_header(said.pop())


async def agent_by(identify: Identify, request: object) -> str | None:
    """What the app's own function says. Raises what it raises."""
    found = identify(request)
    if inspect.isawaitable(found):
        found = await found
    return usable(found)
