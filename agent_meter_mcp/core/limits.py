"""Which limits bind whom: matching, precedence, lineage.

- A limit without a subject (a pool) applies to everybody together. `"*"` and a tier count each agent by
  itself.
- A limit on one agent covers its whole tree, so every ancestor's limit applies to a child as well.
- Within one (service, metric, window), the most specific default is the one that binds an agent: its own
  limit, else its tier's, else `"*"`. Ancestors' limits and pools replace nothing and are never replaced.
- Projects and sessions are families of their own: a named one replaces `"*"`.
- Usage that states a parent links its agent to it, once; a question is answered as if it did.
- A limit without a service counts all services; one with a service counts that one alone. Both apply.
"""

from __future__ import annotations

from .errors import InvalidInput
from .models import EACH, TREE_DEPTH_MAX, Agent, KillSwitch, Limit, Who
from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .models import SwitchKind


class Bound(Value):
    """A limit that matches somebody, and which of its counters: `scope` is "" where the limit has only one.

    `replaced_by` is the more specific limit that stands in its place; None: it binds.
    """

    limit: Limit
    scope: str
    replaced_by: str | None = None


class Coverage(Value):
    """Which usage one counter of a limit counts; None in a field means any."""

    service: str | None = None
    agents: frozenset[str] | None = None
    project: str | None = None
    session: str | None = None

    def includes(self, who: Who) -> bool:
        return (
            (self.service is None or self.service == who.service)
            and (self.agents is None or who.agent in self.agents)
            and (self.project is None or self.project == who.project)
            and (self.session is None or self.session == who.session)
        )


