"""What is done about one agent, and what it holds; and finding one by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_meter_mcp.core.errors import NotFound
from agent_meter_mcp.core.models import Agent
from agent_meter_mcp.core.text import shown

from . import undo
from .agent_dialog import AgentDialog
from .choose import Choose
from .dialogs import Confirm
from .format import age, until
from .roster import word_of
from .table import Column
from .view import Cell, Row, amounts_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_meter_mcp.core.models import Reservation

    from .acting import Acting

_AGENTS = (Column("Agent", 0), Column("State", 9), Column("Tier", 16, drop=1), Column("Owner", 16, drop=2))
_SERVICES = (Column("Service", 0), Column("", 9))
_HOLDS = (
    Column("For", 0),
    Column("Holds", 36),
    Column("Since", 8, right=True),
    Column("Ends in", 12, right=True),
)


class WhoActs:
    def __init__(self, acting: Acting) -> None:
        self._acting = acting

    def edit(self, agent_id: str) -> None:
        """Its name, tier, owner and parent."""
        self._acting.start(lambda: self._edit(agent_id))

    def holds(self, agent_id: str) -> None:
        """What it holds: one of them to release."""
        self._acting.start(lambda: self._holds(agent_id))

    def choose_to_edit(self) -> None:
        self._choose_agent("Change which agent?", self.edit)

    def choose_limits(self) -> None:
        self._choose_agent("Limits of which agent?", self._acting.limits.of_agent)

    def choose_holds(self) -> None:
        self._choose_agent("Release what which agent holds?", self.holds)

    def switch_agent(self) -> None:
        self._choose_agent(
            "Stop or resume which agent?", lambda agent: self._acting.stop_or_resume("agent", agent)
        )

    def switch_service(self) -> None:
        async def choose() -> None:
            switches = self._acting.known.switches
            stopped = {switch.name for switch in switches if switch.kind == "service"}
            names = sorted({*(await self.used())["service"], *(name for name in stopped if name)})
            rows = [
                Row(name, (Cell(shown(name)), Cell("■ STOPPED", "held") if name in stopped else Cell("")))
                for name in names
            ]
            question = Choose("Stop or resume which service?", _SERVICES, rows)
            chosen = await self._acting.answer(question)
            if chosen is not None:
                self._acting.stop_or_resume("service", chosen)

        self._acting.start(choose)

    def _choose_agent(self, title: str, act: Callable[[str], None]) -> None:
        async def choose() -> None:
            rows = [
                Row(
                    one.agent.agent_id,
                    (
                        Cell(shown(one.agent.agent_id)),
                        Cell(word_of(one)),
                        Cell(shown(one.agent.tier or "")),
                        Cell(shown(one.agent.owner or "")),
                    ),
                )
                for one in self._acting.known.agents
            ]
            chosen = await self._acting.answer(Choose(title, _AGENTS, rows))
            if chosen is not None:
                act(chosen)

        self._acting.start(choose)

    def seen(self) -> dict[str, list[str]]:
        """Agents, tiers and owners as of the last look, for completion."""
        agents = [one.agent for one in self._acting.known.agents]
        found = {
            "agent": {agent.agent_id for agent in agents},
            "tier": {agent.tier for agent in agents},
            "owner": {agent.owner for agent in agents},
        }
        return {kind: sorted(name for name in names if name) for kind, names in found.items()}

    async def used(self) -> dict[str, list[str]]:
        """Services, projects and sessions that usage names. Raises MeterError."""
        found: dict[str, list[str]] = {}
        for kind in ("service", "project", "session"):
            groups = (await self._acting.reader.usage("total", kind)).groups
            found[kind] = sorted(str(group.key[0]) for group in groups if group.key[0] is not None)
        return found

    def _agent(self, agent_id: str) -> Agent:
        """As it was at the last look. Raises NotFound."""
        for one in self._acting.known.agents:
            if one.agent.agent_id == agent_id:
                return one.agent
        raise NotFound(f"no agent of the name {shown(agent_id)} has been seen yet")

    async def _edit(self, agent_id: str) -> None:
        agent = self._agent(agent_id)
        changes = await self._acting.answer(AgentDialog(agent, self.seen()))
        if changes is None:
            return
        name = shown(agent_id)
        if self._agent(agent_id) != agent:
            raise undo.changed_meanwhile(name)
        if not changes:
            self._acting.dashboard.say(f"{name} is so already: nothing was changed")
            return
        words = ", ".join(f"{field} {shown(value) if value else 'none'}" for field, value in changes.items())
        before = {field: getattr(agent, field) for field in changes}
        await self._acting.do(
            f"{name}: {words}",
            lambda operator: operator.set_agent(agent_id, changes),
            undo.agent_again(agent_id, before),
        )

    # Reservations

    async def _holds(self, agent_id: str) -> None:
        dashboard, now_us = self._acting.dashboard, self._acting.reader.now_us()
        detail = await self._acting.reader.detail(agent_id, dashboard.range)
        held = {one.reservation_id: one for one in detail.held}
        if not held:
            dashboard.say(f"{shown(agent_id)} holds no reservation")
            return
        rows = [_hold_row(one, now_us) for one in detail.held]
        title = f"Release which reservation of {shown(agent_id, width=40)}?"
        chosen = await self._acting.answer(Choose(title, _HOLDS, rows))
        if chosen is None:
            return
        words = (
            f"Release {amounts_of(held[chosen])} that {shown(agent_id)} holds for {_purpose(held[chosen])}?"
            " Nothing was used of it, that says; it cannot be undone. If the agent is still at it, what it"
            " settles later counts all the same."
        )
        if await self._acting.answer(Confirm(words, "Release", grave=True)) is not None:
            await self._acting.do(
                f"{amounts_of(held[chosen])} of {shown(agent_id)} are free again",
                lambda operator: operator.release(chosen),
                None,
            )


def _hold_row(held: Reservation, now_us: int) -> Row:
    return Row(
        held.reservation_id,
        (
            Cell(_purpose(held)),
            Cell(amounts_of(held)),
            Cell(age(max(now_us - held.reserved_at_us, 0))),
            Cell(until(held.expires_at_us, now_us)),
        ),
    )


def _purpose(held: Reservation) -> str:
    return shown(" ".join(part for part in (held.who.service, held.operation) if part))
