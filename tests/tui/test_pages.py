"""The pages as a person reads them: real keys and clicks, on a real file, at the sizes that people have."""

from __future__ import annotations

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from agent_meter_mcp import Ledger, LimitKey, Report, Settings, Subject, Usage, Who
from agent_meter_mcp.sources import local
from tests.tui.test_words import HOSTILE
from tests.tui.watching import (
    CENT,
    OPERATOR,
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
from tui.agent import AgentScreen
from tui.app import Dashboard
from tui.feed import Feed
from tui.overview import Overview
from tui.sheet import FactsSheet, TableSheet
from tui.table import LineTable

DAY_LIMIT = LimitKey(Subject("agent", "*"), None, "cost_usd", "day")
SIZES = [(200, 60), (160, 50), (120, 36), (100, 30), (80, 24), (60, 16)]


async def family(ledger: Ledger) -> None:
    """boss with two children and a grandchild, and somebody else."""
    for name, cents in (("boss", 100), ("ann", 300), ("cod", 200), ("sub", 400), ("zed", 500)):
        await use(ledger, name, cents)
    for name, parent in (("ann", "boss"), ("cod", "boss"), ("sub", "ann")):
        await ledger.set_agent(OPERATOR, name, {"parent": parent, "tier": "pro"})


async def refuse(ledger: Ledger, name: str, times: int = 1) -> None:
    """It is over a limit of one request, and asks again."""
    key = LimitKey(Subject("agent", name), None, "requests", "total")
    await ledger.set_limit(OPERATOR, key, 1)
    await use(ledger, name)
    for _ in range(times):
        asked = Report(Who(name, "api"), Usage(), operation="chat")
        assert (await ledger.reserve(OPERATOR, asked)).status == "denied"


def events(app: Dashboard) -> Feed:
    return overview(app).feed


def rows(app: Dashboard, table: str) -> list[list[str]]:
    return [[cell.text for cell in row.cells] for row in app.screen.query_one(table, LineTable).rows]


async def open_sheet(pilot: Pilot[None], app: Dashboard, kind: type[FactsSheet | TableSheet]) -> str:
    await pilot.press("enter")
    await until(pilot, lambda: isinstance(app.screen, kind))
    await pilot.pause()
    return "\n".join(screen_text(app))


# The overview


@pytest.mark.parametrize("size", SIZES)
async def test_each_size_shows_spend_limit_and_who_is_refused(
    settings: Settings, ledger: Ledger, size: tuple[int, int]
) -> None:
    await ledger.set_limit(OPERATOR, LimitKey(Subject(), None, "cost_usd", "month"), 10_000 * CENT)
    await family(ledger)
    await refuse(ledger, "rogue")
    async with watching(settings, size=size) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 6 and shows(app, "✖ OVER"))
        await until(pilot, lambda: shows(app, "$15.01"))
        await until(pilot, lambda: shows(app, "everyone: $15.01 of $100.00 per month"))
        is_roomy = size[0] >= 100 and size[1] >= 30
        await until(pilot, lambda: shows(app, "spend per hour, last 24h") is is_roomy)
        lines = screen_text(app)
        assert max(len(line) for line in lines) <= size[0]
        assert shows(app, "rogue was refused: over the limit")
        assert shows(app, "resets in") is is_roomy
        assert any("600 in" in line for line in lines) is is_roomy
        assert any("Model" in line and "Session" in line for line in lines) is (size[0] >= 160)


async def test_the_chart_follows_the_range_and_the_window(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "coder", 300)
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: shows(app, "spend per hour, last 24h   max $3.00   sum $3.00"))
        await pilot.press("t")
        await until(pilot, lambda: shows(app, "spend per day, last 30d   max $3.00"))
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: not shows(app, "spend per day"))
        assert screen_text(app)[-1].endswith("q Quit")
        await pilot.resize_terminal(200, 60)
        await until(pilot, lambda: shows(app, "spend per day, last 30d   max $3.00"))
        bars = [line for line in screen_text(app) if "│" in line]
        assert len(bars) >= 8


