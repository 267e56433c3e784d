"""The first screen: what all agents use, who is refused, and what runs out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input

from . import chart, totals
from .feed import Feed
from .happening import facts_of, heading_of, limits_by_id
from .page import KEYS, ORDERS, WIDE, Page
from .painted import Ground
from .roster import SORTS, Roster
from .table import Column, LineTable
from .view import BAR_WIDTH
from .words import Words

if TYPE_CHECKING:
    from textual.geometry import Size

    from agent_meter_mcp.sources.base import Snapshot

    from .app import Dashboard
    from .faces import Face
    from .looked import Looked

AGENT_COLUMNS = (
    Column("Agent", 0, least=14),
    Column("State", 9),
    Column("Req", 6, right=True, drop=3),
    Column("Tokens", 6, right=True, drop=4),
    Column("Cost", 9, right=True),
    Column("Budget", BAR_WIDTH, drop=1),
    Column("Used", 6, right=True),
    Column("Burn", 9, right=True, drop=5),
    Column("Runs out", 10, right=True, drop=2),
    Column("Seen", 6, right=True, drop=6),
)
_SORTED_BY: dict[str, int] = dict(zip(SORTS, (4, 0, 1, 2, 3, 6, 8, 9), strict=True))
_SORTS_AT = {column: sort for sort, column in _SORTED_BY.items()} | {5: "budget"}
CHART_WIDTH = 40
LOW, TALL, HIGH = 20, 30, 48
"""From so many lines on there is room for the feed beneath, for the chart, and for a higher one."""
RESORT_LOOKS = 10
EMPTY = (
    "No usage yet. Register the server with an agent, or try: agent-meter record --agent me --service test"
)


class Overview(Page):
    """Shows the newest snapshot. The table of agents is a `Roster`, the events beside it a `Feed`."""

    MODE = "agents"
    MAIN = "#agents"
    HINT = "words of a name; state:over cost>10 tier:x owner:y; ! inverts"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "Detail", tooltip="all about the agent, or the event"),
        Binding("x", "stop", "Stop", tooltip="stop the agent, or let it go on; asks first"),
        Binding("l", "limit", "Limit", tooltip="what binds the agent: raise one, or make one"),
        Binding("e", "edit", "Edit", show=False, tooltip="the agent's name, tier, owner and parent"),
        Binding("s", "sort(1)", "Sort", tooltip="sort by the next column"),
        Binding("S", "reverse", "Reverse", show=False, tooltip="sort the other way round"),
        Binding("left", "fold(True)", "Fold", show=False, tooltip="fold, unfold the agents beneath it"),
        Binding("right", "fold(False)", "Unfold", show=False, tooltip="fold, unfold the agents beneath it"),
        Binding("space", "fold", "Fold or unfold", show=False, tooltip="fold, unfold the agents beneath it"),
        Binding("v", "flat", "Tree or list", show=False, tooltip="the agents as trees, or as a list"),
        Binding("f", "feed", "Events", show=False, tooltip="to the events, and back to the agents"),
        Binding("E", "refusals", "Only refusals", show=False, tooltip="of the events, only refusals"),
        *KEYS,
    ]
    DEFAULT_CSS = """
    Overview #top { layout: horizontal; height: auto; }
    Overview #totals { width: 1fr; padding: 0 1; }
    Overview #chart { width: 1fr; height: 7; padding: 0 1; color: $text-primary; display: none; }
    Overview #tables { layout: horizontal; }
    Overview #agents { width: 5fr; }
    Overview #beside { width: 3fr; border-left: vkey $panel; }
    Overview #alarms { height: auto; padding: 0 1; display: none; }
    Overview.-broad #beside { width: 54%; }
    Overview.-broad #agents { width: 1fr; }
    Overview.-narrow #tables { layout: vertical; }
    Overview.-narrow #agents { width: 1fr; height: 2fr; }
    Overview.-narrow #beside { width: 1fr; height: 7; border-left: none; border-top: hkey $panel; }
    Overview.-narrow.-tiny #beside { display: none; }
    Overview.-high.-narrow #beside { height: 1fr; }
    Overview.roomy #totals { width: 52; }
    Overview.roomy #chart { display: block; }
    Overview.roomy #top { border-bottom: hkey $panel; }
    Overview.roomy.-high #chart { height: 12; }
    """

    def __init__(self, dashboard: Dashboard) -> None:
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide"), (160, "-broad")]
        self.VERTICAL_BREAKPOINTS = [(0, "-tiny"), (LOW, "-low"), (TALL, "-tall"), (HIGH, "-high")]
        super().__init__(dashboard)
        self.roster = Roster()
        choices = dashboard.choices
        self.roster.sort = choices.get("sort of agents", SORTS, self.roster.sort)
        self.roster.reversed = choices.get("order of agents", ORDERS, ORDERS[0]) == ORDERS[1]
        self._resorts = False
        self._filters_feed = False

    @property
    def agents(self) -> LineTable:
        return self.query_one("#agents", LineTable)

    @property
    def feed(self) -> Feed:
        return self.query_one("#feed", Feed)

    @property
    def chosen(self) -> str | None:
        """The agent under the cursor."""
        return self.agents.cursor_key

    def compose_body(self) -> ComposeResult:
        with Ground(id="top"):
            yield Words(id="totals")
            yield Words(id="chart")
        with Ground(id="tables"):
            yield LineTable(AGENT_COLUMNS, gap=1, empty=EMPTY, id="agents")
            with Ground(id="beside"):
                yield Feed(id="feed")
        yield Words(id="alarms")

    def classes_at(self, size: Size) -> set[str]:
        is_roomy = size.width >= WIDE and size.height >= TALL
        return super().classes_at(size) | ({"roomy"} if is_roomy else set())

    # What it shows

    def face(self, looked: Looked) -> Face | None:
        snapshot = looked.snapshot
        is_empty = snapshot is not None and not snapshot.agents and not snapshot.events
        return self.dashboard.nothing_used if is_empty else super().face(looked)

    def on_resize(self) -> None:
        self.set_class("roomy" in self.classes_at(self.size), "roomy")
        self.call_after_refresh(self._show_figures)

    def show(self, looked: Looked) -> None:
        super().show(looked)
        snapshot = looked.snapshot
        if snapshot is None:
            return
        resort_s = RESORT_LOOKS * self.dashboard.look_s
        if self.roster.take(snapshot, time.monotonic(), resort_s) and not self._resorts:
            self._resorts = True
            self.set_timer(resort_s, self._resort)
        self._show_agents()
        self.feed.take(snapshot, self.dashboard.zone)
        self._show_figures()

    def _resort(self) -> None:
        self._resorts = False
        self.roster.resort(time.monotonic())
        self._show_agents()

    def _show_agents(self) -> None:
        roster = self.roster
        columns = list(AGENT_COLUMNS)
        if roster.typed:
            columns[0] = columns[0].replace(told=f"{len(roster.places)} of {roster.count}")
        sorted_by = _SORTED_BY[roster.sort]
        columns[sorted_by] = columns[sorted_by].sorted_by(reverse=roster.reversed)
        if columns != list(self.agents.columns):
            self.agents.retitle(columns)
        self.agents.show(roster.rows())

    def _show_figures(self) -> None:
        snapshot = self.dashboard.looked.snapshot
        if snapshot is None:
            return
        if self.has_class("roomy"):
            self._show_much(snapshot)
        else:
            self._show_little(snapshot)
        most = 1 if self.size.height < TALL else 3 if self.size.height < HIGH else 8
        alarms = totals.alarms(snapshot, self.dashboard.zone, most)
        line = self.query_one("#alarms", Words)
        line.display = bool(alarms)
        line.update(Text("\n").join(Text(cell.text, self.coloured(cell.style)) for cell in alarms))

    def _show_much(self, snapshot: Snapshot) -> None:
        """Totals and the limit for everybody beside the chart."""
        wanted, zone = self.dashboard.looked.range, self.dashboard.zone
        words = [
            totals.headline(snapshot, wanted.name),
            totals.token_kinds(snapshot),
            totals.exceptions(snapshot),
        ]
        fleet = totals.fleet_lines(snapshot, 48)
        told = ["no limit for everybody together is set"] if fleet is None else fleet[0]
        style = "dim" if fleet is None else self.coloured(fleet[1])
        self.query_one("#totals", Words).update([*words, "", *(Text(line, style) for line in told)])
        drawing = self.query_one("#chart", Words)
        bars = chart.filled(snapshot.bars, wanted, zone, snapshot.taken_at_us)
        room = drawing.content_size if drawing.content_size.height else self.size
        drawing.update("\n".join(chart.drawn(bars, wanted, zone, room.width, min(room.height, 12))))

    def _show_little(self, snapshot: Snapshot) -> None:
        """All that in a line or two."""
        spent, about = totals.spend_line(snapshot, CHART_WIDTH), self.dashboard.looked.range
        words = totals.headline(snapshot, about.name)
        words = f"{words}  {totals.exceptions(snapshot)}".rstrip()
        wide = self.size.width >= len(words) + len(spent) + 14
        lines: list[Text | str] = [f"{words}   per {about.chart} {spent}" if wide else words]
        fleet = totals.fleet_line(snapshot, BAR_WIDTH)
        if fleet is not None:
            lines.append(Text(fleet[0], self.coloured(fleet[1])))
        self.query_one("#totals", Words).update(lines)

    # Keys

    def action_stop(self) -> None:
        if self.chosen is not None:
            self.dashboard.acting.stop_or_resume("agent", self.chosen)

    def action_limit(self) -> None:
        if self.chosen is not None:
            self.dashboard.acting.limits.of_agent(self.chosen)

    def action_edit(self) -> None:
        if self.chosen is not None:
            self.dashboard.acting.who.edit(self.chosen)

    def open_row(self, table: LineTable, key: str) -> None:
        if table is self.agents:
            self.dashboard.open_agent(key)
            return
        from .sheet import FactsSheet

        one, known = self.feed.happening(key), self.dashboard.looked.known
        if one is not None:
            facts = facts_of(one, limits_by_id(known.limits), self.dashboard.zone, known.switches)
            self.dashboard.push_screen(FactsSheet(heading_of(one), facts))

    def on_line_table_header_clicked(self, message: LineTable.HeaderClicked) -> None:
        sort = _SORTS_AT.get(message.column)
        if message.table is not self.agents or sort is None:
            return
        self.roster.reversed = sort == self.roster.sort and not self.roster.reversed
        self.roster.sort = sort
        self._sorted()

    def action_sort(self, step: int) -> None:
        self.roster.sort = SORTS[(SORTS.index(self.roster.sort) + step) % len(SORTS)]
        self._sorted()

    def action_reverse(self) -> None:
        self.roster.reversed = not self.roster.reversed
        self._sorted()

    def action_flat(self) -> None:
        self.roster.is_flat = not self.roster.is_flat
        self._sorted()

    def _sorted(self) -> None:
        self.dashboard.remember("sort of agents", self.roster.sort)
        self.dashboard.remember("order of agents", ORDERS[self.roster.reversed])
        self.roster.resort(time.monotonic())
        self._show_agents()

    def action_fold(self, folded: bool | None = None) -> None:
        if self.chosen is not None:
            goes_to = self.roster.fold(self.chosen, folded)
            self._show_agents()
            self.agents.move_to_key(goes_to)

    def action_feed(self) -> None:
        (self.agents if self.focused is self.feed else self.feed).focus()

    def action_refusals(self) -> None:
        self.feed.only_refused = not self.feed.only_refused
        self.feed.refilter()

    # The filter is that of the table which has the focus

    def action_filter(self) -> None:
        self._filters_feed = self.focused is self.feed
        self._fill_filter(self.feed.typed if self._filters_feed else self.wanted)
        super().action_filter()

    def _fill_filter(self, words: str) -> None:
        if self.field is not None:
            with self.field.prevent(Input.Changed):
                self.field.value = words

    def filter_by(self, words: str) -> None:
        if self._filters_feed:
            self.feed.typed = words
            self.feed.refilter()
        else:
            self.wanted = self.roster.typed = words
            self.agents.is_filtered = bool(words)
            self.roster.arrange()
            self._show_agents()
            self._show_title(self.dashboard.looked)

    def action_back(self) -> None:
        """Of the feed: up to the newest, then without its filters, then back to the agents."""
        feed = self.feed
        if self.focused is self.agents:
            self._filters_feed = False
            self._fill_filter(self.wanted)
        if self.focused is not feed:
            super().action_back()
        elif not feed.follows:
            feed.action_edge(False)
        elif feed.typed or feed.only_refused:
            feed.typed, feed.only_refused = "", False
            feed.refilter()
        else:
            self.agents.focus()
