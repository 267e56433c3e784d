"""What a person does at the dashboard, key by key, and what the ledger says afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from textual.app import App
from textual.widgets import Checkbox, Input, Select, Static

from agent_meter_mcp import Ledger, LimitKey, Report, Settings, Subject, Usage, Who
from agent_meter_mcp.core.models import Agent, Limit
from agent_meter_mcp.core.queries import LimitView
from agent_meter_mcp.sources.local import LocalSource
from tui.agent import AgentScreen
from tui.agent_dialog import AgentDialog
from tui.choose import Choose
from tui.dialogs import Confirm, Help
from tui.limit_dialog import LimitDialog, RaiseDialog
from tui.limit_form import Typed
from tui.limit_preview import Preview
from tui.limits import LimitsPage
from tui.overview import Overview
from tui.page import Page
from tui.palette import Palette
from tui.services import ServicesPage
from tui.table import Column, LineTable

from .watching import CENT, OPERATOR, agents, notes, screen_text, shows, until, until_told, use, watching

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.pilot import Pilot
    from textual.screen import Screen

    from agent_meter_mcp.core.models import SwitchKind
    from tui.app import Dashboard
    from tui.limit_form import Wish

DOLLAR = 100 * CENT
EACH = LimitKey(Subject("agent", "*"), None, "cost_usd", "day")


async def limits_of(ledger: Ledger) -> list[Limit]:
    return [view.limit for view in await ledger.limits(OPERATOR)]


async def audited(ledger: Ledger) -> list[tuple[str, str]]:
    """What was done to what, newest first."""
    return [(entry.action, entry.target) for entry in await ledger.audit(OPERATOR)]


async def on(pilot: Pilot[None], app: Dashboard, kind: type[Screen[Any]]) -> None:
    await until(pilot, lambda: isinstance(app.screen, kind) and app.screen.is_mounted)
    await pilot.pause()


async def open_limits(app: Dashboard, pilot: Pilot[None], count: int) -> None:
    await until(pilot, lambda: app.looked.snapshot is not None)
    await pilot.press("2")
    await on(pilot, app, LimitsPage)
    await until(pilot, lambda: len(app.screen.query_one("#limits", LineTable).rows) == count)


def told(app: Dashboard) -> str:
    return str(app.screen.query_one("#told", Static).content)


async def maximum(ledger: Ledger) -> list[int]:
    return [limit.max for limit in await limits_of(ledger)]


# Limits


async def test_a_limit_is_made_with_a_look_at_whom_it_binds(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "coder", 100)
    await use(ledger, "planner", 450)
    async with watching(settings) as (app, pilot):
        await open_limits(app, pilot, 0)
        await pilot.press("n")
        await on(pilot, app, LimitDialog)
        await pilot.press("ctrl+s")
        assert isinstance(app.screen, LimitDialog), "nothing is sent before it is valid"
        assert app.focused is app.screen.query_one("#max")
        await pilot.press(*"5")
        await until(pilot, lambda: "Binds 2 agents, each by itself" in told(app))
        assert "planner $4.50 (90 %), coder $1.00 (20 %)" in told(app)
        assert "▲ 1 has nearly used it up" in told(app)
        assert await limits_of(ledger) == []
        await pilot.press("ctrl+s")
        await on(pilot, app, LimitsPage)
        await until(pilot, lambda: shows(app, "$4.50 of $5.00"))
        (limit,) = await limits_of(ledger)
        assert (limit.key, limit.max, limit.action, limit.zone) == (EACH, 5 * DOLLAR, "reject", "UTC")
        assert limit.thresholds == (50, 80, 100)
        assert await audited(ledger) == [("set_limit", "cost_usd per day for agent *")]


async def test_every_field_of_a_new_limit_is_set(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "coder")
    async with watching(settings, size=(80, 24)) as (app, pilot):
        await open_limits(app, pilot, 0)
        await pilot.press("n")
        await on(pilot, app, LimitDialog)
        dialog = app.screen
        dialog.query_one("#whom", Select).value = "one agent"
        await pilot.pause()
        dialog.query_one("#name", Input).focus()
        await pilot.press(*"cod", "right")
        await until(pilot, lambda: dialog.query_one("#name", Input).value == "coder")
        await pilot.press("tab", *"api", "tab", "tab")
        dialog.query_one("#metric", Select).value = "tokens"
        window = dialog.query_one("#window", Input)
        window.value = ""
        window.focus()
        await pilot.press(*"fort")
        await until(pilot, lambda: "Per: must be a rolling window" in told(app))
        window.value = "week"
        dialog.query_one("#max", Input).focus()
        await pilot.press(*"1.5M")
        await until(pilot, lambda: shows(app, "1,500,000 tokens"))
        dialog.query_one("#action", Select).value = "warn"
        dialog.query_one("#zone", Input).value = "Europe/Berlin"
        dialog.query_one("#thresholds", Input).value = "70 90"
        await until(pilot, lambda: "Binds coder (and what it spawns)" in told(app))
        await pilot.press("enter", "enter")
        await on(pilot, app, LimitsPage)
        await until_told(pilot, lambda: _has(ledger, 1))
        (limit,) = await limits_of(ledger)
        assert limit.key == LimitKey(Subject("agent", "coder"), "api", "tokens", "week")
        assert (limit.max, limit.action, limit.zone) == (1_500_000, "warn", "Europe/Berlin")
        assert limit.thresholds == (70, 90)


async def _has(ledger: Ledger, count: int) -> bool:
    return len(await limits_of(ledger)) == count


async def test_a_limit_below_what_is_used_wants_a_tick(settings: Settings, ledger: Ledger) -> None:
    await ledger.set_limit(OPERATOR, EACH, 10 * DOLLAR)
    await use(ledger, "coder", 700)
    async with watching(settings) as (app, pilot):
        await open_limits(app, pilot, 1)
        await pilot.press("e")
        await on(pilot, app, LimitDialog)
        app.screen.query_one("#max", Input).value = "5"
        await until(pilot, lambda: "$10.00 → $5.00" in told(app))
        assert "$7.00 (70 % → 140 %)" in told(app)
        assert "refused at once" in told(app)
        await pilot.press("ctrl+s")
        tick = app.screen.query_one("#tick", Checkbox)
        await until(pilot, lambda: app.focused is tick)
        assert await maximum(ledger) == [10 * DOLLAR]
        await pilot.press("space", "ctrl+s")
        await on(pilot, app, LimitsPage)
        await until(pilot, lambda: shows(app, "$7.00 of $5.00"))
        assert await maximum(ledger) == [5 * DOLLAR]


@pytest.mark.parametrize("key", ["enter", "e", "l"])
async def test_a_limit_is_changed_and_the_change_undone(settings: Settings, ledger: Ledger, key: str) -> None:
    await ledger.set_limit(OPERATOR, EACH, 10 * DOLLAR, thresholds=(75,))
    await use(ledger, "coder", 630)
    async with watching(settings) as (app, pilot):
        await open_limits(app, pilot, 1)
        await pilot.press(key)
        await on(pilot, app, LimitDialog)
        app.screen.query_one("#max", Input).value = "8"
        app.screen.query_one("#action", Select).value = "warn"
        await until(pilot, lambda: "63 % → 79 %" in told(app))
        await pilot.press("ctrl+s")
        await until(pilot, lambda: notes(app, "u undoes it"))
        (limit,) = await limits_of(ledger)
        assert (limit.max, limit.action, limit.thresholds) == (8 * DOLLAR, "warn", (75,))
        await pilot.press("u")
        await on(pilot, app, Confirm)
        await pilot.press("y")
        await until_told(pilot, lambda: _is(ledger, 10 * DOLLAR))
        (limit,) = await limits_of(ledger)
        assert (limit.max, limit.action, limit.thresholds) == (10 * DOLLAR, "reject", (75,))
        assert len(await audited(ledger)) == 3


async def _is(ledger: Ledger, most: int) -> bool:
    return await maximum(ledger) == [most]


async def test_what_somebody_else_changed_meanwhile_is_not_overwritten(
    settings: Settings, ledger: Ledger
) -> None:
    await ledger.set_limit(OPERATOR, EACH, 10 * DOLLAR)
    async with watching(settings) as (app, pilot):
        await open_limits(app, pilot, 1)
        await pilot.press("e")
        await on(pilot, app, LimitDialog)
        app.screen.query_one("#max", Input).value = "20"
        await ledger.set_limit(OPERATOR, EACH, 3 * DOLLAR)
        await pilot.press("ctrl+s")
        await on(pilot, app, LimitsPage)
        await until(pilot, lambda: notes(app, "changed by somebody else"))
        assert await maximum(ledger) == [3 * DOLLAR]


async def test_a_limit_is_raised_by_a_tenth_or_to_what_is_typed(settings: Settings, ledger: Ledger) -> None:
    await ledger.set_limit(OPERATOR, EACH, 10 * DOLLAR)
    await use(ledger, "coder", 630)
    async with watching(settings) as (app, pilot):
        await open_limits(app, pilot, 1)
        await pilot.press("plus")
        await on(pilot, app, RaiseDialog)
        await pilot.press("enter")
        await until(pilot, lambda: "$10.00 → $11.00    63 % → 57 % used" in told(app))
        assert await maximum(ledger) == [10 * DOLLAR]
        await pilot.press("y")
        await until_told(pilot, lambda: _is(ledger, 11 * DOLLAR))
        await until(pilot, lambda: shows(app, "$6.30 of $11.00"))
        await pilot.press("plus")
        await on(pilot, app, RaiseDialog)
        field = app.screen.query_one("#max", Input)
        field.value = "9"
        await until(pilot, lambda: "must be more than $11.00" in told(app))
        await pilot.press("y")
        await pilot.pause()
        assert isinstance(app.screen, RaiseDialog)
        field.value = ""
        field.focus()
        await pilot.press(*"1k", "enter", "enter")
        await until_told(pilot, lambda: _is(ledger, 1000 * DOLLAR))


@pytest.mark.parametrize("key", ["d", "delete"])
async def test_a_limit_is_removed_after_a_yes_and_comes_back(
    settings: Settings, ledger: Ledger, key: str
) -> None:
    await ledger.set_limit(OPERATOR, EACH, 10 * DOLLAR, action="warn", thresholds=(33,))
    async with watching(settings) as (app, pilot):
        await open_limits(app, pilot, 1)
        await pilot.press(key)
        await on(pilot, app, Confirm)
        await pilot.press("n")
        await on(pilot, app, LimitsPage)
        assert await _has(ledger, 1)
        await pilot.press(key)
        await on(pilot, app, Confirm)
        await pilot.press("y")
        await until_told(pilot, lambda: _has(ledger, 0))
        await until(pilot, lambda: shows(app, "No limit is set"))
        await pilot.press("u")
        await on(pilot, app, Confirm)
        await pilot.press("y")
        await until_told(pilot, lambda: _has(ledger, 1))
        (limit,) = await limits_of(ledger)
        assert (limit.key, limit.max, limit.action, limit.thresholds) == (EACH, 10 * DOLLAR, "warn", (33,))


async def test_undoing_a_new_limit_removes_it(settings: Settings, ledger: Ledger) -> None:
    async with watching(settings) as (app, pilot):
        await open_limits(app, pilot, 0)
        await pilot.press("u")
        await until(pilot, lambda: notes(app, "nothing to undo"))
        await pilot.press("n")
        await on(pilot, app, LimitDialog)
        app.screen.query_one("#max", Input).value = "5"
        await pilot.press("ctrl+s")
        await until_told(pilot, lambda: _has(ledger, 1))
        await until(pilot, lambda: notes(app, "u undoes it"))
        await pilot.press("u")
        await on(pilot, app, Confirm)
        await pilot.press("y")
        await until_told(pilot, lambda: _has(ledger, 0))


async def test_an_undo_overwrites_nothing_that_somebody_else_set_since(
    settings: Settings, ledger: Ledger
) -> None:
    await ledger.set_limit(OPERATOR, EACH, 10 * DOLLAR)
    async with watching(settings) as (app, pilot):
        await open_limits(app, pilot, 1)
        await pilot.press("plus")
        await on(pilot, app, RaiseDialog)
        app.screen.query_one("#max", Input).value = "20"
        await pilot.press("y")
        await until(pilot, lambda: notes(app, "u undoes it"))
        await ledger.set_limit(OPERATOR, EACH, 3 * DOLLAR)
        await pilot.press("u")
        await on(pilot, app, Confirm)
        await pilot.press("y")
        await until(pilot, lambda: notes(app, "changed by somebody else"))
        assert await maximum(ledger) == [3 * DOLLAR]


async def test_escape_sets_nothing(settings: Settings, ledger: Ledger) -> None:
    await ledger.set_limit(OPERATOR, EACH, 10 * DOLLAR)
    async with watching(settings) as (app, pilot):
        await open_limits(app, pilot, 1)
        for key in ("n", "e", "plus", "d"):
            await pilot.press(key)
            await until(pilot, lambda: not isinstance(app.screen, Page))
            await pilot.pause()
            await pilot.press("escape")
            await on(pilot, app, LimitsPage)
        assert len(await audited(ledger)) == 1
        assert await maximum(ledger) == [10 * DOLLAR]


async def test_what_is_looked_up_for_a_dialog_may_come_when_its_fields_are_gone() -> None:
    has_asked, answers = False, 0

    async def look(wish: Wish) -> Preview:
        nonlocal has_asked, answers
        has_asked = True
        while dialog.query("#told"):
            await anyio.lowlevel.checkpoint()
        answers += 1
        return Preview(wish, None, ())

    async def known() -> dict[str, list[str]]:
        return {"service": []}

    app: App[None] = App()
    async with app.run_test() as pilot:
        dialog = LimitDialog(look, Typed(max="5"), known)
        await app.push_screen(dialog)
        await until(pilot, lambda: has_asked)
        await pilot.press("escape")
        await until(pilot, lambda: not dialog.is_attached)
    assert answers == 1


async def test_limits_are_sorted_and_filtered(settings: Settings, ledger: Ledger) -> None:
    await ledger.set_limit(OPERATOR, EACH, 10 * DOLLAR)
    await ledger.set_limit(OPERATOR, LimitKey(Subject(), "api", "requests", "total"), 2)
    await use(ledger, "coder", 100)
    async with watching(settings, size=(80, 24)) as (app, pilot):
        await open_limits(app, pilot, 2)
        table = app.screen.query_one("#limits", LineTable)

        def first() -> str:
            return table.rows[0].cells[0].text

        await until(pilot, lambda: first().startswith("everyone · requests in total at api"))
        await pilot.press("s")
        assert first().startswith("each agent")
        await pilot.press("S")
        assert first().startswith("everyone")
        assert shows(app, "Limit▲")
        await pilot.press("slash", *"each", "enter")
        await until(pilot, lambda: len(table.rows) == 1)
        assert screen_text(app)[-1].endswith("q Quit")


# An agent


async def test_the_limits_that_bind_an_agent_are_raised_from_its_row(
    settings: Settings, ledger: Ledger
) -> None:
    await ledger.set_limit(OPERATOR, EACH, 10 * DOLLAR)
    await ledger.set_limit(OPERATOR, EACH.replace(subject=Subject("agent", "coder")), 7 * DOLLAR)
    await ledger.set_limit(OPERATOR, EACH.replace(subject=Subject()), 100 * DOLLAR)
    await use(ledger, "coder", 630)
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["coder"])
        await pilot.press("l")
        await on(pilot, app, Choose)
        rows = [row.cells[0].text for row in app.screen.query_one(LineTable).rows]
        assert rows == [
            "agent coder · cost_usd/day",
            "everyone · cost_usd/day",
            "a new limit for coder ...",
        ]
        await pilot.press("enter")
        await on(pilot, app, RaiseDialog)
        await pilot.press("tab", "enter", "y")
        await until_told(pilot, lambda: _of(ledger, "coder", 10_500_000_000))


async def _of(ledger: Ledger, agent: str, most: int) -> bool:
    return any(limit.key.subject.name == agent and limit.max == most for limit in await limits_of(ledger))


async def test_an_agent_gets_a_limit_of_its_own(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "coder")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["coder"])
        await pilot.press("enter")
        await on(pilot, app, AgentScreen)
        await pilot.press("l")
        await on(pilot, app, Choose)
        await pilot.press(*"new", "down", "up", "enter")
        await on(pilot, app, LimitDialog)
        await pilot.press(*"5", "ctrl+s")
        await until_told(pilot, lambda: _of(ledger, "coder", 5 * DOLLAR))
        assert await audited(ledger) == [("set_limit", "cost_usd per day for agent coder")]


async def test_a_reservation_is_released(settings: Settings, ledger: Ledger) -> None:
    for agent in ("coder", "planner"):
        await ledger.reserve(
            OPERATOR, Report(Who(agent, "api"), Usage(cost_nano_usd=CENT, cost_source="reported"))
        )
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 2)
        app.open_agent("coder")
        await on(pilot, app, AgentScreen)
        await pilot.press("h")
        await on(pilot, app, Choose)
        assert shows(app, "1 request, $0.01")
        await pilot.press("enter")
        await on(pilot, app, Confirm)
        assert shows(app, "it cannot be undone")
        await pilot.press("y")
        await until_told(pilot, lambda: _only_planner_holds(ledger))
        await pilot.press("h")
        await until(pilot, lambda: notes(app, "coder holds no reservation"))


async def _only_planner_holds(ledger: Ledger) -> bool:
    return [held.who.agent for held in await ledger.reservations(OPERATOR)] == ["planner"]


async def test_an_agent_is_given_a_tier_an_owner_and_a_parent(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "coder")
    await use(ledger, "boss", 100)
    await ledger.set_agent(OPERATOR, "boss", {"tier": "gold"})
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["boss", "coder"])
        await pilot.press("j", "e")
        await on(pilot, app, AgentDialog)
        await pilot.press("tab", *"go", "right", "tab", *"ann", "tab", *"coder")
        await until(pilot, lambda: shows(app, "cannot be its own parent"))
        await pilot.press("ctrl+s")
        await pilot.pause()
        assert isinstance(app.screen, AgentDialog)
        app.screen.query_one("#parent", Input).value = "boss"
        await pilot.press("ctrl+s")
        await until(pilot, lambda: notes(app, "u undoes it"))
        coder = await _agent(ledger, "coder")
        assert (coder.name, coder.tier, coder.owner, coder.parent) == (None, "gold", "ann", "boss")
        await pilot.press("u")
        await on(pilot, app, Confirm)
        await pilot.press("y")
        await until_told(pilot, lambda: _has_no_parent(ledger))
        coder = await _agent(ledger, "coder")
        assert (coder.tier, coder.owner) == (None, None)


async def test_what_somebody_else_changed_about_an_agent_is_not_overwritten(
    settings: Settings, ledger: Ledger
) -> None:
    await use(ledger, "coder")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["coder"])
        await pilot.press("e")
        await on(pilot, app, AgentDialog)
        await ledger.set_agent(OPERATOR, "coder", {"tier": "gold"})
        await until(pilot, lambda: app.looked.known.agents[0].agent.tier == "gold")
        await pilot.press("tab", *"free", "ctrl+s")
        await until(pilot, lambda: notes(app, "coder was changed by somebody else meanwhile"))
        assert (await _agent(ledger, "coder")).tier == "gold"


async def test_who_was_stopped_while_it_is_paused_is_asked_about_as_one_that_is(
    settings: Settings, ledger: Ledger
) -> None:
    await use(ledger, "coder")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["coder"])
        await pilot.press("p")
        await ledger.set_switch(OPERATOR, "agent", "coder", True, "incident 17")
        await until(pilot, lambda: app.waiting is not None)
        await pilot.press("x")
        await on(pilot, app, Confirm)
        assert shows(app, "Let coder go on? It is stopped now (incident 17).")


async def _agent(ledger: Ledger, agent_id: str) -> Any:
    from agent_meter_mcp.core.queries import AgentsQuery

    (view,) = (await ledger.agents(OPERATOR, AgentsQuery(agent=agent_id))).agents
    return view.agent


async def _has_no_parent(ledger: Ledger) -> bool:
    return (await _agent(ledger, "coder")).parent is None


async def test_a_loop_of_parents_is_refused_with_the_ledgers_words(
    settings: Settings, ledger: Ledger
) -> None:
    await use(ledger, "boss", 100)
    await use(ledger, "coder")
    await ledger.set_agent(OPERATOR, "coder", {"parent": "boss"})
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: "boss" in agents(app))
        await pilot.press("e")
        await on(pilot, app, AgentDialog)
        app.screen.query_one("#parent", Input).value = "coder"
        await pilot.press("ctrl+s")
        await until(pilot, lambda: notes(app, "that would be a cycle"))
        assert (await _agent(ledger, "boss")).parent is None


# Switches


async def test_a_stop_is_undone_and_so_is_that_it_went_on(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "coder")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["coder"])
        await pilot.press("x")
        await on(pilot, app, Confirm)
        await pilot.press("y")
        await until(pilot, lambda: shows(app, "■ STOPPED"))
        await pilot.press("u")
        await on(pilot, app, Confirm)
        await pilot.press("y")
        await until_told(pilot, lambda: _stopped(ledger, []))
        await until(pilot, lambda: not shows(app, "■ STOPPED"))
        assert [action for action, _ in await audited(ledger)] == [
            "release_kill_switch",
            "engage_kill_switch",
        ]


async def test_who_was_stopped_by_somebody_else_meanwhile_is_not_let_go_on_by_an_undo(
    settings: Settings, ledger: Ledger
) -> None:
    await use(ledger, "ann")
    await use(ledger, "bob")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 2)
        app.acting.stop_or_resume("agent", "bob")
        await on(pilot, app, Confirm)
        await pilot.press("y")
        await until(pilot, lambda: notes(app, "bob is stopped; u undoes it"))
        app.acting.stop_or_resume("agent", "ann")
        await on(pilot, app, Confirm)
        await ledger.set_switch(OPERATOR, "agent", "ann", True, "incident 17")
        await pilot.press("y")
        await until(pilot, lambda: notes(app, "ann is stopped already: nothing was changed"))
        await pilot.press("u")
        await on(pilot, app, Confirm)
        assert shows(app, "Let agent bob go on")
        await pilot.press("y")
        await until_told(pilot, lambda: _stopped(ledger, ["ann"]))


async def test_who_was_stopped_anew_meanwhile_is_not_let_go_on(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "ann")
    await ledger.set_switch(OPERATOR, "agent", "ann", True, "a test")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: shows(app, "■ STOPPED"))
        await pilot.press("x")
        await on(pilot, app, Confirm)
        await ledger.set_switch(OPERATOR, "agent", "ann", False, None)
        await ledger.set_switch(OPERATOR, "agent", "ann", True, "incident 17")
        await until(pilot, lambda: [one.reason for one in app.looked.known.switches] == ["incident 17"])
        await pilot.press("y")
        await until(pilot, lambda: notes(app, "was stopped anew by somebody else meanwhile"))
        assert await _stopped(ledger, ["ann"])


async def test_who_is_let_go_on_is_told_what_stops_it_still(settings: Settings, ledger: Ledger) -> None:
    """It was said that it goes on."""
    await use(ledger, "boss")
    await use(ledger, "ann")
    await ledger.set_agent(OPERATOR, "ann", {"parent": "boss"})
    for name in ("boss", "ann"):
        await ledger.set_switch(OPERATOR, "agent", name, True, "why not")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: len(app.looked.known.switches) == 2)
        for name, done in (("ann", "ann goes on only when agent boss does"), ("boss", "boss goes on; u")):
            app.acting.stop_or_resume("agent", name)
            await on(pilot, app, Confirm)
            await pilot.press("y")
            await until(pilot, lambda done=done: notes(app, done))


async def test_who_undoes_a_stop_is_told_what_stops_it_still(settings: Settings, ledger: Ledger) -> None:
    """It was said that it goes on."""
    await use(ledger, "boss")
    await use(ledger, "ann")
    await ledger.set_agent(OPERATOR, "ann", {"parent": "boss"})
    await ledger.set_switch(OPERATOR, "agent", "boss", True, "why not")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: len(app.looked.known.switches) == 1)
        app.acting.stop_or_resume("agent", "ann")
        await on(pilot, app, Confirm)
        await pilot.press("y")
        await until(pilot, lambda: notes(app, "ann is stopped; u undoes it"))
        await pilot.press("u")
        await on(pilot, app, Confirm)
        await pilot.press("y")
        await until(pilot, lambda: notes(app, "agent ann goes on only when agent boss does"))
        app.acting.stop_everything()
        await on(pilot, app, Confirm)
        app.screen.query_one("#typed", Input).value = "stop everything"
        await pilot.press("enter", "y")
        await until(pilot, lambda: notes(app, "everything is stopped; u undoes it"))
        await pilot.press("u")
        await on(pilot, app, Confirm)
        await pilot.press("y")
        told = "everything goes on except what has a switch of its own (agent boss)"
        await until(pilot, lambda: notes(app, told))
        assert await _stopped(ledger, ["boss"])


async def test_a_palette_that_is_closed_while_it_looks_for_commands_ends_nothing(
    settings: Settings, ledger: Ledger
) -> None:
    await use(ledger, "coder")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["coder"])
        await pilot.press("ctrl+p")
        await on(pilot, app, Palette)
        palette: Any = app.screen
        await palette.remove_children()
        await palette._gather_commands("stop").wait()
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, Overview))


@pytest.mark.parametrize(
    ("dialog", "action"),
    [
        (lambda: Confirm("Stop it?", "Stop", reason="so"), "yes"),
        (lambda: Choose("Which?", [Column("One", 0)], []), "take"),
        (lambda: AgentDialog(Agent("coder"), {}), "send"),
        (lambda: RaiseDialog(LimitView(Limit("l", EACH, 1, "reject"), None, None)), "send"),
    ],
    ids=["confirm", "choose", "agent", "raise"],
)
async def test_a_key_before_the_fields_are_there_does_nothing(
    settings: Settings, ledger: Ledger, dialog: Callable[[], Screen[Any]], action: str
) -> None:
    await use(ledger, "coder")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["coder"])
        asks = dialog()
        app.push_screen(asks)
        assert app.screen is asks and not asks.is_mounted
        await app.run_action(action, asks)
        await until(pilot, lambda: asks.is_mounted)
        assert app.screen is asks
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, Overview))


class SlowAt(LocalSource):
    """Stops this agent when it is let to."""

    def __init__(self, settings: Settings, agent: str) -> None:
        super().__init__(settings, OPERATOR, "UTC")
        self._agent = agent
        self.may = anyio.Event()

    async def stop(self, kind: SwitchKind, name: str | None, reason: str) -> bool:
        if name == self._agent:
            await self.may.wait()
        return await super().stop(kind, name, reason)


async def test_what_ends_while_an_undo_is_asked_about_can_be_undone_after_it(
    settings: Settings, ledger: Ledger
) -> None:
    await use(ledger, "ann")
    await use(ledger, "bob")
    source = SlowAt(settings, "ann")
    async with watching(settings, operator=source, reader=source) as (app, pilot):
        await until(pilot, lambda: sorted(agents(app)) == ["ann", "bob"])
        for name in ("ann", "bob"):
            app.acting.stop_or_resume("agent", name)
            await on(pilot, app, Confirm)
            await pilot.press("y")
        await until(pilot, lambda: notes(app, "bob is stopped; u undoes it"))
        await pilot.press("u")
        await on(pilot, app, Confirm)
        source.may.set()
        await until(pilot, lambda: notes(app, "ann is stopped; u undoes it"))
        await pilot.press("y")
        await until_told(pilot, lambda: _stopped(ledger, ["ann"]))
        await until(pilot, lambda: notes(app, "bob goes on"))
        await pilot.press("u")
        await on(pilot, app, Confirm)
        assert shows(app, "Let agent ann go on")
        await pilot.press("y")
        await until_told(pilot, lambda: _stopped(ledger, []))
    await source.close()


async def _stopped(ledger: Ledger, names: list[str | None]) -> bool:
    return [switch.name for switch in await ledger.switches(OPERATOR)] == names


async def test_a_service_is_stopped_and_goes_on(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "coder", service="openai")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["coder"])
        await pilot.press("3")
        await on(pilot, app, ServicesPage)
        await until(pilot, lambda: shows(app, "openai"))
        await pilot.press("x")
        await on(pilot, app, Confirm)
        await pilot.press("y")
        await until_told(pilot, lambda: _stopped(ledger, ["openai"]))
        refused = await ledger.reserve(OPERATOR, Report(Who("coder", "openai"), Usage()))
        assert refused.status == "denied"
        await until(pilot, lambda: bool(app.looked.snapshot and app.looked.snapshot.switches))
        await pilot.press("x")
        await on(pilot, app, Confirm)
        await pilot.press("y")
        await until_told(pilot, lambda: _stopped(ledger, []))


# The palette, and who may


async def test_everything_that_needs_no_row_is_in_the_palette(settings: Settings, ledger: Ledger) -> None:
    await ledger.set_limit(OPERATOR, EACH, 10 * DOLLAR)
    await use(ledger, "coder")
    kinds: dict[str, type[Screen[Any]]] = {
        "Stop everything": Confirm,
        "Stop or resume an agent": Choose,
        "Stop or resume a service": Choose,
        "New limit": LimitDialog,
        "Change a limit": Choose,
        "Raise a limit": Choose,
        "Remove a limit": Choose,
        "Limits of an agent": Choose,
        "Change an agent": Choose,
        "Release a reservation": Choose,
    }
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["coder"])
        commands = {one.title: one.callback for one in app.get_system_commands(app.screen)}
        for title, kind in kinds.items():
            commands[title]()
            await on(pilot, app, kind)
            await pilot.press("escape")
            await on(pilot, app, Overview)
        for title, words in (("Undo the last action", "nothing to undo"), ("Resume everything", "no switch")):
            commands[title]()
            await until(pilot, lambda words=words: notes(app, words))
    assert len(await audited(ledger)) == 1


@pytest.mark.parametrize(
    ("title", "then"),
    [
        ("Change a limit", LimitDialog),
        ("Raise a limit", RaiseDialog),
        ("Remove a limit", Confirm),
        ("Change an agent", AgentDialog),
        ("Stop or resume an agent", Confirm),
        ("Stop or resume a service", Confirm),
        ("Limits of an agent", Choose),
    ],
)
async def test_what_is_chosen_in_a_list_is_asked_about(
    settings: Settings, ledger: Ledger, title: str, then: type[Screen[Any]]
) -> None:
    await ledger.set_limit(OPERATOR, EACH, 10 * DOLLAR)
    await use(ledger, "coder")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["coder"])
        commands = {one.title: one.callback for one in app.get_system_commands(app.screen)}
        commands[title]()
        await on(pilot, app, Choose)
        first = app.screen
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is not first and isinstance(app.screen, then))
        await pilot.press("escape")
        await on(pilot, app, Overview)


async def test_everything_goes_on_again_after_an_undo(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "coder")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["coder"])
        app.acting.stop_everything()
        await on(pilot, app, Confirm)
        app.screen.query_one("#typed", Input).value = "stop everything"
        await pilot.press("enter", "y")
        await until_told(pilot, lambda: _stopped(ledger, [None]))
        await until(pilot, lambda: notes(app, "u undoes it"))
        await pilot.press("u")
        await on(pilot, app, Confirm)
        assert shows(app, "Let everything go on, which was stopped just now?")
        await pilot.press("y")
        await until_told(pilot, lambda: _stopped(ledger, []))


async def test_who_may_only_look_changes_nothing_by_any_key(settings: Settings, ledger: Ledger) -> None:
    await ledger.set_limit(OPERATOR, EACH, 10 * DOLLAR)
    await use(ledger, "coder", service="openai")
    keys = {"1": ("x", "l", "e", "u"), "2": ("n", "enter", "e", "l", "plus", "d", "delete", "u"), "3": ("x",)}
    async with watching(settings, may_act=False) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["coder"])
        for page, pressed in keys.items():
            await pilot.press(page)
            await until(pilot, lambda: shows(app, "10.00") or shows(app, "openai"))
            for key in pressed:
                app.clear_notifications()
                await pilot.press(key)
                await until(pilot, lambda: notes(app, "only shows"))
                assert isinstance(app.screen, Page)
        app.open_agent("coder")
        await on(pilot, app, AgentScreen)
        for key in ("x", "l", "h", "e"):
            app.clear_notifications()
            await pilot.press(key)
            await until(pilot, lambda: notes(app, "only shows"))
            assert isinstance(app.screen, AgentScreen)
        for command in app.acting.commands():
            app.clear_notifications()
            command.callback()
            await until(pilot, lambda: notes(app, "only shows"))
    assert len(await audited(ledger)) == 1


@pytest.mark.parametrize(
    ("page", "meanings"),
    [
        ("1", ("stop the agent", "what binds the agent", "tier, owner and parent", "undo the last action")),
        ("2", ("a new limit", "change the limit", "raise the limit", "remove the limit")),
    ],
)
async def test_the_help_page_tells_the_keys_that_act_and_scrolls(
    settings: Settings, ledger: Ledger, page: str, meanings: tuple[str, ...]
) -> None:
    await use(ledger, "coder")
    async with watching(settings, size=(80, 24)) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["coder"])
        await pilot.press(page, "question_mark")
        await on(pilot, app, Help)
        text = str(app.screen.query_one(Static).content)
        assert [meaning for meaning in meanings if meaning not in text] == []
        assert max(map(len, text.splitlines())) <= 70, "no line is broken"
        await pilot.press("end")
        await until(pilot, lambda: shows(app, text.splitlines()[-1].strip()))


HOSTILE = ["[bold red]x[/]", "[@click=app.quit]x[/]", "😀" * 40, "日本語" * 30, "a" * 128]


@pytest.mark.parametrize("size", [(120, 36), (80, 24)])
async def test_hostile_names_are_harmless_in_every_dialog(
    settings: Settings, ledger: Ledger, size: tuple[int, int]
) -> None:
    for name in HOSTILE:
        await use(ledger, name, 100, service=name)
        await ledger.set_agent(OPERATOR, name, {"tier": name, "owner": name})
        key = LimitKey(Subject("agent", name), name, "cost_usd", "day")
        await ledger.set_limit(OPERATOR, key, 10 * DOLLAR)
        held = Usage(cost_nano_usd=CENT, cost_source="reported")
        await ledger.reserve(OPERATOR, Report(Who(name, name), held, operation=name))
    async with watching(settings, size=size) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == len(HOSTILE))
        for name in HOSTILE:
            for begin in (
                lambda name=name: app.acting.limits.of_agent(name),
                lambda name=name: app.acting.limits.new(name),
                lambda name=name: app.acting.who.edit(name),
                lambda name=name: app.acting.who.holds(name),
                lambda name=name: app.acting.stop_or_resume("agent", name),
            ):
                begin()
                await until(pilot, lambda: not isinstance(app.screen, Page))
                await pilot.pause()
                assert all(line.isprintable() for line in screen_text(app))
                await pilot.press("escape")
                await on(pilot, app, Overview)
