"""What is used, by project and session."""

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
    Column("Project, session", 0),
    Column("Req", 8, right=True),
    Column("Tokens", 8, right=True, drop=1),
    Column("Cost", 12, right=True),
)


class SessionsPage(Page):
    MODE = "sessions"
    MAIN = "#sessions"
    BINDINGS: ClassVar[list[BindingType]] = [*KEYS]
    CSS = "#sessions { height: 1fr; }"

    def compose_body(self) -> ComposeResult:
        yield LineTable(COLUMNS, empty="Nothing was used in this range.", id="sessions")

    async def look(self, reader: Reader, wanted: Range) -> None:
        usage = await reader.usage(wanted.window, "project", "session")
        rows = [view.group_row(group) for group in usage.groups]
        self.query_one("#sessions", LineTable).show(view.matching_rows(rows, self.wanted))
