"""A meter behind a URL that is not there, comes back, or is killed: every record once, and nothing unsaid."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread
import pytest
from sqlite_utils.utils import sqlite3  # pyright: ignore[reportPrivateImportUsage] - the one of the store

from agent_meter_mcp.client import Hold, Meter, OverBudget, connection, recorder
from agent_meter_mcp.client.errors import Failed, error_of
from agent_meter_mcp.client.results import UsageRecorded
from agent_meter_mcp.client.spool import Spool
from agent_meter_mcp.core.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    MeterError,
    NotFound,
    Overloaded,
    StoreBusy,
    StoreError,
    Unauthorized,
    Unreachable,
)
from agent_meter_mcp.settings import Settings
from agent_meter_mcp.store.sqlite.rows import RELEASED, SETTLED

from .conftest import SECONDS, Server, events, holds, limit, until

BYTES = 100_000


@asynccontextmanager
async def answered_by(handle: Callable[[anyio.abc.SocketStream], Awaitable[None]]) -> AsyncGenerator[str]:
    """The URL of what does that with each connection."""
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, handle)
        yield f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        tasks.cancel_scope.cancel()


@pytest.fixture
async def away(down: Server, tmp_path: Path, nothing_blocks: None) -> AsyncGenerator[Meter]:
    """A meter whose server is down."""
    async with Meter(url=down.url, spool=tmp_path / "spool", on_error="allow") as meter:
        yield meter


@pytest.fixture
async def silent() -> AsyncGenerator[tuple[str, anyio.Event]]:
    """The URL of a server that never answers, and whether it has been asked anything."""
    asked = anyio.Event()

    async def hang(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            asked.set()
            await anyio.sleep_forever()

    async with answered_by(hang) as url:
        yield url, asked


def spooled_lines(folder: Path) -> int:
    lines = 0
    for path in folder.rglob("*.jsonl"):
        with suppress(FileNotFoundError):  # it has just been drained
            lines += path.read_bytes().count(b"\n")
    return lines


async def test_what_cannot_be_sent_is_kept_and_sent_later(
    away: Meter, down: Server, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    answers = [await away.record(service="s", agent="bot", id=f"r-{number}") for number in range(5)]
    assert [answer.status for answer in answers] == ["spooled"] * 5
    assert answers[0].outcome is None
    assert spooled_lines(tmp_path) == 5
    assert away.counters["spooled"] == 5
    assert "1 record put on disk for the meter" in caplog.text

    await anyio.to_thread.run_sync(down.start)
    await until(lambda: away.counters["drained"] == 5)

    stored = await events(settings)
    assert [one.event.id for one in stored] == [f"r-{number}" for number in range(5)]
    await until(lambda: spooled_lines(tmp_path) == 0)


async def test_what_is_kept_is_dated_when_it_happened(away: Meter, down: Server, settings: Settings) -> None:
    await away.record(service="s", agent="bot")
    await anyio.to_thread.run_sync(down.start)
    await until(lambda: away.counters["drained"] == 1)
    (stored,) = await events(settings)
    assert stored.event.occurred_at_us is not None
    assert stored.booked_at_us == stored.event.occurred_at_us < stored.recorded_at_us


async def test_what_is_kept_may_have_any_line_break_in_its_text(
    away: Meter, down: Server, settings: Settings
) -> None:
    text = "one\u2028two\u2029three\x85four\nfive\r\x0b\x1c"
    await away.record(service="s", agent="bot", metadata={"said": text})
    await anyio.to_thread.run_sync(down.start)
    await until(lambda: away.counters["drained"] + away.counters["rejected"] > 0)
    (stored,) = await events(settings)
    assert json.loads(stored.event.metadata or "") == {"said": text}


async def test_what_is_kept_counts_once_beside_what_was_sent(
    away: Meter, down: Server, settings: Settings
) -> None:
    assert (await away.record(service="s", agent="bot", id="r")).status == "spooled"
    await anyio.to_thread.run_sync(down.start)
    await until(lambda: away.counters["drained"] == 1)
    assert (await away.record(service="s", agent="bot", id="r")).status == "duplicate"
    assert len(await events(settings)) == 1


async def test_the_next_process_sends_what_the_last_one_kept(
    down: Server, settings: Settings, tmp_path: Path
) -> None:
    async with Meter(url=down.url, spool=tmp_path / "spool") as first:
        await first.record(service="s", agent="bot", id="kept")
    assert spooled_lines(tmp_path) == 1
    await anyio.to_thread.run_sync(down.start)
    async with Meter(url=f"{down.url}/", spool=tmp_path / "spool") as second:
        await until(lambda: second.counters["drained"] == 1)
    assert [stored.event.id for stored in await events(settings)] == ["kept"]


async def test_a_server_that_is_killed_in_the_middle_loses_and_doubles_nothing(
    server: Server, settings: Settings, tmp_path: Path
) -> None:
    sent: list[str] = []
    async with Meter(url=server.url, spool=tmp_path / "spool") as meter:

        async def report(worker: int) -> None:
            for number in range(50):
                event_id = f"{worker}-{number}"
                await meter.record(service="s", agent=f"a{worker}", id=event_id)
                sent.append(event_id)

        async with anyio.create_task_group() as tasks:
            for worker in range(4):
                tasks.start_soon(report, worker)
            await until(lambda: len(sent) > 20)
            await anyio.to_thread.run_sync(server.kill)
            await until(lambda: meter.counters["spooled"] > 0)
            await anyio.to_thread.run_sync(server.start)
        await until(lambda: meter.counters["drained"] >= meter.counters["spooled"])
    stored = [one.event.id for one in await events(settings)]
    assert len(sent) == 200
    assert sorted(stored) == sorted(sent)
    assert meter.counters["rejected"] == meter.counters["lost"] == 0


async def test_a_hold_that_cannot_be_settled_is_settled_later(
    server: Server, settings: Settings, tmp_path: Path
) -> None:
    async with Meter(url=server.url, spool=tmp_path / "spool") as meter:
        async with meter.reserve(service="s", agent="bot", units=9) as hold:
            hold.used(units=2)
            await anyio.to_thread.run_sync(server.kill)
        assert meter.counters["spooled"] == 1
        await anyio.to_thread.run_sync(server.start)
        await until(lambda: meter.counters["drained"] == 1)
    (stored,) = await events(settings)
    assert stored.event.usage.units_micro == 2_000_000
    assert await holds(settings) == 0


async def test_work_that_was_allowed_without_the_meter_is_recorded_later(
    away: Meter, down: Server, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with away.reserve(service="s", agent="bot", units=9) as hold:
        assert hold.allowed
        assert hold.reservation_id is None
        assert hold.decision.status == "unreachable"
        assert hold.decision.reasons[0].code == "unreachable"
        hold.used(units=2)
    async with away.reserve(service="s", agent="bot") as unused:
        assert (await unused.release()).status == "released"
    decided = await away.check(service="s", agent="bot")
    assert decided.allowed
    assert away.counters["allowed_without_meter"] == 3
    assert "allowed without the meter" in caplog.text
    await anyio.to_thread.run_sync(down.start)
    await until(lambda: away.counters["drained"] == 1)
    (stored,) = await events(settings)
    assert stored.event.usage.units_micro == 2_000_000


async def test_an_app_whose_threads_are_all_busy_keeps_what_cannot_be_sent(away: Meter) -> None:
    """And the other way round: what waits for our disk takes none of the app's threads."""
    threads = anyio.to_thread.current_default_thread_limiter()
    ended = threading.Event()
    async with anyio.create_task_group() as tasks:
        for _ in range(int(threads.total_tokens)):
            tasks.start_soon(anyio.to_thread.run_sync, ended.wait)
        try:
            await until(lambda: threads.available_tokens == 0)
            with anyio.fail_after(SECONDS):
                assert (await away.record(service="s", agent="bot")).status == "spooled"
        finally:
            ended.set()


