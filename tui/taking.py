"""What a person takes along: an id or a row for the clipboard, a table or a picture as a file."""

from __future__ import annotations

import io
import os
from datetime import datetime
from typing import TYPE_CHECKING

from textual.widgets import Input

from agent_meter_mcp.core.errors import MeterError
from agent_meter_mcp.core.text import guarded

from . import export

if TYPE_CHECKING:
    from .app import Dashboard
    from .table import LineTable


class Taking:
    """`folder` is where files go; "" is the current one."""

    def __init__(self, dashboard: Dashboard, folder: str) -> None:
        self._dashboard = dashboard
        self._folder = folder

    @property
    def _table(self) -> LineTable | None:
        page = self._dashboard.page
        return None if page is None else page.table

    def copy_selected(self) -> bool:
        """Whether a person has selected anything."""
        field = self._dashboard.focused
        if isinstance(field, Input):
            selected = field.selected_text
        else:
            selected = self._dashboard.screen.get_selected_text()
        if selected:
            self._dashboard.copy_to_clipboard(selected)
        return bool(selected)

    def copy_id(self) -> None:
        """That under the cursor; or the command that a face recommends."""
        page = self._dashboard.page
        self._copy("" if page is None else page.to_copy())

    def copy_row(self) -> None:
        row = None if self._table is None else self._table.cursor_row
        self._copy("" if row is None else "\t".join(guarded(cell.text) for cell in row.cells))

    def _copy(self, text: str) -> None:
        if text:
            self._dashboard.copy_to_clipboard(text)
        self._dashboard.say(f"copied: {text}" if text else "there is nothing to copy here", wrong=not text)

    def save_table(self) -> None:
        """The one that has the focus, with all its rows."""
        table = self._table
        if table is None:
            self._dashboard.say("there is no table here", wrong=True)
            return
        titles = [column.title for column in table.columns]
        self._save(table.id or "table", "csv", export.csv_of(titles, table.rows))

    def save_picture(self) -> None:
        self._save("screen", "svg", self._dashboard.export_screenshot())

    def _save(self, what: str, ending: str, text: str) -> None:
        """In a browser the file goes to whoever looks at it there."""
        dashboard = self._dashboard
        name = export.name_of(what, datetime.now(dashboard.zone), ending)
        if dashboard.is_web:
            dashboard.deliver_text(io.StringIO(text), save_filename=name)
            return
        try:
            path = export.write_new(self._folder or os.getcwd(), name, text)
        except MeterError as error:
            dashboard.say(str(error), wrong=True)
        else:
            dashboard.say(f"saved: {path}")
