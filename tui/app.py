"""The dashboard: it looks at a ledger again and again, shows what it finds, and does what it is told.

Looking is a worker of its own; screens only show. An action is shown as done after the ledger has said so.
"""

from __future__ import annotations

import random
import time
from contextlib import suppress
from datetime import UTC
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import anyio
from textual import work
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.css.query import NoMatches

from agent_meter_mcp.core.errors import MeterError
from agent_meter_mcp.core.text import shown
from agent_meter_mcp.core.value import Value
from agent_meter_mcp.sources.base import EVENTS_SHOWN, RANGES

from .acting import Acting
from .agent import AgentScreen
from .audit import AuditPage
from .happening import newer_than
from .limits import LimitsPage
from .overview import Overview
from .page import Page
from .services import ServicesPage
from .sessions import SessionsPage

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import tzinfo

    from textual.screen import Screen

    from agent_meter_mcp.sources.base import Operator, Range, Reader, Snapshot

    from .view import Style

LOOK_S = 0.5
LOOK_ANYWAY_S = 10.0
"""Ages and windows move on even when nobody writes."""
PAUSES_S = (0.5, 1.0, 2.0, 5.0)
"""How long it waits after trouble, each time a little longer, and a little differently."""
REFUSALS = {"unauthorized": "KEY REFUSED", "forbidden": "NOT ALLOWED"}
"""Trouble that no waiting will end."""
WIDE = 100
"""From so many cells on, the tables stand side by side."""
PAGES: tuple[type[Page], ...] = (Overview, LimitsPage, ServicesPage, SessionsPage, AuditPage)


class Looked(Value):
    """What the last look found. With trouble, which `code` names, the snapshot is that of the last look
    without."""

    snapshot: Snapshot | None = None
    trouble: str = ""
    at_s: float = 0.0
    code: str = ""


class Dashboard(App[None]):
    """`operator` None: it only shows."""

    TITLE = "agent-meter"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+q", "quit", "Quit", show=False, priority=True),
        Binding("u", "undo", "Undo", show=False, tooltip="undo the last action; asks first"),
        *(
            Binding(str(number), f"switch_mode('{page.MODE}')", page.MODE.capitalize(), show=False)
            for number, page in enumerate(PAGES, 1)
        ),
    ]

    def __init__(
        self, reader: Reader, operator: Operator | None, *, zone: tzinfo = UTC, look_s: float = LOOK_S
    ) -> None:
        super().__init__()
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]
        self._reader = reader
        self.acting = Acting(self, reader, operator)
        self.look_s = look_s
        self._again = anyio.Event()
        self.zone = zone
        self.range: Range = RANGES[1]
        self.paused = False
        self.looked = Looked()
        self.waiting: Looked | None = None
        """What was found while it is paused."""

    @property
    def tabs(self) -> tuple[str, ...]:
        return tuple(page.MODE for page in PAGES)

    @property
    def where(self) -> str:
        return shown(self._reader.where, width=60)

    @property
    def state(self) -> tuple[str, Style]:
        """The state of the connection, in a word."""
        if self.looked.trouble:
            if self.looked.code in REFUSALS:
                return REFUSALS[self.looked.code], "alarm"
            age_s = int(time.monotonic() - self.looked.at_s)
            return ("NO DATA", "alarm") if self.looked.snapshot is None else (f"STALE {age_s} s", "alarm")
        if self.looked.snapshot is None:
            return "opening", "dim"
        return (f"PAUSED{self._waits()}", "warn") if self.paused else ("● LIVE", "good")

    def _waits(self) -> str:
        shown, waiting = self.looked.snapshot, self.waiting and self.waiting.snapshot
        if shown is None or waiting is None:
            return ""
        count = newer_than(waiting, shown.events[0].seq if shown.events else 0)
        return f" · {count}{'+' if count >= EVENTS_SHOWN else ''} waiting"

    def on_mount(self) -> None:
        for page in PAGES:
            self.add_mode(page.MODE, partial(page, self))  # pyright: ignore[reportUnknownMemberType] - of any screen
        self.switch_mode(self.tabs[0])
        self.keep_looking()

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        yield from super().get_system_commands(screen)  # pyright: ignore[reportUnknownMemberType] - of any screen
        yield from self.acting.commands()

    # Looking

    @work(exclusive=True, group="look", exit_on_error=True)
    async def keep_looking(self) -> None:
        """Looks whenever somebody may have written, somebody asks, or a while has passed."""
        failures, looked_s = 0, 0.0
        while True:
            self._again, again = anyio.Event(), self._again
            try:
                is_due = again.is_set() or time.monotonic() - looked_s >= LOOK_ANYWAY_S
                if await self._reader.changed() or is_due:
                    snapshot = await self._reader.snapshot(self.range)
                    looked_s = time.monotonic()
                    self._found(Looked(snapshot, "", looked_s), is_asked=again.is_set())
                failures = 0
            except MeterError as error:
                failures += 1
                self._trouble(error)
            pause_s = self.look_s
            if failures:
                pause_s = PAUSES_S[min(failures, len(PAUSES_S)) - 1] * random.uniform(1, 1.25)
            with anyio.move_on_after(pause_s):
                await self._again.wait()

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
        pages = [screen for screen in self.screen_stack if isinstance(screen, Page) and screen.is_mounted]
        return pages[-1] if pages else None

    def show_page(self) -> None:
        """What was found, on the page on top."""
        self._show()
        if self.page is not None:
            self.look_for_page(self.page)

    def _show(self) -> None:
        if self.page is not None:
            with suppress(NoMatches):  # it is being left, and has no widgets any more
                self.page.show(self.looked)

    @work(exclusive=True, group="page")
    async def look_for_page(self, page: Page) -> None:
        """Reads what only that screen shows."""
        try:
            with suppress(NoMatches):  # it was left meanwhile
                await page.look(self._reader, self.range)
        except MeterError as error:
            self._trouble(error)

    def _trouble(self, error: MeterError) -> None:
        self.looked = self.looked.replace(trouble=shown(str(error)), code=error.code)
        self._show()

    def action_look(self) -> None:
        self._again.set()

    def action_pause(self) -> None:
        self.paused = not self.paused
        self._found(self.waiting or self.looked, is_asked=True)

    def action_range(self, step: int) -> None:
        self.range = RANGES[(RANGES.index(self.range) + step) % len(RANGES)]
        self._again.set()

    def action_undo(self) -> None:
        self.acting.undo_last()

    def open_agent(self, agent_id: str) -> None:
        self.push_screen(AgentScreen(self, agent_id))

    # Telling

    def say(self, text: str, *, wrong: bool = False) -> None:
        """A notice that goes away by itself. What agents chose in it is shown as it is."""
        self.notify(shown(text), severity="error" if wrong else "information", markup=False)
