"""Usage of an API whose ledger somebody else holds locked: it waits, and nothing of it is lost."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi import FastAPI

from agent_meter_mcp import Meter, MeterMiddleware
from agent_meter_mcp.core.errors import StoreBusy
from agent_meter_mcp.core.models import StoredEvent
from agent_meter_mcp.core.queries import EventsQuery, UsageFilter
from agent_meter_mcp.faces.middleware import attachment, owed
from agent_meter_mcp.faces.middleware.attachment import Attachment
from agent_meter_mcp.faces.middleware.owed import Debt, Owed
from agent_meter_mcp.store.sqlite import driver, open_store

from .conftest import client_of, living

SECONDS = 20


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_METER_BUSY_TIMEOUT", "0.02")
    monkeypatch.setattr(owed, "PAUSE_S", 0.01)
    monkeypatch.setattr(owed, "PAUSE_MAX_S", 0.05)


@contextmanager
def locked(db: Path) -> Generator[None]:
    """As by another process."""
    with closing(driver.connect(str(db), synchronous="FULL", busy_timeout_s=5)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def events(db: Path) -> list[StoredEvent]:
    with closing(open_store(str(db), busy_timeout_s=5)) as store:
        assert list(store.verify()) == []
        return list(store.events(EventsQuery(UsageFilter(), limit=500)).events)


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        await anyio.sleep(0.005)


async def recorded(db: Path, count: int) -> list[StoredEvent]:
    deadline = time.monotonic() + SECONDS
    while len(found := await asyncio.to_thread(events, db)) < count:
        assert time.monotonic() < deadline, found
        await anyio.sleep(0.01)
    return found


def api(db: Path, lock: Any, **options: Any) -> MeterMiddleware:
    """Its `/locks` has the ledger locked before it answers, and whoever releases `lock` unlocks it."""
    app = FastAPI()

    @app.get("/hello")
    async def hello() -> str:
        return "hello"

    @app.get("/locks")
    async def locks() -> str:
        lock.__enter__()
        return "locked"

    return MeterMiddleware(app, "my-api", db=db, **options)


@pytest.mark.parametrize("with_lifespan", [True, False])
async def test_what_was_used_is_settled_once_the_ledger_can_be_written(
    tmp_path: Path, with_lifespan: bool, caplog: pytest.LogCaptureFixture
) -> None:
    db = tmp_path / "meter.db"
    lock = locked(db)
    app = api(db, lock, units=3)

    async def use() -> None:
        async with client_of(app) as client:
            assert (await client.get("/locks")).text == '"locked"'
            await until(lambda: "waits until the meter can take it" in caplog.text)
            lock.__exit__(None, None, None)
            (event,) = await recorded(db, 1)
        assert (event.event.operation, event.event.usage.units_micro) == ("GET /locks", 3_000_000)
        assert event.event.status_code == 200

    if with_lifespan:
        async with living(app):
            await use()
    else:
        await use()
    assert app.counters["unsettled"] == 0


async def test_who_was_let_in_without_the_meter_is_recorded_later_once_each(tmp_path: Path) -> None:
    db = tmp_path / "meter.db"
    app = api(db, None)
    async with living(app), client_of(app) as client:
        with locked(db):
            answers = [await client.get("/hello") for _ in range(20)]
            assert [answer.status_code for answer in answers] == [200] * 20
            assert app.counters["allowed_without_meter"] == 20
        found = await recorded(db, 20)
        assert (await client.get("/hello")).status_code == 200
    assert len(found) == 20
    assert len(events(db)) == 21
    assert app.counters["unsettled"] == 0


@pytest.mark.parametrize("with_lifespan", [True, False])
async def test_who_was_let_in_before_the_ledger_could_be_opened_is_recorded_later(
    tmp_path: Path, with_lifespan: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as in an app that starts while the disk is full."""
    monkeypatch.setattr(attachment, "OPEN_AGAIN_S", 0.01)
    db = tmp_path / "later" / "meter.db"
    app = api(db, None)
    async with living(app) if with_lifespan else nullcontext(), client_of(app) as client:
        for _ in range(20):
            assert (await client.get("/hello")).status_code == 200
        db.parent.mkdir()
        count = 20
        while app.counters["allowed_without_meter"] == count:  # until it is tried again
            assert (await client.get("/hello")).status_code == 200
            count += 1
        assert len(await recorded(db, count)) == count
        await app._metering.attachment.close()  # pyright: ignore[reportPrivateUsage] - as at the process's exit
    assert app.counters["allowed_without_meter"] >= 20
    assert app.counters["unsettled"] == 0