async def test_trees_fold_and_the_cursor_goes_along(settings: Settings, ledger: Ledger) -> None:
    await family(ledger)
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["boss", "ann", "sub", "cod", "zed"])
        assert shows(app, "▾ boss")
        await pilot.press("g", "space")
        assert agents(app) == ["boss", "zed"]
        await until(pilot, lambda: shows(app, "▸ boss +3"))
        assert rows(app, "#agents")[0][4] == "$10.00"
        await pilot.press("right")
        assert agents(app)[:3] == ["boss", "ann", "sub"]
        await pilot.press("j", "j", "left")
        assert overview(app).chosen == "ann"
        await pilot.press("left")
        assert agents(app) == ["boss", "ann", "cod", "zed"]
        await pilot.press("v")
        assert agents(app) == ["zed", "sub", "ann", "cod", "boss"]
        await pilot.press("v")
        assert agents(app) == ["boss", "ann", "cod", "zed"]
        assert overview(app).chosen == "ann"


async def test_a_click_on_a_title_sorts_and_another_one_reverses(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "a", 100)
    await use(ledger, "b", 300)
    await use(ledger, "b", 1)
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: agents(app) == ["b", "a"])
        table = overview(app).query_one("#agents", LineTable)
        title = table.render_line(0).text
        await pilot.click("#agents", offset=(title.index("Agent") + 1, 0))
        await until(pilot, lambda: agents(app) == ["a", "b"])
        await until(pilot, lambda: shows(app, "Agent▼"))
        await pilot.click("#agents", offset=(table.render_line(0).text.index("Agent") + 1, 0))
        await until(pilot, lambda: agents(app) == ["b", "a"])
        await pilot.click("#agents", offset=(table.render_line(0).text.index("Req") + 1, 0))
        await until(pilot, lambda: shows(app, "Req▼"))
        await pilot.click("#agents", offset=(table.render_line(0).text.index("Budget") + 1, 0))
        await until(pilot, lambda: shows(app, "Used▼"))


async def test_agents_are_filtered_by_what_they_are(settings: Settings, ledger: Ledger) -> None:
    await family(ledger)
    await refuse(ledger, "rogue")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 6)
        await until(pilot, lambda: shows(app, "✖ OVER"))
        for typed, found in (
            ("state:over", {"rogue"}),
            ("tier:pro cost>2", {"ann", "sub"}),
            ("!tier:pro cost>=1", {"boss", "zed"}),
        ):
            await pilot.press("slash")
            overview(app).query_one("#filter", Input).value = typed
            await pilot.press("enter")
            assert set(agents(app)) == found
            await until(pilot, lambda found=found: shows(app, f"{len(found)} of 6"))
        await pilot.press("escape")
        assert len(agents(app)) == 6


async def test_rows_stand_still_for_a_while(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "a", 300)
    await use(ledger, "b", 200)
    async with watching(settings) as (app, pilot):
        app.look_s = 30.0
        await until(pilot, lambda: agents(app) == ["a", "b"])
        await use(ledger, "b", 900)
        app.action_look()
        await until(pilot, lambda: rows(app, "#agents")[1][4] == "$11.00")
        assert agents(app) == ["a", "b"]
        await pilot.press("S", "S")
        assert agents(app) == ["b", "a"]


# The feed


async def test_the_feed_stands_still_for_whoever_reads_it(settings: Settings, ledger: Ledger) -> None:
    for number in range(5):
        await use(ledger, f"bot-{number}")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: len(feed(app)) == 5)
        await pilot.press("f", "j", "j")
        assert app.focused is events(app)
        reading = events(app).cursor_key
        await use(ledger, "new-1")
        await use(ledger, "new-2")
        await until(pilot, lambda: shows(app, "2 new ↑"))
        assert len(feed(app)) == 5
        assert events(app).cursor_key == reading
        await pilot.press("escape")
        await until(pilot, lambda: "new-2" in feed(app)[0])
        assert not shows(app, "new ↑")
        await use(ledger, "new-3")
        await until(pilot, lambda: "new-3" in feed(app)[0])
        assert events(app).cursor == 0
        await pilot.press("escape")
        assert app.focused is overview(app).agents


