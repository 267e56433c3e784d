"""What a person does at the dashboard: asked first, and said to be done when the ledger has answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_meter_mcp.core.errors import MeterError
from agent_meter_mcp.core.text import shown

from .dialogs import Confirm

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agent_meter_mcp.core.models import SwitchKind
    from agent_meter_mcp.sources.base import Operator

    from .app import Dashboard

EVERYTHING = "stop everything"
REASON = "stopped at the dashboard"


class Acting:
    """`operator` None: the dashboard only shows, and says so when somebody tries."""

    def __init__(self, dashboard: Dashboard, operator: Operator | None) -> None:
        self._dashboard = dashboard
        self._operator = operator

    @property
    def is_allowed(self) -> bool:
        return self._operator is not None

    def may_act(self) -> bool:
        """Says why not."""
        if self._operator is None:
            self._dashboard.say(
                "this dashboard only shows: to change anything takes the role operator", wrong=True
            )
        return self._operator is not None

    def stop_or_resume(self, kind: SwitchKind, name: str) -> None:
        """An agent (with its tree) or a service: stopped, or let go on when a switch of its own stops it."""
        if not self.may_act():
            return
        what = shown(name) if kind == "agent" else f"{kind} {shown(name)}"
        if self._is_stopped(kind, name):
            self.ask(
                Confirm(f"Let {what} go on? It is stopped now.", "Resume"),
                f"{what} goes on",
                lambda operator, _: operator.resume(kind, name),
            )
            return
        question = (
            f"Stop {what}, and all agents that it spawned? They are refused until you let them go on."
            if kind == "agent"
            else f"Stop {what}? Every agent is refused there until you let it go on."
        )
        self.ask(
            Confirm(question, "Stop", reason=REASON),
            f"{what} is stopped",
            lambda operator, reason: operator.stop(kind, name, reason),
        )

    def stop_everything(self) -> None:
        if self.may_act():
            question = "Stop everything? Every agent is refused, at every service, until you let them go on."
            self.ask(
                Confirm(question, "Stop everything", reason=REASON, must_type=EVERYTHING),
                "everything is stopped",
                lambda operator, reason: operator.stop("everything", None, reason),
            )

    def resume_everything(self) -> None:
        if self.may_act():
            question = (
                "Release the switch that stops everything? Agents that were stopped one by one stay so."
            )
            self.ask(
                Confirm(question, "Resume"),
                "everything goes on",
                lambda operator, _: operator.resume("everything", None),
            )

    def ask(self, question: Confirm, done: str, act: Callable[[Operator, str], Awaitable[object]]) -> None:
        """After a yes, `act` gets the reason that was typed; `done` is said when it has returned."""
        self._dashboard.run_worker(self._ask(question, done, act), exit_on_error=True)

    async def _ask(
        self, question: Confirm, done: str, act: Callable[[Operator, str], Awaitable[object]]
    ) -> None:
        reason = await self._dashboard.push_screen_wait(question)
        if reason is not None:
            await self.do(done, lambda operator: act(operator, reason))

    async def do(self, done: str, act: Callable[[Operator], Awaitable[object]]) -> bool:
        """Without asking: `act` was confirmed already. Whether it was done; what went wrong was said."""
        if self._operator is None:
            return False
        try:
            await act(self._operator)
        except MeterError as error:
            self._dashboard.say(str(error), wrong=True)
            return False
        self._dashboard.say(done)
        self._dashboard.action_look()
        return True

    def _is_stopped(self, kind: SwitchKind, name: str) -> bool:
        """Whether a switch of its own stops it."""
        snapshot = self._dashboard.looked.snapshot
        switches = () if snapshot is None else snapshot.switches
        return any((switch.kind, switch.name) == (kind, name) for switch in switches)
