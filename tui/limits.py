"""All limits, and how they stand."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from . import view
from .page import KEYS, Page
from .table import Column, LineTable

if TYPE_CHECKING:
    from agent_meter_mcp.core.queries import LimitView
    from agent_meter_mcp.sources.base import Range, Reader

    from .app import Dashboard

COLUMNS = (
    Column("Limit", 0),
    Column("Used", 24, right=True),
    Column("", view.BAR_WIDTH, drop=1),
    Column("", 6, right=True),
    Column("Resets", 14, right=True, drop=2),
)
EMPTY = "No limit is set: agents are metered, and may do what they like."


class LimitsPage(Page):
    MODE = "limits"
    MAIN = "#limits"
    BINDINGS: ClassVar[list[BindingType]] = [*KEYS]
    CSS = "#limits { height: 1fr; }"

    def __init__(self, dashboard: Dashboard) -> None:
        super().__init__(dashboard)
        self.found: tuple[LimitView, ...] = ()

    def compose_body(self) -> ComposeResult:
        yield LineTable(COLUMNS, empty=EMPTY, id="limits")

    async def look(self, reader: Reader, wanted: Range) -> None:
        self.found = await reader.limits()
        now_us = time.time_ns() // 1000
        rows = [view.limit_row(one, now_us) for one in self.found]
        self.query_one("#limits", LineTable).show(view.matching_rows(rows, self.wanted))
