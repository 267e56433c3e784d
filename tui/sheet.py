"""All of one thing, to read: an event, a control action, what a service was used for."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from .pairs import Pairs
from .table import LineTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .table import Column
    from .view import Row

LABEL_WIDTH = 32


class Sheet(ModalScreen[None]):
    """Over the page that it was opened from; it changes nothing."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,q", "app.pop_screen", "Close", show=False),
        Binding("j", "scroll(1)", show=False),
        Binding("k", "scroll(-1)", show=False),
    ]
    DEFAULT_CSS = """
    Sheet { align: center middle; }
    Sheet > Vertical {
        width: 90; max-width: 98%; height: auto; max-height: 96%; padding: 0 2; border: round $primary;
        background: $surface;
    }
    Sheet #heading { text-style: bold; width: 1fr; margin-bottom: 1; }
    Sheet VerticalScroll { height: auto; max-height: 100%; }
    Sheet #hint { color: $text-muted; width: 1fr; }
    """

    def __init__(self, heading: str) -> None:
        super().__init__()
        self._heading = heading

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(self._heading, id="heading", markup=False)
            yield from self.compose_body()
            yield Static("Esc closes", id="hint")

    def compose_body(self) -> ComposeResult:
        yield from ()


class FactsSheet(Sheet):
    """Names and what they are, line by line; a long one goes on in the next."""

    DEFAULT_CSS = "FactsSheet Pairs { width: 1fr; height: auto; margin-bottom: 1; }"

    def __init__(self, heading: str, facts: Sequence[tuple[str, str]]) -> None:
        super().__init__(heading)
        self._facts = facts

    def compose_body(self) -> ComposeResult:
        with VerticalScroll():
            width = min(max((len(name) for name, _ in self._facts), default=0) + 2, LABEL_WIDTH)
            yield Pairs(self._facts, width, name_style="dim")

    def action_scroll(self, by: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=by, animate=False)


class TableSheet(Sheet):
    """A few rows."""

    DEFAULT_CSS = """
    TableSheet LineTable { height: 20; max-height: 70vh; }
    """

    def __init__(self, heading: str, columns: Sequence[Column], rows: Sequence[Row]) -> None:
        super().__init__(heading)
        self._columns = columns
        self._rows = rows

    def compose_body(self) -> ComposeResult:
        yield LineTable(self._columns, empty="Nothing was used in this range.", id="rows")

    def on_mount(self) -> None:
        table = self.query_one(LineTable)
        table.show(self._rows)
        table.focus()