async def test_the_feed_has_a_filter_of_its_own(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "coder", service="search")
    await use(ledger, "planner")
    await refuse(ledger, "rogue", 5)
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: any(" 429 rogue" in line for line in feed(app)))
        await pilot.press("f", "slash", *"service:search", "enter")
        assert [line.split()[1:4] for line in feed(app)] == [["ok", "coder", "search"]]
        assert len(agents(app)) == 3
        assert app.focused is events(app)
        await pilot.press("f", "slash", *"planner", "enter")
        assert agents(app) == ["planner"]
        assert len(feed(app)) == 1
        await pilot.press("escape")
        assert len(agents(app)) == 3
        await pilot.press("f", "escape", "E")
        await until(pilot, lambda: len(feed(app)) == 1)
        assert "429 rogue ×5 over 1 request in total api chat" in feed(app)[0]
        await until(pilot, lambda: shows(app, "refusals"))
        await pilot.press("E")
        assert len(feed(app)) > 3


async def test_all_of_an_event_can_be_read(settings: Settings, ledger: Ledger) -> None:
    usage = Usage(
        input_tokens=1200, output_tokens=34, cache_read_tokens=5, model="opus", cost_nano_usd=7 * CENT,
        cost_source="reported",
    )  # fmt: skip
    who = Who("coder", "api", project="web", session="s1")
    metadata = '{"note": "[@click=app.quit]x[/] \\u001b[31m"}'
    done = Report(
        who, usage, id="id-1", operation="chat", metadata=metadata, status_code=200, duration_ms=1500
    )
    await ledger.record(OPERATOR, done)
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: len(feed(app)) == 1)
        await pilot.press("f")
        text = await open_sheet(pilot, app, FactsSheet)
        for told in (
            "coder · api · chat · accepted",
            "id-1",
            "1,200",
            "$0.07 (reported)",
            "opus",
            "s1",
            "1,500 ms",
        ):
            assert told in text
        assert "[@click=app.quit]x[/]" in text
        assert "\x1b" not in text
        await pilot.press("escape")
        assert isinstance(app.screen, Overview)


async def test_what_a_person_did_is_in_the_feed(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "planner")
    await ledger.set_switch(OPERATOR, "agent", "planner", True, "runs wild")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: bool(feed(app)) and "ADM planner stopped by olga" in feed(app)[0])
        await pilot.press("f")
        assert "runs wild" in await open_sheet(pilot, app, FactsSheet)


async def test_a_pause_counts_what_waits(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "coder")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 1)
        await pilot.press("p")
        for _ in range(3):
            await use(ledger, "planner")
        await until(pilot, lambda: "PAUSED · 3 waiting" in said(app, "#title"))
        assert agents(app) == ["coder"]
        assert len(feed(app)) == 1
        await pilot.press("p")
        assert len(feed(app)) == 4
        await until(pilot, lambda: "LIVE" in said(app, "#title"))


async def test_alerts_say_which_limit_and_whom(settings: Settings, ledger: Ledger) -> None:
    await ledger.set_limit(OPERATOR, DAY_LIMIT, 1000 * CENT)
    await use(ledger, "coder", 810)
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: shows(app, "coder 80 %: $8.10 of $10.00  (each agent · cost_usd/day)"))


# An agent


async def test_an_agent_s_page_says_who_it_is_and_why_it_was_refused(
    settings: Settings, ledger: Ledger
) -> None:
    await family(ledger)
    await ledger.set_agent(OPERATOR, "ann", {"owner": "olga", "name": "Ann the planner"})
    await ledger.set_limit(OPERATOR, DAY_LIMIT, 1000 * CENT)
    await ledger.set_limit(OPERATOR, LimitKey(Subject("agent", "ann"), None, "cost_usd", "day"), 500 * CENT)
    measured = Usage(input_tokens=7, cost_nano_usd=50 * CENT, cost_source="reported")
    done = Report(Who("ann", "api", project="web", session="s1"), measured, operation="embed", source="sdk")
    await ledger.record(OPERATOR, done)
    over = Usage(cost_nano_usd=900 * CENT, cost_source="reported")
    assert (await ledger.reserve(OPERATOR, Report(Who("ann", "api"), over))).status == "denied"
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: "ann" in agents(app))
        overview(app).agents.move_to_key("ann")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, AgentScreen) and shows(app, "refused last"))
        for told in (
            "over the limit of $5.00 (agent ann · cost_usd/day)",
            "name Ann the planner   tier pro   owner olga   parent boss   first seen",
            "measured: sdk $0.50 in 1 request   self-reported: $3.00 in 1 request",
            "spend per hour",
            "by agent ann",
            "web · s1",
        ):
            assert shows(app, told), told
        assert [row[0] for row in rows(app, "#children")] == ["sub"]
        assert [row[:2] for row in rows(app, "#limits")][-1][0] == "each agent · cost_usd/day"
        await pilot.press("G")
        text = await open_sheet(pilot, app, FactsSheet)
        assert "no: the more specific one for agent ann stands in its place" in text
        await pilot.press("escape")
        app.screen.query_one("#children").focus()
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, AgentScreen) and app.screen.agent_id == "sub")
        await pilot.press("escape", "escape")
        assert isinstance(app.screen, Overview)


