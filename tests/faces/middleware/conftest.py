"""A ledger under a clock that stands still, and servers that run the apps around which it meters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from anyio import to_thread

from agent_meter_mcp.client import Meter
from agent_meter_mcp.core.models import LimitKey, Reservation, StoredEvent, Subject
from agent_meter_mcp.core.queries import EventsQuery, UsageFilter
from agent_meter_mcp.ledger import Ledger
from agent_meter_mcp.prices import PriceBook
from agent_meter_mcp.runtime import new_id
from agent_meter_mcp.store.sqlite import open_store

from ..conftest import OPERATOR, ManualClock

SECONDS = 20
App = Callable[..., Coroutine[Any, Any, None]]
Message = MutableMapping[str, Any]


class Books:
    """The ledger behind a meter."""

    def __init__(self, ledger: Ledger, clock: ManualClock) -> None:
        self.ledger = ledger
        self.clock = clock
        self.meter = Meter(ledger=ledger, source="middleware")

    async def limit(
        self, maximum: int, agent: str = "bot", window: str = "60s", metric: Any = "requests"
    ) -> None:
        await self.ledger.set_limit(
            OPERATOR, LimitKey(Subject("agent", agent), None, metric, window), maximum
        )

    async def stop(self, agent: str) -> None:
        await self.ledger.set_switch(OPERATOR, "agent", agent, True, "it ran wild")

    async def events(self, outcome: Any = "accepted") -> list[StoredEvent]:
        """Oldest first."""
        query = EventsQuery(UsageFilter(outcome=outcome), limit=500)
        return list(reversed((await self.ledger.events(OPERATOR, query)).events))

    async def open(self) -> list[Reservation]:
        return await self.ledger.reservations(OPERATOR)

    async def holds(self) -> int:
        return len(await self.open())

    async def settled(self, count: int = 1) -> list[StoredEvent]:
        """So many events, once they are there: an app does not wait for them."""
        deadline = time.monotonic() + SECONDS
        while len(found := await self.events()) < count:
            assert time.monotonic() < deadline, found
            await anyio.sleep(0.002)
        return found


@pytest.fixture
async def books(tmp_path: Path, nothing_blocks: None) -> AsyncGenerator[Books]:
    clock = ManualClock()
    store = await to_thread.run_sync(open_store, str(tmp_path / "usage.db"))
    async with Ledger(store, PriceBook(tmp_path / "prices.toml"), clock, new_id) as ledger:
        yield Books(ledger, clock)


def client_of(app: Any, agent: str | None = "bot", **options: Any) -> httpx2.AsyncClient:
    headers = {} if agent is None else {"x-agent-id": agent}
    transport = httpx2.ASGITransport(app, **options)
    return httpx2.AsyncClient(transport=transport, base_url="http://api.test", headers=headers)


@asynccontextmanager
async def living(app: App) -> AsyncGenerator[list[str]]:
    """Runs the lifespan of an app, as a server does; what the app said of it."""
    said: list[str] = []
    told: asyncio.Queue[Message] = asyncio.Queue()
    heard: asyncio.Queue[Message] = asyncio.Queue()

    async def send(message: Message) -> None:
        said.append(message["type"])
        heard.put_nowait(message)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, told.get, send))
        told.put_nowait({"type": "lifespan.startup"})
        await heard.get()
        try:
            yield said
        finally:
            told.put_nowait({"type": "lifespan.shutdown"})
            await heard.get()


class Exchange:
    """One request by raw ASGI: what comes in is put there by the test, what goes out is kept."""

    def __init__(self, kind: str = "http", path: str = "/", agent: str = "bot", **scope: Any) -> None:
        self.scope: dict[str, Any] = {
            "type": kind,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"x-agent-id", agent.encode())],
            **({"method": "GET"} if kind == "http" else {"subprotocols": []}),
            **scope,
        }
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.sent: list[Message] = []

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def run(self, app: App) -> None:
        await app(self.scope, self.incoming.get, self.send)

    async def until_sent(self, count: int) -> None:
        deadline = time.monotonic() + SECONDS
        while len(self.sent) < count:
            assert time.monotonic() < deadline, self.sent
            await anyio.sleep(0.002)
