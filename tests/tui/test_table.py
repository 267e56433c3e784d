"""The table that paints lines: cells that keep their width, a cursor that keeps its row, titles to click."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.app import App, ComposeResult
from textual.pilot import Pilot

from agent_meter_mcp.core.text import shown
from tests.tui.test_words import HOSTILE
from tui.table import Column, LineTable, fitted
from tui.view import Cell, Row, Rows

COLUMNS = (Column("Name", 0), Column("Figure", 6, right=True), Column("Spare", 8, drop=1))
WIDE = [
    "👨‍👩‍👧 family",
    "👍🏽",
    "❤️",
    "שלום עולם",
    "مرحبا",
    "e\u0301" * 50,
    "\uff46\uff55\uff4c\uff4c",
    "x" * 10_000,
    "日" * 10_000,
]


class Shown(App[None]):
    def __init__(self, rows: Sequence[Row]) -> None:
        super().__init__()
        self.wanted = rows
        self.clicked: list[int] = []
        self.chosen: list[str] = []

    def compose(self) -> ComposeResult:
        yield LineTable(COLUMNS, id="table")

    def on_mount(self) -> None:
        self.table.show(self.wanted)
        self.table.focus()

    @property
    def table(self) -> LineTable:
        return self.query_one(LineTable)

    def on_line_table_header_clicked(self, message: LineTable.HeaderClicked) -> None:
        assert message.control is self.table
        self.clicked.append(message.column)

    def on_line_table_chosen(self, message: LineTable.Chosen) -> None:
        self.chosen.append(message.key)


@asynccontextmanager
async def showing(rows: Sequence[Row], width: int = 40) -> AsyncGenerator[tuple[Shown, Pilot[None]]]:
    app = Shown(rows)
    async with app.run_test(size=(width, 12)) as pilot:
        yield app, pilot


def rows_of(*names: str) -> list[Row]:
    return [Row(name, (Cell(shown(name)), Cell("1"), Cell("spare"))) for name in names]


@given(st.text(max_size=60), st.integers(0, 30), st.booleans())
def test_a_cell_has_exactly_its_width_whatever_is_in_it(text: str, width: int, right: bool) -> None:
    assert cell_len(fitted(shown(text), width, right=right)) == width


@pytest.mark.parametrize("text", [*WIDE, *HOSTILE])
@pytest.mark.parametrize("width", [1, 2, 7, 12])
def test_nothing_is_cut_in_half(text: str, width: int) -> None:
    cell = fitted(shown(text), width)
    assert cell_len(cell) == width
    assert cell.isprintable()


@pytest.mark.parametrize("width", [20, 40, 80])
async def test_columns_stay_where_they_are(width: int) -> None:
    async with showing(rows_of(*WIDE, *HOSTILE), width) as (app, pilot):
        await pilot.pause()
        table = app.table
        lines = [table.render_line(y) for y in range(table.size.height)]
        assert {line.cell_length for line in lines} == {table.scrollable_content_region.width}
        last = "1" if width == 20 else "spare"
        assert [line.text for line in lines[1:] if not line.text.rstrip().endswith(last)] == []


async def test_a_click_on_a_title_names_its_column() -> None:
    async with showing(rows_of("a", "b")) as (app, pilot):
        await pilot.click(LineTable, offset=(2, 0))
        await pilot.click(LineTable, offset=(30, 0))
        await pilot.click(LineTable, offset=(38, 0))
        assert app.clicked == [0, 2, 2]
        table = app.table
        table.retitle([COLUMNS[0].replace(title="Other"), *COLUMNS[1:]])
        await pilot.pause()
        assert table.render_line(0).text.startswith(" Other")


async def test_a_click_moves_the_cursor_and_a_second_one_chooses() -> None:
    async with showing(rows_of("a", "b", "c")) as (app, pilot):
        await pilot.click(LineTable, offset=(2, 2))
        assert app.table.cursor_key == "b"
        await pilot.click(LineTable, offset=(2, 3), times=2)
        await pilot.pause()
        assert app.chosen == ["c"]


async def test_the_cursor_keeps_its_row_and_is_seen_where_it_was_led() -> None:
    names = [f"n{number:02}" for number in range(40)]
    async with showing(rows_of(*names)) as (app, pilot):
        table = app.table
        table.show(rows_of(*reversed(names)))
        assert (table.cursor_key, table.scroll_offset.y) == ("n00", 0)  # nobody led it anywhere
        table.move_to_key("n39")
        await pilot.press("j")
        assert table.cursor_key == "n38"
        table.show(rows_of(*names))
        await pilot.pause()
        assert table.cursor_key == "n38"
        top = table.scroll_offset.y
        assert top <= 38 < top + table.size.height - 1
        table.show(rows_of(*names[:10]))
        assert table.cursor_key == "n09"
        table.show([])
        assert table.cursor_key is None
        await pilot.press("j", "G", "pagedown")
        table.show(rows_of("x"))
        assert table.cursor_key == "x"


async def test_of_five_thousand_rows_only_those_that_are_seen_are_made() -> None:
    made: list[int] = []

    def make(place: int) -> Row:
        made.append(place)
        return Row(str(place), (Cell(f"agent {place}"), Cell(str(place)), Cell("")))

    def rows() -> Rows:
        return Rows([str(place) for place in range(5000)], make)

    async with showing(rows()) as (app, pilot):
        await pilot.pause()
        made.clear()
        before_s = process_time()
        for _ in range(20):
            app.table.show(rows())
        spent_s = process_time() - before_s
        await pilot.pause()
        assert len(set(made)) <= 2 * app.size.height
        assert spent_s < 1
        await pilot.press("end")
        assert app.table.cursor_key == "4999"
        assert "agent 4999" in app.table.render_line(app.table.size.height - 1).text
    assert rows()[-1].key == "4999"
    assert [row.key for row in rows()[1:3]] == ["1", "2"]
    with pytest.raises(IndexError):
        rows()[5000]