async def test_where_there_is_little_room_the_table_with_the_focus_has_it(
    settings: Settings, ledger: Ledger
) -> None:
    await family(ledger)
    async with watching(settings, size=(80, 24)) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 5)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, AgentScreen) and shows(app, "api · chat"))
        for name in ("#limits", "#usage", "#sessions", "#events", "#children"):
            await until(pilot, lambda name=name: app.focused is app.screen.query_one(name))
            heights = {table.id: table.size.height for table in app.screen.query(LineTable)}
            assert heights.pop(name[1:]) > 4
            assert set(heights.values()) == {2}
            await pilot.press("tab")
        assert screen_text(app)[-1].endswith("q Quit")


# Services, sessions, audit


async def test_services_say_who_uses_them_and_for_what(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "coder", 300, "openai")
    await use(ledger, "planner", 100, "openai")
    await use(ledger, "planner", 100, "search")
    await ledger.set_switch(OPERATOR, "service", "search", True, "too dear")
    assert (await ledger.reserve(OPERATOR, Report(Who("planner", "search"), Usage()))).status == "denied"
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 2)
        await pilot.press("3")
        await until(pilot, lambda: len(rows(app, "#services")) == 2)
        assert rows(app, "#services") == [
            ["openai", "● open", "2", "2", "200", "$4.00", "0"],
            ["search", "■ STOPPED", "1", "1", "100", "$1.00", "1"],
        ]
        text = await open_sheet(pilot, app, TableSheet)
        assert all(told in text for told in ("openai   today", "chat", "by coder", "by planner"))
        await pilot.press("escape", "slash", *"stopped", "enter")
        assert [row[0] for row in rows(app, "#services")] == ["search"]


async def test_sessions_are_shown_by_session_or_by_project(settings: Settings, ledger: Ledger) -> None:
    for agent, project, session in (
        ("a", "web", "s1"),
        ("b", "web", "s1"),
        ("b", "web", "s2"),
        ("c", None, "s3"),
    ):
        usage = Usage(cost_nano_usd=100 * CENT, cost_source="reported")
        await ledger.record(OPERATOR, Report(Who(agent, "api", project=project, session=session), usage))
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 3)
        await pilot.press("4")
        await until(pilot, lambda: len(rows(app, "#sessions")) == 3)
        assert [(row[0], row[1], row[5]) for row in rows(app, "#sessions")] == [
            ("web · s1", "2", "$2.00"),
            ("web · s2", "1", "$1.00"),
            ("s3", "1", "$1.00"),
        ]
        assert all(row[2].endswith(":00") for row in rows(app, "#sessions"))
        await pilot.press("v")
        await until(pilot, lambda: len(rows(app, "#sessions")) == 2)
        assert [(row[0], row[1], row[5]) for row in rows(app, "#sessions")] == [
            ("web", "2", "$3.00"),
            ("(none given)", "1", "$1.00"),
        ]
        await open_sheet(pilot, app, TableSheet)
        assert sorted(row[0] for row in rows(app, "#rows")) == ["a", "b"]