class Policy:
    """The operator's configuration at one moment: agents, limits, kill switches. Never changed in place.

    `agents` need only hold those with a tier or a parent; any other agent is its own root. `limits` come
    in the order in which they were made, and are listed so.
    """

    def __init__(
        self, agents: Iterable[Agent] = (), limits: Iterable[Limit] = (), switches: Iterable[KillSwitch] = ()
    ) -> None:
        self.agents = {agent.agent_id: agent for agent in agents}
        self.limits = {limit.limit_id: limit for limit in limits}
        self.switches = tuple(switches)
        self._children: dict[str, list[str]] = {}
        for agent in self.agents.values():
            if agent.parent is not None:
                self._children.setdefault(agent.parent, []).append(agent.agent_id)

    def with_agent(self, agent: Agent) -> Policy:
        """The policy with this agent as it is now."""
        return self.with_agents([agent])

    def with_agents(self, agents: Iterable[Agent]) -> Policy:
        """The policy with these agents as they are now: among thousands, far less work than a new one."""
        made = Policy((), self.limits.values(), self.switches)
        made.agents = self.agents.copy()
        children = made._children = self._children.copy()
        for agent in agents:
            known = made.agents.get(agent.agent_id)
            made.agents[agent.agent_id] = agent
            before = None if known is None else known.parent
            if before == agent.parent:
                continue
            if before is not None:
                children[before] = [one for one in children[before] if one != agent.agent_id]
            if agent.parent is not None:
                children[agent.parent] = [*children.get(agent.parent, ()), agent.agent_id]
        return made

    def lineage(self, agent_id: str) -> tuple[str, ...]:
        """The agent, its parent, its parent's parent, up to the root: each once, also in a file in which
        somebody has made a cycle by hand."""
        chain = [agent_id]
        while (agent := self.agents.get(chain[-1])) is not None and agent.parent is not None:
            if agent.parent in chain:
                break
            chain.append(agent.parent)
        return tuple(chain)

    def tree(self, agent_id: str) -> frozenset[str]:
        """The agent and all that descend from it."""
        found, level = {agent_id}, [agent_id]
        while level:
            below = [child for member in level for child in self._children.get(member, ())]
            level = [child for child in below if child not in found]
            found.update(level)
        return frozenset(found)

    def is_about(self, agent_id: str) -> bool:
        """Whether an operator has given this agent a limit of its own, or has stopped it."""
        return any(switch.kind == "agent" and switch.name == agent_id for switch in self.switches) or any(
            limit.key.subject.kind == "agent" and limit.key.subject.name == agent_id
            for limit in self.limits.values()
        )

    def check_parent(self, agent_id: str, parent: str) -> None:
        """Raises InvalidInput when the link would make a cycle or a tree deeper than 8."""
        above = self.lineage(parent)
        if agent_id in above:
            raise InvalidInput("parent", f"{parent!r} descends from {agent_id!r}: that would be a cycle")
        if len(above) + self._height(agent_id) > TREE_DEPTH_MAX:
            raise InvalidInput("parent", f"the tree would be deeper than {TREE_DEPTH_MAX}")

    def linked(self, who: Who) -> Agent | None:
        """The agent with the parent that `who` states: the first word about it counts. None: nothing changes.

        Raises InvalidInput when it has another parent, or cannot have this one.
        """
        known = self.agents.get(who.agent)
        if who.parent is None or (known is not None and known.parent == who.parent):
            return None
        if known is not None and known.parent is not None:
            raise InvalidInput(
                "parent",
                f"agent {who.agent!r} is a child of {known.parent!r}, not of {who.parent!r}. Leave parent"
                " out; an operator can move the agent with set_agent.",
            )
        self.check_parent(who.agent, who.parent)
        return (known or Agent(who.agent)).replace(parent=who.parent)

    def with_stated_parent(self, who: Who) -> Policy:
        """As if the parent that is stated were linked; itself where nothing changes, or it cannot be."""
        try:
            linked = self.linked(who)
        except InvalidInput:
            return self
        return self if linked is None else self.with_agent(linked)

    def _height(self, agent_id: str) -> int:
        level, height = [agent_id], 0
        while level and height <= TREE_DEPTH_MAX:
            level = [child for member in level for child in self._children.get(member, ())]
            height += 1
        return height

    def matching(self, who: Who) -> tuple[Bound, ...]:
        """Every limit that matches, the replaced ones too, in the order of the policy."""
        lineage = self.lineage(who.agent)
        agent = self.agents.get(who.agent)
        tier = agent.tier if agent is not None else None
        found: list[tuple[Limit, str, str, int]] = []
        for limit in self.limits.values():
            if limit.key.service is None or limit.key.service == who.service:
                match = _match(limit, who, lineage, tier)
                if match is not None:
                    found.append((limit, *match))
        best: dict[tuple[object, ...], tuple[int, str]] = {}
        for limit, _, family, rank in found:
            group = (family, limit.key.service, limit.key.metric, limit.key.window)
            if family and (group not in best or rank < best[group][0]):
                best[group] = (rank, limit.limit_id)
        bound: list[Bound] = []
        for limit, scope, family, _ in found:
            winner = limit.limit_id
            if family:
                winner = best[family, limit.key.service, limit.key.metric, limit.key.window][1]
            bound.append(Bound(limit, scope, None if winner == limit.limit_id else winner))
        return tuple(bound)

    def binding(self, who: Who) -> tuple[Bound, ...]:
        """The limits that must hold for this usage."""
        return tuple(bound for bound in self.matching(who) if bound.replaced_by is None)

    def coverage(self, limit: Limit, scope: str) -> Coverage:
        """What the counter `scope` of `limit` counts."""
        kind, service, name = limit.key.subject.kind, limit.key.service, scope or limit.key.subject.name
        if kind == "pool":
            return Coverage(service)
        if kind == "project":
            return Coverage(service, project=name)
        if kind == "session":
            return Coverage(service, session=name)
        return Coverage(
            service, agents=frozenset((scope,)) if scope else self.tree(limit.key.subject.name or "")
        )

    def stopped_by(self, who: Who) -> KillSwitch | None:
        """The switch that stops this usage: the widest one, of several agents' the one engaged first."""
        if not self.switches:
            return None
        lineage = self.lineage(who.agent)
        hits = [
            switch
            for switch in self.switches
            if switch.kind == "everything"
            or (switch.kind == "service" and switch.name == who.service)
            or (switch.kind == "agent" and switch.name in lineage)
        ]
        order = ("everything", "service", "agent")
        return min(hits, key=lambda switch: (order.index(switch.kind), switch.engaged_at_us), default=None)

    def still_stopped(self, kind: SwitchKind, name: str | None) -> KillSwitch | None:
        """The switch that stops an agent or a service which has none of its own."""
        if name is None:
            return None
        return self.stopped_by(Who(name) if kind == "agent" else Who("", name))


def concerns(limit: Limit, service: str | None, project: str | None, session: str | None) -> bool:
    """Whether it can count usage at the service, for the project and in the session that are named."""
    kind, name = limit.key.subject.kind, limit.key.subject.name
    wanted = project if kind == "project" else session if kind == "session" else None
    at_service = service is None or limit.key.service in (None, service)
    return at_service and (wanted is None or name in (EACH, wanted))


def _match(limit: Limit, who: Who, lineage: tuple[str, ...], tier: str | None) -> tuple[str, str, int] | None:
    """(scope, family, rank) when the limit's subject matches; family "" neither replaces nor is replaced."""
    kind, name = limit.key.subject.kind, limit.key.subject.name
    if kind == "pool":
        return ("", "", 0)
    if kind == "agent":
        if name == EACH:
            return (who.agent, "agent", 2)
        if name == who.agent:
            return ("", "agent", 0)
        return ("", "", 0) if name in lineage else None
    if kind == "tier":
        return (who.agent, "agent", 1) if tier is not None and name == tier else None
    value = who.project if kind == "project" else who.session
    if value is None:
        return None
    if name == EACH:
        return (value, kind, 1)
    return ("", kind, 0) if name == value else None
