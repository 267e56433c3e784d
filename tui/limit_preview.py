"""Whom a limit would bind, and how they stand: told before it is set. Pure.

Who is bound and what counts is what `core.limits` says: a limit on one agent counts its whole tree, one for
each agent or for a tier counts each agent by itself, and the most specific of them is the one that binds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_meter_mcp.core.decide import percent_of
from agent_meter_mcp.core.figures import counted, number, percent
from agent_meter_mcp.core.limits import Policy
from agent_meter_mcp.core.models import EACH, METRICS, Agent, Subject, Who
from agent_meter_mcp.core.text import shown
from agent_meter_mcp.core.value import Value

from .limit_form import Wish, exact
from .view import whom_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agent_meter_mcp.core.models import Limit, Metric
    from agent_meter_mcp.core.queries import AgentView, Dimension, LimitView, Summary, Totals

    from .view import Style

NEAR_PERCENT = 80
TOLD = 3
"""So many are told by name."""
NAME_WIDTH = 24


class Standing(Value):
    """What one counter of a limit has in its window: what is used, and what is held as far as it is known."""

    name: str
    used: int


class Preview(Value):
    """`before` is the limit of the same key, `standings` the counters, fullest first.

    `replaced` are those whom a more specific limit binds; `instead_of` the limits in whose place it stands;
    `together` how many agents one counter counts. `left_out` groups of usage were too many to look at.
    """

    wish: Wish
    before: Limit | None
    standings: tuple[Standing, ...]
    together: int = 1
    replaced: int = 0
    instead_of: tuple[Limit, ...] = ()
    left_out: int = 0

    @property
    def over(self) -> tuple[Standing, ...]:
        """Those with nothing left."""
        return tuple(one for one in self.standings if one.used >= self.wish.max)

    @property
    def near(self) -> tuple[Standing, ...]:
        return tuple(
            one
            for one in self.standings
            if one.used < self.wish.max and one.used * 100 >= NEAR_PERCENT * self.wish.max
        )

    @property
    def refuses(self) -> bool:
        """Whether somebody would be refused at once who is not refused now."""
        if self.wish.action != "reject":
            return False
        was = self.before
        already = was.max if was is not None and was.action == "reject" else None
        if self.wish.max == 0:
            return already != 0
        return any(already is None or one.used < already for one in self.over)


def dimensions(subject: Subject) -> tuple[Dimension, ...]:
    """By what usage has to be grouped to tell the counters apart."""
    if subject.kind == "pool":
        return ()
    return (subject.kind if subject.kind in ("project", "session") else "agent",)


def amount_of(metric: Metric, totals: Totals) -> int:
    """What a limit counts of it."""
    return (totals.requests, totals.units_micro, totals.tokens, totals.cost_nano_usd)[METRICS.index(metric)]


def preview(wish: Wish, agents: Sequence[AgentView], limits: Iterable[LimitView], usage: Summary) -> Preview:
    """`usage` is that of the window, at the limit's service, grouped by `dimensions`."""
    key, drafted = wish.key, wish.limit
    views = [view for view in limits if _is_alike(view.limit, drafted)]
    standing = next((view for view in views if view.limit.key == key), None)
    before = None if standing is None else standing.limit
    others = [view.limit for view in views if view.limit.key != key]
    used: dict[str, int] = {}
    for group in usage.groups:
        if group.key and group.key[0] is not None:
            used[str(group.key[0])] = amount_of(key.metric, group.totals)
    found = Preview(wish, before, (), left_out=usage.groups_left_out)
    if key.subject.kind == "pool":
        total = amount_of(key.metric, usage.total)
        found = found.replace(standings=(Standing("", total),), together=len(agents))
    elif key.subject.kind == "agent" and key.subject.name != EACH:
        name = key.subject.name or ""
        policy = Policy((view.agent for view in agents), [*others, drafted])
        tree = policy.tree(name)
        total = sum(used.get(member, 0) for member in tree)
        instead = _instead_of(policy, Who(name, key.service), drafted)
        found = found.replace(
            standings=(Standing("", total),), together=len(tree), instead_of=tuple(instead.values())
        )
    else:
        found = _each(found, others, _candidates(key.subject, [view.agent for view in agents], used), used)
    return _with_holds(found, standing)


def _is_alike(limit: Limit, drafted: Limit) -> bool:
    """Whether the two could stand in each other's place."""
    mine, other = drafted.key, limit.key
    return (mine.service, mine.metric, mine.window) == (other.service, other.metric, other.window)


def _candidates(subject: Subject, agents: list[Agent], used: dict[str, int]) -> list[tuple[Agent, Who]]:
    """Whoever could have a counter of its own. An agent's ancestors replace nothing: they are left out."""
    if subject.kind in ("agent", "tier"):
        tiers = dict.fromkeys(used) | {agent.agent_id: agent.tier for agent in agents}
        return [(Agent(name, tier=tier), Who(name)) for name, tier in sorted(tiers.items())]
    names = set(used) if subject.name == EACH else {subject.name or ""}
    return [(Agent(""), Who("", **{subject.kind: name})) for name in sorted(names)]


def _each(
    found: Preview, others: list[Limit], candidates: list[tuple[Agent, Who]], used: dict[str, int]
) -> Preview:
    """With a counter for each of them that the limit binds."""
    drafted, standings, replaced = found.wish.limit, list[Standing](), 0
    by_subject = {limit.key.subject: limit for limit in others}
    instead: dict[str, Limit] = {}
    for agent, who in candidates:
        name = who.project or who.session or who.agent
        closer = [by_subject.get(subject) for subject in _subjects(agent, who)]
        policy = Policy((agent,), [limit for limit in (*closer, drafted) if limit is not None])
        placed = who.replace(service=drafted.key.service)
        bound = next((one for one in policy.matching(placed) if one.limit is drafted), None)
        if bound is None:
            continue
        if bound.replaced_by is not None:
            replaced += 1
            continue
        standings.append(Standing(name, used.get(name, 0)))
        instead |= _instead_of(policy, placed, drafted)
    standings.sort(key=lambda one: (-one.used, one.name))
    return found.replace(standings=tuple(standings), replaced=replaced, instead_of=tuple(instead.values()))


