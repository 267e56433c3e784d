"""What comes in the same moment: keys faster than a screen changes, an answer when somebody has gone on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from textual import events
from textual.keys import _character_to_key  # pyright: ignore[reportPrivateUsage] - there is no other way
from textual.screen import ModalScreen
from textual.widgets import Button, Input

from agent_meter_mcp import Ledger, LimitKey, Settings, Subject
from agent_meter_mcp.sources.local import LocalSource

from .watching import CENT, OPERATOR, agents, feed, shows, until, use, watching

if TYPE_CHECKING:
    from textual.pilot import Pilot

    from tui.app import Dashboard

EACH = LimitKey(Subject("agent", "*"), None, "cost_usd", "day")


async def at_once(app: Dashboard, pilot: Pilot[None], *keys: str) -> None:
    """As a terminal sends them: the pilot would wait after each. Then until all is done."""
    for key in keys:
        one = _character_to_key(key) if len(key) == 1 else key
        app.post_message(events.Key(one, key if len(key) == 1 else None))
    for _ in range(5):
        await pilot.pause(0.05)


def opened(app: Dashboard) -> list[str]:
    """What stands on the pages."""
    return [type(screen).__name__ for screen in app.screen_stack[1:]]


class Held(LocalSource):
    """A ledger that answers what a page or a dialog asks when it may."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, OPERATOR, "UTC")
        self.asked = 0
        self.may = anyio.Event()
        self.may.set()

    async def _held(self, name: str, *words: Any, **more: Any) -> Any:
        self.asked += 1
        await self.may.wait()
        return await getattr(super(), name)(*words, **more)

    async def usage(self, *words: Any, **more: Any) -> Any:
        return await self._held("usage", *words, **more)

    async def detail(self, *words: Any, **more: Any) -> Any:
        return await self._held("detail", *words, **more)

    def hold(self) -> None:
        self.asked, self.may = 0, anyio.Event()


@pytest.mark.parametrize(
    ("before", "twice", "left"),
    [
        ("", "enter", ["AgentScreen"]),
        ("", "x", ["Confirm"]),
        ("", "l", ["Choose"]),
        ("", "e", ["AgentDialog"]),
        ("l", "enter", ["RaiseDialog"]),
        ("f", "enter", ["FactsSheet"]),
        ("2", "enter", ["LimitDialog"]),
        ("2", "d", ["Confirm"]),
        ("3", "enter", ["TableSheet"]),
        ("4", "enter", ["TableSheet"]),
        ("5", "enter", ["FactsSheet"]),
    ],
)
async def test_a_key_that_is_pressed_twice_opens_one_thing(
    settings: Settings, ledger: Ledger, before: str, twice: str, left: list[str]
) -> None:
    await use(ledger, "coder")
    await ledger.set_limit(OPERATOR, EACH, 100 * CENT)
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: bool(agents(app)))
        if before:
            await pilot.press(before)
            await until(pilot, lambda: app.page is not None and bool(app.page.table and app.page.table.rows))
            await until(pilot, lambda: before != "l" or opened(app) == ["Choose"])
        await at_once(app, pilot, twice, twice)
        await until(pilot, lambda: opened(app) == left)


async def test_letters_that_come_with_the_key_of_the_filter_are_for_it(
    settings: Settings, ledger: Ledger
) -> None:
    """Over a slow line "/day" asked whether to remove the limit, and y was a yes."""
    await use(ledger, "today")
    await use(ledger, "tom")
    await ledger.set_limit(OPERATOR, EACH, 100 * CENT)
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 2)
        before = app.range
        await at_once(app, pilot, *"/today", "enter")
        await until(pilot, lambda: agents(app) == ["today"])
        assert app.range is before
        await pilot.press("2")
        await until(pilot, lambda: app.page is not None and bool(app.page.table and app.page.table.rows))
        await at_once(app, pilot, *"/days", "backspace", *"y", "backspace")
        await until(pilot, lambda: shows(app, "filter: day "))
        await at_once(app, pilot, *"/each")
        await until(pilot, lambda: shows(app, "filter: day/each "))
        await at_once(app, pilot, "enter")
        await at_once(app, pilot, *"/api")
        await until(pilot, lambda: shows(app, "filter: api "))
        assert opened(app) == []
        await pilot.press("escape")
        await at_once(app, pilot, "d", "y")
        await until(pilot, lambda: opened(app) == ["Confirm"])
    assert len(await ledger.limits(OPERATOR)) == 1


