"""What is used, by project and session; Enter shows by whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from .page import KEYS, Page
from .sheet import TableSheet
from .table import Column, LineTable
from .usage import agents_in, session_rows
from .view import matching_rows

if TYPE_CHECKING:
    from agent_meter_mcp.core.queries import Dimension, Summary
    from agent_meter_mcp.sources.base import Range, Reader

    from .app import Dashboard

COLUMNS = (
    Column("Project · session", 0),
    Column("Agents", 6, right=True, drop=2),
    Column("Used in", 29, drop=4),
    Column("Req", 8, right=True),
    Column("Tokens", 8, right=True, drop=1),
    Column("Cost", 12, right=True),
    Column("Refused", 8, right=True, drop=3),
)
AGENT_COLUMNS = (
    Column("Agent", 0),
    Column("Req", 8, right=True),
    Column("Tokens", 8, right=True, drop=2),
    Column("Cost", 12, right=True),
    Column("Refused", 8, right=True, drop=1),
)


class SessionsPage(Page):
    """Each session, or (v) each project."""

    MODE = "sessions"
    MAIN = "#sessions"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "Agents"),
        Binding("v", "projects", "Projects/sessions", tooltip="each project, or each session"),
        *KEYS,
    ]
    DEFAULT_CSS = "SessionsPage #sessions { height: 1fr; }"

    def __init__(self, dashboard: Dashboard) -> None:
        super().__init__(dashboard)
        self._only_projects = False
        self._found: tuple[Summary, Summary, Summary, tuple[Dimension, ...], Range] | None = None

    def compose_body(self) -> ComposeResult:
        yield LineTable(COLUMNS, empty="Nothing was used in this range.", id="sessions")

    async def look(self, reader: Reader, wanted: Range) -> None:
        by: tuple[Dimension, ...] = ("project",) if self._only_projects else ("project", "session")
        usage = await reader.usage(wanted.window, *by)
        by_agent = await reader.usage(wanted.window, *by, "agent")
        by_time = await reader.usage(wanted.window, *by, wanted.chart)
        self._found = usage, by_agent, by_time, by, wanted
        self.refilter()

    def refilter(self) -> None:
        if self._found is None:
            return
        usage, by_agent, by_time, by, wanted = self._found
        rows = session_rows(usage, by_agent, by_time, by, wanted.chart, self.dashboard.zone)
        table = self.query_one("#sessions", LineTable)
        title = " · ".join(by).capitalize()
        if table.columns[0].title != title:
            table.retitle([COLUMNS[0].replace(title=title), *COLUMNS[1:]])
        table.show(matching_rows(rows, self.wanted))

    def action_projects(self) -> None:
        self._only_projects = not self._only_projects
        self.dashboard.look_for_page(self)

    def open_row(self, table: LineTable, key: str) -> None:
        if self._found is not None and key:
            _, by_agent, _, _, wanted = self._found
            name = next((row.cells[0].text for row in table.rows if row.key == key), "")
            sheet = TableSheet(f"{name}   {wanted.name}", AGENT_COLUMNS, agents_in(by_agent, key))
            self.dashboard.push_screen(sheet)
