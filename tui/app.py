"""The dashboard: it looks at a ledger again and again, shows what it finds, and does what it is told.

Looking is a worker of its own; screens only show. An action is shown as done after the ledger has said so.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from contextlib import ExitStack, suppress
from datetime import UTC
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

from textual import work
from textual.app import App
from textual.await_complete import AwaitComplete
from textual.binding import Binding, BindingType
from textual.css.query import NoMatches

from agent_meter_mcp.core.errors import MeterError
from agent_meter_mcp.core.text import shown
from agent_meter_mcp.sources.base import RANGES

from . import commands, faces, pages, themes
from .acting import Acting
from .happening import newer_in
from .looked import Looked
from .page import WIDE, Page
from .pages import PAGES
from .settings import Choices
from .totals import Tally

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import tzinfo

    from textual.app import SystemCommand
    from textual.screen import Screen

    from agent_meter_mcp.sources.base import Operator, Range, Reader

    from .taking import Taking
    from .view import Style

LOOK_S = 0.5
LOOK_ANYWAY_S = 20.0
"""Ages and windows move on even when nobody writes."""
PAUSES_S = (0.5, 1.0, 2.0, 5.0)
"""How long it waits after trouble, each time a little longer, and a little differently."""
LOW = 16
"""With fewer lines than these, what matters most has them all."""
OPENING_S = 0.5
"""Only what takes longer than this is said to be opening."""
TABS = ", ".join(PAGES)


def pause_after(failures: int) -> float:
    """How long it waits after so many of them."""
    return PAUSES_S[min(failures, len(PAUSES_S)) - 1] * random.uniform(1, 1.25)


class Dashboard(App[None]):
    """`operator` None: it only shows. `theme` "" is the one that was chosen last. `export_to` is a folder.

    Raises InvalidInput: there is no such theme.
    """

    TITLE = "agent-meter"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("u", "undo", "Undo", show=False, tooltip="undo the last action; asks first"),
        *(
            Binding(str(number), f"switch_mode('{mode}')", f"Go to {mode}", show=False, tooltip=TABS)
            for number, mode in enumerate(PAGES, 1)
        ),
        Binding("p", "pause", "Pause", show=False, tooltip="pause; nothing is lost meanwhile"),
        Binding("r", "look", "Look again", show=False, tooltip="look again now"),
        Binding("c", "copy", "Copy", show=False, tooltip="copy the id under the cursor"),
        Binding("C", "copy_row", "Copy row", show=False, tooltip="copy the row under the cursor"),
        Binding("w", "export_table", "Export table", show=False, tooltip="save the table as CSV"),
        Binding("W", "export_picture", "Export picture", show=False, tooltip="save the screen as a picture"),
        Binding("ctrl+p", "command_palette", show=False, priority=True, tooltip="all commands, colours too"),
        Binding("ctrl+q", "quit", "Quit", show=False, priority=True, tooltip="quit"),
        Binding(
            "ctrl+c", "copy_or_quit", show=False, priority=True, tooltip="copy what is selected; or quit"
        ),
    ]

    def __init__(
        self,
        reader: Reader,
        operator: Operator | None,
        *,
        zone: tzinfo = UTC,
        look_s: float = LOOK_S,
        theme: str = "",
        choices: Choices | None = None,
        export_to: str = "",
    ) -> None:
        self.choices = choices or Choices()
        self._has_begun = False
        # Textual would lay out an empty screen first.
        self.DEFAULT_MODE = self.choices.get("page", self.tabs, self.tabs[0])  # pyright: ignore[reportAttributeAccessIssue] - there is no other way
        super().__init__()
        self.animation_level = "none"  # what moves draws the eye: here that is what has changed
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]
        self.VERTICAL_BREAKPOINTS = [(0, "-tiny"), (LOW, "-tall")]
        self._reader = reader
        self.acting = Acting(self, reader, operator)
        self.look_s = look_s
        self._again = asyncio.Event()
        self._page_news = asyncio.Event()
        self._page_looked_for: Page | None = None
        self._unpainted = ExitStack()
        self.zone = zone
        self._export_to = export_to
        self._started_s = time.monotonic()
        self.failure: Exception | None = None
        self._begin_with(self._theme_of(theme))
        self.range = self.choices.range
        self.paused = False
        self.looked = Looked()
        self.tally = Tally()
        self.waiting: Looked | None = None
        """What was found while it is paused."""

    @property
    def tabs(self) -> tuple[str, ...]:
        return tuple(PAGES)

    @property
    def where(self) -> str:
        return shown(self._reader.where, width=60)

    @property
    def state(self) -> tuple[str, Style]:
        """The state of the connection, in a word."""
        face = self.face
        if face is None and self.looked.snapshot is None:
            face = faces.opening(self._reader.where)
        if face is not None:
            return face.title, face.style
        if self.looked.code in faces.REFUSALS:
            return faces.trouble(self.looked.code, "", "").title, "alarm"
        if self.looked.trouble:
            return f"STALE {int(time.monotonic() - self.looked.at_s)} s", "alarm"
        return (f"PAUSED{self._waits()}", "warn") if self.paused else ("● LIVE", "good")

    def _waits(self) -> str:
        seen, waiting = self.looked.snapshot, self.waiting and self.waiting.snapshot
        if seen is None or waiting is None:
            return ""
        return f" · {newer_in(waiting, seen)} waiting"

    @property
    def face(self) -> faces.Face | None:
        """What stands in place of the ledger as long as nothing of it was seen."""
        where = self._reader.where
        if self.looked.snapshot is not None:
            return None
        if self.looked.trouble:
            return faces.trouble(self.looked.code, self.looked.trouble, where)
        return faces.opening(where) if self.is_slow else None

    @property
    def is_slow(self) -> bool:
        """Whether it has been opening for so long that somebody wonders."""
        return time.monotonic() - self._started_s >= OPENING_S

    @property
    def nothing_used(self) -> faces.Face:
        return faces.empty(self._reader.where)

    def get_default_screen(self) -> Screen[Any]:
        """The page that was open last. For one of the modes, all styles would be parsed once more."""
        return PAGES[self.DEFAULT_MODE](self)

    def on_mount(self) -> None:
        for mode, page in PAGES.items():
            self.add_mode(mode, partial(page, self))  # pyright: ignore[reportUnknownMemberType] - of any screen
        self.watch(self, "theme", partial(self.remember, "theme"), init=False)
        self.theme_changed_signal.subscribe(self, lambda _: self.show_page())
        self.set_timer(OPENING_S, self._take_longer)
        if self.choices.trouble:
            self.say(self.choices.trouble, wrong=True)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        return commands.all_of(self, screen)

    action_command_palette = commands.open_palette  # pyright: ignore[reportAssignmentType] - of any app

    # Colours

    def _theme_of(self, wanted: str) -> str:
        for one in themes.THEMES:
            self.register_theme(one)
        if os.environ.get("NO_COLOR") is not None:
            # Those that leave all colours to the terminal would be black on black.
            for name in [name for name, one in self.available_themes.items() if one.ansi]:
                self.unregister_theme(name)
        known = self.available_themes
        themes.check(wanted, known)
        last = self.choices.get("theme", known, themes.AUTO)
        few = self.console.color_system == "standard"
        return themes.chosen(wanted or last, known, few=few)

    def get_css_variables(self) -> dict[str, str]:
        """Textual asks before it is known which theme it will be, and mixes a hundred colours for another."""
        return super().get_css_variables() if self._has_begun else {}

    def _begin_with(self, theme: str) -> None:
        """Set as it is later, all styles would be parsed four times over before the first picture."""
        self._has_begun = True
        if self.available_themes[theme].dark:
            self.set_reactive(Dashboard.theme, theme)
        else:
            self.theme = theme  # Textual's filter for the terminal's own colours has to follow
        self.stylesheet.set_variables(self.get_css_variables())

    def remember(self, name: str, word: str) -> None:
        """For the next time. That it cannot be kept is said once."""
        if self.choices.put(name, word):
            self._keep_choices()

    @work(group="choices")
    async def _keep_choices(self) -> None:
        try:
            await asyncio.to_thread(self.choices.save)
        except OSError as error:
            if not self.choices.trouble:
                self.choices.trouble = f"what you choose is not kept for the next time: {error.strerror}"
                self.say(self.choices.trouble, wrong=True)

    # Looking

    def on_load(self) -> None:
        """Before anything is painted: the first picture has something on it. An empty one takes as long."""
        self._unpainted.enter_context(self.batch_update())
        self.keep_looking()

    @work(exclusive=True, group="look", exit_on_error=True)
    async def keep_looking(self) -> None:
        """Looks whenever somebody may have written, somebody asks, or a while has passed."""
        failures, looked_s = 0, 0.0
        while True:
            self._again, again = asyncio.Event(), self._again
            began_s = time.monotonic()
            try:
                # What changed before there was trouble is no change any more, and was not shown.
                is_due = again.is_set() or failures > 0 or time.monotonic() - looked_s >= LOOK_ANYWAY_S
                if await self._reader.changed() or is_due:
                    wanted = self.range
                    snapshot = await self._reader.snapshot(wanted)
                    looked_s = time.monotonic()
                    self._found(Looked(snapshot, "", looked_s, "", wanted), is_asked=again.is_set())
                failures = 0
            except MeterError as error:
                failures += 1
                self._trouble(error)
            self._unpainted.close()
            # As often as it is to look, whatever a look takes; and half of the time for all else.
            pause_s = max(self.look_s - (time.monotonic() - began_s), self.look_s / 2)
            if failures:
                pause_s = pause_after(failures)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._again.wait(), pause_s)

    def _take_longer(self) -> None:
        self._unpainted.close()
        self.show_page()

    def _found(self, looked: Looked, *, is_asked: bool = False) -> None:
        """While it is paused, only what somebody asked for is shown; all else waits."""
        if self.paused and not is_asked and self.looked.snapshot is not None:
            self.waiting = looked
            self.looked = self.looked.replace(trouble="", at_s=looked.at_s, code="")
            self._show()
            return
        self.looked, self.waiting = looked, None
        self.show_page()

    @property
    def page(self) -> Page | None:
        """The page on top, be it behind a dialog."""
        found = [screen for screen in self.screen_stack if isinstance(screen, Page)]
        return found[-1] if self.is_running and found and found[-1].is_mounted else None

    def show_page(self) -> None:
        """What was found, on the page on top."""
        self._show()
        if self.page is not None:
            self.look_for_page(self.page)

    def _show(self) -> None:
        if self.page is not None:
            with suppress(NoMatches):  # it is being left, and has no widgets any more
                self.page.show(self.looked)

    def look_for_page(self, page: Page) -> None:
        """Reads what only that screen shows; a look that has begun is not given up for the next one."""
        self._page_news.set()
        if page is not self._page_looked_for:
            self._page_looked_for = page
            self._keep_looking_for(page)

    @work(exclusive=True, group="page")
    async def _keep_looking_for(self, page: Page) -> None:
        """Until another page is on top: whenever there is news, and again after trouble."""
        failures = 0
        while True:
            self._page_news = asyncio.Event()
            try:
                with suppress(NoMatches):  # it was left meanwhile
                    await page.look(self._reader, self.range)
                trouble, failures = "", 0
            except MeterError as error:
                trouble, failures = shown(str(error)), failures + 1
            except asyncio.CancelledError as error:
                error.__traceback__ = None  # the worker keeps it, and it would keep all that was read
                raise
            if page is self.page and page.trouble != trouble:
                page.trouble = trouble
                page.show(self.looked)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._page_news.wait(), pause_after(failures) if failures else None)

    def _trouble(self, error: MeterError) -> None:
        self.looked = self.looked.replace(trouble=shown(str(error)), code=error.code)
        self._show()

    def action_look(self) -> None:
        self._again.set()

    def action_pause(self) -> None:
        self.paused = not self.paused
        trouble, code = self.looked.trouble, self.looked.code
        self._found((self.waiting or self.looked).replace(trouble=trouble, code=code), is_asked=True)

    def action_range(self, step: int) -> None:
        self.take_range(RANGES[(RANGES.index(self.range) + step) % len(RANGES)])

    def take_range(self, wanted: Range) -> None:
        self.range = wanted
        self.remember("range", wanted.name)
        self._show()
        self._again.set()

    def action_undo(self) -> None:
        self.acting.undo_last()

    def open_agent(self, agent_id: str) -> None:
        self.push_screen(pages.agent(self, agent_id))

    def pop_screen(self) -> AwaitComplete:
        """Never the last: two clicks beside Textual's palette in one moment close it twice."""
        return super().pop_screen() if len(self.screen_stack) > 1 else AwaitComplete.nothing()

    # Telling

    def say(self, text: str, *, wrong: bool = False) -> None:
        """A notice that goes away by itself. What agents chose in it is shown as it is."""
        self.notify(shown(text), severity="error" if wrong else "information", markup=False)

    # Taking along

    @cached_property
    def taking(self) -> Taking:
        from .taking import Taking

        return Taking(self, self._export_to)

    def action_copy_or_quit(self) -> None:
        if not self.taking.copy_selected():
            self.exit()

    def action_copy(self) -> None:
        self.taking.copy_id()

    def action_copy_row(self) -> None:
        self.taking.copy_row()

    def action_export_table(self) -> None:
        self.taking.save_table()

    def action_export_picture(self) -> None:
        self.taking.save_picture()

    # Ending

    def _handle_exception(self, error: Exception) -> None:
        self.failure = self.failure or error
        super()._handle_exception(error)

    def _fatal_error(self) -> None:
        """Whoever runs it says what has failed, in a sentence: Textual would show all our variables."""
        self._close_messages_no_wait()
