"""What is used, by service."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from . import view
from .page import KEYS, Page
from .table import Column, LineTable

if TYPE_CHECKING:
    from agent_meter_mcp.sources.base import Range, Reader

COLUMNS = (
    Column("Service", 0),
    Column("Req", 8, right=True),
    Column("Tokens", 8, right=True, drop=1),
    Column("Cost", 12, right=True),
)


class ServicesPage(Page):
    MODE = "services"
    MAIN = "#services"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("x", "stop", "Stop", tooltip="stop the service, or let it go on; asks first"),
        *KEYS,
    ]
    CSS = "#services { height: 1fr; }"

    def compose_body(self) -> ComposeResult:
        yield LineTable(COLUMNS, empty="Nothing was used in this range.", id="services")

    async def look(self, reader: Reader, wanted: Range) -> None:
        usage = await reader.usage(wanted.window, "service")
        rows = [view.group_row(group).replace(key=str(group.key[0] or "")) for group in usage.groups]
        self.query_one("#services", LineTable).show(view.matching_rows(rows, self.wanted))

    def action_stop(self) -> None:
        service = self.query_one("#services", LineTable).cursor_key
        if service:
            self.dashboard.acting.stop_or_resume("service", service)
