"""What is shown stays true when nobody writes: after trouble, in another size, range, or with other words."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from textual.color import Color

from agent_meter_mcp import Ledger, Settings
from agent_meter_mcp.core.errors import MeterError, StoreBusy, Unreachable
from agent_meter_mcp.sources.local import LocalSource
from tui.agent import AgentScreen
from tui.services import ServicesPage
from tui.table import LineTable

from .picture import painted, settled
from .watching import OPERATOR, agents, feed, overview, said, shows, until, use, watching

if TYPE_CHECKING:
    from agent_meter_mcp.sources.base import Range, Snapshot
    from tui.app import Dashboard


class Troubled(LocalSource):
    """A ledger that fails at what is named in `fails`, as often as it says there."""

    def __init__(self, settings: Settings, **fails: float) -> None:
        super().__init__(settings, OPERATOR, "UTC")
        self.fails = fails
        self.error: MeterError = StoreBusy("somebody writes for long")
        self.snapshots = 0

    def _fail(self, name: str) -> None:
        if self.fails.get(name, 0) > 0:
            self.fails[name] -= 1
            raise self.error

    async def snapshot(self, wanted: Range) -> Snapshot:
        self._fail("snapshot")
        self.snapshots += 1
        return await super().snapshot(wanted)

    async def usage(self, *words: Any, **more: Any) -> Any:
        self._fail("usage")
        return await super().usage(*words, **more)


class Slow(Troubled):
    """One that takes two looks of the dashboard to tell what a page asks."""

    async def usage(self, *words: Any, **more: Any) -> Any:
        until_look = self.snapshots + 2
        while self.snapshots < until_look:
            await anyio.lowlevel.checkpoint()
        return await super().usage(*words, **more)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks again only when somebody has written."""
    monkeypatch.setattr("tui.app.LOOK_ANYWAY_S", 1e9)
    monkeypatch.setattr("tui.app.PAUSES_S", (0.02,))
    monkeypatch.setattr("tui.app.OPENING_S", 60.0)


def rows(app: Dashboard, name: str) -> list[str]:
    return [row.key for row in app.screen.query_one(name, LineTable).rows]


async def test_what_was_written_before_there_was_trouble_is_shown_after_it(
    settings: Settings, ledger: Ledger
) -> None:
    await use(ledger, "coder")
    reader = Troubled(settings)
    async with watching(settings, reader=reader) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["coder"])
        reader.fails["snapshot"] = 1
        await use(ledger, "planner")
        await until(pilot, lambda: reader.fails["snapshot"] == 0)
        await until(pilot, lambda: sorted(agents(app)) == ["coder", "planner"])
        await until(pilot, lambda: "LIVE" in said(app, "#title"))
    await reader.close()


async def test_trouble_of_a_page_ends_by_itself(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "coder")
    reader = Troubled(settings, usage=2)
    async with watching(settings, reader=reader) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["coder"])
        await pilot.press("3")
        await until(pilot, lambda: isinstance(app.screen, ServicesPage) and rows(app, "#services") == ["api"])
        await until(pilot, lambda: not app.screen.query_one("#trouble").display)
    await reader.close()


async def test_a_page_that_takes_longer_than_a_look_is_shown_while_many_write(
    settings: Settings, ledger: Ledger
) -> None:
    await use(ledger, "coder")
    reader = Slow(settings)
    async with watching(settings, reader=reader) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["coder"])
        await pilot.press("3")
        await until(pilot, lambda: isinstance(app.screen, ServicesPage) and app.screen.is_mounted)
        with anyio.fail_after(30):
            while not rows(app, "#services"):
                await use(ledger, "coder")
                await pilot.pause(0.02)
    await reader.close()


class Read:
    """What it has read so far."""


class Endless(Troubled):
    """One that never tells what a page asks."""

    read: weakref.ref[Read] | None = None

    async def usage(self, *words: Any, **more: Any) -> Any:
        read = Read()
        self.read = weakref.ref(read)
        await anyio.sleep_forever()


async def test_what_was_read_for_a_page_that_is_left_is_let_go_of(settings: Settings, ledger: Ledger) -> None:
    """The error by which its reading was ended kept all of it until garbage was looked for."""
    await use(ledger, "coder")
    reader = Endless(settings)
    async with watching(settings, reader=reader) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["coder"])
        await pilot.press("3")
        await until(pilot, lambda: reader.read is not None)
        assert reader.read is not None
        assert reader.read() is not None
        gc.disable()
        try:
            await pilot.press("1")
            await until(pilot, lambda: reader.read is not None and reader.read() is None)
        finally:
            gc.enable()
    await reader.close()


async def test_figures_are_named_by_the_range_that_they_are_of(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "coder", 300)
    reader = Troubled(settings)
    reader.error = Unreachable("nobody answers")
    async with watching(settings, reader=reader) as (app, pilot):
        await until(pilot, lambda: "today: $3.00" in said(app, "#totals"))
        reader.fails["snapshot"] = 1e9
        await pilot.press("t")
        await until(pilot, lambda: "STALE" in said(app, "#title"))
        assert said(app, "#tabs").endswith("range: 7 days …")
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: shows(app, "today: $3.00"))
        reader.fails["snapshot"] = 0
        await until(pilot, lambda: "7 days: $3.00" in said(app, "#totals"))
        assert said(app, "#tabs").endswith("range: 7 days")
    await reader.close()


