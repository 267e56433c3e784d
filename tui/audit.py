"""What was changed, by whom, and what it was before."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from .happening import Happening, audit_facts, audit_row, heading_of
from .page import KEYS, Page
from .sheet import FactsSheet
from .table import Column, LineTable
from .view import Rows, matching_rows

if TYPE_CHECKING:
    from agent_meter_mcp.core.models import AuditEntry
    from agent_meter_mcp.sources.base import Range, Reader

    from .app import Dashboard

COLUMNS = (
    Column("Time", 12),
    Column("Who", 10, drop=1),
    Column("Did", 13),
    Column("To what", 0, least=30, share=2),
    Column("Before → after", 0, least=18, drop=3),
    Column("Why", 0, least=18, drop=2),
)


class AuditPage(Page):
    """Enter shows all of an entry."""

    MODE = "audit"
    MAIN = "#audit"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "choose", "All of it"), *KEYS]
    DEFAULT_CSS = "AuditPage #audit { height: 1fr; }"

    def __init__(self, dashboard: Dashboard) -> None:
        super().__init__(dashboard)
        self._found: tuple[AuditEntry, ...] | None = None

    def compose_body(self) -> ComposeResult:
        yield LineTable(COLUMNS, empty="Nothing was changed yet.", id="audit")

    async def look(self, reader: Reader, wanted: Range) -> None:
        found = await reader.audit()
        before = self._found
        self._found = found
        if before is None or [entry.seq for entry in before] != [entry.seq for entry in found]:
            self.refilter()

    def refilter(self) -> None:
        found, zone = self._found or (), self.dashboard.zone
        rows = Rows([str(entry.seq) for entry in found], lambda place: audit_row(found[place], zone))
        self.query_one("#audit", LineTable).show(matching_rows(rows, self.wanted) if self.wanted else rows)

    def open_row(self, table: LineTable, key: str) -> None:
        entry = next((entry for entry in self._found or () if str(entry.seq) == key), None)
        if entry is not None:
            heading = heading_of(Happening(entry, 1, entry.seq))
            self.dashboard.push_screen(FactsSheet(heading, audit_facts(entry, self.dashboard.zone)))
