"""A table that paints lines: only those that changed, and only those that are seen.

Textual's own DataTable paints every visible row again when a cell changes: at 50 agents and two refreshes a
second that is a tenth of a processor, and this is a hundredth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from agent_meter_mcp.core.figures import ELLIPSIS
from agent_meter_mcp.core.value import Value

from .painted import Painted
from .themes import written
from .view import Rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from textual import events

    from .view import Cell, Row

    _StyleOf = Callable[[str, bool], Style]
    """How a cell is written: by the name of its style, and whether the cursor is on its row."""

NO_MATCH = "Nothing matches the filter."
HEADER = 1
FLEXIBLE_MIN = 10
MARKS_MAX = 8
"""So many characters to a cell are looked at: a name can be one letter under a thousand accents."""
CURSOR = "▌"
"""Before the row under the cursor of the table that has the focus: it is seen without colours, too."""


class Column(Value):
    """`width` is in cells; 0 takes what the others leave, which shall be at least `least`. Several divide it
    by their `share`.

    Where all do not fit, the one with the highest `drop` goes first. `told` stands in the place of its
    title for now; a file has the title.
    """

    title: str
    width: int
    right: bool = False
    drop: int = 0
    least: int = FLEXIBLE_MIN
    share: int = 1
    told: str = ""

    def sorted_by(self, *, reverse: bool) -> Column:
        """As the one by which rows are sorted."""
        return self.replace(told=f"{self.told or self.title}{'▲' if reverse else '▼'}")


class LineTable(ScrollView, Painted, can_focus=True):  # pyright: ignore[reportIncompatibleMethodOverride] - its own
    """Rows under a header, with a cursor that stays with its row wherever that moves."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)", "Down", show=False, tooltip="up and down"),
        Binding("up,k", "move(-1)", "Up", show=False, tooltip="up and down"),
        Binding("pagedown,ctrl+d", "page(1)", "Page down", show=False, tooltip="by a page"),
        Binding("pageup,ctrl+u", "page(-1)", "Page up", show=False, tooltip="by a page"),
        Binding("home,g", "edge(False)", "First", show=False, tooltip="to the first, to the last"),
        Binding("end,G", "edge(True)", "Last", show=False, tooltip="to the first, to the last"),
    ]
    DEFAULT_CSS = """
    LineTable { background: $surface; scrollbar-size-vertical: 1; scrollbar-size-horizontal: 0; }
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

    class HeaderClicked(Message):
        """The title of a column was clicked: its number."""

        def __init__(self, table: LineTable, column: int) -> None:
            super().__init__()
            self.table = table
            self.column = column

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
        self.is_filtered = False
        self._was_shown = False
        self._rows: Sequence[Row] = []
        self._keys: Sequence[str] = []
        self._cursor = 0
        self._is_led = False
        self._styles: dict[tuple[str, bool], Style] = {}
        self._measured: tuple[Size, bool] | None = None
        self._columns_fitted: tuple[Column, ...] | None = None
        self._content_width = 0
        self._fitted: list[tuple[int, int]] = []

    # What it shows

    @property
    def rows(self) -> Sequence[Row]:
        return self._rows

    @property
    def columns(self) -> Sequence[Column]:
        return self._columns

    @property
    def cursor(self) -> int:
        return self._cursor

    @property
    def cursor_key(self) -> str | None:
        """The key of the row under the cursor."""
        return self._keys[self._cursor] if self._keys else None

    @property
    def cursor_row(self) -> Row | None:
        return self._rows[self._cursor] if self._rows else None

    def show(self, rows: Sequence[Row]) -> None:
        """These rows from now on. The cursor stays with its row; of one that is gone the next takes it."""
        key, old = self.cursor_key, self._rows
        before = self._cursor
        self._rows, self._was_shown = rows, True
        self._keys = rows.keys if isinstance(rows, Rows) else [row.key for row in rows]
        self._cursor = self._place_of(key, max(min(before, len(rows) - 1), 0))
        if len(old) != len(rows):
            self._grow(len(rows))
        if self._is_led and self._cursor != before:
            self._scroll_to_cursor()
        if not old or not rows:
            self.refresh()  # "nothing there" comes or goes
            return
        top, height = self.scroll_offset.y, self.size.height - HEADER
        places = range(top, min(top + height, max(len(old), len(rows))))
        both = min(len(old), len(rows))
        changed = [place for place in places if place >= both or old[place] != rows[place]]
        self._repaint(*changed, *{before, self._cursor}.difference(changed))

    def _grow(self, rows: int) -> None:
        """There are so many rows now. The screen is laid out anew only when the scrollbar comes or goes."""
        before, now = self.virtual_size, Size(self.line_width, rows + HEADER)
        height = self.container_size.height
        if (before.height > height) != (now.height > height):
            self.virtual_size = now
            return
        self.set_reactive(LineTable.virtual_size, now)  # pyright: ignore[reportArgumentType] - of the class
        if self.show_vertical_scrollbar:
            self.vertical_scrollbar.window_virtual_size = now.height
        self.scroll_y = self.validate_scroll_y(self.scroll_y)

    def _place_of(self, key: str | None, otherwise: int) -> int:
        """Where that row is now; it looks first where it was."""
        if key is None or (otherwise < len(self._keys) and self._keys[otherwise] == key):
            return otherwise
        try:
            return self._keys.index(key)
        except ValueError:
            return otherwise

    def retitle(self, columns: Sequence[Column]) -> None:
        """Other titles; the same number of columns."""
        self._columns = tuple(columns)
        self.refresh()

    # Moving

    def action_move(self, by: int) -> None:
        self._move_to(self._cursor + by)

    def action_page(self, pages: int) -> None:
        self._move_to(self._cursor + pages * max(self.size.height - HEADER - 1, 1))

    def move_to_key(self, key: str) -> None:
        """The cursor to that row, if it is there."""
        self._move_to(self._place_of(key, self._cursor))

    def action_edge(self, last: bool) -> None:
        self._move_to(len(self._rows) - 1 if last else 0)

    def _move_to(self, place: int) -> None:
        before, self._cursor = self._cursor, max(min(place, len(self._rows) - 1), 0)
        self._is_led = self._cursor > 0  # who never moved it wants to see the first rows, wherever it goes
        self._scroll_to_cursor()
        self._repaint(before, self._cursor)

    def _scroll_to_cursor(self) -> None:
        """Also before the scrollbar is there: then Textual would not."""
        top, height = self.scroll_offset.y, max(self.size.height - HEADER, 1)
        if self._cursor < top:
            self.scroll_to(y=self._cursor, animate=False, force=True, immediate=True)
        elif self._cursor >= top + height:
            self.scroll_to(y=self._cursor - height + 1, animate=False, force=True, immediate=True)

    def on_click(self, event: events.Click) -> None:
        place = event.y - HEADER + self.scroll_offset.y
        if event.y < HEADER:
            column = self._column_at(event.x)
            if column is not None:
                self.post_message(self.HeaderClicked(self, column))
        elif place < len(self._rows):
            is_again = place == self._cursor and event.chain > 1
            self._move_to(place)
            if is_again:
                self.choose()

    def _column_at(self, x: int) -> int | None:
        """The column that is painted there; the gap before it belongs to it."""
        right = 1
        for number, (column, width) in enumerate(self._widths()):
            right += width + (self._gap if number else 0)
            if x < right:
                return column
        return None

    def choose(self) -> None:
        """As if Enter was pressed on the row under the cursor."""
        if self.cursor_key is not None:
            self.post_message(self.Chosen(self, self.cursor_key))

    # Painting

    def on_focus(self) -> None:
        self._styles.clear()
        self._repaint(self._cursor)

    def on_blur(self) -> None:
        self._styles.clear()
        self._repaint(self._cursor)

    def on_resize(self) -> None:
        self.virtual_size = Size(self.line_width, len(self._rows) + HEADER)
        if self._is_led:
            self._scroll_to_cursor()
        self.refresh()

    def notify_style_update(self) -> None:
        self._styles.clear()
        super().notify_style_update()

    def _repaint(self, *places: int) -> None:
        top, width = HEADER - self.scroll_offset.y, self.line_width
        self.refresh(*[Region(0, place + top, width, 1) for place in places])

    def _style(self, name: str, is_led: bool) -> Style:
        """Of a cell; under the cursor, whose colour lies behind what is written, and words keep theirs."""
        style = self.written(written(name))
        if not is_led:
            return style
        cursor = self.written(self._cursor_look)
        return style + Style(bgcolor=cursor.bgcolor, bold=cursor.bold, reverse=cursor.reverse)

    @property
    def _cursor_look(self) -> str:
        if self.has_focus and self.app.native_ansi_color:  # pyright: ignore[reportUnknownMemberType] - of any app
            return "bold reverse"
        behind = "$block-cursor-blurred-background" if self.has_focus else "$boost"
        return f"bold on {behind} {self.opacity:.0%}"

    def _shown_style(self, name: str, is_led: bool) -> Style:
        key = name, is_led
        style = self._styles.get(key)
        if style is None:
            style = self._styles[key] = self.filtered(self._style(name, is_led))
        return style

    @property
    def line_width(self) -> int:
        """What the scrollbar leaves."""
        measured = (self.outer_size, self.show_vertical_scrollbar)
        if measured != self._measured:  # Textual works it out anew each time, and each line needs it
            self._measured, self._columns_fitted = measured, None
            self._content_width = self.scrollable_content_region.width
        return self._content_width

    def _widths(self) -> list[tuple[int, int]]:
        """(column, width) of those that fit."""
        width = self.line_width
        if self._columns_fitted != self._columns:
            self._columns_fitted, self._fitted = self._columns, self._fit(width - 1)
        return self._fitted

    def _fit(self, room: int) -> list[tuple[int, int]]:
        kept = list(range(len(self._columns)))

        def needed() -> int:
            return sum(
                self._columns[column].width or self._columns[column].least for column in kept
            ) + self._gap * (len(kept) - 1)

        while needed() > room and any(self._columns[column].drop for column in kept):
            kept.remove(max(kept, key=lambda column: self._columns[column].drop))
        left = room - sum(self._columns[column].width for column in kept) - self._gap * (len(kept) - 1)
        flexible = [column for column in kept if not self._columns[column].width]
        shares = sum(self._columns[column].share for column in flexible) or 1
        room_of = {column: left * self._columns[column].share // shares for column in flexible}
        for column in flexible[:1]:
            room_of[column] += left - sum(room_of.values())
        return [(column, self._columns[column].width or max(room_of[column], 4)) for column in kept]

    def paint(self, y: int) -> Strip:
        return self._line(y, self._shown_style)

    def render_line(self, y: int) -> Strip:
        return self._line(y, self._style)

    def _line(self, y: int, style: _StyleOf) -> Strip:
        width = self.line_width
        if y == 0:
            titles = [(column.told or column.title, "header") for column in self._columns]
            return self._strip(titles, width, False, style)
        place = y - HEADER + self.scroll_offset.y
        if place >= len(self._rows):
            empty = NO_MATCH if self.is_filtered else self._empty
            text = empty if self._was_shown and not self._rows and y == 2 else ""
            return Strip([Segment(fitted(f" {text}", width), style("dim", False))], width)
        cells: list[tuple[str, str]] = [_parts(cell) for cell in self._rows[place].cells]
        return self._strip(cells, width, place == self._cursor, style)

    def _strip(self, cells: Sequence[tuple[str, str]], width: int, is_led: bool, style: _StyleOf) -> Strip:
        base = style("text", is_led)
        segments, used = [Segment(CURSOR if is_led and self.has_focus else " ", base)], 1
        for column, room in self._widths():
            text, name = cells[column]
            gap = " " * self._gap if used > 1 else ""
            text = gap + fitted(text, room, right=self._columns[column].right)
            segments.append(Segment(text, style(name, is_led)))
            used += len(gap) + room
        if used < width:
            segments.append(Segment(" " * (width - used), base))
        strip = Strip(segments, max(used, width))
        return strip if used <= width else strip.crop(0, width)


def _parts(cell: Cell) -> tuple[str, str]:
    return cell.text, cell.style


def fitted(text: str, width: int, *, right: bool = False) -> str:
    """Exactly so many cells of it: with an ellipsis where something is missing, and no half characters."""
    text = text[: width * MARKS_MAX]
    size = len(text) if text.isascii() and text.isprintable() else cell_len(text)
    if size > width:
        text = set_cell_size(text, width - 1).rstrip() + ELLIPSIS if width else ""
        size = cell_len(text)
    padding = " " * (width - size)
    return padding + text if right else text + padding