async def test_a_project_is_more_than_those_of_its_sessions_that_are_shown(
    settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its figures were the sums of those."""
    monkeypatch.setattr(local, "GROUPS_SHOWN", 2)
    for number in range(4):
        usage = Usage(cost_nano_usd=100 * CENT, cost_source="reported")
        await ledger.record(OPERATOR, Report(Who("a", "api", project="web", session=f"s{number}"), usage))
    async with watching(settings) as (app, pilot):
        await pilot.press("4")
        await until(pilot, lambda: shows(app, "and 2 sessions more"))
        await pilot.press("v")
        await until(pilot, lambda: shows(app, "$4.00"))
        assert [(row[0], row[1], row[5]) for row in rows(app, "#sessions")] == [("web", "1", "$4.00")]


async def test_the_audit_says_what_was_before(settings: Settings, ledger: Ledger) -> None:
    await ledger.set_limit(OPERATOR, DAY_LIMIT, 1000 * CENT)
    await ledger.set_limit(OPERATOR, DAY_LIMIT, 2000 * CENT)
    await ledger.set_switch(OPERATOR, "service", "api", True, "too dear")
    async with watching(settings) as (app, pilot):
        await pilot.press("5")
        await until(pilot, lambda: len(rows(app, "#audit")) == 3)
        assert rows(app, "#audit")[0][1:] == ["olga", "stopped", "service api", "", "too dear"]
        assert rows(app, "#audit")[1][4] == "max $10.00 → $20.00"
        await pilot.press("j")
        text = await open_sheet(pilot, app, FactsSheet)
        assert all(told in text for told in ("before: max", "$10.00", "after: max", "$20.00", "olga"))


@pytest.mark.parametrize(("size", "where"), [((120, 36), "52"), ((80, 24), "5")])
async def test_whom_a_limit_is_for_and_of_what_can_be_read(
    settings: Settings, ledger: Ledger, size: tuple[int, int], where: str
) -> None:
    key = LimitKey(Subject("agent", "code-reviewer"), None, "requests", "24h")
    await ledger.set_limit(OPERATOR, key, 75)
    async with watching(settings, size=size) as (app, pilot):
        for page in where:
            await pilot.press(page)
            await until(pilot, lambda: shows(app, "agent code-reviewer · requests/24h"))


# Names that do harm


NAMES = [name for name in (*HOSTILE, "שלום" * 20, "مرحبا" * 20, "❤️" * 30) if name.isprintable()]


@pytest.mark.parametrize("size", [(120, 36), (80, 24)])
async def test_hostile_names_do_no_harm_on_any_page(
    settings: Settings, ledger: Ledger, size: tuple[int, int]
) -> None:
    for name in NAMES:
        usage = Usage(input_tokens=1, model=name[:128], cost_nano_usd=CENT, cost_source="reported")
        short = name[:128]
        who = Who(short, short, project=short, session=short)
        await ledger.record(OPERATOR, Report(who, usage, operation=short))
        await ledger.set_agent(OPERATOR, short, {"name": short, "owner": short, "tier": short})
        await ledger.set_limit(OPERATOR, LimitKey(Subject("agent", short), short, "requests", "day"), 1)
        assert (await ledger.reserve(OPERATOR, Report(who, Usage()))).status == "denied"
        await ledger.set_switch(OPERATOR, "service", short, True, short)

    def look() -> None:
        assert all(line.isprintable() for line in screen_text(app))
        for table in app.screen.query(LineTable):
            if table.size.height:
                widths = {table.render_line(y).cell_length for y in range(table.size.height)}
                assert widths == {table.scrollable_content_region.width}

    async with watching(settings, size=size) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == len(NAMES))
        look()
        for page, table in (
            ("2", "#limits"),
            ("3", "#services"),
            ("4", "#sessions"),
            ("5", "#audit"),
            ("1", "#agents"),
        ):
            await pilot.press(page)
            await until(
                pilot, lambda table=table: bool(app.screen.query(table)) and len(rows(app, table)) > 0
            )
            await pilot.pause()
            look()
            if page in "345":
                for _ in range(3):
                    await open_sheet(pilot, app, TableSheet if page in "34" else FactsSheet)
                    look()
                    await pilot.press("escape", "j")
        for _ in NAMES:
            await pilot.press("f")
            await open_sheet(pilot, app, FactsSheet)
            look()
            await pilot.press("escape", "f", "enter")
            await until(pilot, lambda: isinstance(app.screen, AgentScreen) and bool(rows(app, "#events")))
            look()
            await pilot.press("escape", "j")
        assert app.is_running
