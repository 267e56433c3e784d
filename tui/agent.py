"""All about one agent: what limits it, what it holds, what it uses, and what became of its last requests."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

from agent_meter_mcp.core.figures import counted
from agent_meter_mcp.core.text import shown

from . import view
from .format import short_count, until
from .page import KEYS, Page
from .table import Column, LineTable

if TYPE_CHECKING:
    from agent_meter_mcp.sources.base import Detail, Range, Reader

    from .app import Dashboard

LIMIT_COLUMNS = (
    Column("Limit", 0),
    Column("Used", 24, right=True),
    Column("", view.BAR_WIDTH, drop=1),
    Column("", 6, right=True),
    Column("Resets", 14, right=True, drop=2),
)
USAGE_COLUMNS = (
    Column("Service, operation, model", 0),
    Column("Req", 8, right=True),
    Column("Tokens", 8, right=True, drop=1),
    Column("Cost", 12, right=True),
)
EVENT_COLUMNS = (Column("Time", 8), Column("", 4), Column("What", 0), Column("Cost", 12, right=True))


class AgentScreen(Page):
    """One agent, by its name, as long as it is open."""

    MAIN = "#limits"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("x", "stop", "Stop", tooltip="stop the agent, or let it go on; asks first"),
        Binding("l", "limit", "Limits", tooltip="what binds it: raise one, or make one"),
        Binding("h", "holds", "Holds", tooltip="what it holds: release one"),
        Binding("e", "edit", "Edit", tooltip="its name, tier, owner and parent"),
        *KEYS,
    ]
    CSS = """
    #name { height: 1; background: $panel; text-style: bold; padding: 0 1; }
    #held { height: auto; padding: 0 1; color: $text-muted; }
    #limits { height: 1fr; }
    #usage { height: 1fr; border-top: hkey $panel; }
    #events { height: 1fr; border-top: hkey $panel; }
    """

    def __init__(self, dashboard: Dashboard, agent_id: str) -> None:
        super().__init__(dashboard)
        self.agent_id = agent_id

    def compose_body(self) -> ComposeResult:
        yield Static(shown(self.agent_id), id="name", markup=False)
        yield Static(id="held", markup=False)
        yield LineTable(
            LIMIT_COLUMNS, empty="No limit is set: it is metered, and may do what it likes.", id="limits"
        )
        yield LineTable(USAGE_COLUMNS, empty="Nothing was used in this range.", id="usage")
        yield LineTable(EVENT_COLUMNS, empty="Nothing has happened yet.", id="events")

    async def look(self, reader: Reader, wanted: Range) -> None:
        detail = await reader.detail(self.agent_id, wanted)
        if self.is_mounted:
            self._show_detail(detail, time.time_ns() // 1000)

    def _show_detail(self, detail: Detail, now_us: int) -> None:
        used = detail.usage.total
        state = self._state()
        self.query_one("#name", Static).update(
            f"{shown(self.agent_id)}   {state}   {self.dashboard.range.name}: {view.cost_of(used)},"
            f" {counted(used.requests, 'request')}, {short_count(used.tokens)} tokens"
            + (f", {short_count(used.rejected)} refused" if used.rejected else "")
        )
        held = [
            f"holds {hold.reservation_id} ({shown(hold.operation or hold.who.service or '')}),"
            f" until in {until(hold.expires_at_us, now_us)}"
            for hold in detail.held[:3]
        ]
        self.query_one("#held", Static).update("\n".join(held) or "holds no reservation")
        self.query_one("#limits", LineTable).show([view.limit_row(one, now_us) for one in detail.limits])
        self.query_one("#usage", LineTable).show([view.group_row(group) for group in detail.usage.groups])
        zone = self.dashboard.zone
        self.query_one("#events", LineTable).show(
            [view.event_row(event, zone, with_agent=False) for event in detail.events]
        )

    def action_stop(self) -> None:
        self.dashboard.acting.stop_or_resume("agent", self.agent_id)

    def action_limit(self) -> None:
        self.dashboard.acting.limits.of_agent(self.agent_id)

    def action_holds(self) -> None:
        self.dashboard.acting.who.holds(self.agent_id)

    def action_edit(self) -> None:
        self.dashboard.acting.who.edit(self.agent_id)

    def _state(self) -> str:
        snapshot = self.dashboard.looked.snapshot
        for one in snapshot.agents if snapshot is not None else ():
            if one.agent.agent_id == self.agent_id:
                return view.word_of(one)
        return ""
