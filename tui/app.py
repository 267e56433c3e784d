"""The dashboard: it looks at a ledger again and again, shows what it finds, and does what it is told.

Looking is a worker of its own; screens only show. An action is shown as done after the ledger has said so.
"""

from __future__ import annotations

import time
from datetime import UTC
from typing import TYPE_CHECKING, Any, ClassVar

import anyio
from textual import work
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType

from agent_meter_mcp.core.errors import MeterError
from agent_meter_mcp.core.text import shown
from agent_meter_mcp.core.value import Value

from .agent import AgentScreen
from .dialogs import Confirm
from .overview import Overview
from .reader import RANGES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from datetime import tzinfo

    from textual.screen import Screen

    from .reader import Operator, Range, Reader, Snapshot
    from .view import Style

LOOK_S = 0.5
LOOK_ANYWAY_S = 10.0
"""Ages and windows move on even when nobody writes."""
PAUSES_S = (1.0, 2.0, 5.0)
"""How long it waits after trouble, each time a little longer."""
WIDE = 100
"""From so many cells on, the tables stand side by side."""
EVERYTHING = "stop everything"
REASON = "stopped at the dashboard"


class Looked(Value):
    """What the last look found. With trouble, the snapshot is that of the last look without."""

    snapshot: Snapshot | None = None
    trouble: str = ""
    at_s: float = 0.0


class Dashboard(App[None]):
    """`operator` None: it only shows."""

    TITLE = "agent-meter"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+q", "quit", "Quit", show=False, priority=True)]

    def __init__(
        self, reader: Reader, operator: Operator | None, *, zone: tzinfo = UTC, look_s: float = LOOK_S
    ) -> None:
        super().__init__()
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]
        self._reader = reader
        self._operator = operator
        self._look_s = look_s
        self._again = anyio.Event()
        self.zone = zone
        self.range: Range = RANGES[1]
        self.paused = False
        self.looked = Looked()

    @property
    def where(self) -> str:
        return shown(self._reader.where, width=60)

    @property
    def state(self) -> tuple[str, Style]:
        """The state of the connection, in a word."""
        if self.looked.trouble:
            age_s = int(time.monotonic() - self.looked.at_s)
            return ("NO DATA", "alarm") if self.looked.snapshot is None else (f"STALE {age_s} s", "alarm")
        if self.looked.snapshot is None:
            return "opening", "dim"
        return ("PAUSED", "warn") if self.paused else ("● LIVE", "good")

    def on_mount(self) -> None:
        self.push_screen(Overview(self))
        self.keep_looking()

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        yield from super().get_system_commands(screen)  # pyright: ignore[reportUnknownMemberType] - of any screen
        if self._operator is not None:
            yield SystemCommand(
                "Stop everything", "Refuse all new work, everywhere", self.action_stop_everything
            )
            yield SystemCommand(
                "Resume everything", "Let all go on that were stopped so", self.resume_everything
            )

    # Looking

    @work(exclusive=True, group="look", exit_on_error=True)
    async def keep_looking(self) -> None:
        """Looks whenever somebody may have written, somebody asks, or a while has passed."""
        failures, looked_s = 0, 0.0
        while True:
            self._again, again = anyio.Event(), self._again
            try:
                is_due = again.is_set() or time.monotonic() - looked_s >= LOOK_ANYWAY_S
                if (await self._reader.changed() or is_due) and not self.paused:
                    snapshot = await self._reader.snapshot(self.range)
                    looked_s = time.monotonic()
                    self._found(Looked(snapshot, "", looked_s))
                failures = 0
            except MeterError as error:
                failures += 1
                self._found(self.looked.replace(trouble=shown(str(error))))
            pause_s = PAUSES_S[min(failures, len(PAUSES_S)) - 1] if failures else self._look_s
            with anyio.move_on_after(pause_s):
                await self._again.wait()

    def _found(self, looked: Looked) -> None:
        self.looked = looked
        for screen in self.screen_stack:
            if isinstance(screen, Overview) and screen.is_mounted:
                screen.show(looked)
        if isinstance(self.screen, AgentScreen):
            self.look_at_agent()

    @work(exclusive=True, group="agent")
    async def look_at_agent(self) -> None:
        """Reads what the open agent's screen shows."""
        screen = self.screen
        if isinstance(screen, AgentScreen):
            try:
                detail = await self._reader.detail(screen.agent_id, self.range)
            except MeterError as error:
                self.say(str(error), wrong=True)
                return
            if screen.is_mounted:
                screen.show(detail, time.time_ns() // 1000)

    def action_look(self) -> None:
        self._again.set()

    def action_pause(self) -> None:
        self.paused = not self.paused
        self._again.set()
        self._found(self.looked)

    def action_range(self, step: int) -> None:
        self.range = RANGES[(RANGES.index(self.range) + step) % len(RANGES)]
        self._again.set()

    def open_agent(self, agent_id: str) -> None:
        self.push_screen(AgentScreen(self, agent_id))

    # Acting

    def say(self, text: str, *, wrong: bool = False) -> None:
        """A notice that goes away by itself. What agents chose in it is shown as it is."""
        self.notify(shown(text), severity="error" if wrong else "information", markup=False)

    def action_stop_or_resume(self) -> None:
        """Asks, and then stops the agent in question, or lets it go on."""
        screen = self.screen
        agent = screen.agent_id if isinstance(screen, AgentScreen) else None
        if isinstance(screen, Overview):
            agent = screen.chosen
        if agent is None or not self._may_act():
            return
        name = shown(agent)
        if self._is_stopped(agent):
            question = f"Let {name} go on? It is stopped now."
            self._ask(
                Confirm(question, "Resume"), f"{name} goes on", lambda operator, _: operator.resume(agent)
            )
        else:
            question = (
                f"Stop {name}, and all agents that it spawned? They are refused until you let them go on."
            )
            self._ask(
                Confirm(question, "Stop", reason=REASON),
                f"{name} is stopped",
                lambda operator, reason: operator.stop(agent, reason),
            )

    def action_stop_everything(self) -> None:
        if self._may_act():
            question = "Stop everything? Every agent is refused, at every service, until you let them go on."
            self._ask(
                Confirm(question, "Stop everything", reason=REASON, must_type=EVERYTHING),
                "everything is stopped",
                lambda operator, reason: operator.stop_everything(reason),
            )

    def resume_everything(self) -> None:
        if self._may_act():
            question = (
                "Release the switch that stops everything? Agents that were stopped one by one stay so."
            )
            self._ask(
                Confirm(question, "Resume"),
                "everything goes on",
                lambda operator, _: operator.resume_everything(),
            )

    def _may_act(self) -> bool:
        if self._operator is None:
            self.say("this dashboard only shows: stopping needs the role operator", wrong=True)
        return self._operator is not None

    def _is_stopped(self, agent: str) -> bool:
        """Whether a switch of its own stops it."""
        switches = () if self.looked.snapshot is None else self.looked.snapshot.switches
        return any((switch.kind, switch.name) == ("agent", agent) for switch in switches)

    @work
    async def _ask(
        self, question: Confirm, done: str, act: Callable[[Operator, str], Awaitable[None]]
    ) -> None:
        reason = await self.push_screen_wait(question)
        if reason is None or self._operator is None:
            return
        try:
            await act(self._operator, reason)
        except MeterError as error:
            self.say(str(error), wrong=True)
        else:
            self.say(done)
            self._again.set()