def _subjects(agent: Agent, who: Who) -> list[Subject]:
    """Those of the limits that could bind it by itself: looked up, because there may be a thousand limits."""
    if who.project is not None:
        return [Subject("project", who.project), Subject("project", EACH)]
    if who.session is not None:
        return [Subject("session", who.session), Subject("session", EACH)]
    tier = [] if agent.tier is None else [Subject("tier", agent.tier)]
    return [Subject("agent", who.agent), *tier, Subject("agent", EACH)]


def _instead_of(policy: Policy, who: Who, limit: Limit) -> dict[str, Limit]:
    """The limits that would bind them if it were not for this one."""
    return {
        bound.limit.limit_id: bound.limit
        for bound in policy.matching(who)
        if bound.replaced_by == limit.limit_id and bound.limit.limit_id != limit.limit_id
    }


def _with_holds(found: Preview, standing: LimitView | None) -> Preview:
    """Where the limit is there already, its fullest counter is known with what is held."""
    state = None if standing is None else standing.state
    if state is None:
        return found
    alone = len(found.standings) == 1
    standings = [
        one.replace(used=state.used + state.held) if alone or one.name == state.scope else one
        for one in found.standings
    ]
    return found.replace(standings=tuple(sorted(standings, key=lambda one: (-one.used, one.name))))


# In words


def lines(found: Preview, *, is_edit: bool = False) -> list[tuple[str, Style]]:
    """What a person has to know before saying yes. `is_edit`: it is known that the limit is there."""
    told: list[tuple[str, Style]] = [(_bound_line(found), "")]
    if found.before is not None:
        there = "" if is_edit else "There is one already. "
        told.append((f"{there}Changes {_change(found, found.before)}", "" if is_edit else "warn"))
    elif found.instead_of:
        names = "; ".join(
            f"{whom_of(one.key.subject)} ({exact(one.key.metric, one.max)})"
            for one in found.instead_of[:TOLD]
        )
        told.append((f"For them it stands in the place of: {names}", ""))
    if found.standings:
        told.append((_used_line(found), ""))
        told.append(_verdict(found))
    if found.left_out:
        told.append((f"{counted(found.left_out, 'smaller one')} could not be looked at", "dim"))
    return told


def _bound_line(found: Preview) -> str:
    subject, count = found.wish.key.subject, len(found.standings)
    if subject.kind == "pool":
        return f"Binds everyone together: {counted(found.together, 'agent')}"
    if subject.kind == "agent" and subject.name != EACH:
        below = found.together - 1
        tree = (
            f" and {counted(below, 'agent')} that it spawned, together" if below else " (and what it spawns)"
        )
        return f"Binds {shown(subject.name or '', width=NAME_WIDTH)}{tree}"
    if subject.kind in ("project", "session") and subject.name != EACH:
        return f"Binds all usage of {subject.kind} {shown(subject.name or '', width=NAME_WIDTH)}"
    kind = subject.kind if subject.kind in ("project", "session") else "agent"
    other = f"; {found.replaced:,} {'has' if found.replaced == 1 else 'have'} a closer limit"
    more = other if found.replaced else ""
    if not count:
        return f"Binds nobody yet{more}"
    seen = " seen in this window" if kind != "agent" else ""
    return f"Binds {counted(count, kind)}{seen}, each by itself{more}"


def _change(found: Preview, before: Limit) -> str:
    wish, metric = found.wish, found.wish.key.metric
    parts = [f"{exact(metric, before.max)} → {exact(metric, wish.max)}"] if before.max != wish.max else []
    if before.action != wish.action:
        parts.append(f"{before.action} → {wish.action}")
    if before.zone != wish.zone:
        parts.append(f"{before.zone} → {wish.zone}")
    if before.thresholds != wish.thresholds:
        parts.append("other thresholds")
    return ", ".join(parts) or "nothing"


def _used_line(found: Preview) -> str:
    metric = found.wish.key.metric
    told: list[str] = []
    for one in found.standings[:TOLD]:
        share = percent(percent_of(one.used, found.wish.max))
        if found.before is not None and found.before.max != found.wish.max:
            share = f"{percent(percent_of(one.used, found.before.max))} → {share}"
        name = f"{shown(one.name, width=NAME_WIDTH)} " if one.name and len(found.standings) > 1 else ""
        told.append(f"{name}{number(metric, one.used)} ({share})")
    more = len(found.standings) - TOLD
    return f"Used: {', '.join(told)}{f' and {more:,} more' if more > 0 else ''}"


def _verdict(found: Preview) -> tuple[str, Style]:
    over, near = found.over, found.near
    alone = len(found.standings) == 1
    refused = "refused" if found.wish.action == "reject" else "warned"
    if over:
        names = ", ".join(shown(one.name, width=NAME_WIDTH) for one in over[:TOLD] if one.name)
        who = (
            "It is used up"
            if alone
            else f"{len(over):,} used it up ({names}{' …' if len(over) > TOLD else ''})"
        )
        return f"✖ {who}: {refused} at once", "alarm"
    if near:
        some = f"{len(near):,} {'has' if len(near) == 1 else 'have'} nearly used it up"
        return f"▲ {'It is nearly used up' if alone else some}", "warn"
    return "● Nobody is near it", "good"
