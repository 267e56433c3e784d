"""What all screens have in common: the title, the tabs, trouble, a filter, the footer and their keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import Input

from .commands import help_of
from .faces import OTHER_KEY, REFUSALS
from .footer import Keys
from .painted import Ground, ground
from .table import LineTable
from .themes import bold, colour_of
from .totals import services_stopped
from .words import Told, Words

if TYPE_CHECKING:
    from textual.events import Key, ScreenResume
    from textual.geometry import Size
    from textual.widget import Widget

    from agent_meter_mcp.sources.base import Range, Reader

    from .app import Dashboard
    from .faces import Face
    from .looked import Looked

ORDERS = ("usual", "reversed")
"""How a table that can be sorted both ways is remembered."""
KEYS: list[BindingType] = [
    Binding("slash", "filter", "Filter", key_display="/", tooltip="rows with these words; !word: without"),
    Binding("t", "app.range(1)", "Range", tooltip="the next, the previous range of time"),
    Binding("T", "app.range(-1)", "Range back", show=False, tooltip="the next, the previous range of time"),
    Binding("p", "app.pause", "Pause", tooltip="pause; nothing is lost meanwhile"),
    Binding("question_mark", "help", "Help", key_display="?", tooltip="this page"),
    Binding("q", "app.quit", "Quit", tooltip="quit"),
    Binding("escape", "back", "Back", show=False, tooltip="back; clears the filter first"),
]
"""What every page does, in the order of the footer; each page puts its own before them."""


WIDE = 100
"""From so many cells on, the tables stand side by side."""
ROOMY = 74
"""With fewer cells than this, the tabs and the range stand close together."""


class Page(Screen[None]):
    """`MODE` is its name among the tabs ("" for what is opened from one of them).

    `MAIN` is the widget that has the focus first, `wanted` the words that its rows are filtered by.
    """

    MODE: ClassVar[str] = ""
    MAIN: ClassVar[str] = ""
    ACTS: ClassVar[frozenset[str]] = frozenset({"stop", "limit", "edit", "holds", "new", "raise", "remove"})
    """Actions that change something: greyed where that may not be."""
    HINT: ClassVar[str] = "words that a row has; !word: has not"
    render_lines = ground
    DEFAULT_CSS = """
    Page { layout: vertical; }
    Page #title { height: 1; background: $panel; }
    Page #tabs { height: 1; padding: 0 1; }
    Page #trouble { height: auto; padding: 0 1; color: $text-error; text-style: bold; }
    Page #body { height: 1fr; }
    Page.-stale #body { opacity: 80%; }
    Page #face { height: 1fr; align: center middle; }
    Page #face > Static { width: 76; max-width: 94%; height: auto; }
    Page #filter { height: 1; border: none; padding: 0 1; }
    Page.-tiny #tabs { display: none; }
    """

    def __init__(self, dashboard: Dashboard) -> None:
        super().__init__()
        self.dashboard = dashboard
        self.wanted = ""
        self.trouble = ""
        self._refusal = ""
        self._focused_before: Widget | None = None
        self._was_shown = False
        # Each of these is mounted when it is first wanted: the first picture waits for what is on it.
        self.field: Input | None = None
        self._told_trouble = Told(id="trouble")
        self._told_face = Told()
        self._face = VerticalScroll(self._told_face, id="face", can_focus=False)
        # Textual would do so after the first layout, and work out all styles once more.
        self.update_classes(dict.fromkeys(self.classes_at(dashboard.size), True), update=False)

    def classes_at(self, size: Size) -> set[str]:
        """How there is to be laid out where there is so much room."""
        across = self.HORIZONTAL_BREAKPOINTS or self.dashboard.HORIZONTAL_BREAKPOINTS or []
        down = self.VERTICAL_BREAKPOINTS or self.dashboard.VERTICAL_BREAKPOINTS or []
        steps = ((across, size.width), (down, size.height))
        return {max(step for step in given if step[0] <= room)[1] for given, room in steps}

    def compose(self) -> ComposeResult:
        yield Words(id="title")
        yield Words(id="tabs")
        with Ground(id="body"):
            yield from self.compose_body()
        looked = self.dashboard.looked
        if looked.snapshot is None or self.face(looked) is not None:
            yield self._face
        yield Keys()

    def compose_body(self) -> ComposeResult:
        """What is between the title and the footer."""
        yield from ()

    def on_mount(self) -> None:
        self.query_one(self.MAIN).focus()

    def on_descendant_blur(self) -> None:
        """Where there is no room any more for what had the focus."""
        if self.focused is None and self.is_active and self.dashboard.app_focus:
            self.query_one(self.MAIN).focus()

    def on_resize(self) -> None:
        self.query_one("#tabs", Words).update(self._tabs())

    def on_screen_resume(self, event: ScreenResume) -> None:
        if not self._was_shown:  # its styles were worked out a moment ago
            event.refresh_styles = False
        self._was_shown = True
        if self.MODE:
            self.dashboard.remember("page", self.MODE)
        self.dashboard.show_page()

    # What it shows

    def show(self, looked: Looked) -> None:
        """What was found at the last look; the last snapshot stays when there was trouble."""
        trouble = looked.trouble or self.trouble
        if looked.code in REFUSALS:
            trouble += f" {OTHER_KEY}"  # the meter knows of headers, and not how a dashboard is given its key
        self._show_trouble(trouble, is_seen=looked.snapshot is not None)
        self.set_class(bool(looked.trouble), "-stale")
        self._show_face(self.face(looked))
        self._show_title(looked)
        self.query_one("#tabs", Words).update(self._tabs())
        if self._refusal != self.dashboard.acting.refusal:
            self._refusal = self.dashboard.acting.refusal
            self.refresh_bindings()

    def face(self, looked: Looked) -> Face | None:
        """What stands in place of the page."""
        return self.dashboard.face

    def _show_trouble(self, text: str, *, is_seen: bool) -> None:
        told = self._told_trouble
        told.display = bool(text) and is_seen
        if told.content != text:
            told.update(text)
        if text and not told.is_attached:
            self.mount(told, before="#body")

    def _show_face(self, face: Face | None) -> None:
        body = self.query_one("#body")
        is_back = face is None and not body.display
        body.display, self._face.display = face is None, face is not None
        if face is not None:
            self._told_face.update(self._words_of(face))
            if not self._face.is_attached:
                self.mount(self._face, after=body)
        elif is_back:
            self.call_after_refresh(self._body_is_back)

    def _body_is_back(self) -> None:
        """Now it has a size, by which some of it is drawn; and what was hidden has lost the focus."""
        self.show(self.dashboard.looked)
        if self.focused is None:
            self.query_one(self.MAIN).focus()

    def _words_of(self, face: Face) -> Text:
        words = Text()
        words.append(f"{face.heading}\n\n", f"bold {self.coloured(face.style)}")
        words.append(face.text)
        if face.command:
            words.append("\n\n")
            words.append(f" {face.command} ", "reverse")
            words.append("\n c copies it", self.coloured("dim"))
        if face.after:
            words.append(f"\n\n{face.after}", self.coloured("dim"))
        return words

    async def look(self, reader: Reader, wanted: Range) -> None:
        """Reads and shows what only this page shows: after each look of the dashboard, while it is on top.
        May raise MeterError."""

    def _show_title(self, looked: Looked) -> None:
        state, style = self.dashboard.state
        words = Text(" meter ", "bold")
        words.append(f" {state} ", self.coloured(style))
        if self.dashboard.acting.refusal:
            words.append(" read-only ", self.coloured("dim"))
        snapshot = looked.snapshot
        for cell in self.dashboard.tally.of(snapshot.agents) if snapshot is not None else ():
            words.append(f" {cell.text} ", self.coloured(cell.style))
        if self.wanted:
            words.append(f"  filter: {self.wanted}  ", "bold")
        for cell in services_stopped(snapshot) if snapshot is not None else ():
            words.append(f" {cell.text} ", self.coloured(cell.style))
        words.append(f"   {self.dashboard.where}", self.coloured("dim"))
        self.query_one("#title", Words).update(words)

    def _tabs(self) -> Text:
        is_read = (
            self.dashboard.looked.snapshot is None or self.dashboard.looked.range is self.dashboard.range
        )
        range_name = f"{self.dashboard.range.name}{'' if is_read else ' …'}"
        is_close = self.size.width < ROOMY
        words = Text()
        for number, mode in enumerate(self.dashboard.tabs, 1):
            style = "bold reverse" if mode == self.dashboard.current_mode else ""
            name = f"{number} {mode.capitalize()}"
            words.append(name if is_close else f" {name} ", style).append(" " if is_close else "")
        words.append(f" {range_name}" if is_close else f"   range: {range_name}")
        return words

    def coloured(self, name: str) -> str:
        """How what is an alarm, a warning and so on is written, in the colour that the theme gives it."""
        colour = colour_of(name, self.dashboard.theme_variables)
        if colour:
            return f"{bold(name)}{colour}"
        return "dim" if name == "dim" else bold(name).strip()

    @property
    def table(self) -> LineTable | None:
        """The one that has the focus, or could have it first."""
        if isinstance(self.focused, LineTable):
            return self.focused
        main = self.query_one(self.MAIN)
        return main if isinstance(main, LineTable) and main.is_on_screen else None

    def to_copy(self) -> str:
        """The id of what is under the cursor; where a face stands, the command that it recommends."""
        face = self.face(self.dashboard.looked)
        if face is not None:
            return face.command
        row = None if self.table is None else self.table.cursor_row
        return "" if row is None else row.key if row.id is None else row.id

    # Keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in self.ACTS and self.dashboard.acting.refusal:
            return None
        return super().check_action(action, parameters)

    def on_key(self, event: Key) -> None:
        """Whoever presses a key that is greyed is told why.

        A slow line brings a whole word in a moment, whose letters are on their way before the field has the
        focus: they are for it, and are not the keys of the page.
        """
        field = self.field
        if field is not None and field.display and event.is_printable and event.character is not None:
            field.replace(event.character, *field.selection)
            event.stop()
            return
        if event.key == "slash":
            self.action_filter()
            event.stop()
            return
        active = self.active_bindings.get(event.key)
        if active is not None and not active.enabled:
            self.dashboard.acting.may_act()

    def on_line_table_chosen(self, message: LineTable.Chosen) -> None:
        """Once: Enter that is pressed twice in a moment opens nothing twice."""
        if self.is_active:
            self.open_row(message.table, message.key)

    def open_row(self, table: LineTable, key: str) -> None:
        """What is behind a row."""

    def action_choose(self) -> None:
        """Enter, on the table that has the focus."""
        if isinstance(self.focused, LineTable):
            self.focused.choose()

    def action_filter(self) -> None:
        if self.field is None:
            self.field = Input(placeholder=self.HINT, select_on_focus=False, id="filter")
            self.mount(self.field, before=self.query_one(Keys))
            # When it is there: what is on its way to us waits for that, so no letter comes before its field.
            self.call_next(self._open_filter, self.field)
        else:
            self._open_filter(self.field)

    def _open_filter(self, field: Input) -> None:
        self._focused_before = self.focused
        field.display = True
        field.action_select_all()
        self.set_focus(field)

    def action_back(self) -> None:
        """Clears the filter; without one, leaves what was opened."""
        field = self.field
        if field is not None and (field.value or field.display):
            field.value = ""
            self._leave_filter()
        elif not self.MODE:
            self.dashboard.pop_screen()

    def on_input_changed(self, event: Input.Changed) -> None:
        self.filter_by(event.value)

    def on_input_submitted(self) -> None:
        self._leave_filter()

    def _leave_filter(self) -> None:
        if self.field is not None:
            self.field.display = False
        (self._focused_before or self.query_one(self.MAIN)).focus()

    def filter_by(self, words: str) -> None:
        """Other words are wanted now."""
        self.wanted = words
        for table in self.query(LineTable):
            table.is_filtered = bool(words)
        self.refilter()
        self._show_title(self.dashboard.looked)

    def refilter(self) -> None:
        """Shows what was found already, by the words that are wanted."""
        self.dashboard.show_page()

    def action_help(self) -> None:
        from .dialogs import Help

        own = [binding for binding in self.BINDINGS if binding not in KEYS]
        everywhere = [*KEYS, *self.dashboard.BINDINGS]
        keys = help_of(("Moving", LineTable.BINDINGS), ("Here", own), ("Everywhere", everywhere))
        self.dashboard.push_screen(Help(keys))
