"""The dashboard as a person uses it: real keys, on a real file that another process could be writing."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from textual.widgets import Input

from agent_meter_mcp import Ledger, LimitKey, Report, Settings, Subject, Usage, Who, open_ledger
from tui.agent import AgentScreen
from tui.dialogs import Confirm, Help
from tui.overview import Overview
from tui.table import LineTable

from .watching import (
    CENT,
    OPERATOR,
    WAIT_S,
    agents,
    feed,
    overview,
    said,
    screen_text,
    shows,
    until,
    use,
    watching,
)


async def test_it_shows_who_uses_what_and_what_happens_elsewhere(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "coder", 300)
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["coder"])
        assert "$3.00" in said(app, "#totals")
        await use(ledger, "planner", 500)
        await until(pilot, lambda: agents(app) == ["planner", "coder"])
        assert "LIVE" in said(app, "#title")
        assert "2 agents" in said(app, "#title")
        assert "$8.00  2 requests  200 tokens" in said(app, "#totals")
        assert "planner api chat 100 tok $5.00" in feed(app)[0]


async def test_a_refusal_is_on_the_screen_within_a_second(settings: Settings, ledger: Ledger) -> None:
    await ledger.set_limit(OPERATOR, LimitKey(Subject("agent", "rogue"), None, "requests", "total"), 1)
    await use(ledger, "rogue")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["rogue"])
        refused = await ledger.reserve(OPERATOR, Report(Who("rogue", "api"), Usage()))
        assert refused.status == "denied"
        with anyio.fail_after(1):
            await until(pilot, lambda: bool(feed(app)) and " 429 rogue over " in feed(app)[0])
        assert any("✖ OVER" in line for line in screen_text(app))
        assert "1 refused" in said(app, "#totals")


async def test_two_keys_stop_an_agent_and_two_let_it_go_on(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "coder", 300)
    await use(ledger, "planner", 1)
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 2)
        await pilot.press("j", "x")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        assert any("Stop planner, and all agents that it spawned?" in line for line in screen_text(app))
        await pilot.press("y")
        await until(pilot, lambda: any("■ STOPPED" in line for line in screen_text(app)))
        (switch,) = await ledger.switches(OPERATOR)
        assert (switch.kind, switch.name, switch.reason) == ("agent", "planner", "stopped at the dashboard")
        assert (await ledger.reserve(OPERATOR, Report(Who("planner", "api"), Usage()))).status == "denied"
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: not any("■ STOPPED" in line for line in screen_text(app)))
        assert await ledger.switches(OPERATOR) == []


async def test_a_service_that_is_stopped_is_told_where_there_is_one_line_for_alarms(
    settings: Settings, ledger: Ledger
) -> None:
    """A refusal of a moment ago was in its place, and no other page says it but that of services."""
    await use(ledger, "coder")
    await ledger.set_limit(OPERATOR, LimitKey(Subject("agent", "coder"), None, "requests", "day"), 1)
    await ledger.set_switch(OPERATOR, "service", "maps", True, "their terms forbid it")
    assert (await ledger.reserve(OPERATOR, Report(Who("coder", "api"), Usage()))).status == "denied"
    async with watching(settings, size=(80, 24)) as (app, pilot):
        await until(pilot, lambda: "coder was refused" in said(app, "#alarms"))
        assert "1 service stopped" in said(app, "#title")
        await pilot.press("5")
        await until(pilot, lambda: shows(app, "To what"))
        assert shows(app, "1 service stopped")


@pytest.mark.parametrize("key", ["n", "escape", "enter"])
async def test_whoever_does_not_say_yes_stops_nobody(settings: Settings, ledger: Ledger, key: str) -> None:
    await use(ledger, "coder")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 1)
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press(key)
        await until(pilot, lambda: isinstance(app.screen, Overview))
        assert await ledger.switches(OPERATOR) == []


async def test_the_agent_that_was_asked_about_is_stopped_though_the_rows_move(
    settings: Settings, ledger: Ledger
) -> None:
    await use(ledger, "coder", 300)
    await use(ledger, "planner", 100)
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["coder", "planner"])
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await use(ledger, "planner", 900)
        await until(pilot, lambda: agents(app) == ["planner", "coder"])
        await pilot.press("y")
        await until(pilot, lambda: any("■ STOPPED" in line for line in screen_text(app)))
        assert [switch.name for switch in await ledger.switches(OPERATOR)] == ["coder"]
        assert overview(app).chosen == "coder"


async def test_stopping_everything_takes_the_typed_words(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "coder")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 1)
        app.acting.stop_everything()
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.click("#yes")
        assert isinstance(app.screen, Confirm)
        assert await ledger.switches(OPERATOR) == []
        app.screen.query_one("#typed", Input).value = "stop everything"
        await pilot.press("enter", "y")
        await until(pilot, lambda: isinstance(app.screen, Overview))
        with anyio.fail_after(WAIT_S):
            while [switch.kind for switch in await ledger.switches(OPERATOR)] != ["everything"]:
                await pilot.pause(0.02)


async def test_who_may_only_look_is_told_so(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "coder")
    async with watching(settings, may_act=False) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 1)
        await pilot.press("x")
        await pilot.pause()
        assert isinstance(app.screen, Overview)
        await until(pilot, lambda: any("only shows" in line for line in screen_text(app)))


async def test_filter_sort_and_range_answer_their_keys(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "coder", 300)
    await use(ledger, "planner", 100)
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["coder", "planner"])
        await pilot.press("S")
        assert agents(app) == ["planner", "coder"]
        await pilot.press("S", "s")
        assert any("Agent▼" in line for line in screen_text(app))
        await pilot.press("slash", *"plan", "enter")
        assert agents(app) == ["planner"]
        assert "filter: plan" in said(app, "#title")
        await pilot.press("escape")
        assert len(agents(app)) == 2
        await pilot.press("t")
        await until(pilot, lambda: said(app, "#totals").startswith("7 days:"))
        await pilot.press("T", "T")
        await until(pilot, lambda: said(app, "#totals").startswith("1 h:"))


async def test_a_pause_holds_the_screen_still_and_loses_nothing(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "coder")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 1)
        await pilot.press("p")
        await until(pilot, lambda: "PAUSED" in said(app, "#title"))
        await use(ledger, "planner")
        await pilot.pause(0.1)
        assert agents(app) == ["coder"]
        await pilot.press("p")
        await until(pilot, lambda: len(agents(app)) == 2)


async def test_an_agent_has_a_page_of_its_own(settings: Settings, ledger: Ledger) -> None:
    await ledger.set_limit(
        OPERATOR, LimitKey(Subject("agent", "*"), None, "cost_usd", "day"), 10 * 100 * CENT
    )
    await use(ledger, "coder", 300, "openai")
    held = Usage(input_tokens=1500, cost_nano_usd=CENT, cost_source="reported")
    await ledger.reserve(OPERATOR, Report(Who("coder", "openai"), held))
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 1)
        await pilot.press("enter")
        await until(pilot, lambda: any("$3.01 of $10.00" in line for line in screen_text(app)))
        page = "\n".join(screen_text(app))
        assert "each agent · cost_usd/day" in page
        assert "openai · chat" in page
        assert "holds " in page
        assert "(openai, 1 request, 1,500 tokens, $0.01)" in page
        await use(ledger, "coder", 200, "search")
        await until(pilot, lambda: any("search · chat" in line for line in screen_text(app)))
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: any("■ STOPPED" in line for line in screen_text(app)))
        await pilot.press("escape")
        assert isinstance(app.screen, Overview)


async def test_a_file_that_is_not_there_yet_is_opened_when_it_comes(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tui.app.PAUSES_S", (0.02,))
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: "There is no ledger at" in said(app, "#trouble"))
        assert "NO LEDGER YET" in said(app, "#title")
        assert not await anyio.Path(settings.db).exists()
        async with open_ledger(settings) as ledger:
            await use(ledger, "first")
        await until(pilot, lambda: agents(app) == ["first"])
        assert not overview(app).query_one("#trouble").display


async def test_a_file_that_is_replaced_is_told_and_opened_anew(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tui.app.PAUSES_S", (0.02,))
    async with open_ledger(settings) as ledger:
        await use(ledger, "old")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["old"])
        for file in Path(settings.db).parent.glob("meter.db*"):
            file.unlink()
        await until(pilot, lambda: "STALE" in said(app, "#title"))
        assert agents(app) == ["old"]
        await until(pilot, lambda: "is gone: it was moved or deleted" in said(app, "#trouble"))
        async with open_ledger(settings) as ledger:
            await use(ledger, "new")
        await until(pilot, lambda: agents(app) == ["new"])


HOSTILE = ["[bold red]x[/]", "[@click=app.quit]x[/]", "😀" * 40, "日本語" * 30, "=1+1", "a" * 128]


@pytest.mark.parametrize("size", [(120, 36), (80, 24), (60, 16)])
async def test_any_name_is_shown_harmlessly_and_the_columns_line_up(
    settings: Settings, ledger: Ledger, size: tuple[int, int]
) -> None:
    for name in HOSTILE:
        await use(ledger, name, service=name)
    async with watching(settings, size=size) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == len(HOSTILE))
        await pilot.pause()
        table = overview(app).query_one("#agents", LineTable)
        widths = {table.render_line(y).cell_length for y in range(len(HOSTILE) + 1)}
        assert widths == {table.scrollable_content_region.width}
        assert all(line.isprintable() for line in screen_text(app))


@pytest.mark.parametrize("size", [(120, 36), (100, 30), (80, 24)])
async def test_the_keys_fit_under_it(settings: Settings, ledger: Ledger, size: tuple[int, int]) -> None:
    await use(ledger, "coder")
    async with watching(settings, size=size) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 1)
        await pilot.pause()
        assert screen_text(app)[-1].endswith("q Quit")
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, Help))
        assert any("stop the agent" in line for line in screen_text(app))
        await pilot.press("escape")
        assert isinstance(app.screen, Overview)


async def test_the_cursor_stays_with_its_agent(settings: Settings, ledger: Ledger) -> None:
    for number in range(50):
        await use(ledger, f"bot-{number:02}", 100 - number)
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 50)
        await pilot.press("end")
        table = overview(app).query_one("#agents", LineTable)
        assert overview(app).chosen == "bot-49"
        await until(pilot, lambda: table.scroll_offset.y > 0)
        await use(ledger, "bot-49", 900)
        await until(pilot, lambda: agents(app)[0] == "bot-49")
        assert overview(app).chosen == "bot-49"
        await pilot.press("g")
        assert overview(app).chosen == "bot-49"
        await pilot.press("pagedown", "k")
        assert overview(app).chosen not in ("bot-49", None)


async def test_a_page_is_open_while_its_agent_is_only_a_name(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "coder")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 1)
        app.open_agent("nobody")
        await until(pilot, lambda: isinstance(app.screen, AgentScreen))
        await until(pilot, lambda: any("holds no reservation" in line for line in screen_text(app)))


async def test_an_alarm_can_be_read_without_colours(
    settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    await ledger.set_limit(OPERATOR, LimitKey(Subject("agent", "*"), None, "requests", "total"), 1)
    await use(ledger, "rogue")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: any("✖ OVER" in line for line in screen_text(app)))