async def test_the_filter_is_there_when_it_is_first_wanted_and_stays(
    settings: Settings, ledger: Ledger
) -> None:
    await use(ledger, "today")
    await use(ledger, "tom")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 2)
        for page in "23451":
            await pilot.press(page)
            await until(pilot, lambda: app.page is not None and bool(app.page.table))
            assert not app.screen.query(Input)
        await at_once(app, pilot, *"/toda")
        await until(pilot, lambda: agents(app) == ["today"])
        (field,) = app.screen.query(Input)
        assert app.focused is field
        await pilot.press("enter")
        assert app.focused is app.screen.query_one("#agents")
        await pilot.press("slash", "m")  # all of it is selected
        assert agents(app) == ["tom"]
        await pilot.press("escape")
        assert len(agents(app)) == 2
        assert list(app.screen.query(Input)) == [field] and not field.display
        await pilot.press("f")
        await at_once(app, pilot, *"/tom")
        assert len(agents(app)) == 2 and field.value == "tom"
        await until(pilot, lambda: len(feed(app)) == 1)


async def test_a_button_that_is_clicked_twice_closes_only_its_dialog(
    settings: Settings, ledger: Ledger
) -> None:
    await use(ledger, "coder")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: bool(agents(app)))
        await pilot.press("enter", "x")
        await until(pilot, lambda: opened(app) == ["AgentScreen", "Confirm"] and app.screen.is_mounted)
        button = app.screen.query_one("#no", Button)
        button.press()
        button.press()
        await until(pilot, lambda: not isinstance(app.screen, ModalScreen))
        await at_once(app, pilot)
        assert opened(app) == ["AgentScreen"]


async def test_two_clicks_beside_the_palette_close_only_the_palette(
    settings: Settings, ledger: Ledger
) -> None:
    await use(ledger, "coder")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: bool(agents(app)))
        await pilot.press("ctrl+p")
        await until(pilot, lambda: opened(app) == ["Palette"] and app.screen.is_mounted)
        for _ in range(2):
            for kind in (events.MouseDown, events.MouseUp):
                app.post_message(kind(None, 1, 30, 0, 0, 1, False, False, False, 1, 30))
        await until(pilot, lambda: opened(app) == [])
        await at_once(app, pilot)
        assert agents(app) == ["coder"]


@pytest.mark.parametrize(("page", "key"), [("1", "l"), ("3", "enter")])
@pytest.mark.parametrize("then", ["2", "x"])
async def test_what_somebody_has_gone_on_from_opens_nothing(
    settings: Settings, ledger: Ledger, page: str, key: str, then: str
) -> None:
    await use(ledger, "coder")
    held = Held(settings)
    async with watching(settings, reader=held) as (app, pilot):
        await until(pilot, lambda: bool(agents(app)))
        await pilot.press(page)
        await until(pilot, lambda: app.page is not None and bool(app.page.table and app.page.table.rows))
        await until(pilot, lambda: shows(app, "coder") or shows(app, "api"))
        held.hold()
        await pilot.press(key)
        await until(pilot, lambda: held.asked > 0)
        await pilot.press(then)
        stands = ["Confirm"] if then == "x" else []
        await until(pilot, lambda: opened(app) == stands)
        held.may.set()
        await at_once(app, pilot)
        assert opened(app) == stands
    await held.close()
