"""MeterMiddleware: three lines, and every agent has a budget at your API."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Unpack

from .answers import Refusal, over_budget, send_refusal, unidentified
from .callers import agent_in_headers
from .metering import Metering
from .operations import Operations
from .signatures import Signatures, told_in

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Awaitable, Callable, MutableMapping
    from typing import TypeAlias

    from .callers import Scope
    from .keeping import Kept
    from .metering import Options
    from .signatures import Given

    Message: TypeAlias = MutableMapping[str, Any]
    Receive: TypeAlias = Callable[[], Awaitable[Message]]
    Send: TypeAlias = Callable[[Message], Awaitable[None]]
    App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

GONE = 499
"""Of a request that ended without an answer: its client had left."""
FAILED = 500
RECEIPT_HEADER = b"x-usage-receipt"
SWITCHED, DECLINED = 101, 403
"""Of a WebSocket that was accepted, and of one that the app closed instead: that is what servers answer."""
_log = logging.getLogger(__name__)


class MeterMiddleware:
    """`app.add_middleware(MeterMiddleware, service="my-api")`, in any ASGI framework.

    Each request of an agent (its `X-Agent-Id`, or what `identify(scope)` answers) holds budget before the app
    sees it, and is settled with status, duration and `units` when its response is complete. Over a limit it
    is 429 with `Retry-After`, under a kill switch 403. Who is unidentified is metered as "anonymous", refused
    with 401, or passed by, as `unidentified` says. An id in a header is what the caller claims: where that is
    not enough, `identify` looks at what the app has verified, or `secrets` has what agents sign with
    (`X-Agent-Signature`): a mapping of agents, with "*" for all others, or a file as AGENT_METER_SECRETS
    names one. Who has a secret is refused with 401 unless a request is signed with it.

    The meter is the local file (`db`), or the one at `url`, or `meter`, which the app has open. While it
    cannot be asked, `on_error` decides; `counters` tell. `units`: a number per request, a mapping of routes
    ("/search" or "GET /search"), or a function of scope and status.
    """

    def __init__(
        self,
        app: App,
        service: str,
        *,
        secrets: Given | None = None,
        **options: Unpack[Options],
    ) -> None:
        """Raises InvalidInput: what cannot be is found when the app is made."""
        self._app = app
        self._operations = Operations()
        self._metering = Metering(service, **options)
        self._signatures = None if secrets is None else Signatures(secrets)

    @property
    def counters(self) -> Counter[str]:
        """As Meter.counters, and `unmetered` requests; `open_failed`, `identify_failed`,
        `units_failed`, `unsigned`."""
        return self._metering.counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] in ("http", "websocket"):
            await self._meter(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _meter(self, scope: Scope, receive: Receive, send: Send) -> None:
        metering = self._metering
        agent = await metering.agent_of(scope, lambda: agent_in_headers(scope))
        if agent is None:
            if metering.unidentified == "refuse":
                await send_refusal(unidentified(), scope, receive, send)
            else:
                await self._app(scope, receive, send)
            return
        receipt = None
        if self._signatures is not None:
            signed = await self._signatures.check(agent, scope, receive)
            if signed is None:
                return
            if isinstance(signed, Refusal):
                self.counters["unsigned"] += 1
                await send_refusal(signed, scope, receive, send)
                return
            receive, receipt = signed
        route = self._operations.template(scope)
        admission = await metering.admit(agent, self._operations.name(scope, route), route)
        if admission.refused is not None:
            await send_refusal(over_budget(admission.refused), scope, receive, send)
        elif admission.hold is None:
            await self._app(scope, receive, send)
        else:
            responder = Responder(self._app, metering, admission.hold, scope, send, receipt)
            await responder.respond(receive)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The meter is open from before the app starts until after it has ended."""
        attachment = self._metering.attachment
        has_heard = False

        async def receive_and_open() -> Message:
            nonlocal has_heard
            message = await receive()
            has_heard = True
            if message["type"] == "lifespan.startup":
                try:
                    await attachment.open()
                except Exception as error:  # the app starts all the same; each request will try again
                    self.counters["open_failed"] += 1
                    _log.error("the meter cannot be opened: %s", error)
            return message

        async def close_and_send(message: Message) -> None:
            if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                await attachment.close()
            await send(message)

        try:
            try:
                await self._app(scope, receive_and_open, close_and_send)
            except Exception:
                if has_heard:
                    raise
            if not has_heard:  # Django, and others, know no lifespan: then it is the meter's alone
                for said in ("lifespan.startup.complete", "lifespan.shutdown.complete"):
                    await receive_and_open()
                    await close_and_send({"type": said})
        finally:
            await attachment.close()


class Responder:
    """One request that was admitted, from then on."""

    def __init__(
        self, app: App, metering: Metering, hold: Kept, scope: Scope, send: Send, receipt: str | None
    ) -> None:
        self._app = app
        self._metering = metering
        self._hold = hold
        self._scope = scope
        self._send = send
        self._receipt = receipt
        self._began = time.perf_counter()
        self._status: int | None = None
        self._settled = False
        self._client_left = False

    async def respond(self, receive: Receive) -> None:
        """Raises what the app raises. Frameworks raise also that the client has left: that is no failure."""

        async def hear() -> Message:
            message = await receive()
            if message["type"] in ("websocket.disconnect", "http.disconnect"):
                self._client_left = True
            return message

        try:
            await self._app(self._scope, hear, self._watch)
        except asyncio.CancelledError:
            await self._settle(self._status or GONE)
            raise
        except BaseException:
            await self._settle((self._status or GONE) if self._client_left else FAILED)
            raise
        await self._settle(self._status or GONE)

    async def _watch(self, message: Message) -> None:
        """Passes everything on as it comes, and settles when the last of it is gone."""
        kind = message["type"]
        if kind == "http.response.start" and self._receipt is not None:
            headers = [*message.get("headers", ()), (RECEIPT_HEADER, self._receipt.encode())]
            message = {**message, "headers": headers}
        try:
            await self._send(message)
        except OSError:  # so servers say that nobody is there any more
            self._client_left = True
            raise
        if kind == "http.response.start":
            self._status = message["status"]
        elif kind == "http.response.body":
            if not message.get("more_body", False):
                await self._settle(self._status or GONE)
        elif kind == "http.response.pathsend":
            await self._settle(self._status or GONE)
        elif kind == "websocket.accept":
            self._status = SWITCHED
        elif kind == "websocket.close":
            self._status = self._status or DECLINED
        elif kind == "websocket.http.response.start":
            self._status = message["status"]

    async def _settle(self, status: int) -> None:
        if not self._settled:
            self._settled = True
            duration_s = time.perf_counter() - self._began
            told = told_in(self._scope)
            await self._metering.settle(self._hold, self._scope, status, duration_s, told)
