"""An app that ends: what its last requests used is in the ledger, and it does not take for ever."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from agent_meter_mcp import MeterMiddleware
from agent_meter_mcp.core.models import Reservation, StoredEvent
from agent_meter_mcp.core.queries import EventsQuery, UsageFilter
from agent_meter_mcp.faces.middleware import attachment
from agent_meter_mcp.store.sqlite import open_store

from ...client.conftest import free_port
from .conftest import Exchange, living
from .test_attachment import writers
from .test_owed import locked, until

SECONDS = 30
APP = '''
import asyncio

from agent_meter_mcp import MeterMiddleware


async def api(scope, receive, send):
    """Answers when the request's body is complete."""
    if scope["type"] == "lifespan" and {knows_lifespan}:
        for said in ("startup", "shutdown"):
            await receive()
            await send({{"type": f"lifespan.{{said}}.complete"}})
        return
    if scope["type"] != "http":
        raise ValueError("only HTTP here")
    try:
        while (await receive()).get("more_body"):
            pass
    except asyncio.CancelledError:
        await asyncio.sleep(0.1)  # what it has to tidy up
        raise
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}})
    await send({{"type": "http.response.body", "body": b"ok"}})


app = MeterMiddleware(api, "my-api", db={db!r})
'''


class Api:
    """A real server."""

    def __init__(self, folder: Path, *options: str, knows_lifespan: bool = True) -> None:
        self.db = folder / "meter.db"
        self.log = folder / "log.txt"
        self.port = free_port()
        (folder / "served.py").write_text(APP.format(db=str(self.db), knows_lifespan=knows_lifespan))
        command = [sys.executable, "-m", "uvicorn", "served:app", "--app-dir", str(folder), *options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([*command, "--port", str(self.port)], stdout=log, stderr=log)

    @contextmanager
    def request(self) -> Generator[socket.socket]:
        """One that has come as far as the app, and lacks the last byte of its body."""
        self.until(lambda: "running on" in self.log.read_text())
        with socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS) as client:
            client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\nx-agent-id: bot\r\ncontent-length: 1\r\n\r\n")
            self.until(lambda: len(holds(self.db)) == 1)
            yield client

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def ended(self) -> bool:
        return self.process.poll() is not None

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)


@contextmanager
def serving(folder: Path, *options: str, knows_lifespan: bool = True) -> Generator[Api]:
    api = Api(folder, *options, knows_lifespan=knows_lifespan)
    try:
        yield api
    finally:
        api.process.kill()
        api.process.wait()


def holds(db: Path) -> list[Reservation]:
    if not db.exists():
        return []
    with closing(open_store(str(db), busy_timeout_s=5)) as store:
        return list(store.reservations(time.time_ns() // 1000))


def events(db: Path) -> list[StoredEvent]:
    with closing(open_store(str(db), busy_timeout_s=5)) as store:
        assert list(store.verify()) == []
        return list(store.events(EventsQuery(UsageFilter(), limit=500)).events)


def test_requests_that_a_server_cancels_as_it_ends_are_settled(tmp_path: Path) -> None:
    """uvicorn says that the app ends without waiting for them: of streams nothing was in the ledger."""
    with serving(tmp_path, "--timeout-graceful-shutdown", "1") as api:
        with api.request():
            api.end()
            api.until(api.ended)
        (event,) = events(api.db)
        assert (event.event.status_code, holds(api.db)) == (499, [])


def test_an_app_that_knows_no_lifespan_ends_as_the_others_do(tmp_path: Path) -> None:
    """Such as Django. uvicorn ends by the signal itself, so that nothing runs at the exit of its process."""
    with serving(tmp_path, knows_lifespan=False) as api, api.request() as client:
        with locked(api.db):
            client.sendall(b"x")
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
            client.close()
            api.end()
            api.until(lambda: api.ended() or "Waiting for application shutdown" in api.log.read_text())
        api.until(api.ended)
        (event,) = events(api.db)
        assert (event.event.status_code, holds(api.db)) == (200, [])


async def test_an_app_ends_in_time_while_the_ledger_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One attempt after the other waited as long as a write may: 40 seconds, and servers are killed at 30."""
    monkeypatch.setenv("AGENT_METER_BUSY_TIMEOUT", "30")
    monkeypatch.setattr(attachment, "ENDS_WITHIN_S", 0.3)
    db = tmp_path / "meter.db"
    before = writers()
    exchange = Exchange()
    app = MeterMiddleware(answers_late, "my-api", db=db)
    with anyio.fail_after(10):
        async with living(app):
            request = asyncio.create_task(exchange.run(app))
            await until(lambda: len(holds(db)) == 1)
            lock = locked(db)
            lock.__enter__()
            exchange.incoming.put_nowait({"type": "http.request"})
            await request
    assert app.counters["unsettled"] == 1
    assert "usage of bot at my-api could not be settled" in caplog.text
    assert "Traceback" not in caplog.text
    lock.__exit__(None, None, None)
    await until(lambda: writers() == before)


async def test_a_process_ends_in_time_while_the_ledger_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_METER_BUSY_TIMEOUT", "30")
    monkeypatch.setattr(attachment, "ENDS_WITHIN_S", 0.3)
    db = tmp_path / "meter.db"
    exchange = Exchange()
    app = MeterMiddleware(answers_late, "my-api", db=db)
    request = asyncio.create_task(exchange.run(app))
    await until(lambda: len(holds(db)) == 1)
    with locked(db), anyio.fail_after(10):
        exchange.incoming.put_nowait({"type": "http.request"})
        await request
        await app._metering.attachment.close()  # pyright: ignore[reportPrivateUsage] - as at the process's exit
    assert app.counters["unsettled"] == 1


async def test_what_outlasts_its_app_is_settled_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its hold was made by a meter that is closed by then."""
    monkeypatch.setattr(attachment, "STRAGGLE_S", 0.01)
    db = tmp_path / "meter.db"
    exchange = Exchange()
    app = MeterMiddleware(answers_late, "my-api", db=db)
    async with living(app):
        request = asyncio.create_task(exchange.run(app))
        await until(lambda: len(holds(db)) == 1)
    exchange.incoming.put_nowait({"type": "http.request"})
    await request
    await until(lambda: len(events(db)) == 1)
    assert (holds(db), app.counters["unsettled"]) == ([], 0)
    await app._metering.attachment.close()  # pyright: ignore[reportPrivateUsage] - as at the process's exit


async def answers_late(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise ValueError("only HTTP here")
    await receive()
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})
