"""A program that forks: servers that load an app before they make their workers, pools of processes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from agent_meter_mcp import MeterMiddleware, SyncMeter
from agent_meter_mcp.settings import Settings

from .conftest import SECONDS, events

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks"),
    # To fork beside threads is what apps do to it, and Python 3.12 and later warn of.
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),
]


def forked(work: Callable[[], bool]) -> bool:
    """Whether it is so in a forked process, which ends as processes do; one that hangs is killed."""
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        try:
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)
    return os.waitpid(child, 0)[1] == 0


def test_a_meter_that_was_opened_before_a_fork_says_so_and_does_not_hang(settings: Settings) -> None:
    def said() -> bool:
        with pytest.raises(RuntimeError, match="after the fork"):
            meter.record(service="s", agent="bot", id="child")
        meter.__exit__(None, None, None)  # that of the parent stays open
        return True

    with SyncMeter() as meter:
        meter.record(service="s", agent="bot", id="before")
        assert forked(said)
        meter.record(service="s", agent="bot", id="after")
    stored = asyncio.run(events(settings))
    assert [one.event.id for one in stored] == ["before", "after"]


async def until_settled(settings: Settings, count: int) -> None:
    with anyio.fail_after(SECONDS):
        while len(await events(settings)) < count:
            await anyio.lowlevel.checkpoint()


def status_of(app: MeterMiddleware) -> int:
    """Of one request, in an event loop of its own."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    scope = {"type": "http", "path": "/", "method": "GET", "headers": [(b"x-agent-id", b"bot")]}
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"]


async def answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def test_an_app_that_was_asked_before_a_fork_is_metered_after_it(
    url: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    app = MeterMiddleware(answer, "my-api", url=url)

    def asked() -> bool:
        import atexit

        told = status_of(app)
        atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage] - as when a worker ends
        return told == 200 and not app.counters["unmetered"]

    assert status_of(app) == 200
    assert forked(asked)
    assert status_of(app) == 200
    asyncio.run(until_settled(settings, 3))


def test_an_app_with_a_local_file_goes_on_after_a_fork(settings: Settings) -> None:
    """SQLite cannot, so the requests go on without the meter, and that is counted."""
    app = MeterMiddleware(answer, "my-api", db=settings.db)
    assert status_of(app) == 200
    assert forked(lambda: status_of(app) == 200 and app.counters["allowed_without_meter"] == 1)
