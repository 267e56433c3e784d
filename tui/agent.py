"""All about one agent: what limits it, what it holds, what it uses, and what became of its last requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical

from agent_meter_mcp.core.text import shown

from . import portrait
from .chart import filled
from .happening import event_row, facts_of, folded, heading_of, limits_by_id
from .limit_view import columns_for
from .page import KEYS, Page
from .sheet import FactsSheet
from .table import Column, LineTable
from .view import BAR_WIDTH, group_row, matching_rows
from .words import Told

if TYPE_CHECKING:
    from agent_meter_mcp.core.queries import AgentView
    from agent_meter_mcp.sources.base import Detail, Range, Reader

    from .app import Dashboard

LIMIT_COLUMNS = (
    Column("Limit", 0, least=26),
    Column("Used", 24, right=True),
    Column("", BAR_WIDTH, drop=2),
    Column("Full", 6, right=True),
    Column("Resets", 16, right=True, drop=1),
)
USAGE_COLUMNS = (
    Column("Service, operation, model", 0),
    Column("Req", 7, right=True),
    Column("Tokens", 7, right=True, drop=2),
    Column("Cost", 10, right=True),
    Column("Refused", 7, right=True, drop=1),
)
SESSION_COLUMNS = (Column("Project, session", 0), *USAGE_COLUMNS[1:])
CHILD_COLUMNS = (
    Column("Spawned", 0),
    Column("State", 9),
    Column("Cost", 10, right=True),
    Column("Used", 6, right=True, drop=1),
)
EVENT_COLUMNS = (Column("Time", 8), Column("", 4), Column("What happened", 0), Column("Cost", 10, right=True))


class AgentScreen(Page):
    """One agent, by its name, as long as it is open. Where there is little room, the table that has the focus
    takes it, and of the others the first row is seen."""

    MAIN = "#limits"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("x", "stop", "Stop", tooltip="stop the agent, or let it go on; asks first"),
        Binding("l", "limit", "Limits", tooltip="what binds it: raise one, or make one"),
        Binding("h", "holds", "Holds", tooltip="what it holds: release one"),
        Binding("e", "edit", "Edit", tooltip="its name, tier, owner and parent"),
        Binding("enter", "choose", "Open", show=False, tooltip="all about what is under the cursor"),
        *KEYS,
    ]
    DEFAULT_CSS = """
    AgentScreen #name { height: 1; background: $panel; text-style: bold; padding: 0 1; }
    AgentScreen #about { height: auto; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
    AgentScreen #left { width: 5fr; height: 1fr; }
    AgentScreen #right { width: 3fr; height: 1fr; }
    AgentScreen #right { border-left: vkey $panel; }
    AgentScreen LineTable { height: 1fr; min-height: 2; margin-top: 1; }
    AgentScreen #events { height: 2fr; }
    AgentScreen.-narrow #halves { layout: vertical; }
    AgentScreen.-narrow #left, AgentScreen.-narrow #right { width: 1fr; height: auto; border-left: none; }
    AgentScreen.-narrow #left.has-focus, AgentScreen.-narrow #right.has-focus { height: 1fr; }
    AgentScreen.-narrow #left LineTable, AgentScreen.-narrow #right LineTable { height: 2; margin-top: 0; }
    AgentScreen.-narrow #left LineTable:focus, AgentScreen.-narrow #right LineTable:focus { height: 1fr; }
    """

    def __init__(self, dashboard: Dashboard, agent_id: str) -> None:
        super().__init__(dashboard)
        self.agent_id = agent_id
        self._detail: tuple[Detail, Range] | None = None

    def compose_body(self) -> ComposeResult:
        yield Told(shown(self.agent_id), id="name")
        yield Told(id="about")
        with Horizontal(id="halves"):
            with Vertical(id="left"):
                yield LineTable(
                    LIMIT_COLUMNS, gap=1, empty="No limit is set: it may do what it likes.", id="limits"
                )
                yield LineTable(USAGE_COLUMNS, empty="Nothing was used in this range.", id="usage")
                yield LineTable(SESSION_COLUMNS, empty="In no session in this range.", id="sessions")
            with Vertical(id="right"):
                yield LineTable(EVENT_COLUMNS, gap=1, empty="Nothing has happened yet.", id="events")
                yield LineTable(CHILD_COLUMNS, empty="It spawned nobody.", id="children")

    def on_descendant_focus(self) -> None:
        for half in self.query("#left, #right"):
            half.set_class(half.has_focus_within, "has-focus")

    async def look(self, reader: Reader, wanted: Range) -> None:
        self._detail = await reader.detail(self.agent_id, wanted), wanted
        self.refilter()

    def on_resize(self) -> None:
        self.refilter()

    def refilter(self) -> None:
        if self._detail is not None and self.is_mounted:
            self._show_detail(*self._detail, self.dashboard.acting.reader.now_us())

    def _show_detail(self, detail: Detail, wanted: Range, now_us: int) -> None:
        zone, known = self.dashboard.zone, self.dashboard.looked.known
        view = next((one for one in known.agents if one.agent.agent_id == self.agent_id), None)
        self._show_about(detail, wanted, view, now_us)
        limits = limits_by_id(view.limit for view in detail.limits)
        tables = {
            "#limits": portrait.limit_rows(detail.limits, zone, now_us),
            "#usage": [group_row(group) for group in detail.usage.groups],
            "#sessions": [group_row(group) for group in detail.sessions.groups if any(group.key)],
            "#events": [event_row(one, zone, limits) for one in folded(detail.events)],
            "#children": portrait.child_rows(self.agent_id, known),
        }
        table, columns = self.query_one("#limits", LineTable), columns_for(LIMIT_COLUMNS, tables["#limits"])
        if columns != table.columns:
            table.retitle(columns)
        for name, rows in tables.items():
            self.query_one(name, LineTable).show(matching_rows(rows, self.wanted))

    def _show_about(self, detail: Detail, wanted: Range, view: AgentView | None, now_us: int) -> None:
        zone = self.dashboard.zone
        heading = portrait.heading(self.agent_id, view, detail.usage.total, wanted.name)
        self.query_one("#name", Told).update(heading)
        bars = filled(detail.bars, wanted, zone, now_us)
        lines = [
            *portrait.about(view, detail, zone, now_us),
            portrait.spend(bars, wanted, max(self.size.width - 40, 10)),
        ]
        if self.size.height < 30:
            lines = portrait.shortest(lines)
        text = Text("\n").join(Text(cell.text, self.coloured(cell.style)) for cell in lines)
        self.query_one("#about", Told).update(text)

    def action_stop(self) -> None:
        self.dashboard.acting.stop_or_resume("agent", self.agent_id)

    def action_limit(self) -> None:
        self.dashboard.acting.limits.of_agent(self.agent_id)

    def action_holds(self) -> None:
        self.dashboard.acting.who.holds(self.agent_id)

    def action_edit(self) -> None:
        self.dashboard.acting.who.edit(self.agent_id)

    def open_row(self, table: LineTable, key: str) -> None:
        """Enter on an agent it spawned opens that one, on an event all of it, on a limit why it binds."""
        known, zone = self.dashboard.looked.known, self.dashboard.zone
        if self._detail is None:
            return
        detail = self._detail[0]
        if table.id == "children":
            self.dashboard.open_agent(key)
        elif table.id == "events":
            one = next((one for one in folded(detail.events) if one.key == key), None)
            if one is not None:
                facts = facts_of(one, limits_by_id(known.limits), zone, known.switches)
                self.dashboard.push_screen(FactsSheet(heading_of(one), facts))
        elif table.id == "limits":
            facts = portrait.limit_facts(key, detail.limits, zone)
            self.dashboard.push_screen(FactsSheet("limit", facts))
