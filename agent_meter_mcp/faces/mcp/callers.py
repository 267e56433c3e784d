"""Who is asking: a role, and what the client told us about itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

from agent_meter_mcp.core.check import usable
from agent_meter_mcp.core.text import ID_MAX
from agent_meter_mcp.faces.auth import CALLER
from agent_meter_mcp.faces.wire.clients import client_name

if TYPE_CHECKING:
    from typing import TypeAlias

    from starlette.requests import Request as HttpRequest
    from starlette.types import ASGIApp, Receive, Scope, Send

    from agent_meter_mcp.core.roles import Caller

Request = ServerRequestContext[Any, Any]
CallerOf: TypeAlias = "Callable[[Request], Caller]"
"""Who makes a request."""

_current: ContextVar[Request] = ContextVar("agent_meter_mcp_request")


async def remember_request(ctx: Request, call_next: CallNext) -> HandlerResult:
    """Middleware: lets `current_request` answer, for what the SDK calls without its context."""
    token = _current.set(ctx)
    try:
        return await call_next(ctx)
    finally:
        _current.reset(token)


def current_request() -> Request:
    """The request that is being answered."""
    return _current.get()


def local_caller(owner: Caller, environ: Mapping[str, str]) -> CallerOf:
    """Requests of whoever owns this process: `owner` is the operator, or the one agent that it was started
    for.

    What the client says of itself, and the session and project in `environ` where an agent harness started
    us, are defaults for what a call leaves out, never instead of it.
    """
    session = usable(environ.get("CLAUDE_CODE_SESSION_ID"), ID_MAX)
    project = usable(environ.get("CLAUDE_PROJECT_DIR"), ID_MAX)

    def caller_of(request: Request) -> Caller:
        return _introduced(owner, request).replace(default_session=session, default_project=project)

    return caller_of


def http_caller(request: Request) -> Caller:
    """Who was let in with the HTTP request that brought this one. Of a session, each request has its own."""
    caller: Caller = cast("HttpRequest", request.request).scope[CALLER]
    return _introduced(caller, request)


def _introduced(caller: Caller, request: Request) -> Caller:
    """The caller with what the client says of itself."""
    client = client_name(request)
    return caller.replace(
        name=caller.name if client is None else f"{caller.name} via {client}",
        default_agent=caller.bound_to if caller.role == "agent" else client,
    )


class OwnedSessions:
    """`app`, an MCP application, whose sessions (of clients that shake hands) each answer only to whoever
    began it: to everybody else it is as if there were no such session."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller: Caller = scope[CALLER]
        token = AccessToken(token="", client_id=caller.name, subject=caller.bound_to, scopes=[])
        await self._app({**scope, "user": AuthenticatedUser(token)}, receive, send)
