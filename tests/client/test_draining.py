"""What lies on disk, however it got there: nothing is lost, and nothing holds up what comes after it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio.abc
import pytest
from anyio import to_thread

from agent_meter_mcp.client import Meter, draining
from agent_meter_mcp.client import spool as spooling
from agent_meter_mcp.client.remote import spool_name
from agent_meter_mcp.client.spool import FILE_BYTES_MAX, REFUSED, Spool
from agent_meter_mcp.core.errors import StoreError
from agent_meter_mcp.settings import Settings

from .conftest import ROOT, SECONDS, events, until
from .test_outage import answered_by

BYTES = 100 * FILE_BYTES_MAX


def record(event_id: str) -> bytes:
    return json.dumps({"service": "s", "agent": "bot", "id": event_id}).encode()


def left(url: str, folder: Path, *lines: bytes, name: str = "0-a.jsonl") -> Path:
    """The spool in which somebody has left these lines, for that URL."""
    spool = folder / spool_name(url, None)
    spool.mkdir(parents=True, exist_ok=True)
    (spool / name).write_bytes(b"".join(line + b"\n" for line in lines))
    return spool


def waiting(spool: Path) -> list[bytes]:
    lines: list[bytes] = []
    for path in sorted(spool.glob("*.jsonl")):
        with suppress(FileNotFoundError):  # it has just been drained
            lines += path.read_bytes().splitlines()
    return lines


async def ids(settings: Settings) -> list[str]:
    return sorted(one.event.id for one in await events(settings))


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe\x00garbage",
        b"null",
        b'"text"',
        b'{"service": 1}',
        b'{"service": "s", "agent": "bot", "units": NaN}',
        b'{"asked": 1, "record": 2}',
        b'{"asked": {}}',
        b'{"asked": {"id": "x"}, "record": {"service": "\\ud800"}}',
        b'{"reservation_id": null}',
        b'{"reservation_id": "\\ud800"}',
        b'{"reservation_id": ".."}',
        b'{"reservation_id": "' + b"x" * 100_000 + b'"}',
        b'{"service": "s", "agent": "bot", "operation": "' + b"x" * 5_000_000 + b'"}',
        b"[" * 100_000,
    ],
    ids=itertools.count(),
)
async def test_a_line_that_can_never_be_sent_is_put_aside(
    line: bytes, url: str, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = left(url, tmp_path, record("before"), line, record("after"))
    async with Meter(url=url, spool=tmp_path) as meter:
        await until(lambda: meter.counters["drained"] == 2)
        await until(lambda: not waiting(spool))
        assert meter.counters["rejected"] > 0
        assert (await meter.record(service="s", agent="bot", id="new")).status == "recorded"
    assert await ids(settings) == ["after", "before", "new"]
    if line.isascii():
        assert (spool / REFUSED).read_bytes().replace(b"\n", b"") == line
    assert (spool / REFUSED).stat().st_mode & 0o077 == 0
    assert str(spool / REFUSED) in caplog.text


async def test_what_a_clock_that_is_ahead_has_dated_counts_when_it_is_sent(
    url: str, settings: Settings, tmp_path: Path
) -> None:
    """The same record would have been taken without a word, had the meter been there."""
    used: dict[str, Any] = {"service": "s", "agent": "bot", "occurred_at": "2999-01-01T00:00:00Z"}
    kept = [
        {**used, "id": "1"},
        {**used, "id": "half a character", "operation": "\ud800"},
        {"record": {**used, "id": "2"}, "asked": {"service": "s", "agent": "bot", "id": "2"}},
    ]
    spool = left(url, tmp_path, record("0"), *(json.dumps(line).encode() for line in kept))
    async with Meter(url=url, spool=tmp_path) as meter:
        await until(lambda: meter.counters["drained"] == 3)
        await until(lambda: not waiting(spool))
        assert meter.counters["rejected"] == 1
    assert await ids(settings) == ["0", "1", "2"]
    assert {one.event.occurred_at_us for one in await events(settings)} == {None}


async def test_what_was_let_in_without_the_meter_shares_requests(
    url: str, settings: Settings, seen: list[str], tmp_path: Path
) -> None:
    """An outage leaves one of them for each request of an app."""
    used = [{"service": "s", "agent": "bot", "id": str(number)} for number in range(50)]
    left(url, tmp_path, *(json.dumps({"record": one, "asked": one}).encode() for one in used))
    async with Meter(url=url, spool=tmp_path / "other") as meter:
        hold = meter.reserve(**used[7], ttl="1h")  # pyright: ignore[reportArgumentType] - a dict of fields
        await hold.ask()
        seen.clear()
        async with Meter(url=url, spool=tmp_path) as drains:
            await until(lambda: drains.counters["drained"] == 50)
    assert seen == ["/v1/usage/batch", "/v1/reservations", f"/v1/reservations/{hold.reservation_id}/settle"]
    assert len(await ids(settings)) == 50


async def test_where_nothing_can_be_put_aside_the_rest_is_sent_all_the_same(
    url: str, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that the spool itself has filled would be full for ever."""
    spool = left(url, tmp_path, b"garbage", record("1"))
    (spool / REFUSED).mkdir()
    async with Meter(url=url, spool=tmp_path) as meter:
        await until(lambda: meter.counters["drained"] == 1)
        await until(lambda: not waiting(spool))
        assert (meter.counters["rejected"], meter.counters["lost"]) == (1, 1)
    assert "It is lost, because" in caplog.text
    assert await ids(settings) == ["1"]


