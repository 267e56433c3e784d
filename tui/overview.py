"""The first screen: what all agents use, who is refused, and what runs out."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.screen import Screen
from textual.widgets import Footer, Input, Static

from . import view
from .dialogs import Help
from .table import Column, LineTable

if TYPE_CHECKING:
    from .app import Dashboard, Looked
    from .reader import Snapshot

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
EMPTY = (
    "No usage yet. Register the server with an agent, or try: agent-meter record --agent me --service test"
)


class Overview(Screen[None]):
    """Shows the newest snapshot. `wanted` filters agents, `sort` and `reversed` order them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "detail", "Detail"),
        Binding("x", "app.stop_or_resume", "Stop/resume"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("s", "sort(1)", "Sort"),
        Binding("S", "reverse", "Reverse", show=False),
        Binding("t", "app.range(1)", "Range"),
        Binding("T", "app.range(-1)", "Range back", show=False),
        Binding("p", "app.pause", "Pause"),
        Binding("r", "app.look", "Look again", show=False),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q", "app.quit", "Quit"),
        Binding("escape", "clear_filter", "Clear the filter", show=False),
    ]
    CSS = """
    Overview { layout: vertical; }
    #title { height: 1; background: $panel; }
    #totals, #fleet { height: 1; padding: 0 1; }
    #fleet { display: none; }
    #trouble { height: auto; padding: 0 1; color: $text-error; text-style: bold; display: none; }
    #tables { height: 1fr; }
    #agents { width: 2fr; }
    #feed { width: 1fr; border-left: vkey $panel; }
    #filter { display: none; height: 1; border: none; padding: 0 1; }
    Overview.-narrow #tables { layout: vertical; }
    Overview.-narrow #agents { width: 1fr; height: 2fr; }
    Overview.-narrow #feed { width: 1fr; height: 7; border-left: none; border-top: hkey $panel; }
    """

    def __init__(self, dashboard: Dashboard) -> None:
        super().__init__()
        self.dashboard = dashboard
        self.sort = view.SORTS[0]
        self.reversed = False
        self.wanted = ""

    @property
    def chosen(self) -> str | None:
        """The agent under the cursor."""
        return self.query_one("#agents", LineTable).cursor_key

    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        yield Static(id="totals", markup=False)
        yield Static(id="fleet", markup=False)
        yield Static(id="trouble", markup=False)
        with Horizontal(id="tables"):
            yield LineTable(AGENT_COLUMNS, empty=EMPTY, id="agents")
            yield LineTable(FEED_COLUMNS, gap=1, empty="Nothing has happened yet.", id="feed")
        yield Input(placeholder="words that a name or state has; !word: has not", id="filter")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.query_one("#agents").focus()
        self._title_columns()
        self.show(self.dashboard.looked)

    # What it shows

    def show(self, looked: Looked) -> None:
        """What was found at the last look; the last snapshot stays when there was trouble."""
        trouble = self.query_one("#trouble", Static)
        trouble.display = bool(looked.trouble)
        trouble.update(looked.trouble)
        rows = [] if looked.snapshot is None else view.agent_rows(looked.snapshot)
        self._show_title(looked, rows)
        if looked.snapshot is not None:
            self._show_snapshot(looked.snapshot, rows)

    def _show_snapshot(self, snapshot: Snapshot, rows: list[view.AgentRow]) -> None:
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
            line.update(Text(fleet[0], self._style(fleet[1])))

    def _show_title(self, looked: Looked, rows: list[view.AgentRow]) -> None:
        state, style = self.dashboard.state
        words = Text(" meter ", "bold")
        words.append(f" {state} ", self._style(style))
        words.append(f"  {self.dashboard.where}  ")
        for cell in view.tally(rows) if looked.snapshot is not None else ():
            words.append(f" {cell.text} ", self._style(cell.style))
        if self.wanted:
            words.append(f"  filter: {self.wanted}", "bold")
        self.query_one("#title", Static).update(words)

    def _style(self, name: str) -> str:
        """The colour that the theme gives to what is an alarm, a warning and so on."""
        variables = self.dashboard.theme_variables
        colour = {
            "alarm": "text-error",
            "warn": "text-warning",
            "good": "text-success",
            "held": "text-secondary",
        }
        value = variables.get(colour.get(name, ""), "")
        bold = "bold " if name in ("alarm", "held") else ""
        return "dim" if name == "dim" else f"{bold}{value}" if value.startswith("#") else bold.strip()

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
        self._title_columns()
        self.show(self.dashboard.looked)

    def action_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.display = True
        field.focus()

    def action_clear_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.value = ""
        field.display = False
        self.query_one("#agents").focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        self.wanted = event.value
        self.show(self.dashboard.looked)

    def on_input_submitted(self) -> None:
        self.query_one("#filter").display = False
        self.query_one("#agents").focus()

    def action_help(self) -> None:
        self.dashboard.push_screen(Help())
