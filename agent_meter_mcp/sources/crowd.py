"""Of thousands of agents, those that have changed: what is kept from look to look, and what is read anew.

Where nothing has changed the very same objects are kept, and passed over without a step of Python.
"""

from __future__ import annotations

from itertools import compress
from operator import not_
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agent_meter_mcp.core.models import StoredEvent
    from agent_meter_mcp.core.queries import AgentView, Group, Totals


class Used:
    """What each agent has used in the range that is shown."""

    def __init__(self) -> None:
        self.totals: dict[str, Totals] = {}
        self._groups: Sequence[Group] = ()

    def take(self, groups: Sequence[Group]) -> set[str]:
        """The groups by agent, as they are now. Answers who has another total than before."""
        known = set(map(id, self._groups))
        is_new = map(not_, map(known.__contains__, map(id, groups)))
        before, self._groups = self.totals, groups
        changed = {
            agent: group.totals
            for group in compress(groups, is_new)
            if before.get(agent := _agent_of(group)) != group.totals
        }
        self.totals = before | changed
        if len(self.totals) == len(groups):
            return set(changed)
        self.totals = {_agent_of(group): group.totals for group in groups}
        return changed.keys() | (before.keys() - self.totals.keys())


def _agent_of(group: Group) -> str:
    return str(group.key[0])


class Crowd:
    """The agents as they were last read, in the order of their ids.

    Those that something new is known of are read at each look, with whoever shares a budget with them; of the
    others so many in turn, because time passes for them too.
    """

    def __init__(self) -> None:
        self.views: tuple[AgentView, ...] = ()
        self.rules: object = None
        """What they were read under: with other rules, all are read anew."""
        self.turn: str | None = None
        """Whose turn was last."""
        self._places: dict[str, int] = {}
        self._newest = 0

    def named_by(self, events: Sequence[StoredEvent], changed: Iterable[str]) -> set[str]:
        """Whom those of the events name that are new, who else has changed, and whose budgets they share."""
        named = {event.event.who.agent for event in events if event.seq > self._newest}
        self._newest = max((event.seq for event in events), default=0)
        named.update(changed)
        for agent in list(named):
            parent = self._parent_of(agent)
            while parent is not None and parent not in named:
                named.add(parent)
                parent = self._parent_of(parent)
        return named

    def _parent_of(self, agent: str) -> str | None:
        place = self._places.get(agent)
        return None if place is None else self.views[place].agent.parent

    def take_all(self, views: Sequence[AgentView], rules: object) -> None:
        self.rules, self.turn = rules, None
        self.views = tuple(views)
        self._places = {view.agent.agent_id: place for place, view in enumerate(views)}

    def take(self, views: Iterable[AgentView]) -> None:
        """These as they are now; all others stay as they were."""
        kept = list(self.views)
        new: list[AgentView] = []
        for view in views:
            place = self._places.get(view.agent.agent_id)
            if place is None:
                new.append(view)
            else:
                kept[place] = view
        if new:
            self.take_all(sorted([*kept, *new], key=lambda view: view.agent.agent_id), self.rules)
        else:
            self.views = tuple(kept)