def a_folder(path: Path) -> None:
    path.mkdir()


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_dead_link(path: Path) -> None:
    path.symlink_to("nowhere")


def an_empty_file(path: Path) -> None:
    path.touch()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")
@pytest.mark.parametrize("make", [a_folder, a_pipe, a_dead_link, an_empty_file])
async def test_what_is_no_file_holds_up_nothing(
    make: Callable[[Path], None], url: str, settings: Settings, tmp_path: Path
) -> None:
    spool = left(url, tmp_path, record("1"))
    make(spool / "0-0.jsonl")
    async with Meter(url=url, spool=tmp_path) as meter:
        await until(lambda: meter.counters["drained"] == 1)
    assert await ids(settings) == ["1"]


async def test_a_line_that_the_meter_fails_at_holds_up_nothing_and_is_sent_when_it_can_be(
    url: str, seen: list[str], fails_at: set[bytes], settings: Settings, tmp_path: Path
) -> None:
    """Whatever it is about that line, it happened; and so did all that stands behind it."""
    fails_at |= {b"poison", b"lost-hold"}
    hold = b'{"reservation_id": "1", "metadata": {"of": "lost-hold"}}'
    good = [record(f"{number}") for number in range(500)]
    spool = left(url, tmp_path, *good[:300], record("poison"), hold, *good[300:])
    left(url, tmp_path, record("later"), name="0-b.jsonl")
    async with Meter(url=url, spool=tmp_path) as meter:
        await until(lambda: meter.counters["drained"] == 501)
        await until(lambda: waiting(spool) == [hold, record("poison")])
        assert len(seen) < 30
        fails_at.discard(b"poison")
        await until(lambda: meter.counters["drained"] == 502)
        assert meter.counters["rejected"] == 0
    assert waiting(spool) == [hold]
    async with Meter(url=url, spool=tmp_path) as meter:
        fails_at.clear()
        await until(lambda: meter.counters["rejected"] == 1)  # by now there is no such hold
    assert waiting(spool) == []


@pytest.mark.parametrize("status", ["400 X", "401 X", "403 X", "408 X", "413 X"])
async def test_what_a_proxy_says_puts_nothing_aside(status: str, tmp_path: Path) -> None:
    """The end of a hold went into `refused.txt` because of a page for who has to log in."""
    asked = 0

    async def page(stream: anyio.abc.SocketStream) -> None:
        nonlocal asked
        async with stream:
            await stream.receive()
            asked += 1
            await stream.send(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())

    async with answered_by(page) as url:
        spool = left(url, tmp_path, b'{"reservation_id": "1"}', record("1"))
        async with Meter(url=url, spool=tmp_path) as meter:
            await until(lambda: asked > 0)
        assert meter.counters["rejected"] == 0
    assert sorted(waiting(spool)) == sorted([b'{"reservation_id": "1"}', record("1")])


