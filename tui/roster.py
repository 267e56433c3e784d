"""The table of agents: in which order, which of them, and folded how. Pure: it is told what time it is.

The order stays for a while, so that no row moves away under the cursor; whoever is new stands at the end.
"""

from __future__ import annotations

from decimal import Decimal
from functools import reduce
from typing import TYPE_CHECKING

from agent_meter_mcp.core.figures import UNKNOWN, UNLIMITED
from agent_meter_mcp.core.text import shown
from agent_meter_mcp.core.value import Value

from .filters import Facts, wanted
from .format import age, brief, until
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
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

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


class Place(Value):
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


def together(one: Standing, other: Standing) -> Standing:
    """Both as one."""
    return Standing(
        min(one.state, other.state, key=_GRAVITY.__getitem__),
        plus(one.used, other.used),
        max(one, other, key=lambda each: each.percent).tightest,
        max((at for at in (one.last_seen_us, other.last_seen_us) if at is not None), default=None),
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


def ranked(standings: Mapping[str, Standing], sort: str, reverse: bool = False) -> list[str]:
    """By what `sort` names, the largest, gravest or most urgent first; equal ones by their names."""
    keys: dict[str, Callable[[Standing], Any]] = {
        "cost": lambda one: -one.used.cost_nano_usd,
        "agent": lambda _: 0,
        "state": lambda one: _GRAVITY[one.state],
        "requests": lambda one: -one.used.requests,
        "tokens": lambda one: -one.used.tokens,
        "budget": lambda one: -one.percent,
        "runs out": lambda one: (
            _NEVER_US if one.tightest is None else one.tightest.runs_out_at_us or _NEVER_US
        ),
        "seen": lambda one: -(one.last_seen_us or 0),
    }
    key = keys[sort]
    found = sorted(sorted(standings), key=lambda agent_id: key(standings[agent_id]))
    return found[::-1] if reverse else found


def as_tree(ids: Iterable[str], parents: Mapping[str, str | None], folded: set[str]) -> list[Place]:
    """These agents, children beneath their parents, siblings in the order of `ids`.

    Whose parent is missing stands beneath the next ancestor that is not; of a ring, each is there once.
    """
    ordered = list(ids)
    kept, beneath = set(ordered), dict[str | None, list[str]]()
    for agent_id in ordered:
        seen, above = {agent_id}, parents.get(agent_id)
        while above is not None and above not in kept and above not in seen:
            seen.add(above)
            above = parents.get(above)
        beneath.setdefault(above if above in kept and above != agent_id else None, []).append(agent_id)
    places: list[Place] = []
    placed: set[str] = set()

    def walk(roots: list[str]) -> None:
        waiting = [(root, 0, True) for root in reversed(roots)]
        while waiting:
            agent_id, depth, is_seen = waiting.pop()
            if agent_id in placed:
                continue
            placed.add(agent_id)
            below = beneath.get(agent_id, [])
            is_folded = agent_id in folded
            if is_seen:
                places.append(Place(agent_id, depth, is_folded if below else None))
            waiting += [(child, depth + 1, is_seen and not is_folded) for child in reversed(below)]

    walk(beneath.get(None, []))
    for agent_id in ordered:
        if agent_id not in placed:
            walk([agent_id])
    return places


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
        self._ids: list[str] = []
        self._agents: tuple[AgentView, ...] = ()
        self._views: dict[str, AgentView] = {}
        self._own: dict[str, Standing] = {}
        self._whole: dict[str, Standing] = {}
        """Of those that were asked about since the last look."""
        self._parents: dict[str, str | None] = {}
        self._children: dict[str, list[str]] = {}
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
        self._whole = {}
        is_as_before = self._take_agents(snapshot)
        self._agents = snapshot.agents
        parents = self._parents
        if self._sorted_s is None or now_s - self._sorted_s >= resort_s:
            self.resort(now_s)
            return False
        if not is_as_before:
            known = set(self._order)
            self._order = [agent_id for agent_id in self._order if agent_id in parents]
            self._order += sorted(agent_id for agent_id in parents if agent_id not in known)
        if self.typed or not is_as_before:
            self.arrange()
        return True

    def _take_agents(self, snapshot: Snapshot) -> bool:
        """Whether they are the same ones, beneath the same parents. Of thousands, few have changed."""
        agents, used, own = snapshot.agents, snapshot.used, self._own
        if len(agents) != len(self._ids):
            self._take_others(snapshot)
            return False
        for agent_id, before, view in zip(self._ids, self._agents, agents, strict=True):
            if view is not before:
                if agent_id != view.agent.agent_id or self._parents[agent_id] != view.agent.parent:
                    self._take_others(snapshot)
                    return False
                self._views[agent_id] = view
            elif own[agent_id].used is used.get(agent_id, NOTHING):
                continue
            own[agent_id] = standing(view, used.get(agent_id, NOTHING))
        return True

    def _take_others(self, snapshot: Snapshot) -> None:
        self._ids = [view.agent.agent_id for view in snapshot.agents]
        self._views = dict(zip(self._ids, snapshot.agents, strict=True))
        self._own = {
            name: standing(view, snapshot.used.get(name, NOTHING)) for name, view in self._views.items()
        }
        self._parents = {name: view.agent.parent for name, view in self._views.items()}
        self._children = children_of(self._parents)

    def resort(self, now_s: float) -> None:
        self._sorted_s = now_s
        trees = {} if self.is_flat else {parent: self._tree(parent) for parent in self._children}
        self._order = ranked({**self._own, **trees}, self.sort, self.reversed)
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
            name += f" +{len(members_of(agent_id, self._children)) - 1}"
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
        if agent_id not in self._whole:
            members = members_of(agent_id, self._children)
            self._whole[agent_id] = reduce(together, (self._own[member] for member in members))
        return self._whole[agent_id]


def _budget(tightest: LimitState | None, now_us: int) -> tuple[Cell, ...]:
    """The bar, the percentage, the rate and when it runs out."""
    if tightest is None:
        return Cell(UNLIMITED, "dim"), Cell(UNKNOWN, "dim"), Cell(UNKNOWN, "dim"), Cell(UNKNOWN, "dim")
    full = tightest.percent
    style = fullness(full)
    metric = tightest.limit.key.metric
    return (
        *fullness_cells(full, style),
        Cell(f"{brief(metric, tightest.burn_per_hour, 7)}/h"),
        Cell("over" if tightest.exceeded else until(tightest.runs_out_at_us, now_us), style),
    )
