# ruff: noqa: ASYNC110, ASYNC240, T201 - it waits for what has no event, and speaks to a person
"""`python -m tests.tui.monkey SECONDS [SEED]`: a dashboard under keys that nobody thought of.

While another ledger writes usage, refusals, limits, switches and corrections into the same file, random keys
(some of them in the same moment), clicks and sizes come in; now and then the file is locked, or made anew.
After each burst it must live, and when all is quiet show what a dashboard shows that is opened then, in the
same size, page, range and order. Whatever does not is printed; the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import difflib
import random
import sys
import tempfile
import time
import traceback
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import anyio
from textual import events
from textual.keys import _character_to_key  # pyright: ignore[reportPrivateUsage] - there is no other way
from textual.pilot import Pilot
from textual.screen import ModalScreen
from textual.widgets import Input

from agent_meter_mcp import (
    Caller,
    Ledger,
    LimitKey,
    MeterError,
    Report,
    Settings,
    Subject,
    Usage,
    Who,
    load_settings,
    open_ledger,
)
from agent_meter_mcp.sources.local import LocalSource
from agent_meter_mcp.store.sqlite import driver
from tui.agent import AgentScreen
from tui.app import Dashboard
from tui.overview import Overview
from tui.table import LineTable
from tui.words import Words

from .picture import painted, text_of

OLGA = Caller("operator", "olga")
LOOK_S = 0.05
QUIET_S, STILL_S = 20.0, 0.8
REFUSED_S = 1.5
"""So long a ledger may collect refusals of the same before it writes them."""
CENT = 10_000_000
AGENTS = ("coder", "planner", "triage", "数据-爬虫", "a" * 60, "[red]bot", "rogue\x1b[31m", "e\u0301" * 20)
SERVICES = ("api", "search", "scraper", "a service of a long name indeed")
KEYS = (
    *"xleytTpsSvfEucCjkgGnd?", "plus", "minus", "left", "right", "space", "tab", "shift+tab", "up", "down",
    "pageup", "pagedown", "home", "end", "enter", "escape", "escape", "slash", "question_mark", "ctrl+s",
    "ctrl+p", "delete", *"12345", *"0.9ab", "backspace", "h", "r",
)  # fmt: skip


class Stays(Dashboard):
    """One that no key ends."""

    def exit(self, *_: Any, **__: Any) -> None:
        return


def report(rng: random.Random) -> Report:
    cents = rng.randrange(0, 40)
    usage = Usage(
        input_tokens=rng.randrange(5000),
        model=rng.choice((None, "claude-sonnet-5")),
        cost_nano_usd=cents * CENT,
        cost_source="reported",
    )
    who = Who(
        rng.choice(AGENTS), rng.choice(SERVICES), session=rng.choice((None, "s1", "s2")),
        project=rng.choice((None, "site")),
    )  # fmt: skip
    return Report(who, usage, operation=rng.choice(("chat", "embed")))


async def write(ledger: Ledger, rng: random.Random) -> None:
    """Something that somebody could do."""
    act, agent = rng.randrange(12), rng.choice(AGENTS)
    if act < 6:
        await ledger.record(OLGA, report(rng))
    elif act < 8:
        await ledger.reserve(OLGA, report(rng))
    elif act == 8:
        subject = rng.choice(
            (Subject(), Subject("agent", "*"), Subject("agent", agent), Subject("tier", "t"))
        )
        window = rng.choice(("day", "1h", "total", "month"))
        key = LimitKey(subject, None, rng.choice(("cost_usd", "requests", "tokens")), window)
        most = {"cost_usd": 500 * CENT, "requests": 30, "tokens": 50_000}[key.metric]
        await ledger.set_limit(OLGA, key, rng.randrange(most))
    elif act == 9:
        kind = rng.choice(("agent", "service"))
        name = agent if kind == "agent" else rng.choice(SERVICES)
        await ledger.set_switch(OLGA, kind, name, rng.random() < 0.5, "for a while")
    elif act == 10:
        parent = rng.choice((None, *AGENTS))
        await ledger.set_agent(OLGA, agent, {"parent": parent, "tier": rng.choice((None, "t"))})
    else:
        for limit in (await ledger.limits(OLGA))[:1]:
            await ledger.remove_limit(OLGA, limit_id=limit.limit.limit_id)


class Writer:
    """Another process that works on the file, while it may."""

    def __init__(self, settings: Settings, rng: random.Random) -> None:
        self._settings, self._rng = settings, rng
        self.writes = True
        self.is_idle = False

    async def run(self) -> None:
        while True:
            with suppress(MeterError):
                async with open_ledger(self._settings) as ledger:
                    await self._work(ledger)

    async def _work(self, ledger: Ledger) -> None:
        while True:
            if not Path(self._settings.db).exists():
                return
            if self.writes:
                with suppress(MeterError):
                    await write(ledger, self._rng)
            self.is_idle = not self.writes
            await anyio.sleep(0.01)

    async def stop(self) -> None:
        self.writes = self.is_idle = False
        while not self.is_idle:
            await anyio.sleep(0.01)
        await anyio.sleep(REFUSED_S)


def press(app: Dashboard, keys: list[str]) -> None:
    for key in keys:
        one = _character_to_key(key) if len(key) == 1 else key
        app.post_message(events.Key(one, key if len(key) == 1 else None))


def click(app: Dashboard, rng: random.Random) -> None:
    x, y = rng.randrange(app.size.width), rng.randrange(app.size.height)
    for _ in range(rng.choice((1, 2))):
        for kind in (events.MouseMove, events.MouseDown, events.MouseUp):
            app.post_message(kind(None, x, y, 0, 0, 1, False, False, False, x, y))


async def shake(pilot: Pilot[None], settings: Settings, rng: random.Random, note: list[str]) -> None:
    """One burst."""
    app: Any = pilot.app
    for _ in range(rng.randrange(1, 12)):
        what = rng.random()
        if what < 0.6:
            keys = [rng.choice(KEYS) for _ in range(rng.choice((1, 1, 2, 3)))]
            note.append(" ".join(keys))
            press(app, keys)
        elif what < 0.75:
            note.append("click")
            click(app, rng)
        elif what < 0.9:
            size = rng.randrange(40, 201), rng.randrange(10, 61)
            note.append(f"{size[0]}x{size[1]}")
            await pilot.resize_terminal(*size)
        elif what < 0.93:
            note.append("locked")
            with (
                suppress(Exception),
                closing(driver.connect(settings.db, synchronous="NORMAL", busy_timeout_s=0.1)) as one,
            ):
                one.execute("BEGIN IMMEDIATE")
                await anyio.sleep(rng.random())
                one.execute("ROLLBACK")
        elif what < 0.94:
            note.append("anew")
            for file in Path(settings.db).parent.glob("meter.db*"):
                file.unlink(missing_ok=True)
        await anyio.sleep(rng.choice((0, 0, 0.01, 0.05, 0.2)))


def wrong_sizes(app: Dashboard) -> list[str]:
    """Who has not the room for its lines."""
    found: list[str] = []
    for words in app.screen.query(Words):
        lines = len(words.plain.split("\n")) if words.plain else 0
        if (
            words.display
            and words.id != "chart"
            and words.is_on_screen
            and words.content_size.height != lines
        ):
            if words.region.bottom < app.size.height - 1:
                found.append(f"#{words.id} has {words.content_size.height} lines, not {lines}")
    for table in app.screen.query(LineTable):
        is_led = table._is_led  # pyright: ignore[reportPrivateUsage] - there is no other way
        if table.has_focus and is_led and table.rows and table.size.height > 1 and table.is_on_screen:
            y = table.cursor - table.scroll_offset.y
            if not 0 <= y < table.size.height - 1:
                found.append(f"#{table.id}: the cursor is at line {y} of {table.size.height - 1}")
    return found


async def stands_still(pilot: Pilot[None]) -> list[list[Any]]:
    """What is painted when nothing waits any more on the way of a key, from who has the focus to the app."""
    app: Any = pilot.app
    for _ in range(3):
        for one in (app, app.screen, app.focused or app.screen, app.screen):
            passed = anyio.Event()
            if one.call_later(passed.set):
                with anyio.move_on_after(QUIET_S):
                    await passed.wait()
    end, before, since = time.monotonic() + QUIET_S, None, time.monotonic()
    while time.monotonic() < end:
        await pilot.pause(0.05)
        now = painted(app)
        if now != before:
            before, since = now, time.monotonic()
        elif time.monotonic() - since > STILL_S:
            break
    return painted(app)


async def put_in_order(app: Dashboard, pilot: Pilot[None]) -> None:
    """As whoever has just opened it would have it: no dialog, no cursor led anywhere, no pause."""
    while isinstance(app.screen, ModalScreen):
        await app.pop_screen()
    page: Any = app.screen
    if page.query_one("#filter", Input).display:
        page._leave_filter()
    if app.paused:
        app.action_pause()
    for table in page.query(LineTable):
        table.action_edge(False)
    page.query_one(page.MAIN).focus()
    if isinstance(page, Overview):
        page.action_reverse()
        page.action_reverse()
    app.clear_notifications()
    app.action_look()


def take_over(app: Dashboard, fresh: Dashboard) -> None:
    """What a person has chosen."""
    old: Any = app.screen
    new: Any = fresh.screen
    if isinstance(old, Overview):
        for name in ("sort", "reversed", "is_flat", "folded"):
            setattr(new.roster, name, getattr(old.roster, name))
        new.roster.typed = new.wanted = old.wanted
        new.feed.typed, new.feed.only_refused = old.feed.typed, old.feed.only_refused
        new.feed.refilter()
        new.action_reverse()
        new.action_reverse()
        return
    for name in ("sort", "reversed", "_only_projects"):
        if hasattr(old, name):
            setattr(new, name, getattr(old, name))
    if hasattr(new, "_title_columns"):
        new._title_columns()
    new.filter_by(old.wanted)


async def opened_now(app: Dashboard, settings: Settings) -> list[list[Any]]:
    source = LocalSource(settings, OLGA, "UTC")
    fresh = Dashboard(source, source, look_s=LOOK_S, theme="meter-dark")
    fresh.range = app.range
    try:
        async with fresh.run_test(size=(app.size.width, app.size.height), notifications=True) as pilot:
            await stands_still(pilot)
            await fresh.switch_mode(app.current_mode)
            await stands_still(pilot)
            if isinstance(app.screen, AgentScreen):
                fresh.open_agent(app.screen.agent_id)
                await stands_still(pilot)
            take_over(app, fresh)
            fresh.action_look()
            found = await stands_still(pilot)
            await put_in_order(fresh, pilot)
            found = await stands_still(pilot)
            return found
    finally:
        await source.close()


async def compare(app: Dashboard, pilot: Pilot[None], settings: Settings) -> list[str]:
    """What is painted when nobody writes, against what is painted anew; in one moment that lasts."""
    real, moment = time.time_ns, time.time_ns()
    time.time_ns = lambda: moment
    try:
        await stands_still(pilot)
        await put_in_order(app, pilot)
        found = await stands_still(pilot)
        wrong = wrong_sizes(app)
        fresh: list[list[Any]] = []

        async def open_it() -> None:
            fresh.extend(await opened_now(app, settings))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(open_it)
    finally:
        time.time_ns = real
    old, new = (text_of(lines).replace("▌", " ").splitlines() for lines in (found, fresh))
    if old != new:
        wrong.append("\n".join(difflib.unified_diff(new, old, "opened now", "shown", lineterm="", n=0)))
    return wrong


async def monkey(settings: Settings, seconds: float, seed: int) -> list[str]:
    rng, end = random.Random(seed), time.monotonic() + seconds
    writer = Writer(settings, random.Random(f"{seed} writer"))
    source = LocalSource(settings, OLGA, "UTC")
    app = Stays(source, source, look_s=LOOK_S, theme="meter-dark", export_to=str(Path(settings.db).parent))
    found: list[str] = []
    rounds, note = 0, list[str]()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.run)
        try:
            async with app.run_test(size=(120, 36), notifications=True) as pilot:
                while time.monotonic() < end and app._exception is None:  # pyright: ignore[reportPrivateUsage] - there is no other way
                    note = list[str]()
                    for _ in range(rng.randrange(1, 6)):
                        await shake(pilot, settings, rng, note)
                    await writer.stop()
                    wrong = await compare(app, pilot, settings)
                    rounds += 1
                    screen = type(app.screen).__name__
                    where = f"{screen} {app.size.width}x{app.size.height}, {app.range.name}"
                    for one in wrong:
                        found.append(f"round {rounds}, {where}, after {note[-30:]}:\n{one}")
                        print(found[-1], flush=True)
                    writer.writes = True
        except BaseException as error:
            found.append(f"round {rounds}: {error!r} after {note[-30:]}")
            print(found[-1], flush=True)
            traceback.print_exception(error)
        finally:
            tasks.cancel_scope.cancel()
    await source.close()
    print(f"{rounds} rounds, seed {seed}, {len(found)} findings", flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float)
    parser.add_argument("seed", type=int, nargs="?", default=random.randrange(10_000))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/meter.db"
        settings = load_settings(
            {"AGENT_METER_DB": path, "AGENT_METER_PRICES": f"{folder}/p", "AGENT_METER_BUSY_TIMEOUT": "0.2"}
        )
        return 1 if anyio.run(monkey, settings, options.seconds, options.seed) else 0


if __name__ == "__main__":
    sys.exit(main())
