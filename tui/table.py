"""A table that paints lines: only those that changed, and only those that are seen.

Textual's own DataTable paints every visible row again when a cell changes: at 50 agents and two refreshes a
second that is a tenth of a processor, and this is a hundredth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from agent_meter_mcp.core.figures import shortened, width_of
from agent_meter_mcp.core.value import Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.style import Style
    from textual import events

    from .view import Cell, Row

HEADER = 1
FLEXIBLE_MIN = 10
CURSOR = "▌"
"""Before the row under the cursor of the table that has the focus: it is seen without colours, too."""


class Column(Value):
    """`width` is in cells; 0 takes what the others leave, which shall be at least `least`.

    Where all do not fit, the one with the highest `drop` goes first.
    """

    title: str
    width: int
    right: bool = False
    drop: int = 0
    least: int = FLEXIBLE_MIN


class LineTable(ScrollView, can_focus=True):
    """Rows under a header, with a cursor that stays with its row wherever that moves."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)", "Down", show=False, tooltip="up and down"),
        Binding("up,k", "move(-1)", "Up", show=False, tooltip="up and down"),
        Binding("pagedown,ctrl+d", "page(1)", "Page down", show=False, tooltip="by a page"),
        Binding("pageup,ctrl+u", "page(-1)", "Page up", show=False, tooltip="by a page"),
        Binding("home,g", "edge(False)", "First", show=False, tooltip="to the first, to the last"),
        Binding("end,G", "edge(True)", "Last", show=False, tooltip="to the first, to the last"),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"line-table--{name}" for name in ("header", "text", "cursor", "alarm", "warn", "good", "dim", "held")
    }
    DEFAULT_CSS = """
    LineTable {
        background: $surface; scrollbar-size-vertical: 1; scrollbar-size-horizontal: 0;
        & .line-table--header { color: $text-muted; text-style: bold; }
        & .line-table--text { color: $foreground; }
        & .line-table--cursor { background: $cursor-line-blurred; text-style: bold; }
        & .line-table--alarm { color: $text-error; text-style: bold; }
        & .line-table--warn { color: $text-warning; }
        & .line-table--good { color: $text-success; }
        & .line-table--dim { color: $text-muted; }
        & .line-table--held { color: $text-secondary; text-style: bold; }
    }
    LineTable:focus { & .line-table--cursor { background: $cursor-line; } }
    LineTable:focus:ansi { & .line-table--cursor { background: transparent; text-style: bold reverse; } }
    """

    class Chosen(Message):
        """A row was clicked twice, or Enter pressed on it."""

        def __init__(self, table: LineTable, key: str) -> None:
            super().__init__()
            self.table = table
            self.key = key

        @property
        def control(self) -> LineTable:
            return self.table

    def __init__(
        self, columns: Sequence[Column], *, gap: int = 2, empty: str = "", id: str | None = None
    ) -> None:
        super().__init__(id=id)
        self._gap = gap
        self._columns = tuple(columns)
        self._empty = empty
        self._rows: list[Row] = []
        self._cursor = 0
        self._styles: dict[str, Style] = {}

    # What it shows

    @property
    def rows(self) -> Sequence[Row]:
        return self._rows

    @property
    def cursor_key(self) -> str | None:
        """The key of the row under the cursor."""
        return self._rows[self._cursor].key if self._rows else None

    @property
    def cursor_row(self) -> Row | None:
        return self._rows[self._cursor] if self._rows else None

    @property
    def columns(self) -> Sequence[Column]:
        """Those that do not fit, too."""
        return self._columns

    def show(self, rows: Sequence[Row]) -> None:
        """These rows from now on. The cursor stays with its row; of one that is gone the next takes it."""
        key, old = self.cursor_key, self._rows
        before = self._cursor
        self._rows = list(rows)
        places = {row.key: place for place, row in enumerate(rows)}
        self._cursor = places.get(key or "", max(min(before, len(rows) - 1), 0))
        if len(old) != len(rows):
            self.virtual_size = Size(self._width, len(rows) + HEADER)
            self.refresh()
            return
        top, height = self.scroll_offset.y, self.size.height - HEADER
        for place in range(top, min(top + height, len(rows))):
            if old[place] != rows[place] or place in (before, self._cursor):
                self._repaint(place)

    def retitle(self, columns: Sequence[Column]) -> None:
        """Other titles; the same number of columns."""
        self._columns = tuple(columns)
        self.refresh()

    # Moving

    def action_move(self, by: int) -> None:
        self._move_to(self._cursor + by)

    def action_page(self, pages: int) -> None:
        self._move_to(self._cursor + pages * max(self.size.height - HEADER - 1, 1))

    def action_edge(self, last: bool) -> None:
        self._move_to(len(self._rows) - 1 if last else 0)

    def _move_to(self, place: int) -> None:
        before, self._cursor = self._cursor, max(min(place, len(self._rows) - 1), 0)
        top, height = self.scroll_offset.y, self.size.height - HEADER
        if self._cursor < top:
            self.scroll_to(y=self._cursor, animate=False, immediate=True)
        elif self._cursor >= top + height:
            self.scroll_to(y=self._cursor - height + 1, animate=False, immediate=True)
        self._repaint(before)
        self._repaint(self._cursor)

    def on_click(self, event: events.Click) -> None:
        place = event.y - HEADER + self.scroll_offset.y
        if event.y >= HEADER and place < len(self._rows):
            is_again = place == self._cursor and event.chain > 1
            self._move_to(place)
            if is_again:
                self.choose()

    def choose(self) -> None:
        """As if Enter was pressed on the row under the cursor."""
        if self.cursor_key is not None:
            self.post_message(self.Chosen(self, self.cursor_key))

    # Painting

    def on_resize(self) -> None:
        self.virtual_size = Size(self._width, len(self._rows) + HEADER)
        self.refresh()

    def notify_style_update(self) -> None:
        self._styles.clear()
        super().notify_style_update()

    def _repaint(self, place: int) -> None:
        self.refresh(Region(0, place - self.scroll_offset.y + HEADER, self._width, 1))

    def _style(self, name: str) -> Style:
        if name not in self._styles:
            # The line under the cursor lies behind what is written on it: its words keep their colours.
            self._styles[name] = self.get_component_rich_style(
                f"line-table--{name or 'text'}", partial=name == "cursor"
            )
        return self._styles[name]

    @property
    def _width(self) -> int:
        """What the scrollbar leaves."""
        return self.scrollable_content_region.width

    def _widths(self) -> list[tuple[int, int]]:
        """(column, width) of those that fit."""
        room = self._width - 1
        kept = list(range(len(self._columns)))

        def needed() -> int:
            return sum(
                self._columns[column].width or self._columns[column].least for column in kept
            ) + self._gap * (len(kept) - 1)

        while needed() > room and any(self._columns[column].drop for column in kept):
            kept.remove(max(kept, key=lambda column: self._columns[column].drop))
        left = room - sum(self._columns[column].width for column in kept) - self._gap * (len(kept) - 1)
        return [(column, self._columns[column].width or max(left, 4)) for column in kept]

    def render_line(self, y: int) -> Strip:
        width = self._width
        if y == 0:
            titles = [(column.title, "header") for column in self._columns]
            return self._strip(titles, width, "header")
        place = y - HEADER + self.scroll_offset.y
        if place >= len(self._rows):
            text = self._empty if not self._rows and y == 2 else ""
            return Strip([Segment(shortened(f" {text}", width).ljust(width), self._style("dim"))], width)
        cells: list[tuple[str, str]] = [_parts(cell) for cell in self._rows[place].cells]
        return self._strip(cells, width, "cursor" if place == self._cursor else "")

    def _strip(self, cells: Sequence[tuple[str, str]], width: int, line: str) -> Strip:
        base = self._style("text")
        if line == "cursor":
            base = base + self._style("cursor")
        mark = CURSOR if line == "cursor" and self.has_focus else " "
        segments, used = [Segment(mark, base)], 1
        for number, (column, room) in enumerate(self._widths()):
            text, name = cells[column]
            text = shortened(text, room)
            padding = " " * (room - width_of(text))
            text = padding + text if self._columns[column].right else text + padding
            style = self._style(name)
            if line == "cursor":
                style = style + self._style("cursor")
            gap = " " * self._gap if number else ""
            segments += [Segment(gap, base), Segment(text, style)]
            used += len(gap) + room
        segments.append(Segment(" " * max(width - used, 0), base))
        return Strip(segments, max(used, width)).crop(0, width)


def _parts(cell: Cell) -> tuple[str, str]:
    return cell.text, cell.style
