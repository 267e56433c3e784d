"""(m): what MeterMiddleware adds to a request, with a local file and synchronous=NORMAL.

The same FastAPI app with and without it, called in process: no socket hides what it costs. Its clients wait
for nothing between two requests, so what is settled after a response is paid for by the next one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI

from agent_meter_mcp import Ledger, Meter, MeterMiddleware
from agent_meter_mcp.ledger.worker import Worker
from agent_meter_mcp.prices import PriceBook
from agent_meter_mcp.runtime import new_id, system_clock_us

from . import plain
from .measure import Options, Row, Side, at_most, interleave, middle, percentile, quotients, rate
from .workload import Workload, binding_limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from .workload import RawRow

CLIENTS = (1, 16, 64)
REQUESTS = 320
"""In one turn, by all clients together."""
AGENT = "agent-01"
ADDED_S_MAX = 0.0006


def run_middleware(options: Options) -> Iterator[Row]:
    """Latency that it adds at p50 to a single client, and throughput with it and without, for each number."""
    path = options.folder / "middleware.db"
    store = plain.new_store(path, synchronous="NORMAL")
    store.apply(binding_limits(3), time.time_ns() // 1000)
    ledger = Ledger(store, PriceBook(Path("none")), system_clock_us, new_id)
    rounds = options.number_of_rounds(15, 5)
    with ExitStack() as opened:
        portal = opened.enter_context(start_blocking_portal())
        opened.enter_context(portal.wrap_async_context_manager(ledger))
        metered = MeterMiddleware(_api(), "api", meter=Meter(ledger=ledger, source="middleware"))
        opened.enter_context(portal.wrap_async_context_manager(_living(metered)))
        for clients in CLIENTS:
            with_it, without = _Load(portal, metered, clients), _Load(portal, _api(), clients)
            took = interleave({"floor": without.turn, "ours": with_it.turn}, rounds)
            yield from _rows(clients, took, with_it, without)
        raw, without = (
            _Load(portal, _Raw(_api(), options.folder / "raw.db", portal), 1),
            _Load(portal, _api(), 1),
        )
        interleave({"floor": without.turn, "raw": raw.turn}, rounds)
        yield _added(
            "two raw rows committed in a thread before each request, 1 client: added at p50", raw, without
        )


def _added(what: str, ours: _Load, floor: _Load) -> Row:
    mine, other = ours.medians[1:], floor.medians[1:]
    added = tuple((with_it - without) * 1e3 for with_it, without in zip(mine, other, strict=True))
    return Row("m", what, middle(mine), middle(other), added, unit="ms")


def _rows(clients: int, took: dict[str, list[float]], ours: _Load, floor: _Load) -> Iterator[Row]:
    """In process, clients stand in line: with many of them, only a request's part of the whole says much."""
    if clients == 1:
        people, how, mine, other = "1 client", "at p50", ours.medians[1:], floor.medians[1:]
    else:
        people, how = f"{clients} clients", "per request"
        mine, other = ([seconds / REQUESTS for seconds in took[side]] for side in ("ours", "floor"))
    yield Row(
        "m",
        f"a request through MeterMiddleware, {people}: added {how}",
        middle(mine),
        middle(other),
        tuple((with_it - without) * 1e3 for with_it, without in zip(mine, other, strict=True)),
        at_most(ADDED_S_MAX * 1e3) if clients == 1 else None,
        unit="ms",
    )
    yield Row(
        "m",
        f"requests through MeterMiddleware, {people} / without it",
        rate(REQUESTS, took["ours"]),
        rate(REQUESTS, took["floor"]),
        quotients(took["floor"], took["ours"]),
    )


@asynccontextmanager
async def _living(app: MeterMiddleware) -> AsyncGenerator[None]:
    """As a server runs the lifespan of an app."""
    told: asyncio.Queue[Any] = asyncio.Queue()
    heard: asyncio.Queue[Any] = asyncio.Queue()
    running = asyncio.create_task(app({"type": "lifespan", "state": {}}, told.get, heard.put))
    told.put_nowait({"type": "lifespan.startup"})
    await heard.get()
    yield
    told.put_nowait({"type": "lifespan.shutdown"})
    await running


class _Raw:
    """The least that a durable count of requests needs: a row before each, and one that settles the last."""

    def __init__(self, app: Any, path: Path, portal: BlockingPortal) -> None:
        self._app = app
        self._plain = plain.new_table(path, synchronous="NORMAL")
        self._workload = Workload()
        self._worker: Worker[RawRow, None] = Worker("raw", self._insert, queue_max=10, batch_max=10)
        portal.call(self._start)

    async def _start(self) -> None:
        self._worker.start()

    def _insert(self, rows: list[RawRow]) -> list[None]:
        plain.insert(self._plain, rows)
        return [None] * len(rows)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._worker.submit(self._workload.rows(2))
        await self._app(scope, receive, send)


class _Load:
    """So many clients of one app. `medians` has the median latency of each turn, the first one included."""

    def __init__(self, portal: BlockingPortal, app: Any, clients: int) -> None:
        self._portal = portal
        self._app = app
        self._clients = clients
        self.medians: list[float] = []
        self.turn: Side = lambda: portal.call(self._turn)

    async def _turn(self) -> float:
        latencies: list[float] = []
        transport = httpx2.ASGITransport(self._app)
        headers = {"x-agent-id": AGENT}
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://api.test", headers=headers
        ) as client:

            async def requests(count: int) -> None:
                for _ in range(count):
                    began = time.perf_counter()
                    answer = await client.get("/items/7")
                    latencies.append(time.perf_counter() - began)
                    if answer.status_code != 200:
                        raise RuntimeError(f"refused: {answer.text}")

            began = time.perf_counter()
            await asyncio.gather(*(requests(REQUESTS // self._clients) for _ in range(self._clients)))
            took = time.perf_counter() - began
        self.medians.append(percentile(latencies, 50))
        return took


def _api() -> FastAPI:
    app = FastAPI()
    route: Callable[[str], Any] = app.get

    @route("/items/{number}")
    async def item(number: int) -> dict[str, int]:
        return {"number": number}

    return app
