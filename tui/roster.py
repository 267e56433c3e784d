"""The table of agents: in which order, which of them, and folded how. Pure: it is told what time it is.

The order stays for a while, so that no row moves away under the cursor; whoever is new stands at the end.
"""

from __future__ import annotations

from decimal import Decimal
from itertools import chain, compress, repeat
from operator import eq, is_not
from typing import TYPE_CHECKING, NamedTuple

from agent_meter_mcp.core.figures import UNKNOWN, UNLIMITED, dollars
from agent_meter_mcp.core.text import shown
from agent_meter_mcp.core.value import Value

from .filters import Facts, wanted
from .format import age, short_count, until
from .view import (
    NAME_WIDTH,
    NOTHING,
    WARN_PERCENT,
    Cell,
    Row,
    Rows,
    cost_cell,
    count_cell,
    fullness,
    fullness_cells,
    plus,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from agent_meter_mcp.core.decide import LimitState
    from agent_meter_mcp.core.queries import AgentView, Totals
    from agent_meter_mcp.sources.base import Snapshot

    from .view import Style

STATES: dict[str, tuple[str, Style]] = {
    "stopped": ("■ STOPPED", "held"),
    "over_limit": ("✖ OVER", "alarm"),
    "warn": ("▲ WARN", "warn"),
    "active": ("● ok", "good"),
    "idle": ("○ idle", "dim"),
}
"""The gravest first."""
SORTS = ("cost", "agent", "state", "requests", "tokens", "budget", "runs out", "seen")
RESORT_S = 5.0
_GRAVITY = {state: place for place, state in enumerate(STATES)}
_NEVER_US = 2**63


class Standing(Value):
    """How an agent stands, or a tree of them: the sums, the gravest state, the tightest limit, the latest."""

    state: str
    used: Totals
    tightest: LimitState | None
    last_seen_us: int | None

    @property
    def percent(self) -> float:
        return -1.0 if self.tightest is None else self.tightest.percent


class Place(NamedTuple):
    """An agent in the table. `folded` None: nobody is beneath it."""

    agent_id: str
    depth: int
    folded: bool | None = None


def state_of(view: AgentView) -> str:
    """As the ledger's status, and "warn" where a budget is nearly used up."""
    tightest = view.tightest
    if view.status in ("active", "idle") and tightest is not None and tightest.percent >= WARN_PERCENT:
        return "warn"
    return view.status


def word_of(view: AgentView) -> str:
    """The state as it is shown."""
    return STATES[state_of(view)][0]


def standing(view: AgentView, used: Totals) -> Standing:
    return Standing(state_of(view), used, view.tightest, view.last_seen_us)


def together(standings: Sequence[Standing]) -> Standing:
    """All of them as one."""
    return Standing(
        min((one.state for one in standings), key=_GRAVITY.__getitem__),
        plus(*(one.used for one in standings)),
        max(standings, key=lambda one: one.percent).tightest,
        max((one.last_seen_us for one in standings if one.last_seen_us is not None), default=None),
    )


def children_of(parents: Mapping[str, str | None]) -> dict[str, list[str]]:
    """Who is beneath whom, of the agents that are there."""
    found: dict[str, list[str]] = {}
    for agent_id, parent in parents.items():
        if parent is not None and parent in parents:
            found.setdefault(parent, []).append(agent_id)
    return found


def members_of(agent_id: str, children: Mapping[str, list[str]]) -> list[str]:
    """The agent, and all beneath it."""
    found, known = [agent_id], {agent_id}
    for member in found:
        new = [child for child in children.get(member, ()) if child not in known]
        known.update(new)
        found += new
    return found


_SORT_KEYS: dict[str, Callable[[Standing], int | float]] = {
    "cost": lambda one: -one.used.cost_nano_usd,
    "agent": lambda _: 0,
    "state": lambda one: _GRAVITY[one.state],
    "requests": lambda one: -one.used.requests,
    "tokens": lambda one: -one.used.tokens,
    "budget": lambda one: -one.percent,
    "runs out": lambda one: _NEVER_US if one.tightest is None else one.tightest.runs_out_at_us or _NEVER_US,
    "seen": lambda one: -(one.last_seen_us or 0),
}
"""The lowest comes first."""
_ADDED_UP = ("cost", "requests", "tokens")


def ranked(
    standings: Mapping[str, Standing],
    sort: str,
    reverse: bool = False,
    trees: Mapping[str, Sequence[str]] | None = None,
) -> list[str]:
    """By what `sort` names, the largest, gravest or most urgent first; equal ones by their names.

    Who stands at the head of one of the `trees` counts with all of its members.
    """
    key, joined = _SORT_KEYS[sort], sum if sort in _ADDED_UP else min
    own = {agent_id: key(one) for agent_id, one in standings.items()}
    keys = own | {head: joined(map(own.__getitem__, members)) for head, members in (trees or {}).items()}
    found = sorted(sorted(standings), key=keys.__getitem__)
    return found[::-1] if reverse else found


def as_tree(ids: Iterable[str], parents: Mapping[str, str | None], folded: set[str]) -> list[Place]:
    """These agents, children beneath their parents, siblings in the order of `ids`.

    Whose parent is missing stands beneath the next ancestor that is not; of a ring, each is there once.
    """
    ordered = list(ids)
    kept, beneath = set(ordered), dict[str | None, list[str]]()
    for agent_id in ordered:
        beneath.setdefault(_next_above(agent_id, parents, kept), []).append(agent_id)
    places: list[Place] = []
    reached: list[str] = []

    def walk(root: str) -> None:
        waiting = [(root, 0, True)]
        while waiting:
            agent_id, depth, is_seen = waiting.pop()
            reached.append(agent_id)
            below = beneath.pop(agent_id, None)
            is_folded = agent_id in folded if below else None
            if is_seen:
                places.append(Place(agent_id, depth, is_folded))
            if below:
                waiting += [(child, depth + 1, is_seen and not is_folded) for child in reversed(below)]

    for root in beneath.pop(None, []):
        walk(root)
    if len(reached) < len(ordered):
        placed = set(reached)
        for agent_id in ordered:  # what is left hangs on rings, which begin with whoever comes first
            if agent_id not in placed:
                beneath[_next_above(agent_id, parents, kept)].remove(agent_id)
                walk(agent_id)
                placed.update(reached)
    return places


def _next_above(agent_id: str, parents: Mapping[str, str | None], kept: set[str]) -> str | None:
    """The nearest ancestor that is there."""
    above = parents.get(agent_id)
    if above is None or (above in kept and above != agent_id):
        return above
    seen = {agent_id}
    while above is not None and above not in kept and above not in seen:
        seen.add(above)
        above = parents.get(above)
    return above if above in kept and above != agent_id else None


class Roster:
    """What the keys of the table change: how it is sorted, filtered and folded."""

    def __init__(self) -> None:
        self.sort = SORTS[0]
        self.reversed = False
        self.is_flat = False
        self.typed = ""
        self.folded: set[str] = set()
        self.places: list[Place] = []
        self._keys: list[str] = []
        self._is_tree = False
        self._agents: tuple[AgentView, ...] = ()
        self._used: dict[str, Totals] = {}
        self._views: dict[str, AgentView] = {}
        self._own: dict[str, Standing] = {}
        self._parents: dict[str, str | None] = {}
        self._children: dict[str, list[str]] = {}
        self._members: dict[str, list[str]] = {}
        self._order: list[str] = []
        self._sorted_s: float | None = None
        self._now_us = 0

    @property
    def count(self) -> int:
        """Of all agents, those that the filter hides too."""
        return len(self._views)

    def take(self, snapshot: Snapshot, now_s: float, resort_s: float = RESORT_S) -> bool:
        """What was found now. Answers whether the order may be an old one, because it stays for a while."""
        self._now_us = snapshot.taken_at_us
        changed = self._changed(snapshot)
        self._agents, self._used = snapshot.agents, snapshot.used
        if changed is None:
            self._take_others()
        else:
            self._take_changed(changed)
        parents = self._parents
        if self._sorted_s is None or now_s - self._sorted_s >= resort_s:
            self.resort(now_s)
            return False
        if changed is None:
            known = set(self._order)
            self._order = [agent_id for agent_id in self._order if agent_id in parents]
            self._order += sorted(agent_id for agent_id in parents if agent_id not in known)
        if self.typed or changed is None:
            self.arrange()
        return True

    def _changed(self, snapshot: Snapshot) -> dict[str, AgentView] | None:
        """Who stands otherwise than before; None: they are others, or beneath other parents.

        Of thousands few have changed: the others are passed over without a step of Python.
        """
        before, agents = self._agents, snapshot.agents
        if len(before) != len(agents):
            return None
        changed: dict[str, AgentView] = {}
        for one, other in compress(zip(before, agents, strict=True), map(is_not, before, agents)):
            if (one.agent.agent_id, one.agent.parent) != (other.agent.agent_id, other.agent.parent):
                return None
            changed[other.agent.agent_id] = other
        old, used = self._used, snapshot.used
        if len(old) <= len(used) and all(map(eq, old, used)):
            other_used = {*compress(used, map(is_not, chain(old.values(), repeat(None)), used.values()))}
        else:
            other_used = {name for name in old | used if old.get(name) is not used.get(name)}
        for agent_id in (other_used & self._views.keys()) - changed.keys():
            changed[agent_id] = self._views[agent_id]
        return changed

    def _take_changed(self, changed: dict[str, AgentView]) -> None:
        self._views.update(changed)
        for agent_id, view in changed.items():
            self._own[agent_id] = standing(view, self._used.get(agent_id, NOTHING))

    def _take_others(self) -> None:
        self._views = {view.agent.agent_id: view for view in self._agents}
        self._own = {
            name: standing(view, self._used.get(name, NOTHING)) for name, view in self._views.items()
        }
        self._parents = {name: view.agent.parent for name, view in self._views.items()}
        self._children = children_of(self._parents)
        self._members = {parent: members_of(parent, self._children) for parent in self._children}

    def resort(self, now_s: float) -> None:
        self._sorted_s = now_s
        self._order = ranked(self._own, self.sort, self.reversed, {} if self.is_flat else self._members)
        self.arrange()

    def arrange(self) -> None:
        """After another filter or fold. A filter shows every match, folded or not."""
        has = wanted(self.typed)
        ids = self._order if has is None else [one for one in self._order if has(self._facts(one))]
        if self.is_flat or not self._children:
            self.places = [Place(agent_id, 0) for agent_id in ids]
        else:
            self.places = as_tree(ids, self._parents, self.folded if has is None else set())
        self._keys = [place.agent_id for place in self.places]
        self._is_tree = any(place.depth or place.folded is not None for place in self.places)

    def fold(self, agent_id: str, folded: bool | None = None) -> str:
        """Folds or unfolds (None: the other way) what is beneath an agent. Who the cursor belongs on then: to
        fold one without children is to go to its parent."""
        place = next((place for place in self.places if place.agent_id == agent_id), None)
        if place is None or self.is_flat:
            return agent_id
        wants = not place.folded if folded is None else folded
        if place.folded is None or (place.folded and folded):
            return (self._parents.get(agent_id) or agent_id) if folded else agent_id
        (self.folded.add if wants else self.folded.discard)(agent_id)
        self.arrange()
        return agent_id

    def rows(self) -> Rows:
        """A row for each; the columns are those of the overview's table."""
        places = self.places
        return Rows(self._keys, lambda number: self._row(places[number]))

    def _facts(self, agent_id: str) -> Facts:
        agent, own = self._views[agent_id].agent, self._own[agent_id]
        word = STATES[own.state][0]
        words = {
            "state": f"{own.state} {word}", "tier": agent.tier, "owner": agent.owner, "parent": agent.parent,
            "name": f"{agent_id} {agent.name or ''}", "agent": agent_id,
        }  # fmt: skip
        amounts: dict[str, Decimal | int | float] = {
            "cost": Decimal(own.used.cost_nano_usd).scaleb(-9), "requests": own.used.requests,
            "req": own.used.requests, "tokens": own.used.tokens, "refused": own.used.rejected,
            "budget": own.percent, "used": own.percent,
        }  # fmt: skip
        return Facts(f"{agent_id}\n{agent.name or ''}\n{word}", words, amounts)

    def _row(self, place: Place) -> Row:
        agent_id = place.agent_id
        one = self._tree(agent_id) if place.folded else self._own[agent_id]
        name = shown(agent_id, width=NAME_WIDTH)
        if self._is_tree:
            name = f"{'  ' * place.depth}{ {None: '  ', True: '▸ ', False: '▾ '}[place.folded] }{name}"
        if place.folded:
            name += f" +{len(self._members[agent_id]) - 1}"
        word, style = STATES[one.state]
        since = None if one.last_seen_us is None else max(self._now_us - one.last_seen_us, 0)
        cells = (
            Cell(name, full=shown(agent_id)),
            Cell(word, style),
            count_cell(one.used.requests),
            count_cell(one.used.tokens),
            cost_cell(one.used),
            *_budget(one.tightest, self._now_us),
            Cell(age(since), "dim"),
        )
        return Row(agent_id, cells)

    def _tree(self, agent_id: str) -> Standing:
        """How it stands with all beneath it."""
        return together([self._own[member] for member in self._members[agent_id]])


def _budget(tightest: LimitState | None, now_us: int) -> tuple[Cell, ...]:
    """The bar, the percentage, the rate and when it runs out."""
    if tightest is None:
        return Cell(UNLIMITED, "dim"), Cell(UNKNOWN, "dim"), Cell(UNKNOWN, "dim"), Cell(UNKNOWN, "dim")
    full = tightest.percent
    style = fullness(full)
    metric = tightest.limit.key.metric
    rate = dollars(tightest.burn_per_hour) if metric == "cost_usd" else short_count(tightest.burn_per_hour)
    return (
        *fullness_cells(full, style),
        Cell(f"{rate}/h"),
        Cell("over" if tightest.exceeded else until(tightest.runs_out_at_us, now_us), style),
    )
