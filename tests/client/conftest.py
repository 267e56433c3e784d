"""Meters in a file and behind a URL, and the ledger that both write to."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator, Set
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import uvicorn
from anyio.from_thread import start_blocking_portal

import agent_meter_mcp.client.remote  # noqa: F401  # pyright: ignore[reportUnusedImport]  late, it blocks
from agent_meter_mcp.client import Meter
from agent_meter_mcp.core.models import LimitKey, StoredEvent, Subject
from agent_meter_mcp.core.queries import EventsQuery, UsageFilter
from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.faces.http import CALLER
from agent_meter_mcp.faces.http.app import build_api
from agent_meter_mcp.faces.wire.bodies import BODY_MAX, read_body, replayed
from agent_meter_mcp.faces.wire.problems import problem
from agent_meter_mcp.ledger import Ledger
from agent_meter_mcp.runtime import open_ledger
from agent_meter_mcp.settings import Settings, load_settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

ROOT = Path(__file__).parents[2]
OPERATOR = Caller("operator", "olga")
SECONDS = 20


def command(path: Path, port: int) -> list[str]:
    """Of a server on that ledger and port."""
    return [sys.executable, "-m", "agent_meter_mcp", "--db", str(path), "serve", "--port", str(port)]


class Server:
    """A meter behind HTTP that can be killed, and started again at the same URL."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it listens."""
        self._process = subprocess.Popen(command(self.path, self.port), cwd=ROOT, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + SECONDS
        while True:
            assert self._process.poll() is None
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.01)

    def pause(self) -> None:
        """It takes what comes, and answers when it goes on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """At once, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextmanager
def serving(path: Path) -> Generator[Server]:
    server = Server(path)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of the ledger that all meters of a test end up in."""
    path = tmp_path / "meter.db"
    monkeypatch.setenv("AGENT_METER_DB", str(path))
    monkeypatch.delenv("AGENT_METER_AGENT", raising=False)
    return load_settings({"AGENT_METER_DB": str(path)})


@pytest.fixture
def server(settings: Settings) -> Generator[Server]:
    with serving(Path(settings.db)) as running:
        yield running


@pytest.fixture
def seen() -> list[str]:
    """The paths of the requests that the server at `url` has got."""
    return []


@pytest.fixture
def fails_at() -> set[bytes]:
    """The server at `url` fails at every request that has one of these in its body."""
    return set()


@pytest.fixture
def url(settings: Settings, seen: list[str], fails_at: set[bytes]) -> Generator[str]:
    """Of a server in a thread of this process: it starts at once, and cannot be killed."""
    with socket.create_server(("127.0.0.1", 0)) as listener, start_blocking_portal() as portal:
        with portal.wrap_async_context_manager(served_on(settings, listener, seen, fails_at)):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def down(settings: Settings) -> Generator[Server]:
    """A server that has not been started yet."""
    stopped = Server(Path(settings.db))
    yield stopped
    stopped.kill()


@pytest.fixture(params=["local", "remote"])
def place(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> dict[str, Any]:
    """The arguments of a Meter: the file itself, or the server in front of it."""
    if request.param == "local":
        return {}
    return {"url": request.getfixturevalue("url"), "spool": tmp_path / "spool"}


class Watched:
    """The routes, for an operator. `seen` gets the path of each request; some it fails at."""

    def __init__(self, app: ASGIApp, seen: list[str], fails_at: Set[bytes]) -> None:
        self._app = app
        self._seen = seen
        self._fails_at = fails_at

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self._seen.append(scope["path"])
            body = await read_body(receive, BODY_MAX)
            if any(text in body for text in self._fails_at):
                await problem(500, "Internal error", "its log says why", code="internal_error")(
                    scope, receive, send
                )
                return
            receive = replayed(body, receive)
        await self._app({**scope, CALLER: OPERATOR}, receive, send)


@asynccontextmanager
async def served_on(
    settings: Settings, listener: socket.socket, seen: list[str], fails_at: Set[bytes] = frozenset()
) -> AsyncGenerator[None]:
    config = uvicorn.Config("", log_config=None, access_log=False)
    async with open_ledger(settings) as ledger, anyio.create_task_group() as tasks:
        config.app = Watched(build_api(ledger), seen, fails_at)
        server = uvicorn.Server(config)
        tasks.start_soon(server.serve, [listener])
        yield
        server.should_exit = True


@pytest.fixture
async def meter(place: dict[str, Any], nothing_blocks: None) -> AsyncGenerator[Meter]:
    async with Meter(**place) as opened:
        yield opened


@asynccontextmanager
async def ledger_of(settings: Settings) -> AsyncGenerator[Ledger]:
    async with open_ledger(settings) as ledger:
        yield ledger


async def limit(settings: Settings, maximum: int, window: str = "1h", metric: Any = "requests") -> None:
    async with open_ledger(settings) as ledger:
        key = LimitKey(Subject("agent", "bot"), None, metric, window)
        await ledger.set_limit(OPERATOR, key, maximum)


async def events(settings: Settings) -> list[StoredEvent]:
    """What was counted, oldest first."""
    async with open_ledger(settings) as ledger:
        page = await ledger.events(OPERATOR, EventsQuery(UsageFilter(), limit=500))
        return [stored for stored in reversed(page.events) if stored.outcome != "rejected"]


async def holds(settings: Settings) -> int:
    """How many holds are open."""
    async with open_ledger(settings) as ledger:
        return len(await ledger.reservations(OPERATOR))


async def until(happened: Callable[[], bool]) -> None:
    """Waits for something that another task or process does."""
    deadline = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        await anyio.sleep(0.005)