async def test_going_on_after_a_pause_does_not_hide_trouble(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "coder")
    reader = Troubled(settings)
    async with watching(settings, reader=reader) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["coder"])
        await pilot.press("p")
        await use(ledger, "planner")
        await until(pilot, lambda: app.waiting is not None)
        reader.fails["snapshot"] = 1e9
        await use(ledger, "tester")
        await until(pilot, lambda: "STALE" in said(app, "#title"))
        app.action_pause()
        assert sorted(agents(app)) == ["coder", "planner"]
        assert "STALE" in said(app, "#title")
    await reader.close()


async def test_the_title_says_that_rows_are_missing(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "coder", service="api")
    await use(ledger, "coder", service="search")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["coder"])
        await pilot.press("3")
        await until(pilot, lambda: isinstance(app.screen, ServicesPage) and len(rows(app, "#services")) == 2)
        await pilot.press("slash", *"sea", "enter")
        await until(pilot, lambda: rows(app, "#services") == ["search"] and shows(app, "filter: sea"))
        await pilot.press("escape")
        await until(pilot, lambda: len(rows(app, "#services")) == 2 and not shows(app, "filter: sea"))


async def test_the_rows_of_an_agent_are_filtered_too(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "coder", service="api")
    await use(ledger, "coder", service="search")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["coder"])
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, AgentScreen) and len(rows(app, "#usage")) == 2)
        await pilot.press("slash", *"sea", "enter")
        await until(pilot, lambda: len(rows(app, "#usage")) == len(rows(app, "#events")) == 1)


async def test_an_empty_table_does_not_say_that_there_is_nothing_where_a_filter_hides_it(
    settings: Settings, ledger: Ledger
) -> None:
    await use(ledger, "coder")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["coder"] and len(feed(app)) == 1)
        for key, hidden in (("1", "No usage yet"), ("f", "Nothing has happened"), ("3", "Nothing was used")):
            await pilot.press(key, "slash", *"zzz", "enter")
            await until(pilot, lambda: shows(app, "Nothing matches the filter"))
            assert not shows(app, hidden)
            await pilot.press("escape")
            await until(pilot, lambda: not shows(app, "Nothing matches the filter"))
        await pilot.press("5")
        await until(pilot, lambda: shows(app, "Nothing was changed yet"))


async def test_an_agent_is_told_in_the_room_that_there_is(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "coder")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["coder"])
        await pilot.press("enter")
        await until(pilot, lambda: shows(app, "holds no reservation"))
        await pilot.resize_terminal(120, 24)
        await until(pilot, lambda: not shows(app, "holds no reservation"))
        await pilot.resize_terminal(120, 36)
        await until(pilot, lambda: shows(app, "holds no reservation"))


async def test_other_colours_are_those_of_all_words(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "coder")
    async with watching(settings) as (app, pilot):
        await settled(pilot, "LIVE")
        dark = colours_of(app, "● LIVE")
        app.theme = "meter-light"
        await until(pilot, lambda: colours_of(app, "● LIVE") != dark)
        assert colours_of(app, "● LIVE") == [Color.parse(app.theme_variables["text-success"]).rgb]


def colours_of(app: Dashboard, text: str) -> list[Any]:
    segments = (segment for line in painted(app) for segment in line if text in segment.text)
    return [segment.style.color.get_truecolor() for segment in segments]


async def test_the_cursor_is_seen_in_less_room(settings: Settings, ledger: Ledger) -> None:
    for number in range(30):
        await use(ledger, f"agent-{number:02}")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 30)
        await pilot.press(*["down"] * 20)
        name = agents(app)[20]
        await until(pilot, lambda: shows(app, f"▌{name}"))
        await pilot.resize_terminal(120, 20)
        await until(pilot, lambda: overview(app).agents.size.height < 18)
        await until(pilot, lambda: shows(app, f"▌{name}"))


async def test_keys_move_the_agents_where_there_is_no_room_for_the_events(
    settings: Settings, ledger: Ledger
) -> None:
    for name in ("coder", "planner"):
        await use(ledger, name)
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 2)
        await pilot.press("f")
        await until(pilot, lambda: app.focused is overview(app).feed)
        await pilot.resize_terminal(80, 18)
        await until(pilot, lambda: app.focused is overview(app).agents)


class Demoted(LocalSource):
    """Whoever looks may act no more, at some time."""

    refusal = ""


async def test_keys_are_greyed_when_it_is_known_that_they_do_nothing(
    settings: Settings, ledger: Ledger
) -> None:
    await use(ledger, "coder")
    source = Demoted(settings, OPERATOR, "UTC")
    async with watching(settings, reader=source, operator=source) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["coder"])
        await until(pilot, lambda: colours_of(app, " Stop ") == colours_of(app, " Range "))
        source.refusal = "this key only shows"
        await use(ledger, "coder")
        await until(pilot, lambda: shows(app, "read-only"))
        await until(pilot, lambda: colours_of(app, " Stop ") != colours_of(app, " Range "))
    await source.close()