async def test_an_app_that_ends_tries_once_more_and_says_what_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    db = tmp_path / "meter.db"
    app = api(db, None)
    async with living(app), client_of(app) as client:
        with locked(db):
            for _ in range(3):
                await client.get("/hello")
            await until(lambda: "waits until the meter can take it" in caplog.text)
    assert len(events(db)) == 3  # it was free again

    caplog.clear()
    caplog.set_level(logging.ERROR)
    with locked(db):
        async with living(app), client_of(app) as client:
            for _ in range(3):
                await client.get("/hello")
    assert app.counters["unsettled"] == 3
    assert caplog.text.count("usage of bot at my-api could not be settled") == 3
    assert "Traceback" not in caplog.text
    assert len(events(db)) == 3


async def test_a_process_that_ends_without_a_lifespan_tries_once_more(tmp_path: Path) -> None:
    db = tmp_path / "meter.db"
    app = api(db, None)
    async with client_of(app) as client:
        assert (await client.get("/hello")).status_code == 200
        await recorded(db, 1)
        with locked(db):
            assert (await client.get("/hello")).status_code == 200
            await anyio.sleep(0.1)
    apart = app._metering.attachment._apart  # pyright: ignore[reportPrivateUsage] - what atexit would close
    assert apart is not None
    await asyncio.to_thread(apart.close)
    assert len(events(db)) == 2
    assert app.counters["unsettled"] == 0


class Meters:
    """Takes as many as it is told to."""

    def __init__(self, takes: int = 0) -> None:
        self.takes = takes
        self.asked: list[int] = []
        self.taken: list[int] = []
        self.lost: Counter[int] = Counter()
        self.why: set[str] = set()

    def debt(self, number: int) -> Debt:
        async def attempt() -> None:
            self.asked.append(number)
            await asyncio.sleep(0)
            if len(self.taken) >= self.takes:
                raise StoreBusy("locked")
            self.taken.append(number)

        def lost(error: BaseException) -> None:
            self.lost[number] += 1
            self.why.add(type(error).__name__)

        return Debt(attempt, lost)


async def test_one_is_tried_before_all_and_their_order_is_kept() -> None:
    meters, debts = Meters(), Owed()
    for number in range(1200):
        await debts.settle(meters.debt(number))
    await until(lambda: meters.asked.count(0) >= 4)
    assert {number for number, count in Counter(meters.asked).items() if count > 1} == {0}
    meters.takes = 700
    await until(lambda: len(meters.taken) == 700)
    meters.takes = 5000
    await until(lambda: len(meters.taken) == 1200)
    assert meters.taken == list(range(1200))
    await debts.close(SECONDS)
    assert not meters.lost


async def test_what_is_owed_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owed, "OWED_MAX", 5)
    meters, debts = Meters(), Owed()
    for number in range(8):
        await debts.settle(meters.debt(number))
    assert meters.lost == Counter((5, 6, 7))
    await debts.close(SECONDS)
    assert meters.lost == Counter(range(8))
    await debts.settle(meters.debt(8))  # nobody would come back to it
    assert meters.lost[8] == 1
    assert meters.why == {"StoreBusy"}


def test_an_event_loop_that_ends_says_what_is_lost() -> None:
    meters = Meters()

    async def use() -> None:
        debts = Owed()
        for number in range(3):
            await debts.settle(meters.debt(number))
        await asyncio.sleep(0.05)

    asyncio.run(use())
    assert meters.lost == Counter(range(3))
    assert meters.why == {"StoreBusy"}


async def test_what_is_wrong_with_one_holds_up_no_other() -> None:
    meters, debts = Meters(takes=10), Owed()
    attempts: list[int] = []
    failures: list[BaseException] = []

    async def wrong() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise StoreBusy("locked")
        raise ValueError("no such thing")

    await debts.settle(Debt(wrong, failures.append))
    await debts.settle(meters.debt(1))
    await debts.close(SECONDS)
    assert [str(failure) for failure in failures] == ["no such thing"]
    assert len(attempts) == 2
    assert meters.taken == [1]


async def test_a_meter_that_is_given_is_used_in_each_event_loop(tmp_path: Path) -> None:
    db = tmp_path / "meter.db"
    async with Meter(db=db) as meter:
        attachment = Attachment(lambda: meter, meter)
        attempts: list[int] = []
        lost: list[BaseException] = []

        async def settle(_: Meter) -> None:
            attempts.append(1)
            if len(attempts) < 3:
                raise StoreBusy("locked")

        await attachment.later(settle, lost.append)
        await until(lambda: len(attempts) == 3)
        await attachment.close()
    assert lost == []
