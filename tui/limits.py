"""All limits, how they stand, and what is done about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from . import limit_view, view
from .limit_acts import COLUMNS
from .page import KEYS, ORDERS, Page
from .table import LineTable

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_meter_mcp.core.queries import LimitView
    from agent_meter_mcp.sources.base import Range, Reader

    from .app import Dashboard

EMPTY = "No limit is set: agents are metered, and may do what they like. n makes one."
_SORTED_BY = {"tightness": 3, "name": 0, "resets": 4, "burn": 5, "runs out": 6}


class LimitsPage(Page):
    """`found` are the limits as they stood at the last look; `sort` and `reversed` order them."""

    MODE = "limits"
    MAIN = "#limits"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "new", "New", tooltip="a new limit; first shows whom it would bind"),
        Binding("enter,e,l", "edit", "Edit", tooltip="change the limit; shows whom it would hit"),
        Binding(
            "plus",
            "raise",
            "Raise",
            key_display="+",
            tooltip="raise the limit: by 10 %, 50 %, or as typed",
        ),
        Binding("d,delete", "remove", "Remove", tooltip="remove the limit; asks first"),
        Binding("s", "sort(1)", "Sort", show=False, tooltip="sort by the next column"),
        Binding("S", "reverse", "Reverse", show=False, tooltip="sort the other way round"),
        *KEYS,
    ]
    DEFAULT_CSS = "LimitsPage #limits { height: 1fr; }"

    def __init__(self, dashboard: Dashboard) -> None:
        super().__init__(dashboard)
        self.found: tuple[LimitView, ...] = ()
        self._columns = COLUMNS
        choices = dashboard.choices
        self.sort = choices.get("sort of limits", limit_view.SORTS, limit_view.SORTS[0])
        self.reversed = choices.get("order of limits", ORDERS, ORDERS[0]) == ORDERS[1]

    def compose_body(self) -> ComposeResult:
        yield LineTable(COLUMNS, gap=1, empty=EMPTY, id="limits")

    def on_mount(self) -> None:
        super().on_mount()
        self._title_columns()

    async def look(self, reader: Reader, wanted: Range) -> None:
        self.found = await reader.limits()
        self._show_rows()

    def refilter(self) -> None:
        self._show_rows()

    def _show_rows(self) -> None:
        now_us = self.dashboard.acting.reader.now_us()
        views = limit_view.ordered(self.found, self.sort, self.reversed, now_us)
        rows = [limit_view.row(one, now_us, self.dashboard.zone) for one in views]
        self._columns = limit_view.columns_for(COLUMNS, rows)
        self._title_columns()
        self.query_one("#limits", LineTable).show(view.matching_rows(rows, self.wanted))

    def _title_columns(self) -> None:
        sorted_by = _SORTED_BY[self.sort]
        titled = tuple(
            column.sorted_by(reverse=self.reversed) if number == sorted_by else column
            for number, column in enumerate(self._columns)
        )
        table = self.query_one("#limits", LineTable)
        if titled != table.columns:
            table.retitle(titled)

    # Keys

    def action_new(self) -> None:
        self.dashboard.acting.limits.new()

    def action_edit(self) -> None:
        self._act(self.dashboard.acting.limits.edit)

    def action_raise(self) -> None:
        self._act(self.dashboard.acting.limits.raise_)

    def action_remove(self) -> None:
        self._act(self.dashboard.acting.limits.remove)

    def open_row(self, table: LineTable, key: str) -> None:
        self.action_edit()

    def on_line_table_header_clicked(self, message: LineTable.HeaderClicked) -> None:
        sort = next((sort for sort, column in _SORTED_BY.items() if column == message.column), None)
        if sort is not None:
            self.reversed = sort == self.sort and not self.reversed
            self.sort = sort
            self._sorted()

    def _act(self, act: Callable[[LimitView], None]) -> None:
        """On the limit under the cursor."""
        chosen = self.query_one("#limits", LineTable).cursor_key
        for one in self.found:
            if one.limit.limit_id == chosen:
                act(one)

    def action_sort(self, step: int) -> None:
        self.sort = limit_view.SORTS[(limit_view.SORTS.index(self.sort) + step) % len(limit_view.SORTS)]
        self._sorted()

    def action_reverse(self) -> None:
        self.reversed = not self.reversed
        self._sorted()

    def _sorted(self) -> None:
        self.dashboard.remember("sort of limits", self.sort)
        self.dashboard.remember("order of limits", ORDERS[self.reversed])
        self._show_rows()
