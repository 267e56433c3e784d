"""What a person takes along: a table, a picture, an id; and what the dashboard remembers."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.command import CommandPalette
from textual.widgets import Input

from agent_meter_mcp import Ledger, LimitKey, Settings, Subject
from agent_meter_mcp.core.errors import InvalidInput, StoreReadOnly
from agent_meter_mcp.sources.base import RANGES
from tui import export
from tui.commands import all_of, name_of
from tui.dialogs import Help
from tui.settings import Choices
from tui.view import Cell, Row

from .watching import OPERATOR, agents, said, screen_text, shows, until, use, watching

HOSTILE = ["=1+1", "@SUM(A1)", "-1+1", 'a,b"c', "[bold]x[/]", "<script>&amp;", "../../etc/passwd", "日本語😀"]
AT = datetime(2026, 1, 31, 18, 0, 0, tzinfo=UTC)


NOT_TOLD = ("screen.", "app.focus", "scroll_", "page_")
"""What Textual binds for itself."""


def files(folder: Path, pattern: str = "*") -> list[Path]:
    return sorted(folder.glob(pattern), key=lambda path: (len(path.name), path.name))


# Tables and pictures


async def test_all_rows_of_a_table_are_saved_and_nothing_is_overwritten(
    settings: Settings, ledger: Ledger, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    await anyio.Path(folder).mkdir()
    for number in range(60):
        await use(ledger, f"bot-{number:02}", 100 + number)
    for name in HOSTILE:
        await use(ledger, name)
    async with watching(settings, export_to=str(folder), size=(80, 24)) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 60 + len(HOSTILE))
        await pilot.press("w", "w", "w")
        await until(pilot, lambda: len(files(folder)) == 3)
        await until(pilot, lambda: shows(app, "saved:"))
    first, *others = files(folder)
    assert re.fullmatch(r"agent-meter-agents-\d{8}-\d{6}\.csv", first.name)
    assert len({path.name for path in others} - {first.name}) == 2
    lines = list(csv.reader(io.StringIO(first.read_text(encoding="utf-8"))))
    assert lines[0][:5] == ["Agent", "State", "Req", "Tokens", "Cost"]
    assert len(lines) == 1 + 60 + len(HOSTILE)
    names = {line[0] for line in lines[1:]}
    assert {"'=1+1", "'@SUM(A1)", "'-1+1", 'a,b"c', "日本語😀"} <= names
    (most,) = [line for line in lines if line[0] == "bot-59"]
    assert most[2:5] == ["1", "100", "1.59"]


async def test_a_table_that_is_filtered_is_saved_under_its_own_titles(
    settings: Settings, ledger: Ledger, tmp_path: Path
) -> None:
    """How many there are, or the filter, stood in the place of a title."""
    await use(ledger, "ann")
    await use(ledger, "bob")
    async with watching(settings, export_to=str(tmp_path)) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 2)
        await pilot.press("slash", *"ann", "enter")
        await until(pilot, lambda: shows(app, "1 of 2"))
        await pilot.press("w", "f", "slash", *"bob", "enter", "w")
        await until(pilot, lambda: len(files(tmp_path, "*.csv")) == 2)
    of_agents, of_events = (
        list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
        for path in sorted(files(tmp_path, "*.csv"))
    )
    assert [line[0] for line in of_agents] == ["Agent", "ann"]
    assert [line[2:4] for line in of_events] == [["Agent", "What"], ["bob", "api chat 100 tok"]]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", of_events[1][0])


async def test_the_screen_is_saved_as_a_picture(settings: Settings, ledger: Ledger, tmp_path: Path) -> None:
    await use(ledger, "<script>&amp;")
    async with watching(settings, export_to=str(tmp_path)) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 1)
        await pilot.press("W")
        await until(pilot, lambda: bool(files(tmp_path, "*.svg")))
    (path,) = files(tmp_path, "agent-meter-screen-*.svg")
    drawn = ElementTree.fromstring(path.read_text(encoding="utf-8"))
    assert drawn.tag.endswith("svg")
    assert "<script>&amp;" in "".join(drawn.itertext()).replace("\xa0", " ")


async def test_a_folder_that_is_not_there_is_said(settings: Settings, ledger: Ledger, tmp_path: Path) -> None:
    await use(ledger, "coder")
    async with watching(settings, export_to=str(tmp_path / "missing")) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 1)
        await pilot.press("w")
        await until(pilot, lambda: shows(app, "No such file or directory"))


def test_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    name = export.name_of("agents", AT, "csv")
    assert name == "agent-meter-agents-20260131-180000.csv"
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    paths = [export.write_new(str(tmp_path), name, text) for text in "ab"]
    assert [Path(path).name for path in paths] == [
        "agent-meter-agents-20260131-180000-2.csv",
        "agent-meter-agents-20260131-180000-3.csv",
    ]
    assert [Path(path).read_text(encoding="utf-8") for path in paths] == ["a", "b"]
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(StoreReadOnly, match="cannot be written"):
        export.write_new(str(tmp_path / "x" / "y"), name, "")


@given(st.lists(st.lists(st.text(), min_size=2, max_size=2)))
def test_what_is_saved_can_be_read_and_runs_nowhere(texts: list[list[str]]) -> None:
    rows = [Row(str(number), tuple(Cell(text) for text in line)) for number, line in enumerate(texts)]
    lines = list(csv.reader(io.StringIO(export.csv_of(("A", "B"), rows))))
    assert lines[0] == ["A", "B"]
    assert [len(line) for line in lines[1:]] == [2] * len(texts)
    assert not any(cell.startswith(("=", "+", "-", "@")) for line in lines for cell in line)
    assert all(cell.isprintable() for line in lines for cell in line)


# Ids


async def test_the_id_under_the_cursor_is_copied(settings: Settings, ledger: Ledger) -> None:
    (limit, _) = await ledger.set_limit(OPERATOR, LimitKey(Subject(), None, "cost_usd", "day"), 10**10)
    await use(ledger, "=coder", 300)
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 1)
        await pilot.press("c")
        assert app.clipboard == "=coder"
        await pilot.press("C")
        assert app.clipboard.startswith("'=coder\t")
        assert "$3.00" in app.clipboard
        await pilot.press("2")
        await until(pilot, lambda: shows(app, "everyone"))
        await pilot.press("c")
        assert app.clipboard == limit.limit.limit_id
        await until(pilot, lambda: shows(app, f"copied: {limit.limit.limit_id}"))


async def test_ctrl_c_copies_what_is_selected_and_else_leaves(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "coder")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 1)
        await pilot.press("slash", *"cod")
        app.screen.query_one("#filter", Input).select_all()
        await pilot.press("ctrl+c")
        assert app.clipboard == "cod"
        assert app.is_running
        await pilot.press("escape", "ctrl+c")
        await until(pilot, lambda: not app.is_running)


# The palette and the help


async def test_the_palette_reaches_every_key_and_what_has_none(settings: Settings, ledger: Ledger) -> None:
    await use(ledger, "coder")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 1)
        for number, mode in enumerate(app.tabs, 1):
            await pilot.press(str(number))
            await until(pilot, lambda mode=mode: app.current_mode == mode)
            told = {command.title for command in all_of(app, app.screen)}
            for active in app.screen.active_bindings.values():
                if active.binding.show:
                    assert active.binding.description in told
            assert {f"Go to {tab}" for tab in app.tabs} <= told
            assert {f"Range: {one.name}" for one in RANGES} <= told
            assert {"Theme", "Pause", "Copy", "Copy row", "Export table", "Export picture"} <= told
            assert {"Stop everything", "Resume everything", "Quit", "Help", "Filter"} <= told


@pytest.mark.parametrize(
    ("typed", "shown"),
    [("range 7", "range: 7 days"), ("go to audit", "Nothing was changed yet"), ("pause", "PAUSED")],
)
async def test_a_command_of_the_palette_does_what_it_says(
    settings: Settings, ledger: Ledger, typed: str, shown: str
) -> None:
    await use(ledger, "coder")
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 1)
        await pilot.press("ctrl+p")
        await until(pilot, lambda: isinstance(app.screen, CommandPalette))
        await pilot.press(*(key.replace(" ", "space") for key in typed))
        await until(pilot, lambda: shows(app, typed.split()[-1].capitalize()) or shows(app, typed[:5]))
        await pilot.press("down")
        await pilot.pause(0.3)
        await pilot.press("enter")
        await until(pilot, lambda: shows(app, shown))


@pytest.mark.parametrize("size", [(120, 36), (80, 24)])
async def test_the_help_tells_every_key_of_its_page(
    settings: Settings, ledger: Ledger, size: tuple[int, int]
) -> None:
    await use(ledger, "coder")
    async with watching(settings, size=size) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 1)
        for number in "12345":
            await pilot.press(number)
            await pilot.pause()
            page = app.screen
            keys = {
                name_of(key)
                for key, active in page.active_bindings.items()
                if active.binding.description and not active.binding.action.startswith(NOT_TOLD)
            }
            await pilot.press("question_mark")
            await until(pilot, lambda: isinstance(app.screen, Help))
            seen: set[str] = set()
            for _ in range(4):
                seen |= {word for line in screen_text(app) for word in line.split()}
                await pilot.press("pagedown")
                await pilot.pause(0.3)
            assert keys <= seen
            await pilot.press("escape")


# What it remembers


async def test_what_was_chosen_is_chosen_the_next_time(
    settings: Settings, ledger: Ledger, tmp_path: Path
) -> None:
    path = tmp_path / "of" / "mine" / "dashboard.json"
    await use(ledger, "coder")
    async with watching(settings, theme="", choices=Choices(str(path))) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 1)
        assert not path.exists()
        await pilot.press("t", "S", "2")
        await until(pilot, lambda: app.current_mode == "limits" and shows(app, "Full▼"))
        await pilot.press("s", "S")
        app.theme = "nord"
        await until(pilot, lambda: path.exists() and "nord" in path.read_text(encoding="utf-8"))
        await until(pilot, lambda: json.loads(path.read_text(encoding="utf-8")).get("page") == "limits")
    async with watching(settings, theme="", choices=Choices(str(path))) as (app, pilot):
        await until(pilot, lambda: shows(app, "range: 7 days") and shows(app, "Limit▲"))
        assert app.current_mode == "limits"
        assert app.theme == "nord"
        await pilot.press("1")
        await until(pilot, lambda: shows(app, "Cost▲"))
    async with watching(settings, theme="auto", choices=Choices(str(path))) as (app, _):
        assert app.theme != "nord"
    assert files(path.parent) == [path]


@pytest.mark.parametrize("broken", ["", "{", "[]", "null", "\x00", '{"range": 7, "page": "x", "theme": {}}'])
async def test_a_broken_file_stops_nothing(
    settings: Settings, ledger: Ledger, tmp_path: Path, broken: str
) -> None:
    path = tmp_path / "dashboard.json"
    await anyio.Path(path).write_text(broken, encoding="utf-8")
    await use(ledger, "coder")
    async with watching(settings, theme="", choices=Choices(str(path))) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 1)
        if broken[:1] != "{" or broken == "{":
            await until(pilot, lambda: shows(app, "cannot be read"))
        assert "today" in said(app, "#totals")
        await pilot.press("t")
        await until(pilot, lambda: '"7 days"' in path.read_text(encoding="utf-8"))


async def test_a_place_that_cannot_be_written_is_said_once(
    settings: Settings, ledger: Ledger, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    await use(ledger, "coder")
    async with watching(settings, choices=Choices(str(tmp_path / "file" / "dashboard.json"))) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 1)
        await pilot.press("t")
        await until(pilot, lambda: shows(app, "cannot be read") or shows(app, "is not kept"))
        await pilot.press("t", "t", "2")
        await pilot.pause(0.2)
        assert len(app._notifications) <= 1  # pyright: ignore[reportPrivateUsage] - there is no other way


async def test_nothing_is_remembered_where_no_place_is_named(
    settings: Settings, ledger: Ledger, tmp_path: Path
) -> None:
    await use(ledger, "coder")
    before = files(tmp_path)
    async with watching(settings) as (app, pilot):
        await until(pilot, lambda: len(agents(app)) == 1)
        await pilot.press("t", "s", "2")
    assert files(tmp_path) == before


async def test_a_theme_that_there_is_not(settings: Settings) -> None:
    with pytest.raises(InvalidInput, match="must be auto or one of"):
        async with watching(settings, theme="nonsense"):
            pass
