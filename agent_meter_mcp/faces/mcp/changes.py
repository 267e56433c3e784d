"""Change notices: who watches a resource hears when a threshold was crossed that shows in it.

A client of 2026-07-28 watches with `subscriptions/listen`, which the SDK serves from a bus; an older one with
`resources/subscribe`, which is served here. The ledger's feed is followed from the first watcher on, so that
a server nobody watches does not look at the file again and again.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import anyio
from mcp import MCPError
from mcp.server import MCPServer
from mcp.server.context import CallNext, HandlerResult
from mcp.server.subscriptions import InMemorySubscriptionBus, ResourceUpdated
from mcp.types import (
    INVALID_PARAMS,
    EmptyResult,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    UnsubscribeRequestParams,
)
from pydantic import ValidationError

from agent_meter_mcp.core.errors import MeterError
from agent_meter_mcp.core.models import Alert, Who
from agent_meter_mcp.core.queries import AgentsQuery
from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.core.text import name
from agent_meter_mcp.core.windows import parse_window
from agent_meter_mcp.faces.errors import text_of

from .resources import AGENT, ALERTS, LIMITS, SUMMARY

if TYPE_CHECKING:
    from mcp.server.connection import Connection

    from agent_meter_mcp.core.limits import Coverage
    from agent_meter_mcp.core.models import LimitKey
    from agent_meter_mcp.ledger import Ledger

    from .callers import CallerOf, Request

RETRY_S = 5.0
WATCHED_MAX = 1000
"""How many resources one client may watch."""
_AGENTS = AGENT.partition("{")[0]
_SUMMARIES = SUMMARY.partition("{")[0]
_EVERYTHING = Caller("viewer", "change notices")
_log = logging.getLogger(__name__)


class Changes:
    """Watchers of both eras, and the task that tells them."""

    def __init__(self, ledger: Ledger, caller_of: CallerOf) -> None:
        self._ledger = ledger
        self._caller_of = caller_of
        self._wanted = anyio.Event()
        self._following = anyio.Event()
        self._turn = anyio.Lock()
        self._watched: dict[Connection, set[str]] = {}
        self._listened: Counter[str] = Counter()
        """What is watched by way of the bus, as it was written, and how often."""
        self.bus = InMemorySubscriptionBus()

    @asynccontextmanager
    async def lifespan(self, _server: MCPServer[None]) -> AsyncGenerator[None]:
        """Tells the watchers while a connection (stdio, in memory) or the process (HTTP) lives."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow)
            yield
            tasks.cancel_scope.cancel()

    async def guard_listening(self, ctx: Request, call_next: CallNext) -> HandlerResult:
        """Middleware: who may not see an agent may not watch it."""
        if ctx.method == "subscriptions/listen":
            uris = _wanted_uris(ctx.params)
            if len(uris) > WATCHED_MAX:
                raise _too_many()
            for uri in uris:
                await self._check(ctx, uri)
            if uris:
                await self._begin()
            self._listened.update(uris)
            try:
                return await call_next(ctx)
            finally:
                self._listened.subtract(uris)
                self._listened = +self._listened
        return await call_next(ctx)

    def serve_handshake_clients(self, server: MCPServer[Any]) -> None:
        """Serves `resources/subscribe` and `resources/unsubscribe`."""
        low = server._lowlevel_server  # pyright: ignore[reportPrivateUsage]  MCPServer has no public way to add these
        low.add_request_handler("resources/subscribe", SubscribeRequestParams, self._subscribe)
        low.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, self._unsubscribe)

    async def _subscribe(self, request: Request, params: SubscribeRequestParams) -> EmptyResult:
        uri = str(params.uri)
        if uri not in (ALERTS, LIMITS) and not uri.startswith((_AGENTS, _SUMMARIES)):
            raise MCPError(INVALID_PARAMS, f"Unknown resource: {uri}", {"uri": uri})
        await self._check(request, uri)
        connection = _connection(request)
        if connection not in self._watched:
            connection.exit_stack.callback(self._watched.pop, connection, None)
        watched = self._watched.setdefault(connection, set())
        if len(watched) >= WATCHED_MAX and uri not in watched:
            raise _too_many()
        watched.add(uri)
        await self._begin()
        return EmptyResult()

    async def _unsubscribe(self, request: Request, params: UnsubscribeRequestParams) -> EmptyResult:
        self._watched.get(_connection(request), set()).discard(str(params.uri))
        return EmptyResult()

    async def _check(self, request: Request, uri: str) -> None:
        """What cannot be read cannot be watched either: it would be kept, however long, and never told of."""
        try:
            if uri.startswith(_SUMMARIES):
                parse_window(unquote(uri.removeprefix(_SUMMARIES)))
            elif uri.startswith(_AGENTS):
                query = AgentsQuery(agent=name(unquote(uri.removeprefix(_AGENTS)), "agent_id"), limit=1)
                await self._ledger.agents(self._caller_of(request), query)
        except MeterError as error:
            raise MCPError(INVALID_PARAMS, text_of(error), {"uri": uri}) from error

    async def _begin(self) -> None:
        """From now on the feed is followed, or it was tried: nobody waits for a store that is away."""
        self._wanted.set()
        await self._following.wait()

    async def _follow(self) -> None:
        """Of several connections in one process, one follows the feed at a time, for all."""
        await self._wanted.wait()
        async with self._turn:
            while True:
                try:
                    async with self._ledger.subscribe() as items:
                        self._following.set()
                        async for item in items:
                            if isinstance(item, Alert):
                                await self._tell(item)
                    return
                except MeterError as error:
                    self._following.set()
                    _log.warning("change notices pause: %s", error)
                except Exception:  # whoever watches must not take the tools down with it
                    self._following.set()
                    _log.exception("change notices pause")
                await anyio.sleep(RETRY_S)

    async def _tell(self, alert: Alert) -> None:
        found = await self._ledger.look(_EVERYTHING, lambda looking: looking.counted(alert), refusals=False)
        for uri in [uri for uri in self._listened if _shows(uri, found)]:
            await self.bus.publish(ResourceUpdated(uri=uri))
        for connection, watched in list(self._watched.items()):
            for uri in [uri for uri in watched if _shows(uri, found)]:
                await connection.send_resource_updated(uri)


def _shows(uri: str, counted: tuple[LimitKey, Coverage] | None) -> bool:
    """Whether the resource shows a limit and the counter of it that is meant. None: that limit is gone."""
    if uri in (ALERTS, LIMITS):
        return True
    if counted is None:
        return False
    key, coverage = counted
    # Of `@` and `%40` a client may write either.
    if uri.startswith(_AGENTS):
        return coverage.includes(Who(unquote(uri.removeprefix(_AGENTS)), coverage.service))
    return uri.startswith(_SUMMARIES) and unquote(uri.removeprefix(_SUMMARIES)) == key.window


def _too_many() -> MCPError:
    return MCPError(INVALID_PARAMS, f"at most {WATCHED_MAX} resources can be watched at once")


def _wanted_uris(params: Mapping[str, Any] | None) -> list[str]:
    """What a listener asks for; what is not as it should be is refused by the SDK afterwards."""
    try:
        return (
            SubscriptionsListenRequestParams.model_validate(params).notifications.resource_subscriptions or []
        )
    except ValidationError:
        return []


def _connection(request: Request) -> Connection:
    # A request's session is a proxy of its own; what lasts, and can still be told things later, is behind it.
    return request.session._connection  # pyright: ignore[reportPrivateUsage]  no public way from request to connection
