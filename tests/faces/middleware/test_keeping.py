"""Work that takes longer than a hold lasts stays within its limit."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import anyio
import pytest

from agent_meter_mcp import MeterMiddleware, meter_tools
from agent_meter_mcp.faces.middleware import keeping

from .conftest import SECONDS, Books, Exchange
from .test_tools import connected, server_with

HELD_S = 60


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "EXTEND_EVERY_S", 0.005)


async def talk(scope: Any, receive: Any, send: Any) -> None:
    """A WebSocket that stays open until its client leaves."""
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def opened(app: MeterMiddleware, tasks: asyncio.TaskGroup) -> Exchange:
    exchange = Exchange("websocket")
    exchange.incoming.put_nowait({"type": "websocket.connect"})
    tasks.create_task(exchange.run(app))
    await exchange.until_sent(1)
    return exchange


async def is_extended(books: Books, until_s: float) -> None:
    """Waits until each hold lasts that long from now."""
    deadline = time.monotonic() + SECONDS
    until_us = books.clock.now_us + int(until_s * 1_000_000)
    while any(held.expires_at_us < until_us for held in await books.open()):
        assert time.monotonic() < deadline
        await anyio.sleep(0.002)


async def test_what_stays_open_stays_held(books: Books) -> None:
    """Two a day are two a day, however long they last."""
    await books.limit(2, window="day")
    app = MeterMiddleware(talk, "my-api", meter=books.meter)
    async with asyncio.TaskGroup() as tasks:
        first, second = await opened(app, tasks), await opened(app, tasks)
        for _ in range(4):
            books.clock.advance(HELD_S - 10)
            await is_extended(books, HELD_S - 1)
            assert len(await books.open()) == 2
        third = await opened(app, tasks)
        assert third.sent[0]["type"] == "websocket.close"
        for exchange in (first, second):
            exchange.incoming.put_nowait({"type": "websocket.disconnect"})
    stored = await books.settled(2)
    assert [one.event.status_code for one in stored] == [101, 101]
    assert await books.holds() == 0


async def test_a_tool_that_takes_long_stays_held(books: Books) -> None:
    await books.limit(1, window="day")
    guard = meter_tools("maps", meter=books.meter)
    begun, done = asyncio.Event(), asyncio.Event()
    server = server_with(guard)

    @server.tool()
    async def dig() -> str:
        begun.set()
        await done.wait()
        return "deep"

    async with connected(guard, server=server) as client, asyncio.TaskGroup() as tasks:
        digging = tasks.create_task(client.call_tool("dig", {}))
        await begun.wait()
        for _ in range(2):
            books.clock.advance(HELD_S - 10)
            await is_extended(books, HELD_S - 1)
        again: Any = await client.call_tool("dig", {})
        assert again.is_error
        done.set()
    assert not digging.result().is_error
    assert len(await books.settled(1)) == 1


async def test_a_hold_that_is_over_is_not_extended_and_what_was_used_counts(
    books: Books, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    app = MeterMiddleware(talk, "my-api", meter=books.meter)
    async with asyncio.TaskGroup() as tasks:
        exchange = await opened(app, tasks)
        books.clock.advance(HELD_S + 1)
        deadline = time.monotonic() + SECONDS
        while "could not be extended" not in caplog.text:
            assert time.monotonic() < deadline
            await anyio.sleep(0.002)
        other = await opened(app, tasks)
        for _ in range(3):  # as often as that one is extended, the first would be tried
            books.clock.advance(HELD_S // 2)
            await is_extended(books, HELD_S)
        for each in (exchange, other):
            each.incoming.put_nowait({"type": "websocket.disconnect"})
    assert len(await books.settled(2)) == 2
    assert caplog.text.count("could not be extended") == 1


async def test_a_websocket_that_the_app_declines_is_no_client_that_has_left(books: Books) -> None:
    async def decline(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 1008})

    exchange = Exchange("websocket")
    exchange.incoming.put_nowait({"type": "websocket.connect"})
    await exchange.run(MeterMiddleware(decline, "my-api", meter=books.meter))
    (stored,) = await books.settled()
    assert stored.event.status_code == 403
