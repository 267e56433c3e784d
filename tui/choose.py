"""Choosing one of many: typed words leave fewer, the arrows move, Enter takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Input, Static

from . import view
from .dialogs import Dialog
from .table import Column, LineTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .view import Row


class Choose(Dialog[str | None]):
    """Answers the key of a row; None: none of them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Cancel", show=False),
        Binding("enter", "take", "Take", show=False, priority=True),
        Binding("down", "move(1)", "Down", show=False, priority=True),
        Binding("up", "move(-1)", "Up", show=False, priority=True),
    ]
    DEFAULT_CSS = """
    Choose { align: center middle; }
    Choose > Vertical {
        width: 100; max-width: 98%; height: 18; max-height: 96%; padding: 0 1; border: round $primary;
        background: $surface;
    }
    Choose .title { text-style: bold; height: 1; }
    Choose LineTable { height: 1fr; }
    """

    def __init__(self, title: str, columns: Sequence[Column], rows: Sequence[Row]) -> None:
        super().__init__()
        self._title = title
        self._columns = columns
        self._rows = rows

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(self._title, classes="title", markup=False)
            yield Input(placeholder="words that it has; ↑ ↓, Enter takes it, Esc leaves", compact=True)
            yield LineTable(self._columns, gap=1, empty="There is none.", id="choices")

    def on_mount(self) -> None:
        self.query_one(LineTable).show(self._rows)
        self.query_one(Input).focus()

    @on(Input.Changed)
    def narrow(self, event: Input.Changed) -> None:
        self.query_one(LineTable).show(view.matching_rows(self._rows, event.value))

    @on(LineTable.Chosen)
    def take(self, message: LineTable.Chosen) -> None:
        self.dismiss(message.key)

    def action_move(self, by: int) -> None:
        self.query_one(LineTable).action_move(by)

    def action_take(self) -> None:
        self.query_one(LineTable).choose()

    def action_leave(self) -> None:
        self.dismiss(None)
