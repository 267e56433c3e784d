"""What is used, by service; and of one of them, by which operations and agents."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from agent_meter_mcp.core.errors import MeterError
from agent_meter_mcp.core.text import shown

from .page import KEYS, Page
from .sheet import TableSheet
from .table import Column, LineTable
from .usage import parts_of, service_rows
from .view import matching_rows

if TYPE_CHECKING:
    from agent_meter_mcp.sources.base import Range, Reader

    from .app import Dashboard
    from .view import Row

COLUMNS = (
    Column("Service", 0),
    Column("State", 9),
    Column("Agents", 6, right=True, drop=2),
    Column("Req", 8, right=True),
    Column("Tokens", 8, right=True, drop=1),
    Column("Cost", 12, right=True),
    Column("Refused", 8, right=True, drop=3),
)
PART_COLUMNS = (
    Column("Operation, model; agent", 0),
    Column("Req", 8, right=True),
    Column("Tokens", 8, right=True, drop=2),
    Column("Cost", 12, right=True),
    Column("Refused", 8, right=True, drop=1),
)


class ServicesPage(Page):
    """Enter shows what a service was used for, and by whom."""

    MODE = "services"
    MAIN = "#services"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "Operations", tooltip="what it was used for, and by whom"),
        Binding("x", "stop", "Stop", tooltip="stop the service, or let it go on; asks first"),
        *KEYS,
    ]
    DEFAULT_CSS = "ServicesPage #services { height: 1fr; }"

    def __init__(self, dashboard: Dashboard) -> None:
        super().__init__(dashboard)
        self._reader: Reader | None = None
        self._found: list[Row] = []

    def compose_body(self) -> ComposeResult:
        yield LineTable(COLUMNS, empty="Nothing was used in this range.", id="services")

    async def look(self, reader: Reader, wanted: Range) -> None:
        usage = await reader.usage(wanted.window, "service")
        agents = await reader.usage(wanted.window, "service", "agent")
        self._reader = reader
        self._found = service_rows(usage, agents, self.dashboard.looked.known.switches)
        self.refilter()

    def refilter(self) -> None:
        self.query_one("#services", LineTable).show(matching_rows(self._found, self.wanted))

    def open_row(self, table: LineTable, key: str) -> None:
        if self._reader is not None and key:
            self._open(self._reader, key)

    @work(exclusive=True, group="open")
    async def _open(self, reader: Reader, service: str) -> None:
        wanted = self.dashboard.range
        try:
            operations = await reader.usage(wanted.window, "operation", "model", service=service)
            agents = await reader.usage(wanted.window, "agent", service=service)
        except MeterError as error:
            self.dashboard.say(str(error), wrong=True)
            return
        if not self.is_active:  # somebody went on meanwhile
            return
        heading = f"{shown(service, width=60)}   {wanted.name}"
        self.dashboard.push_screen(TableSheet(heading, PART_COLUMNS, parts_of(operations, agents)))

    def action_stop(self) -> None:
        service = self.query_one("#services", LineTable).cursor_key
        if service:
            self.dashboard.acting.stop_or_resume("service", service)
