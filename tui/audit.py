"""What was changed, by whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from . import view
from .page import KEYS, Page
from .table import Column, LineTable

if TYPE_CHECKING:
    from agent_meter_mcp.sources.base import Range, Reader

COLUMNS = (
    Column("Time", 14),
    Column("Who", 14),
    Column("Did", 16),
    Column("To what", 0),
    Column("Why", 24, drop=1),
)


class AuditPage(Page):
    MODE = "audit"
    MAIN = "#audit"
    BINDINGS: ClassVar[list[BindingType]] = [*KEYS]
    CSS = "#audit { height: 1fr; }"

    def compose_body(self) -> ComposeResult:
        yield LineTable(COLUMNS, empty="Nothing was changed yet.", id="audit")

    async def look(self, reader: Reader, wanted: Range) -> None:
        zone = self.dashboard.zone
        rows = [view.audit_row(entry, zone) for entry in await reader.audit()]
        self.query_one("#audit", LineTable).show(view.matching_rows(rows, self.wanted))