@pytest.mark.parametrize(
    "body", [b"<html/>", b"", b'{"status": "ok"}', b'{"status": "recorded", "reservation_id": "2"}']
)
async def test_the_end_of_a_hold_stays_on_disk_until_a_meter_takes_it(body: bytes, tmp_path: Path) -> None:
    """The page of a proxy for who has to log in is 200, too: what was used was dropped at it."""
    asked = 0

    async def page(stream: anyio.abc.SocketStream) -> None:
        nonlocal asked
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        async with stream:
            await stream.receive()
            asked += 1
            await stream.send(head.encode() + body)

    hold = b'{"reservation_id": "1", "units": 3}'
    async with answered_by(page) as url:
        spool = left(url, tmp_path, hold)
        async with Meter(url=url, spool=tmp_path) as meter:
            await until(lambda: asked > 0)
        assert meter.counters["drained"] == 0
    assert waiting(spool) == [hold]


async def test_a_meter_that_fails_at_everything_is_given_time_and_nothing_is_lost(
    url: str,
    seen: list[str],
    fails_at: set[bytes],
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(draining, "FAILURES_MAX", 20)
    fails_at.add(b"records")
    lines = [record(f"{number}") for number in range(400)]
    spool = left(url, tmp_path, *lines)
    async with Meter(url=url, spool=tmp_path) as meter:
        await until(lambda: not (spool / "0-a.jsonl").exists())
        assert len(seen) < 30
        assert sorted(waiting(spool)) == sorted(lines)
        fails_at.clear()
        await until(lambda: meter.counters["drained"] == 400)
        await until(lambda: not waiting(spool))


async def test_many_lines_in_a_row_that_the_meter_fails_at_hold_up_nothing(
    url: str, fails_at: set[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "FAILURES_MAX", 20)
    fails_at.add(b"poison")
    poison = [record(f"poison-{number}") for number in range(30)]
    spool = left(url, tmp_path, *poison, record("1"))
    left(url, tmp_path, record("2"), name="0-b.jsonl")
    async with Meter(url=url, spool=tmp_path) as meter:
        await until(lambda: meter.counters["drained"] == 2)
        await until(lambda: sorted(waiting(spool)) == sorted(poison))


async def test_closing_does_not_wait_for_all_that_is_on_disk(
    url: str, seen: list[str], settings: Settings, tmp_path: Path
) -> None:
    """The ends of holds are a request each."""
    ends = [json.dumps({"reservation_id": f"{number}"}).encode() for number in range(900)]
    spool = left(url, tmp_path, *ends)
    async with Meter(url=url, spool=tmp_path) as meter:
        await until(lambda: meter.counters["rejected"] > 0)
    assert len(seen) < 900
    assert waiting(spool) == ends


def test_a_huge_file_is_read_piece_by_piece(tmp_path: Path) -> None:
    """And so is one without a line break."""
    (tmp_path / "a.jsonl").write_bytes(b"x" * 30 * FILE_BYTES_MAX + b"\n")
    tracemalloc.start()
    try:
        assert sum(len(line) for file in Spool(tmp_path, BYTES).files() for line in file.lines()) == (
            30 * FILE_BYTES_MAX
        )
        assert tracemalloc.get_traced_memory()[1] < 4 * FILE_BYTES_MAX
    finally:
        tracemalloc.stop()


def test_what_cannot_be_removed_is_not_sent_without_end(tmp_path: Path) -> None:
    spool = Spool(tmp_path, BYTES)
    spool.append(["{}"])
    for file in spool.files():
        (path,) = tmp_path.glob("*.jsonl")
        path.rename(tmp_path / "sent")
        path.mkdir()  # which nobody can unlink, whoever he is
        with pytest.raises(StoreError, match="remove it"):
            file.remove()


DRAIN = """
import asyncio, sys
from agent_meter_mcp.client import Meter

async def main():
    async with Meter(url=sys.argv[1], spool=sys.argv[2]) as meter:
        while not meter.counters["drained"]:
            await asyncio.sleep(0)
        print("begun", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def kill_while_it_drains(url: str, folder: Path) -> None:
    client = subprocess.Popen(
        [sys.executable, "-c", DRAIN, url, str(folder)], stdout=subprocess.PIPE, cwd=ROOT
    )
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == b"begun\n"
    finally:
        client.kill()
        client.communicate()


async def test_a_client_that_is_killed_while_it_drains_loses_nothing_and_doubles_nothing(
    url: str, settings: Settings, tmp_path: Path
) -> None:
    sent = [f"{number:03}" for number in range(400)]
    spool = tmp_path
    for first in range(0, 400, 10):
        lines = [record(event_id) for event_id in sent[first : first + 10]]
        spool = left(url, tmp_path, *lines, name=f"{first:03}-a.jsonl")
    for _ in range(4):
        if waiting(spool):
            await to_thread.run_sync(kill_while_it_drains, url, tmp_path)
    async with Meter(url=url, spool=tmp_path):
        await until(lambda: not waiting(spool))
    assert await ids(settings) == sent


@pytest.mark.skipif(sys.platform == "win32", reason="processes are not forked")
def test_a_process_that_was_forked_keeps_nothing_locked(tmp_path: Path) -> None:
    spool = Spool(tmp_path, BYTES)
    spool.append(["{}"])
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)  # until the parent has ended it
        os._exit(0)
    try:
        os.close(reading)
        assert [list(file.lines()) for file in spool.files()] == [[b"{}"]]
    finally:
        os.close(writing)
        os.waitpid(child, 0)


FILL = """
import json, resource, sys
from pathlib import Path
from agent_meter_mcp.client.spool import Spool
from agent_meter_mcp.core.errors import StoreError
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
spool, kept = Spool(Path(sys.argv[1]), 10**9), 0
try:
    while True:
        spool.append([json.dumps({"id": f"{kept}", "padding": "x" * 3000})])
        kept += 1
except StoreError:
    print(kept)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_a_disk_that_is_full_keeps_what_it_has_acknowledged_and_no_half_line(tmp_path: Path) -> None:
    filled = subprocess.run(
        [sys.executable, "-c", FILL, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=SECONDS,
        check=True,
    )
    kept = int(filled.stdout)
    assert kept == 3
    (path,) = tmp_path.glob("*.jsonl")
    assert [json.loads(line)["id"] for line in path.read_bytes().splitlines()] == ["0", "1", "2"]


RUN_OUT = """
import os, resource, sys
from pathlib import Path
from agent_meter_mcp.client.spool import Spool
from agent_meter_mcp.core.errors import StoreError
folder = Path(sys.argv[1])
free = os.open(folder, os.O_RDONLY)
os.close(free)
resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
spool = Spool(folder, 10**9)
for _ in range(2):
    try:
        spool.append(["{}"])
    except StoreError as error:
        print(error)
os.close(os.open(folder, os.O_RDONLY))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_who_has_run_out_of_files_is_left_the_last_one(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", RUN_OUT, str(tmp_path)],
        capture_output=True, text=True, cwd=ROOT, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.count("cannot be written (Too many open files)") == 2
    assert [list(file.lines()) for file in Spool(tmp_path, BYTES).files()] == [[], []]


async def test_what_there_is_no_room_for_any_more_is_said_to_be_lost(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(spooling, "REFUSED_BYTES_MAX", 10)
    spool = left(url, tmp_path, b'"the first"', record("between"), b'"the second"')
    async with Meter(url=url, spool=tmp_path) as meter:
        await until(lambda: not waiting(spool))
        assert meter.counters["rejected"] == 2
    assert (spool / REFUSED).read_text() == '"the first"\n"the second"\n'  # of one batch
    left(url, tmp_path, b'"the third"')
    async with Meter(url=url, spool=tmp_path) as meter:
        await until(lambda: not waiting(spool))
        assert meter.counters["lost"] == 1
    assert "the third" not in (spool / REFUSED).read_text()
    assert "It is lost, because" in caplog.text
    assert "is full (10 bytes): look at it, and remove it" in caplog.text
