"""Who is asking: a role, and what the client told us about itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.models import EACH
from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.core.text import ID_MAX, NAME_MAX, name

if TYPE_CHECKING:
    from typing import TypeAlias

CallerOf: TypeAlias = "Callable[[ServerRequestContext[Any, Any]], Caller]"
"""Who makes a request."""

CLIENT_INFO = "io.modelcontextprotocol/clientInfo"
_request: ContextVar[ServerRequestContext[Any, Any]] = ContextVar("agent_meter_mcp_request")


async def remember_request(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Middleware: lets `current_request` answer, for what the SDK calls without its context."""
    token = _request.set(ctx)
    try:
        return await call_next(ctx)
    finally:
        _request.reset(token)


def current_request() -> ServerRequestContext[Any, Any]:
    """The request that is being answered."""
    return _request.get()


def local_caller(agent: str | None, environ: Mapping[str, str], *, way: str) -> CallerOf:
    """Callers who are the owner of this process: the operator, or the one agent that it was started for.

    `way` ("stdio", "http") goes into the audit log. An environment has a session and a project where an agent
    harness started us. All of it is a default for what a call leaves out, never instead of it.
    """
    session = usable(environ.get("CLAUDE_CODE_SESSION_ID"), ID_MAX)
    project = usable(environ.get("CLAUDE_PROJECT_DIR"), ID_MAX)

    def caller_of(request: ServerRequestContext[Any, Any]) -> Caller:
        client = client_name(request)
        if agent is not None:
            return Caller("agent", agent, agent, agent, session, project)
        return Caller("operator", f"operator ({way}, {client or 'unnamed client'})", None, client, session, project)

    return caller_of


def client_name(request: ServerRequestContext[Any, Any]) -> str | None:
    """What the client calls itself: in its handshake, or, since 2026-07-28, in each request."""
    params = request.session.client_params
    if params is not None:
        return usable(params.client_info.name, NAME_MAX)
    told = (request.meta or {}).get(CLIENT_INFO)
    return usable(told.get("name"), NAME_MAX) if isinstance(told, Mapping) else None


def usable(value: object, maximum: int) -> str | None:
    """`value` if it can be a name; None otherwise: what a client says of itself by the way is no error."""
    if not isinstance(value, str) or value == EACH:
        return None
    try:
        return name(value, "name", maximum=maximum)
    except InvalidInput:
        return None
