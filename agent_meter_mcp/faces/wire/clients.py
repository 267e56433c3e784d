"""What an MCP client calls itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from agent_meter_mcp.core.check import usable

if TYPE_CHECKING:
    from mcp.server.context import ServerRequestContext

CLIENT_INFO = "io.modelcontextprotocol/clientInfo"


def client_name(request: ServerRequestContext[Any, Any]) -> str | None:
    """What it says in its handshake, or, since 2026-07-28, in each request."""
    params = request.session.client_params
    if params is not None:
        return usable(params.client_info.name)
    told = cast("Mapping[str, object]", request.meta or {}).get(CLIENT_INFO)
    return usable(cast("Mapping[str, object]", told).get("name")) if isinstance(told, Mapping) else None