async def test_on_error_deny_denies_and_says_so(
    down: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with Meter(url=down.url, spool=tmp_path / "spool", on_error="deny") as meter:
        decided = await meter.check(service="s", agent="bot")
        assert (decided.allowed, decided.retry_after_s) == (False, 1)
        with pytest.raises(OverBudget, match="could not be asked") as caught:
            async with meter.reserve(service="s", agent="bot"):
                pytest.fail("it was admitted")
        assert caught.value.decision.reasons[0].code == "unreachable"
        assert meter.counters["denied_without_meter"] == 2
    assert "denied without the meter" in caplog.text


async def test_a_local_file_that_is_in_use_is_a_meter_that_cannot_be_asked(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_METER_BUSY_TIMEOUT", "0")
    async with Meter() as allowing, Meter(on_error="deny") as denying:
        other = sqlite3.connect(settings.db, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            hold = await allowing.reserve(service="s", agent="bot").ask()
            assert hold.allowed
            assert isinstance(hold.failure, StoreBusy)
            with pytest.raises(StoreBusy):  # what was used there is not recorded, and that is not hidden
                await hold.settle()
            with pytest.raises(OverBudget):
                await denying.reserve(service="s", agent="bot").ask()
        finally:
            other.close()
        await hold.settle()
    assert len(await events(settings)) == 1


async def test_a_full_spool_is_said_aloud_counted_and_raised(
    down: Server, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with Meter(url=down.url, spool=tmp_path / "spool", spool_bytes_max=1000) as meter:
        kept = 0
        with pytest.raises(Overloaded, match="is full"):
            for _ in range(20):
                await meter.record(service="s", agent="bot")
                kept += 1
        assert 0 < kept < 10
        assert meter.counters["lost"] == 1
        assert "usage is lost to the meter" in caplog.text
        await anyio.to_thread.run_sync(down.start)
        await until(lambda: meter.counters["drained"] == kept)
        assert (await meter.record(service="s", agent="bot")).status == "recorded"
    assert len(await events(settings)) == kept + 1


async def test_a_spool_that_cannot_be_used_is_said_aloud_and_nobody_waits(
    down: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    async with Meter(url=down.url, spool=tmp_path / "file") as meter:
        with anyio.fail_after(SECONDS), pytest.raises(StoreError, match="cannot be read"):
            await meter.record(service="s", agent="bot")
        assert meter.counters["lost"] == 1
    assert "usage is lost to the meter" in caplog.text


async def test_whatever_keeping_fails_with_nobody_waits_for_ever(
    down: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One failure that nobody had thought of ended all sending: also that of what could have been sent."""
    async with Meter(url=down.url, spool=f"{tmp_path}/\0") as meter:
        with anyio.fail_after(SECONDS):
            for _ in range(2):
                with pytest.raises(ValueError, match="null"):
                    await meter.record(service="s", agent="bot")
        assert meter.counters["lost"] == 2
    assert "usage is lost to the meter" in caplog.text


async def test_what_the_meter_refuses_of_what_was_kept_holds_up_nothing(
    away: Meter, down: Server, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    same: Any = {"service": "s", "agent": "bot", "id": "1"}
    await away.record(**same, operation="a")
    await away.record(**same, operation="b")  # nobody here can know yet that this is a conflict
    await away.record(service="s", agent="bot", id="2")
    await anyio.to_thread.run_sync(down.start)
    await until(lambda: away.counters["drained"] + away.counters["rejected"] == 3)
    assert away.counters["rejected"] == 1
    assert "refuses what was kept on disk, 1:" in caplog.text
    assert [stored.event.id for stored in await events(settings)] == ["1", "2"]


async def test_a_meter_that_is_away_is_not_waited_for_again_and_again(away: Meter) -> None:
    with anyio.fail_after(SECONDS):
        await away.check(service="s", agent="bot")
        tried = away.counters["retries"]
        assert tried > 0
        for _ in range(50):
            await away.check(service="s", agent="bot")
    assert away.counters["retries"] - tried < 10


async def test_a_password_in_the_url_is_said_to_nobody(
    down: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A proxy before the meter may want one."""
    url = down.url.replace("//", "//team:swordfish@")
    async with Meter(url=url, spool=tmp_path, on_error="deny") as meter:
        said = [(await meter.check(service="s", agent="bot")).message for _ in range(2)]
        await meter.record(service="s", agent="bot")
    assert all(down.url in one for one in said)
    assert "swordfish" not in f"{said} {caplog.text}"


async def test_a_password_in_the_url_is_not_said_of_what_is_no_meter(tmp_path: Path) -> None:
    async def page(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")

    async with (
        answered_by(page) as url,
        Meter(url=url.replace("//", "//team:swordfish@"), spool=tmp_path) as meter,
    ):
        said = (await meter.check(service="s", agent="bot")).message
    assert "does not answer like a meter" in said
    assert "swordfish" not in said


async def test_a_server_that_never_answers_costs_the_timeout_at_most(tmp_path: Path) -> None:
    with anyio.fail_after(SECONDS):
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
        async with listener:
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            async with Meter(url=f"http://127.0.0.1:{port}", spool=tmp_path, timeout_s=0.2) as meter:
                decided = await meter.check(service="s", agent="bot")
    assert decided.reasons[0].code == "unreachable"
    assert "no answer within 0.2 s" in decided.message


async def test_of_many_that_ask_one_finds_out_whether_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A meter that hangs must not make each request of an app wait whenever an outage is over."""
    monkeypatch.setattr(connection, "OUTAGE_S", 0.01)
    asked: list[anyio.abc.SocketStream] = []

    async def hang(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            asked.append(stream)
            await anyio.sleep_forever()

    async with answered_by(hang) as url, Meter(url=url, spool=tmp_path, timeout_s=0.5) as meter:
        await meter.check(service="s", agent="bot")
        await until(lambda: len(asked) == 1)
        with anyio.fail_after(SECONDS):
            while len(asked) == 1:
                async with anyio.create_task_group() as many:
                    for _ in range(30):
                        many.start_soon(lambda: meter.check(service="s", agent="bot"))
        assert len(asked) == 2


@pytest.mark.parametrize(
    ("status", "encoding", "body"),
    [
        ("200 OK", "identity", b"<html/>"),
        ("200 OK", "gzip", b"<html/>"),
        ("200 OK", "identity", b'{"results": [{"status": "recorded"}]}'),
        ("200 OK", "identity", b'{"status": 200, "message": "log in first"}'),
        ("302 Found", "identity", b""),
        ("400 Bad Request", "identity", b"<html/>"),
        ("401 Unauthorized", "identity", b"<html/>"),
        ("403 Forbidden", "identity", b"<html/>"),
        ("404 Not Found", "identity", b"<html/>"),
        ("413 Content Too Large", "identity", b"<html/>"),
        ("405 Method Not Allowed", "identity", b'{"detail": "Method Not Allowed"}'),
    ],
)
async def test_what_is_no_meter_is_not_taken_for_one(
    status: str, encoding: str, body: bytes, tmp_path: Path
) -> None:
    async def page(stream: anyio.abc.SocketStream) -> None:
        head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n"
        async with stream:
            await stream.receive()
            await stream.send(f"{head}content-encoding: {encoding}\r\n\r\n".encode() + body)

    async with answered_by(page) as url, Meter(url=url, spool=tmp_path) as meter:
        assert (await meter.reserve(service="s", agent="bot").ask()).failure is not None
        assert (await meter.check(service="s", agent="bot")).reasons[0].code == "unreachable"
        assert (await meter.record(service="s", agent="bot")).status == "spooled"


async def test_what_is_no_meter_is_not_asked_again_and_again(tmp_path: Path) -> None:
    """A wrong URL, or a proxy that is set up anew: what waits on disk would be sent to it twice a second."""
    asked = 0

    async def page(stream: anyio.abc.SocketStream) -> None:
        nonlocal asked
        async with stream:
            await stream.receive()
            asked += 1
            await stream.send(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

    async with answered_by(page) as url, Meter(url=url, spool=tmp_path) as meter:
        for _ in range(50):
            assert (await meter.check(service="s", agent="bot")).reasons[0].code == "unreachable"
        assert (await meter.record(service="s", agent="bot")).status == "spooled"
    assert asked < 10


async def test_an_outage_is_looked_at_less_and_less_often_until_a_meter_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s, asked, is_meter = 1000.0, 0, False
    monkeypatch.setattr(connection, "time", SimpleNamespace(monotonic=lambda: now_s))

    async def page(stream: anyio.abc.SocketStream) -> None:
        nonlocal asked
        body = b'{"code": "forbidden"}' if is_meter else b"{}"
        head = f"HTTP/1.1 403 X\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        async with stream:
            await stream.receive()
            asked += 1
            await stream.send(head.encode() + body)

    async def is_asked_after(pause_s: float) -> bool:
        nonlocal now_s
        before, now_s = asked, now_s + pause_s
        with suppress(Forbidden):
            await meter.check(service="s", agent="bot")
        return asked > before

    async with answered_by(page) as url, Meter(url=url, spool=tmp_path) as meter:
        for pause_s in (0.5, 1, 2, 4, 8, 16, 30, 30):
            assert await is_asked_after(0.1)
            assert not await is_asked_after(pause_s - 0.1)
        is_meter = True
        assert await is_asked_after(0.1)
        is_meter = False
        assert await is_asked_after(0)
        assert not await is_asked_after(0.4)
        assert await is_asked_after(0.1)


async def test_a_cookie_that_cannot_be_sent_back_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy before the meter may set one."""
    monkeypatch.setattr(connection, "OUTAGE_S", 0)

    async def page(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 500 X\r\nset-cookie: place=\xe9\r\nconnection: close\r\n\r\n")

    async with answered_by(page) as url, Meter(url=url, spool=tmp_path) as meter:
        assert (await meter.check(service="s", agent="bot")).reasons[0].code == "unreachable"
        assert (await meter.record(service="s", agent="bot")).status == "spooled"


async def test_an_answer_without_end_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be in the app's memory, as much as comes in `timeout_s`."""
    monkeypatch.setattr(connection, "ANSWER_MAX", BYTES)

    async def talk(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
            with suppress(anyio.BrokenResourceError):
                while True:
                    await stream.send(b" " * BYTES)

    async with answered_by(talk) as url, Meter(url=url, spool=tmp_path, timeout_s=SECONDS) as meter:
        with anyio.fail_after(SECONDS / 2):
            assert (await meter.check(service="s", agent="bot")).reasons[0].code == "unreachable"
            assert (await meter.record(service="s", agent="bot")).status == "spooled"


async def test_over_a_limit_is_an_answer_and_not_an_error(
    url: str, settings: Settings, tmp_path: Path
) -> None:
    """The batch is answered 429 then, and everything in it is stored."""
    await limit(settings, 1)
    async with Meter(url=url, spool=tmp_path) as meter:
        assert (await meter.record(service="s", agent="bot", requests=2)).outcome == "over_limit"
        assert meter.counters == {"recorded": 1}
    assert len(await events(settings)) == 1


async def test_many_records_share_requests(
    url: str, seen: list[str], settings: Settings, tmp_path: Path
) -> None:
    async with Meter(url=url, spool=tmp_path) as meter:
        async with anyio.create_task_group() as tasks:
            for number in range(300):
                tasks.start_soon(lambda n=number: meter.record(service="s", agent="bot", id=f"{n}"))
    assert len(await events(settings)) == 300
    assert len(seen) <= 3


@pytest.mark.parametrize(
    ("status", "problem", "kind", "text"),
    [
        (
            422,
            {"code": "invalid_input", "field": "ttl", "detail": "ttl: is long."},
            InvalidInput,
            "ttl: is long.",
        ),
        (409, {"code": "conflict", "detail": "other content"}, Conflict, "other content"),
        (404, {"code": "not_found", "detail": "no such hold"}, NotFound, "no such hold"),
        (403, {"code": "forbidden", "detail": "you are bound"}, Forbidden, "you are bound"),
        (401, {"code": "unauthorized", "detail": "no key"}, Unauthorized, "no key"),
        (503, {"code": "store_busy", "detail": "in use"}, StoreBusy, "in use"),
        (503, {"code": "overloaded", "detail": "full"}, Overloaded, "full"),
        (400, None, Failed, "the meter answered HTTP 400"),
        (408, {"code": "body_too_slow", "detail": "slow"}, Failed, "slow"),
        (403, "<html>", Unreachable, "the meter answered HTTP 403"),
        (403, {"code": "unknown_origin", "detail": "a page"}, Forbidden, "a page"),
        (502, "<html>", Unreachable, "the meter answered HTTP 502"),
        (418, {"title": "Teapot"}, Unreachable, "Teapot"),
        (418, {"code": "of a newer meter", "detail": "Teapot"}, MeterError, "Teapot"),
    ],
)
def test_a_problem_becomes_the_error_that_it_was(
    status: int, problem: object, kind: type[MeterError], text: str
) -> None:
    error = error_of(status, problem)
    assert type(error) is kind
    assert str(error) == text


def lines_in(spool: Spool) -> list[list[bytes]]:
    """Of each file that nobody writes."""
    return [list(file.lines()) for file in spool.files()]


def test_two_writers_of_one_spool_leave_each_other_alone(tmp_path: Path) -> None:
    mine, other = Spool(tmp_path, BYTES), Spool(tmp_path, BYTES)
    mine.append(['{"id":"1"}'])
    other.append(['{"id":"2"}', '{"id":"3"}'])
    assert lines_in(mine) == [[b'{"id":"1"}']]
    other.close()
    assert lines_in(mine) == [[b'{"id":"1"}'], [b'{"id":"2"}', b'{"id":"3"}']]
    for file in mine.files():
        file.remove()
    assert not mine.waiting()


def test_a_line_that_was_being_written_when_its_process_died_is_not_sent(tmp_path: Path) -> None:
    spool = Spool(tmp_path, BYTES)
    spool.append(['{"id":"1"}'])
    spool.close()
    (path,) = tmp_path.glob("*.jsonl")
    with path.open("ab") as file:
        file.write(b'{"id":"2", "serv')
    assert lines_in(spool) == [[b'{"id":"1"}']]


def test_the_spool_is_for_its_owner_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "deep" / "spool", BYTES)
    spool.append(["{}"])
    spool.close()
    (path,) = (tmp_path / "deep" / "spool").iterdir()
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


OPEN = 0


def states_of_holds(settings: Settings) -> list[int]:
    with closing(sqlite3.connect(settings.db)) as file:
        return [state for (state,) in file.execute("SELECT state FROM reservation ORDER BY id")]


async def give_up_on(hold: Hold, meter: Meter, server: Server) -> None:
    """The server has got the request, and answers when nobody waits for it any more."""
    await meter.check(service="s", agent="bot")
    server.pause()
    with anyio.move_on_after(0.2) as waiting:
        await hold.ask()
    assert waiting.cancelled_caught
    server.go_on()


async def test_a_hold_that_nobody_waits_for_any_more_is_let_go(
    server: Server, settings: Settings, tmp_path: Path
) -> None:
    """Its id is not known here when the caller gives up, and the server makes it all the same."""
    async with Meter(url=server.url, spool=tmp_path) as meter:
        await give_up_on(meter.reserve(service="s", agent="bot"), meter, server)
    assert states_of_holds(settings) == [RELEASED]


async def test_a_hold_with_an_id_is_there_to_be_asked_for_again(
    server: Server, settings: Settings, tmp_path: Path
) -> None:
    async with Meter(url=server.url, spool=tmp_path) as meter:
        await give_up_on(meter.reserve(service="s", agent="bot", id="job-1"), meter, server)
        async with meter.reserve(service="s", agent="bot", id="job-1"):
            assert states_of_holds(settings) == [OPEN]
    assert states_of_holds(settings) == [SETTLED]


async def test_what_is_refused_when_nobody_waits_for_it_any_more_is_said_aloud(
    server: Server, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who recorded was cancelled, so nobody heard that it is not in the ledger."""
    async with Meter(url=server.url, spool=tmp_path) as meter:
        await meter.record(service="s", agent="bot", id="same")
        server.pause()
        with anyio.move_on_after(0.2) as waiting:
            await meter.record(service="s", agent="bot", id="same", operation="other")
        assert waiting.cancelled_caught
        server.go_on()
    assert meter.counters["lost"] == 1
    assert "usage same is lost to the meter" in caplog.text


async def test_what_waits_in_memory_has_a_bound(
    url: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "QUEUE_MAX", 2)
    async with Meter(url=url, spool=tmp_path) as meter:
        answers = await asyncio.gather(
            *(meter.record(service="s", agent="bot") for _ in range(5)), return_exceptions=True
        )
        assert [isinstance(answer, Overloaded) for answer in answers] == [False, False, True, True, True]
        assert str(answers[4]) == "2 records are waiting; nothing was kept."
        assert meter.counters == {"recorded": 2, "lost": 3}
    assert len(await events(settings)) == 2


@pytest.mark.parametrize(("said", "used"), [({"requests": 7}, 7), ({}, 2)], ids=["actual", "as estimated"])
async def test_what_was_being_settled_by_hand_is_used_also_where_nobody_waits_for_it(
    said: dict[str, Any], used: int, server: Server, settings: Settings, tmp_path: Path
) -> None:
    """Leaving the block released the hold instead, as if nothing had been used."""
    async with Meter(url=server.url, spool=tmp_path) as meter:
        with anyio.CancelScope() as scope:
            async with meter.reserve(service="s", agent="bot", requests=2) as hold:
                async with anyio.create_task_group() as tasks:
                    scope.cancel()
                    tasks.start_soon(anyio.lowlevel.checkpoint)
                    await hold.settle(**said)
    assert [one.event.usage.requests for one in await events(settings)] == [used]
    assert states_of_holds(settings) == [SETTLED]


@pytest.mark.parametrize(
    ("said", "told"),
    [({"requests": 7, "status_code": 200}, (7, 200)), ({}, (2, None))],
    ids=["actual", "as estimated"],
)
async def test_what_a_locked_file_did_not_take_is_settled_on_leaving(
    said: dict[str, Any],
    told: tuple[int, int | None],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AGENT_METER_BUSY_TIMEOUT", "0")
    async with Meter() as meter:
        with pytest.raises(StoreError):
            async with meter.reserve(service="s", agent="bot", requests=2) as hold:
                with closing(sqlite3.connect(settings.db, isolation_level=None)) as other:
                    other.execute("BEGIN IMMEDIATE")
                    await hold.settle(**said)
    kept = [(one.event.usage.requests, one.event.status_code) for one in await events(settings)]
    assert kept == [told]


async def test_what_waits_is_kept_also_where_nobody_waits_for_the_meter_to_close(tmp_path: Path) -> None:
    async def hang(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await anyio.sleep_forever()

    async def give_up() -> None:
        async with Meter(url=url, spool=tmp_path, timeout_s=1) as meter:
            with anyio.move_on_after(0.1):
                await meter.reserve(service="s", agent="bot").ask()
            keep.append(asyncio.create_task(meter.record(service="s", agent="bot")))
            await asyncio.sleep(0)

    keep: list[asyncio.Task[UsageRecorded]] = []
    async with await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0) as listener:
        url = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, hang)
            closing = asyncio.create_task(give_up())
            await until(lambda: bool(keep))
            await anyio.sleep(0.1)
            closing.cancel()
            with suppress(asyncio.CancelledError):
                await closing
            assert keep[0].done()
            assert spooled_lines(tmp_path) == 1
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def recording(meter: Meter, asked: anyio.Event) -> AsyncGenerator[None]:
    """A record that is on its way when the block is entered is on disk soon after it has been left."""
    record = asyncio.create_task(meter.record(service="s", agent="bot"))
    await asked.wait()
    yield
    with anyio.fail_after(SECONDS):
        assert (await record).status == "spooled"


async def test_who_ends_by_a_cancel_scope_loses_nothing_that_is_on_its_way(
    silent: tuple[str, anyio.Event], tmp_path: Path
) -> None:
    """A scope cancels also whoever closes the meter, at whatever it waits for."""
    url, asked = silent
    meter = await Meter(url=url, spool=tmp_path, timeout_s=0.2).__aenter__()
    async with recording(meter, asked):
        with anyio.CancelScope() as app:
            app.cancel()
            await meter.__aexit__(None, None, None)
        assert spooled_lines(tmp_path) == 1


async def test_who_gives_up_closing_loses_nothing_that_is_on_its_way(
    silent: tuple[str, anyio.Event], tmp_path: Path
) -> None:
    url, asked = silent
    meter = await Meter(url=url, spool=tmp_path, timeout_s=0.2).__aenter__()
    async with recording(meter, asked):
        closing = asyncio.create_task(meter.__aexit__(None, None, None))
        await anyio.lowlevel.checkpoint()
        closing.cancel()
    assert spooled_lines(tmp_path) == 1


async def test_who_gives_up_closing_does_not_give_up_what_ends_a_hold(server: Server, tmp_path: Path) -> None:
    meter = await Meter(url=server.url, spool=tmp_path, timeout_s=1).__aenter__()
    hold = await meter.reserve(service="s", agent="bot").ask()
    hold.used(units=2)
    server.pause()
    for leave in (hold.__aexit__, meter.__aexit__):
        leaving = asyncio.create_task(leave(None, None, None))
        await anyio.lowlevel.checkpoint()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
    await until(lambda: spooled_lines(tmp_path) == 1)
