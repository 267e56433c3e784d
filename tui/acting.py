"""What a person does at the dashboard: asked first, and said to be done when the ledger has answered."""

from __future__ import annotations

from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING

from textual.app import SystemCommand

from agent_meter_mcp.core.errors import Conflict, MeterError
from agent_meter_mcp.core.text import shown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable
    from typing import Any

    from textual.screen import Screen

    from agent_meter_mcp.core.models import KillSwitch, SwitchKind
    from agent_meter_mcp.sources.base import Operator, Reader, Snapshot

    from .app import Dashboard
    from .dialogs import Answer, Confirm, Dialog
    from .limit_acts import LimitActs
    from .undo import Undo
    from .who_acts import WhoActs

    Act = Callable[[Operator], Awaitable[object]]

EVERYTHING = "stop everything"
REASON = "stopped at the dashboard"
NAMED = 3
"""How many of the switches are named that stop something all the same."""
_BEGAN_ON: ContextVar[Screen[Any]] = ContextVar("began_on")
"""The screen from which the action was begun."""
ONLY_SHOWS = (
    "this dashboard only shows: to act, start it without --read-only, in a browser with --allow-actions"
)


class Acting:
    """`operator` None: the dashboard only shows, and says so when somebody tries.

    `limits` is what is done about limits, `who` about agents and what they hold.
    """

    def __init__(self, dashboard: Dashboard, reader: Reader, operator: Operator | None) -> None:
        self.dashboard = dashboard
        self.reader = reader
        self._operator = operator
        self._undo: Undo | None = None

    # Whoever only looks needs none of the dialogs, and nothing that puts anything back.

    @cached_property
    def limits(self) -> LimitActs:
        from .limit_acts import LimitActs

        return LimitActs(self)

    @cached_property
    def who(self) -> WhoActs:
        from .who_acts import WhoActs

        return WhoActs(self)

    def commands(self) -> Iterable[SystemCommand]:
        """Everything that can be done without a row under the cursor, for the command palette."""
        yield SystemCommand("Stop everything", "Refuse all new work, everywhere", self.stop_everything)
        yield SystemCommand("Resume everything", "Let all go on that were stopped so", self.resume_everything)
        yield SystemCommand("Stop or resume an agent", "With all that it spawned", self.who.switch_agent)
        yield SystemCommand("Stop or resume a service", "For every agent", self.who.switch_service)
        yield SystemCommand("New limit", "For everyone, each agent, a tier, ...", self.limits.new)
        yield SystemCommand("Change a limit", "What it allows, and what it does", self.limits.choose_to_edit)
        yield SystemCommand(
            "Raise a limit", "By 10 %, by 50 %, or to a new maximum", self.limits.choose_to_raise
        )
        yield SystemCommand(
            "Remove a limit", "Whom it bound may go on without it", self.limits.choose_to_remove
        )
        yield SystemCommand("Limits of an agent", "What binds it, tightest first", self.who.choose_limits)
        yield SystemCommand("Change an agent", "Its name, tier, owner and parent", self.who.choose_to_edit)
        yield SystemCommand("Release a reservation", "What an agent holds, given back", self.who.choose_holds)
        yield SystemCommand("Undo the last action", "Put back what was before", self.undo_last)

    @property
    def refusal(self) -> str:
        """Why nothing can be changed from here; "" where it can."""
        return ONLY_SHOWS if self._operator is None else self._operator.refusal

    @property
    def known(self) -> Snapshot:
        """What is acted on: that of the last look, also while the screen is paused."""
        return (self.dashboard.waiting or self.dashboard.looked).known

    def may_act(self) -> bool:
        """Says why not."""
        if self.refusal:
            self.dashboard.say(self.refusal, wrong=True)
        return not self.refusal

    # Switches

    def stop_or_resume(self, kind: SwitchKind, name: str) -> None:
        """An agent (with its tree) or a service: stopped, or let go on when a switch of its own stops it."""
        what = shown(name) if kind == "agent" else f"{kind} {shown(name)}"
        switch = self._switch(kind, name)
        if switch is not None:
            question = _confirm(f"Let {what} go on? It is stopped now ({shown(switch.reason)}).", "Resume")
            self._resume(question, f"{what} goes on", switch)
            return
        words = (
            f"Stop {what}, and all agents that it spawned? They are refused until you let them go on."
            if kind == "agent"
            else f"Stop {what}? Every agent is refused there until you let it go on."
        )
        self._stop(_confirm(words, "Stop", reason=REASON), f"{what} is stopped", kind, name)

    def stop_everything(self) -> None:
        words = "Stop everything? Every agent is refused, at every service, until you let them go on."
        question = _confirm(words, "Stop everything", reason=REASON, must_type=EVERYTHING)
        self._stop(question, "everything is stopped", "everything", None)

    def resume_everything(self) -> None:
        switch = self._switch("everything", None)
        if switch is None:
            if self.may_act():
                self.dashboard.say("no switch stops everything")
            return
        words = "Release the switch that stops everything? Agents that were stopped one by one stay so."
        self._resume(_confirm(words, "Resume"), "everything goes on", switch)

    def _stop(self, question: Confirm, done: str, kind: SwitchKind, name: str | None) -> None:
        from .undo import resume_again

        async def stop() -> None:
            reason = await self.answer(question)
            if reason is not None:
                back = resume_again(kind, name)
                await self.do(done, lambda operator: operator.stop(kind, name, reason), back)

        self.start(stop)

    def _resume(self, question: Confirm, done: str, switch: KillSwitch) -> None:
        from .undo import stop_again

        kind, name = switch.kind, switch.name

        async def resume() -> None:
            if await self.answer(question) is not None:
                now = self._switch(kind, name)
                if now not in (None, switch):
                    raise Conflict(f"{now} was stopped anew by somebody else meanwhile, so nothing was done")
                back, told = stop_again(kind, name, switch.reason), self._resumed(done, kind, name)
                await self.do(told, lambda operator: operator.resume(kind, name), back)

        self.start(resume)

    def _resumed(self, done: str, kind: SwitchKind, name: str | None) -> str:
        """`done`, and what stops it, or some of it, all the same when its own switch is released."""
        from agent_meter_mcp.core.limits import Policy

        known = self.known
        others = [one for one in known.switches if (one.kind, one.name) != (kind, name)]
        if kind == "everything":
            named = ", ".join(shown(str(one), width=40) for one in others[:NAMED])
            more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
            return f"{done} except what has a switch of its own ({named}{more})" if others else done
        still = Policy((view.agent for view in known.agents), switches=others).still_stopped(kind, name)
        return done if still is None else f"{done} only when {shown(str(still))} does"

    def _switch(self, kind: SwitchKind, name: str | None) -> KillSwitch | None:
        """The switch of its own that stops it."""
        return next((one for one in self.known.switches if (one.kind, one.name) == (kind, name)), None)

    # Undoing

    def undo_last(self) -> None:
        """Asks whether what was before the last action shall come back."""
        back = self._undo
        if not self.may_act():
            return
        if back is None:
            self.dashboard.say("there is nothing to undo")
            return

        async def put_back() -> None:
            if await self.answer(_confirm(back.question, "Undo")) is not None:
                told = back.done if back.resumed is None else self._resumed(back.done, *back.resumed)
                await self.do(told, back.act, None, undone=back)

        self.start(put_back)

    # Doing. Whatever takes an answer is a worker, and begins here.

    def start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begins an action, if there may be any; what the ledger says against it is said."""
        if self.may_act():
            self.dashboard.run_worker(self._run(work, self.dashboard.screen), exit_on_error=True)

    async def _run(self, work: Callable[[], Coroutine[Any, Any, None]], began_on: Screen[Any]) -> None:
        _BEGAN_ON.set(began_on)
        try:
            await work()
        except MeterError as error:
            self.dashboard.say(str(error), wrong=True)

    async def answer(self, dialog: Dialog[Answer | None]) -> Answer | None:
        """None as well where something else is on top by now: what is typed there is not for this dialog."""
        if self.dashboard.screen is not _BEGAN_ON.get():
            return None
        return await self.dashboard.push_screen_wait(dialog)

    async def do(self, done: str, act: Act, back: Undo | None, *, undone: Undo | None = None) -> None:
        """Does what was confirmed; `back` is what undoes it, `undone` what it undoes itself.

        `act` answers False where there was nothing to do. Raises MeterError: then nothing was changed.
        """
        if self._operator is None:
            return
        is_first = await act(self._operator) is not False
        if not is_first:  # what somebody else did before is not ours to undo
            done, back = f"{done} already: nothing was changed", None
        # What ended while an undo was asked about is yet to be undone.
        if undone is self._undo or (undone is None and is_first):
            self._undo = back
        self.dashboard.say(done if back is None else f"{done}; u undoes it")
        self.dashboard.action_look()


def _confirm(words: str, yes: str, *, reason: str | None = None, must_type: str = "") -> Confirm:
    from .dialogs import Confirm

    return Confirm(words, yes, reason=reason, must_type=must_type)
