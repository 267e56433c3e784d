"""The first screen: what all agents use, who is refused, and what runs out."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Static

from . import view
from .page import KEYS, Page
from .table import Column, LineTable

if TYPE_CHECKING:
    from agent_meter_mcp.sources.base import Snapshot

    from .app import Dashboard, Looked
    from .faces import Face

AGENT_COLUMNS = (
    Column("Agent", 0),
    Column("State", 9),
    Column("Req", 6, right=True, drop=3),
    Column("Tokens", 6, right=True, drop=4),
    Column("Cost", 10, right=True),
    Column("Budget", view.BAR_WIDTH, drop=1),
    Column("Used", 6, right=True),
    Column("Burn", 9, right=True, drop=5),
    Column("Runs out", 10, right=True, drop=2),
    Column("Seen", 6, right=True, drop=6),
)
_SORTED_BY = {"cost": 4, "agent": 0, "state": 1, "requests": 2, "tokens": 3, "budget": 6, "seen": 9}
FEED_COLUMNS = (
    Column("Time", 8),
    Column("", 4),
    Column("Agent", 12),
    Column("What", 0),
    Column("Cost", 7, right=True, drop=1),
)
CHART_WIDTH = 40
ORDERS = ("usual", "reversed")
EMPTY = (
    "No usage yet. Register the server with an agent, or try: agent-meter record --agent me --service test"
)


class Overview(Page):
    """Shows the newest snapshot. `sort` and `reversed` order the agents."""

    MODE = "agents"
    MAIN = "#agents"
    HINT = "words that a name or state has; !word: has not"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "detail", "Detail", tooltip="all about the agent"),
        Binding("x", "stop", "Stop", tooltip="stop the agent, or let it go on; asks first"),
        Binding("l", "limit", "Limit", tooltip="what binds the agent: raise one, or make one"),
        Binding("e", "edit", "Edit", show=False, tooltip="the agent's name, tier, owner and parent"),
        Binding("s", "sort(1)", "Sort", tooltip="sort by the next column"),
        Binding("S", "reverse", "Reverse", show=False, tooltip="sort the other way round"),
        *KEYS,
    ]
    CSS = """
    #totals, #fleet { height: 1; padding: 0 1; }
    #fleet { display: none; }
    #tables { height: 1fr; }
    #agents { width: 2fr; }
    #feed { width: 1fr; border-left: vkey $panel; }
    Overview.-narrow #tables { layout: vertical; }
    Overview.-narrow #agents { width: 1fr; height: 2fr; }
    Overview.-narrow #feed { width: 1fr; height: 7; border-left: none; border-top: hkey $panel; }
    """

    def __init__(self, dashboard: Dashboard) -> None:
        super().__init__(dashboard)
        choices = dashboard.choices
        self.sort = choices.get("sort of agents", view.SORTS, view.SORTS[0])
        self.reversed = choices.get("order of agents", ORDERS, ORDERS[0]) == ORDERS[1]

    @property
    def chosen(self) -> str | None:
        """The agent under the cursor."""
        return self.query_one("#agents", LineTable).cursor_key

    def compose_body(self) -> ComposeResult:
        yield Static(id="totals", markup=False)
        yield Static(id="fleet", markup=False)
        with Horizontal(id="tables"):
            yield LineTable(AGENT_COLUMNS, empty=EMPTY, id="agents")
            yield LineTable(FEED_COLUMNS, gap=1, empty="Nothing has happened yet.", id="feed")

    def on_mount(self) -> None:
        super().on_mount()
        self._title_columns()

    # What it shows

    def face(self, looked: Looked) -> Face | None:
        snapshot = looked.snapshot
        is_empty = snapshot is not None and not snapshot.agents and not snapshot.events
        return self.dashboard.nothing_used if is_empty else super().face(looked)

    def show(self, looked: Looked) -> None:
        super().show(looked)
        if looked.snapshot is not None:
            self._show_snapshot(looked.snapshot)

    def _show_snapshot(self, snapshot: Snapshot) -> None:
        rows = view.agent_rows(snapshot)
        found = view.ordered(view.matching(rows, self.wanted), self.sort, self.reversed)
        self.query_one("#agents", LineTable).show([row.row for row in found])
        zone = self.dashboard.zone
        self.query_one("#feed", LineTable).show([view.event_row(event, zone) for event in snapshot.events])
        chart = view.spend_line(snapshot, CHART_WIDTH)
        shown = view.headline(snapshot, self.dashboard.range.name)
        wide = self.size.width >= len(shown) + len(chart) + 14
        self.query_one("#totals", Static).update(
            f"{shown}   per {self.dashboard.range.chart} {chart}" if wide else shown
        )
        fleet = view.fleet_line(snapshot, view.BAR_WIDTH)
        line = self.query_one("#fleet", Static)
        line.display = fleet is not None
        if fleet is not None:
            line.update(Text(fleet[0], self.coloured(fleet[1])))

    def _title_columns(self) -> None:
        arrow = "▲" if self.reversed else "▼"
        sorted_by = _SORTED_BY[self.sort]
        self.query_one("#agents", LineTable).retitle(
            [
                column.replace(title=f"{column.title}{arrow}") if number == sorted_by else column
                for number, column in enumerate(AGENT_COLUMNS)
            ]
        )

    # Keys

    def action_detail(self) -> None:
        if self.focused is self.query_one("#agents") and self.chosen is not None:
            self.dashboard.open_agent(self.chosen)

    def action_stop(self) -> None:
        if self.chosen is not None:
            self.dashboard.acting.stop_or_resume("agent", self.chosen)

    def action_limit(self) -> None:
        if self.chosen is not None:
            self.dashboard.acting.limits.of_agent(self.chosen)

    def action_edit(self) -> None:
        if self.chosen is not None:
            self.dashboard.acting.who.edit(self.chosen)

    def on_line_table_chosen(self, message: LineTable.Chosen) -> None:
        if message.table.id == "agents":
            self.dashboard.open_agent(message.key)

    def action_sort(self, step: int) -> None:
        self.sort = view.SORTS[(view.SORTS.index(self.sort) + step) % len(view.SORTS)]
        self._sorted()

    def action_reverse(self) -> None:
        self.reversed = not self.reversed
        self._sorted()

    def _sorted(self) -> None:
        self.dashboard.remember("sort of agents", self.sort)
        self.dashboard.remember("order of agents", ORDERS[self.reversed])
        self._title_columns()
        self.show(self.dashboard.looked)
