"""What happens, as it happens: server-sent events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import anyio.lowlevel
from fastapi import APIRouter, Header, Query, Request, Response

from agent_meter_mcp.core.errors import MeterError, Overloaded
from agent_meter_mcp.core.models import Alert, AuditEntry
from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.faces.wire import controls, records, reports
from agent_meter_mcp.faces.wire.calls import Call

from .asking import Asked
from .parameters import NoParameters
from .position import Missed, Position, current, missed_since

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from agent_meter_mcp.ledger import FeedItem, Subscription

HEARTBEAT_S = 15.0
"""How often a stream on which nothing happens says so."""
STREAMS_MAX = 1000
"""How many may be open at once in a process."""
RETRY_MS = 2000
"""How long a browser waits before it connects again."""
MEDIA_TYPE = "text/event-stream"
_SAYS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A stream of server-sent events that does not end",
        "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
    }
}
TOGETHER_BYTES = 32 * 1024
"""So much is sent in one piece to whoever is behind, and a message: who does not read keeps no more of it."""
TEXTS_MAX = 1000
_texts: dict[int, tuple[FeedItem, str, str]] = {}
"""Usage and refusals as they were told lately, by the object: every watcher is told of the same one."""
_log = logging.getLogger(__name__)
_EVERYTHING = Caller("viewer", "stream")
router = APIRouter(prefix="/v1", tags=["reading"])


@router.get("/stream", response_class=Response, responses=_SAYS)
async def watch(
    call: Asked,
    request: Request,
    query: Annotated[NoParameters, Query()],
    last_event_id: Annotated[str | None, Header(description="the last id that you got: go on there")] = None,
) -> Response:
    """What happens from now on, or since `Last-Event-ID`: `usage` and `refusal` (data as in GET /v1/usage),
    `alert`, `audit`, and `lost` with the `count` of messages that were too many. `usage` comes in the order
    of recording, whichever process recorded it, and once more when it was corrected. `refusal` comes at the
    first of a second, and with the `count` of those that followed within about a second."""
    items = call.ledger.subscribe(call.caller)
    sent = Position.parse(last_event_id) if last_event_id else None
    last = await current(call.ledger, call.caller)
    if sent is None:
        told = last
    else:  # an agent does not see all that the ledger has come to
        told = sent.of(await current(call.ledger, _EVERYTHING))
    state = request.app.state
    if len(state.streams) >= STREAMS_MAX:
        raise Overloaded(f"{STREAMS_MAX} streams are open, and there may not be more. Try again later.")
    return EventStream(_messages(call, items, told, state.heartbeat_s), state.streams)


class EventStream(Response):
    """Sends what `messages` gives until it ends or the client leaves; either way `messages` is closed.

    It is one of `streams` while it is open."""

    def __init__(self, messages: AsyncGenerator[bytes], streams: set[EventStream]) -> None:
        super().__init__(
            media_type=MEDIA_TYPE, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        del self.headers["content-length"]
        self._messages = messages
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._streams.add(self)
        try:
            await self._serve(receive, send)
        finally:
            self._streams.discard(self)

    async def _serve(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with anyio.create_task_group() as tasks:

            async def pass_on() -> None:
                with suppress(OSError):  # the client has left
                    async with aclosing(self._messages) as messages:
                        async for message in messages:
                            await send({"type": "http.response.body", "body": message, "more_body": True})
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                tasks.cancel_scope.cancel()

            tasks.start_soon(pass_on)
            while (await receive())["type"] != "http.disconnect":
                continue
            tasks.cancel_scope.cancel()


async def _messages(
    call: Call, items: Subscription, position: Position, heartbeat_s: float
) -> AsyncGenerator[bytes]:
    """First what was missed, then what happens. Watching begins before the reading, so there is no gap."""
    try:
        async with items:
            yield f"retry: {RETRY_MS}\nid: {position}\n\n".encode()
            missed = await missed_since(call.ledger, call.caller, position)
            if missed.lost:
                yield _lost(missed.lost, position)
            told = bytearray()
            missed.items.reverse()
            while missed.items:  # a stream lasts, and they do not
                item = missed.items.pop()
                position = position.after(item)
                told += await _message(call, item, position)
                if len(told) >= TOGETHER_BYTES or not missed.items:
                    yield bytes(told)
                    told.clear()
                    # Sending may not wait, and who has left must be noticed.
                    await anyio.lowlevel.checkpoint()
            async with aclosing(_news(call, items, missed, position, heartbeat_s)) as news:
                async for message in news:
                    yield message
    except MeterError as error:  # it ends, and the client comes back
        _log.warning("a stream ends: %s", error)


async def _news(
    call: Call, items: Subscription, missed: Missed, position: Position, heartbeat_s: float
) -> AsyncGenerator[bytes]:
    caught_up, dropped = position, 0
    while True:
        # Awaited as a task of its own: an item that is on its way must not be lost to a heartbeat.
        coming = asyncio.ensure_future(anext(items))
        try:
            while not (await asyncio.wait((coming,), timeout=heartbeat_s))[0]:
                yield b": still here\n\n"
            item = coming.result()
        except StopAsyncIteration:
            return
        finally:
            coming.cancel()
        told = bytearray()
        if items.dropped > dropped:
            told += _lost(items.dropped - dropped, position)
            dropped = items.dropped
        while True:
            new = missed.beyond(item, caught_up)
            if new is not None:
                position = position.after(new)
                told += await _message(call, new, position)
            if not items.is_ready or len(told) >= TOGETHER_BYTES:
                break
            item = await anext(items)
        if told:
            yield bytes(told)


async def _message(call: Call, item: FeedItem, position: Position) -> bytes:
    told = _texts.get(id(item))
    if told is not None and told[0] is item:
        return _encoded(told[1], told[2], position)
    if isinstance(item, Alert):
        view = await call.ledger.look(call.caller, lambda looking: looking.alert_view(item), refusals=False)
        return _encoded("alert", controls.Alert.of(view).model_dump_json(), position)
    if isinstance(item, AuditEntry):
        return _encoded("audit", records.AuditEntry.of(item).model_dump_json(), position)
    kind = "refusal" if item.outcome == "rejected" else "usage"
    text = reports.Event.of(item).model_dump_json()
    if len(_texts) >= TEXTS_MAX:
        _texts.clear()
    _texts[id(item)] = (item, kind, text)
    return _encoded(kind, text, position)


def _lost(count: int, position: Position) -> bytes:
    return _encoded("lost", f'{{"count":{count}}}', position)


def _encoded(kind: str, data: str, position: Position) -> bytes:
    return f"event: {kind}\nid: {position}\ndata: {data}\n\n".encode()
