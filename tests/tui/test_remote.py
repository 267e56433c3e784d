"""The dashboard over a meter elsewhere: a real server, that is killed, and keys of all kinds."""

from __future__ import annotations

import re
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from agent_meter_mcp import (
    Caller,
    Ledger,
    LimitKey,
    Report,
    Settings,
    Subject,
    Usage,
    Who,
    open_ledger,
    runtime,
)
from agent_meter_mcp.sources.remote import RemoteSource
from agent_meter_mcp.sources.remote_link import Key
from tests.faces.door import listening, site_of
from tests.sources.ledgers import Clock
from tests.sources.serving import serving
from tui.app import Dashboard
from tui.dialogs import Confirm
from tui.limit_dialog import LimitDialog

from .watching import LOOK_S, agents, said, screen_text, shows, until, use

if TYPE_CHECKING:
    from textual.pilot import Pilot

    from agent_meter_mcp.core.roles import Role

OPERATOR = Caller("operator", "olga")
GONE_S = 5.0


@asynccontextmanager
async def watching_at(url: str, key: Key | None = None) -> AsyncGenerator[tuple[Dashboard, Pilot[None]]]:
    source = RemoteSource(url, key, "UTC")
    app = Dashboard(source, source, look_s=LOOK_S)
    try:
        async with app.run_test(size=(120, 36), notifications=True) as pilot:
            yield app, pilot
    finally:
        with anyio.fail_after(GONE_S):
            await source.close()


async def key_of(ledger: Ledger, role: Role, bound_to: str | None = None) -> Key:
    return Key((await ledger.create_key(OPERATOR, role, bound_to))[1])


def noticed(app: Dashboard) -> str:
    return "\n".join(notice.message for notice in app._notifications)  # pyright: ignore[reportPrivateUsage]  Textual has no other


async def test_a_server_that_is_killed_and_started_again_is_found_again(
    tmp_path: Path, settings: Settings, ledger: Ledger
) -> None:
    await use(ledger, "ann")
    with serving(tmp_path) as meter:
        async with watching_at(meter.url) as (app, pilot):
            await until(pilot, lambda: agents(app) == ["ann"])
            meter.kill()
            await until(pilot, lambda: "nothing listens there" in said(app, "#trouble"))
            assert agents(app) == ["ann"]
            assert "STALE" in said(app, "#title")
            await use(ledger, "bob")
            meter.start()
            await until(pilot, lambda: sorted(agents(app)) == ["ann", "bob"])
            assert "LIVE" in said(app, "#title")
            assert said(app, "#trouble") == ""
            await use(ledger, "cy")
            await until(pilot, lambda: len(agents(app)) == 3)


async def test_it_begins_before_the_server_does(tmp_path: Path, ledger: Ledger) -> None:
    await use(ledger, "ann")
    with serving(tmp_path) as meter:
        meter.kill()
        async with watching_at(meter.url) as (app, pilot):
            await until(pilot, lambda: "NO ANSWER" in said(app, "#title"))
            meter.start()
            await until(pilot, lambda: agents(app) == ["ann"])


async def test_it_is_left_while_the_server_hangs(tmp_path: Path, ledger: Ledger) -> None:
    await use(ledger, "ann")
    with serving(tmp_path) as meter:
        async with watching_at(meter.url) as (app, pilot):
            await until(pilot, lambda: agents(app) == ["ann"])
            assert meter.process is not None
            meter.process.send_signal(signal.SIGSTOP)
            await pilot.press("t", "q")
            began = anyio.current_time()
        assert anyio.current_time() - began < GONE_S
        assert app.return_code == 0


async def test_an_operator_stops_an_agent_from_elsewhere(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "ann")
    key = await key_of(ledger, "operator")
    async with listening(site_of(ledger)) as url, watching_at(url, key) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["ann"])
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: "ann is stopped" in noticed(app))
        await until(pilot, lambda: "1 stopped" in said(app, "#title"))
    assert [str(switch) for switch in await ledger.switches(OPERATOR)] == ["agent ann"]


async def test_a_viewer_is_told_that_it_only_sees(ledger: Ledger) -> None:
    await use(ledger, "ann")
    key = await key_of(ledger, "viewer")
    async with listening(site_of(ledger)) as url, watching_at(url, key) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["ann"])
        await pilot.press("x")
        await until(pilot, lambda: "this key has the role viewer, and only shows" in noticed(app))
        assert not isinstance(app.screen, Confirm)
    assert await ledger.switches(OPERATOR) == []


async def test_a_key_that_is_not_taken_has_a_face_of_its_own(ledger: Ledger) -> None:
    good = await key_of(ledger, "viewer")
    await use(ledger, "ann")
    async with listening(site_of(ledger)) as url:
        async with watching_at(url, Key("am_wrong")) as (app, pilot):
            await until(pilot, lambda: "KEY REFUSED" in said(app, "#title"))
            assert "this key is not valid" in said(app, "#trouble")
        async with watching_at(url, await key_of(ledger, "service", "api")) as (app, pilot):
            await until(pilot, lambda: "NOT ALLOWED" in said(app, "#title"))
            assert "you have the role service" in said(app, "#trouble")
            await pilot.press("2", "n")
            await until(pilot, lambda: "you have the role service" in noticed(app))
            assert not isinstance(app.screen, LimitDialog)
        async with watching_at(url, good) as (app, pilot):
            await until(pilot, lambda: agents(app) == ["ann"])
            (known,) = [one for one in await ledger.keys(OPERATOR) if one.role == "viewer"]
            await ledger.revoke_key(OPERATOR, known.key_id)
            await until(pilot, lambda: "KEY REFUSED" in said(app, "#title"))
            assert agents(app) == ["ann"]
            # It cannot be put right from here, and the header that the server asks for is not typed anywhere.
            assert "--key-file FILE" in said(app, "#trouble")


async def test_times_to_come_are_by_the_clock_of_the_meter(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hold of another ten minutes was said to end now, and a limit to reset on another day."""
    clock = Clock()  # in 2026, on a Saturday at 22:13
    monkeypatch.setattr(runtime, "system_clock_us", clock)
    async with open_ledger(settings) as ledger:
        key = LimitKey(Subject("agent", "ann"), "api", "cost_usd", "1h")
        await ledger.set_limit(OPERATOR, key, 50_000_000)
        await use(ledger, "ann")
        clock.now_us += 60_000_000
        await ledger.reserve(OPERATOR, Report(Who("ann", "api"), Usage()), 600_000_000)
        async with listening(site_of(ledger)) as url, watching_at(url) as (app, pilot):
            await until(pilot, lambda: agents(app) == ["ann"])
            await pilot.press("2")
            await until(pilot, lambda: shows(app, "agent ann"))
            (row,) = [line for line in screen_text(app) if "agent ann" in line]
            assert re.search(r"20 %  +23:1\d ", row), row
            await pilot.press("1", "enter")
            await until(pilot, lambda: shows(app, "until in "))
            (held,) = [line for line in screen_text(app) if "until in " in line]
            assert re.search(r"until in (10 min|9 min)", held), held


async def test_every_page_can_be_seen_from_elsewhere(settings: Settings) -> None:
    async with open_ledger(settings) as ledger:
        await use(ledger, "ann")
        async with listening(site_of(ledger)) as url, watching_at(url) as (app, pilot):
            await until(pilot, lambda: agents(app) == ["ann"])
            for page in "23451":
                await pilot.press(page)
                await pilot.pause()
                assert app.looked.trouble == ""
            await pilot.press("enter")
            await until(pilot, lambda: len(app.screen_stack) > 1)
            assert app.looked.trouble == ""
