# ruff: noqa: ASYNC110, ASYNC240, T201 - it waits for what has no event, and speaks to a person
"""`python -m tests.tui.monkey SECONDS [SEED] [--served]`: a dashboard under keys that nobody thought of.

While another ledger writes usage, refusals, limits, switches and corrections into the same file, random keys
(some of them in the same moment), clicks and sizes come in; now and then the file is locked, or made anew.
With `--served` it looks at a meter that serves the file, with a key; that is killed now and then, or hangs.
After each burst it must live, and when all is quiet show what a dashboard shows that is opened then, in the
same size, page, range and order; in the end none of its tasks may be left. Whatever is not so is printed; the
exit code is 1 then.
"""

from __future__ import annotations

import argparse
import asyncio
import difflib
import os
import random
import re
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
from textual import events
from textual.keys import _character_to_key  # pyright: ignore[reportPrivateUsage] - there is no other way
from textual.pilot import Pilot
from textual.screen import ModalScreen

from agent_meter_mcp import (
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
from tui.agent import AgentScreen
from tui.app import Dashboard
from tui.overview import Overview
from tui.table import LineTable
from tui.words import Words

from .monkey_place import OLGA, Here, place
from .picture import painted, text_of

LOOK_S = 0.05
QUIET_S, STILL_S = 20.0, 0.8
REFUSED_S = 1.5
"""So long a ledger may collect refusals of the same before it writes them."""
FOUND_S = 15.0
"""So long it may take until a meter that was away is found again."""
TRIES = 5
"""Of two pictures, one may be on the other side of a second."""
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


async def shake(pilot: Pilot[None], place: Here, rng: random.Random, note: list[str]) -> None:
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
        elif what < 0.94:
            note.append(await place.trouble(rng))
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
    if page.field is not None and page.field.display:
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


async def opened_now(app: Dashboard, place: Here) -> tuple[list[list[Any]], list[list[Any]]]:
    """What both paint."""
    async with place.source() as source:
        fresh = Dashboard(source, source, look_s=LOOK_S, theme="meter-dark")
        fresh.range = app.range
        async with fresh.run_test(size=(app.size.width, app.size.height), notifications=True) as pilot:
            await stands_still(pilot)
            await fresh.switch_mode(app.current_mode)
            await stands_still(pilot)
            if isinstance(app.screen, AgentScreen):
                fresh.open_agent(app.screen.agent_id)
                await stands_still(pilot)
            take_over(app, fresh)
            fresh.action_look()
            await stands_still(pilot)
            await put_in_order(fresh, pilot)
            return await both_painted(app, fresh, pilot, 1 if not place.is_served else TRIES)


async def both_painted(
    app: Dashboard, fresh: Dashboard, pilot: Pilot[None], tries: int
) -> tuple[list[list[Any]], list[list[Any]]]:
    """A meter elsewhere has a clock of its own, so both look in the same moment."""
    for left in reversed(range(tries)):
        new = await stands_still(pilot)
        with app._context():  # pyright: ignore[reportPrivateUsage] - there is no other way
            old = painted(app)
        if not left or compared(old) == compared(new):
            return old, new
        app.action_look()
        fresh.action_look()
    raise AssertionError("no tries")


def compared(lines: list[list[Any]]) -> str:
    """Without the cursor, and without what is another in each moment of a meter's own clock."""
    text = text_of(lines).replace("▌", " ")
    return re.sub(r"\S+/h\b|runs out in [\w ]+", lambda found: "~" * len(found[0]), text)


async def compare(app: Dashboard, pilot: Pilot[None], place: Here) -> list[str]:
    """What is painted when nobody writes, against what is painted anew; in one moment that lasts."""
    real, moment = time.time_ns, time.time_ns()
    time.time_ns = lambda: moment
    try:
        await stands_still(pilot)
        await put_in_order(app, pilot)
        await stands_still(pilot)
        wrong = wrong_sizes(app)
        both: list[list[list[Any]]] = []

        async def open_it() -> None:
            both.extend(await opened_now(app, place))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(open_it)
    finally:
        time.time_ns = real
    old, new = (compared(lines).splitlines() for lines in both)
    if old != new:
        wrong.append("\n".join(difflib.unified_diff(new, old, "opened now", "shown", lineterm="", n=0)))
    return wrong


async def stale(app: Dashboard) -> list[str]:
    """Why it does not find again what is there."""
    asked_s = time.monotonic()
    app.action_look()
    with anyio.move_on_after(FOUND_S):
        while app.looked.trouble or app.looked.at_s < asked_s or (app.page and app.page.trouble):
            await anyio.sleep(0.05)
        return []
    page = app.page.trouble if app.page else ""
    since_s = time.monotonic() - app.looked.at_s
    return [f"it stays {app.state[0]}, of {since_s:.0f} s ago: {app.looked.trouble or page}"]


async def monkey(settings: Settings, seconds: float, seed: int, *, served: bool) -> list[str]:
    rng, found = random.Random(seed), list[str]()
    writer = Writer(settings, random.Random(f"{seed} writer"))
    async with place(settings, rng, served=served) as looked_at, anyio.create_task_group() as tasks:
        tasks.start_soon(writer.run)
        await anyio.lowlevel.checkpoint()
        before = asyncio.all_tasks()
        async with looked_at.source() as source:
            folder = str(Path(settings.db).parent)
            app = Stays(source, source, look_s=LOOK_S, theme="meter-dark", export_to=folder)
            await drive(app, looked_at, writer, rng, time.monotonic() + seconds, found)
        for task in asyncio.all_tasks() - before:
            told(found, f"it is left behind: {task}")
        tasks.cancel_scope.cancel()
    print(f"seed {seed}, {len(found)} findings", flush=True)
    return found


def told(found: list[str], wrong: str) -> None:
    found.append(wrong)
    print(wrong, flush=True)


async def drive(
    app: Stays, place: Here, writer: Writer, rng: random.Random, end: float, found: list[str]
) -> None:
    rounds, note = 0, list[str]()
    try:
        async with app.run_test(size=(120, 36), notifications=True) as pilot:
            while time.monotonic() < end and app._exception is None:  # pyright: ignore[reportPrivateUsage] - there is no other way
                note = list[str]()
                for _ in range(rng.randrange(1, 6)):
                    await shake(pilot, place, rng, note)
                await place.mend()
                await writer.stop()
                wrong = await stale(app) or await compare(app, pilot, place)
                rounds += 1
                screen = type(app.screen).__name__
                where = f"{screen} {app.size.width}x{app.size.height}, {app.range.name}"
                for one in wrong:
                    told(found, f"round {rounds}, {where}, after {note[-30:]}:\n{one}")
                writer.writes = True
    except BaseException as error:
        told(found, f"round {rounds}: {error!r} after {note[-30:]}")
        traceback.print_exception(error)
    print(f"{rounds} rounds", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float)
    parser.add_argument("seed", type=int, nargs="?", default=random.randrange(10_000))
    parser.add_argument("--served", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/meter.db"
        named = {
            "AGENT_METER_DB": path, "AGENT_METER_PRICES": f"{folder}/p", "AGENT_METER_BUSY_TIMEOUT": "0.2",
        }  # fmt: skip
        os.environ.update(named)  # for a meter that serves it
        run = partial(monkey, load_settings(named), options.seconds, options.seed, served=options.served)
        return 1 if anyio.run(run) else 0


if __name__ == "__main__":
    sys.exit(main())
