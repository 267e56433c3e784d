"""(l): a batch of upstream's records over HTTP, against inserting the same rows without any of it.

Requests go to the routes in this process (ASGI), whole: reading the JSON, checking each record, storing it,
answering for each, with the garbage collector as the server sets it. The floor is `executemany` of the very
rows that this made.
"""

from __future__ import annotations

import gc
import json
import random
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
from anyio.from_thread import start_blocking_portal
from fastapi import FastAPI

from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.faces.http import CALLER
from agent_meter_mcp.faces.http.upstream import router
from agent_meter_mcp.ledger import Ledger
from agent_meter_mcp.prices import PriceBook
from agent_meter_mcp.runtime import GARBAGE_AFTER_BATCHES, collect_seldom, new_id, system_clock_us
from agent_meter_mcp.secrets import SecretsFile
from agent_meter_mcp.store.sqlite import driver, open_store
from agent_meter_mcp.store.sqlite.rows import EVENT_COLUMNS

from . import plain
from .measure import Options, Row, at_least, interleave, quotients, rate, timed
from .workload import AGENTS, binding_limits, random_id

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal
    from starlette.types import ASGIApp, Receive, Scope, Send

    from agent_meter_mcp.store.sqlite import SqliteStore

BATCH, TURNS = 1000, 4
URL = "http://127.0.0.1/v1/usage/batch"


class _Operator:
    """Every request is the operator's, as on loopback without keys."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[CALLER] = Caller("operator", "benchmark")
        await self._app(scope, receive, send)


class _Ours:
    """A ledger behind the routes, and the rows that each batch became."""

    def __init__(self, portal: BlockingPortal, path: Path, limits: int) -> None:
        self._portal = portal
        self._rng = random.Random(limits)
        self._read = plain.connect(path)
        self._seen = 0
        self.rows: list[Any] = []
        api = FastAPI()
        api.include_router(router)
        api.state.secrets = SecretsFile("")
        self._api = api
        self._client = httpx2.AsyncClient(transport=httpx2.ASGITransport(_Operator(api)))
        self.ledger = _ledger(path, limits)

    def send(self) -> float:
        """Seconds from the request to its answer; its rows are there afterwards."""
        body = _body(self._rng)
        self._api.state.ledger = self.ledger
        took = timed(lambda: self._portal.call(self._post, body))
        self.rows = self._read.execute(
            f"SELECT {EVENT_COLUMNS} FROM event WHERE id > ? ORDER BY id", (self._seen,)
        ).fetchall()
        self._seen = self.rows[-1][0]
        if len(self.rows) != BATCH:
            raise RuntimeError(f"{len(self.rows)} rows of {BATCH}")
        return took

    async def _post(self, body: bytes) -> None:
        answer = await self._client.post(URL, content=body, headers={"content-type": "application/json"})
        if answer.status_code != 200:
            raise RuntimeError(answer.text)

    def close(self) -> None:
        self._read.close()


def run_ingest(options: Options) -> Iterator[Row]:
    """1000 records in one request, FULL: with 3 binding limits, and with none."""
    for limits in (3, 0):
        folder = options.folder / f"ingest-{limits}"
        folder.mkdir()
        with start_blocking_portal() as portal, _as_served():
            ours = _Ours(portal, _made(folder / "ours.db", limits), limits)
            bare = plain.new_table(folder / "floor.db")
            with portal.wrap_async_context_manager(ours.ledger):
                ours.send()
                took = interleave(
                    {"ours": ours.send, "floor": lambda: _insert(bare, ours.rows)},  # noqa: B023 - used in this turn
                    options.number_of_rounds(9, 5),
                    TURNS,
                )
            ours.close()
            bare.close()
        yield Row(
            "l",
            f"POST /v1/usage/batch of 1000, {limits} limits / executemany of its rows",
            rate(BATCH * TURNS, took["ours"]),
            rate(BATCH * TURNS, took["floor"]),
            quotients(took["floor"], took["ours"]),
            at_least(0.35),
        )


@contextmanager
def _as_served() -> Generator[None]:
    before = gc.get_threshold()
    collect_seldom(GARBAGE_AFTER_BATCHES)
    yield
    gc.set_threshold(*before)


def _made(path: Path, limits: int) -> Path:
    store = plain.new_store(path)
    if limits:
        store.apply(binding_limits(limits), system_clock_us())
    store.close()
    return path


def _ledger(path: Path, limits: int) -> Ledger:
    store: SqliteStore = open_store(str(path))
    return Ledger(store, PriceBook(path.with_name("prices.toml")), system_clock_us, new_id)


def _insert(bare: driver.Connection, rows: list[Any]) -> float:
    """The turn of the floor may come twice for one batch: a row's key is made its own."""
    last = bare.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()[0]
    fresh = [
        (last + number, f"{row[1][:24]}{last + number:x}"[:32], *row[2:])
        for number, row in enumerate(rows, 1)
    ]
    return timed(lambda: plain.insert(bare, fresh))


def _body(rng: random.Random) -> bytes:
    """What an SDK has gathered within some seconds, in its order."""
    now_us = system_clock_us()
    records = [_record(rng, now_us - (BATCH - number) * 5000) for number in range(BATCH)]
    return json.dumps({"records": records}, separators=(",", ":")).encode()


def _record(rng: random.Random, at_us: int) -> dict[str, Any]:
    at = datetime.fromtimestamp(at_us // 1000 / 1000, UTC)
    return {
        "id": random_id(rng, at_us).replace("-", ""),
        "timestamp": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z",
        "serviceId": "my-api",
        "agent": {"agentId": rng.choice(AGENTS), "name": "Research"},
        "operation": rng.choice(("POST /api/generate", "GET /api/search", "GET /api/pages")),
        "units": rng.choice((1, 2, 12.5)),
        "unitType": "request",
        "pricingModel": "per-call",
        "method": "POST",
        "path": "/api/generate",
        "statusCode": 200,
        "durationMs": rng.randrange(5, 900),
        "metadata": {"trace": f"{rng.getrandbits(64):016x}", "attempt": 1},
    }
