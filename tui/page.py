"""What all screens have in common: the title, the tabs, trouble, a filter, the footer and their keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Footer, Input, Static

from . import totals
from .dialogs import Help
from .table import LineTable
from .words import Words

if TYPE_CHECKING:
    from textual.widget import Widget

    from agent_meter_mcp.sources.base import Range, Reader

    from .app import Dashboard, Looked

_COLOURS = {"alarm": "text-error", "warn": "text-warning", "good": "text-success", "held": "text-secondary"}

KEYS: list[BindingType] = [
    Binding("slash", "filter", "Filter", key_display="/"),
    Binding("t", "app.range(1)", "Range"),
    Binding("T", "app.range(-1)", "Range back", show=False),
    Binding("p", "app.pause", "Pause"),
    Binding("r", "app.look", "Look again", show=False),
    Binding("question_mark", "help", "Help", key_display="?"),
    Binding("q", "app.quit", "Quit"),
    Binding("escape", "back", "Back", show=False),
]
"""What every page does, in the order of the footer; each page puts its own before them."""


class Keys(Footer):
    """Textual's footer holds on to all keys that it has ever shown, until its `compact` is told to change."""

    async def recompose(self) -> None:
        await super().recompose()
        self.mutate_reactive(Footer.compact)


class Page(Screen[None]):
    """`MODE` is its name among the tabs ("" for what is opened from one of them).

    `MAIN` is the widget that has the focus first, `wanted` the words that its rows are filtered by.
    """

    MODE: ClassVar[str] = ""
    MAIN: ClassVar[str] = ""
    HINT: ClassVar[str] = "words that a row has; !word: has not"
    DEFAULT_CSS = """
    Page { layout: vertical; }
    Page #title { height: 1; background: $panel; }
    Page #tabs { height: 1; padding: 0 1; }
    Page #trouble { height: auto; padding: 0 1; color: $text-error; text-style: bold; display: none; }
    Page #filter { display: none; height: 1; border: none; padding: 0 1; }
    """

    def __init__(self, dashboard: Dashboard) -> None:
        super().__init__()
        self.dashboard = dashboard
        self.wanted = ""
        self._focused_before: Widget | None = None

    def compose(self) -> ComposeResult:
        yield Words(id="title")
        yield Words(id="tabs")
        yield Static(id="trouble", markup=False)
        yield from self.compose_body()
        yield Input(placeholder=self.HINT, id="filter")
        yield Keys(show_command_palette=False)

    def compose_body(self) -> ComposeResult:
        """What is between the title and the footer."""
        yield from ()

    def on_mount(self) -> None:
        self.query_one(self.MAIN).focus()

    def on_screen_resume(self) -> None:
        self.dashboard.show_page()

    # What it shows

    def show(self, looked: Looked) -> None:
        """What was found at the last look; the last snapshot stays when there was trouble."""
        trouble = self.query_one("#trouble", Static)
        trouble.display = bool(looked.trouble)
        if trouble.content != looked.trouble:
            trouble.update(looked.trouble)
        self._show_title(looked)
        self.query_one("#tabs", Words).update(self._tabs())

    async def look(self, reader: Reader, wanted: Range) -> None:
        """Reads and shows what only this page shows: after each look of the dashboard, while it is on top.
        May raise MeterError."""

    def _show_title(self, looked: Looked) -> None:
        state, style = self.dashboard.state
        words = Text(" meter ", "bold")
        words.append(f" {state} ", self.coloured(style))
        for cell in totals.tally(looked.snapshot) if looked.snapshot is not None else ():
            words.append(f" {cell.text} ", self.coloured(cell.style))
        if self.wanted:
            words.append(f"  filter: {self.wanted}", "bold")
        words.append(f"  {self.dashboard.where}", "dim")
        self.query_one("#title", Words).update(words)

    def _tabs(self) -> Text:
        words = Text()
        for number, mode in enumerate(self.dashboard.tabs, 1):
            style = "bold reverse" if mode == self.dashboard.current_mode else ""
            words.append(f" {number} {mode.capitalize()} ", style)
        words.append(f"   range: {self.dashboard.range.name}")
        return words

    def coloured(self, name: str) -> str:
        """The colour that the theme gives to what is an alarm, a warning and so on."""
        value = self.dashboard.theme_variables.get(_COLOURS.get(name, ""), "")
        bold = "bold " if name in ("alarm", "held") else ""
        return "dim" if name == "dim" else f"{bold}{value}" if value.startswith("#") else bold.strip()

    # Keys

    def action_choose(self) -> None:
        """Enter, on the table that has the focus."""
        if isinstance(self.focused, LineTable):
            self.focused.choose()

    def action_filter(self) -> None:
        field = self.query_one("#filter", Input)
        self._focused_before = self.focused
        field.display = True
        field.focus()

    def action_back(self) -> None:
        """Clears the filter; without one, leaves what was opened."""
        field = self.query_one("#filter", Input)
        if field.value or field.display:
            field.value = ""
            self._leave_filter()
        elif not self.MODE:
            self.dashboard.pop_screen()

    def on_input_changed(self, event: Input.Changed) -> None:
        self.filter_by(event.value)

    def on_input_submitted(self) -> None:
        self._leave_filter()

    def _leave_filter(self) -> None:
        self.query_one("#filter").display = False
        (self._focused_before or self.query_one(self.MAIN)).focus()

    def filter_by(self, words: str) -> None:
        """Other words are wanted now."""
        self.wanted = words
        self.refilter()

    def refilter(self) -> None:
        """Shows what was found already, by the words that are wanted."""
        self.dashboard.show_page()

    def action_help(self) -> None:
        self.dashboard.push_screen(Help())
