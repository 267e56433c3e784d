"""Lists: events, agents, limits."""

from __future__ import annotations

from agent_meter_mcp.core.limits import Bound
from agent_meter_mcp.core.models import EACH, METRICS, Agent, Limit, Who
from agent_meter_mcp.core.queries import (
    AgentsPage,
    AgentView,
    EventsPage,
    LimitView,
    SummaryQuery,
    Totals,
    UsageFilter,
    status_of,
)
from agent_meter_mcp.core.windows import oldest_bucket, parse_window, period

from . import summarising
from .filters import filter_condition, is_among
from .rows import EVENT_SELECT, OF_METRIC, REFUSAL_SELECT, event_of, key_of, refusal_of
from .sums import FAR_US

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from agent_meter_mcp.core.decide import LimitState
    from agent_meter_mcp.core.models import SubjectKind
    from agent_meter_mcp.core.queries import AgentsQuery, EventsQuery

    from .counters import Counter
    from .reading import Reader
    from .summarising import Key

_CHUNK = 500


def events(reader: Reader, query: EventsQuery) -> EventsPage:
    """Events and refusals together, newest first."""
    where, values = filter_condition(query.filter, reader.book.policy)
    if query.ids is not None:
        where += f" AND e.id IN (SELECT id FROM event WHERE key IN ({', '.join('?' * len(query.ids))}))"
        values = [*values, *map(key_of, query.ids)]
    before = FAR_US if query.before_seq is None else query.before_seq
    since, until = query.filter.since_us or 0, query.filter.until_us
    until = FAR_US if until is None else until

    def newest(select: str, alias: str, booked: str, oldest: int) -> list[tuple[Any, ...]]:
        # What is booked at or after `since` was recorded at or after it, so the id bounds the search.
        return reader.connection.execute(
            f"{select} WHERE {alias}.id < ? AND {alias}.id >= ? AND {booked} >= ? AND {booked} < ?"
            f" AND {where} ORDER BY {alias}.id DESC LIMIT ?",
            (before, oldest, since, until, *values, query.limit + 1),
        ).fetchall()

    used = newest(EVENT_SELECT, "e", "coalesce(e.booked, e.id)", since)
    oldest = used[-1][0] if len(used) > query.limit else since
    refused = newest(REFUSAL_SELECT, "r", "r.id", oldest) if query.ids is None else []
    found = [(row[0], event_of, row) for row in used] + [(row[0], refusal_of, row) for row in refused]
    found.sort(key=lambda one: -one[0])
    # Who looks again and again sees mostly what he saw before.
    known = reader.listed
    reader.listed = page = {row: known.get(row) or read(row) for _, read, row in found[: query.limit]}
    return EventsPage(tuple(page.values()), found[query.limit - 1][0] if len(found) > query.limit else None)


def agents(reader: Reader, query: AgentsQuery, at_us: int) -> AgentsPage:
    """Rule 25, in the order of ids; agents that a status leaves out are passed over."""
    views: list[AgentView] = []
    after = query.after_agent or ""
    while True:
        # One more than is wanted tells that there are more; of those that a status picks, some are left out.
        most = _CHUNK if query.status else min(_CHUNK, query.limit + 1 - len(views))
        rows = _agent_rows(reader, query, after, most)
        found = _views(reader, rows, at_us)
        views.extend(view for view in found if query.status in (None, view.status))
        if len(views) > query.limit:
            return AgentsPage(tuple(views[: query.limit]), views[query.limit - 1].agent.agent_id)
        if len(rows) < most:
            return AgentsPage(tuple(views), None)
        after = rows[-1][0]


def _agent_rows(reader: Reader, query: AgentsQuery, after: str, most: int) -> list[tuple[Any, ...]]:
    terms, values = ["agent_id > ?"], [after]
    for column, value in (("agent_id", query.agent), ("tier", query.tier), ("owner", query.owner)):
        if value is not None:
            terms.append(f"{column} = ?")
            values.append(value)
    if query.agents is not None:
        term, names = is_among("agent_id", query.agents)
        terms.append(term)
        values += names
    if query.within is not None:
        term, names = is_among("agent_id", reader.book.policy.tree(query.within))
        terms.append(term)
        values += names
    return reader.connection.execute(
        f"SELECT agent_id, name, tier, owner, parent, created FROM agent WHERE {' AND '.join(terms)}"
        " ORDER BY agent_id LIMIT ?",
        (*values, most),
    ).fetchall()


def _used(reader: Reader, names: Sequence[str]) -> tuple[dict[Key, Sequence[int]], dict[str, int]]:
    """What these agents have used, and when they were last seen; of all, where that is remembered."""
    if reader.remembered.is_crowd():
        return summarising.of_agents(reader, names)
    totals = summarising.sums(reader, SummaryQuery(UsageFilter(), ("agent",)))
    return totals, reader.remembered.last_seen()


def _views(reader: Reader, rows: list[tuple[Any, ...]], at_us: int) -> list[AgentView]:
    book = reader.book
    totals, seen = _used(reader, [row[0] for row in rows])
    hard = [
        (plan, [counter for counter in plan.counters if counter.hard])
        for plan in [book.plan(Who(row[0])) for row in rows]
    ]
    # All at once: what changed since the last look is read with one statement, and many share a limit.
    counters = {id(one): one for _, own in hard for one in own}
    book.ready([*counters.values()], at_us)
    states: dict[int, LimitState] = {}
    views: list[AgentView] = []
    for (*described, created), (plan, own) in zip(rows, hard, strict=True):
        agent = Agent(*described)
        last_seen = seen.get(agent.agent_id)
        is_over = any(counter.exceeded for counter in own)
        status = status_of(
            is_stopped=plan.switch is not None, is_over=is_over, last_seen_us=last_seen, at_us=at_us
        )
        tightest = None
        if own:
            counter = _tightest_of(own)
            tightest = states.get(id(counter))
            if tightest is None:
                (tightest,) = book.states([counter], at_us)
                states[id(counter)] = tightest
        figures = totals.get((agent.agent_id,), ())
        views.append(AgentView(agent, status, created, last_seen, Totals(*figures), tightest))
    return views


def _tightest_of(counters: Sequence[Counter]) -> Counter:
    """The fullest; of equally full ones that of the limit with the lowest id."""

    def room(counter: Counter) -> tuple[bool, int, str]:
        maximum = counter.maximum
        # Fractions of integers below 2**63 that differ do so in these bits; as floats they may be the same.
        fullness = ((counter.used + counter.held) << 128) // maximum if maximum else 0
        return (maximum > 0, -fullness, counter.limit.limit_id)

    return min(counters, key=room)


def limits(reader: Reader, who: Who | None, at_us: int, kind: SubjectKind | None) -> list[LimitView]:
    """Rule 26; `kind`: only those on such subjects."""
    book = reader.book

    def is_wanted(limit: Limit) -> bool:
        return kind in (None, limit.key.subject.kind)

    if who is not None:
        bound = filter(lambda one: is_wanted(one.limit), book.policy.matching(who))
        return [LimitView(one.limit, _state_of(reader, one, at_us), one) for one in bound]
    views: list[LimitView] = []
    for limit in filter(is_wanted, book.policy.limits.values()):
        if limit.key.subject.kind != "tier" and limit.key.subject.name != EACH:
            views.append(LimitView(limit, _state_of(reader, Bound(limit, ""), at_us)))
        else:
            views.append(LimitView(limit, _tightest(reader, limit, at_us)))
    return views


def _state_of(reader: Reader, bound: Bound, at_us: int) -> LimitState:
    """For a limit that does not bind, its counter is computed for this answer only."""
    counter = reader.book.counter(bound.limit, bound.scope)
    return reader.book.states((counter,), at_us)[0]


def _tightest(reader: Reader, limit: Limit, at_us: int) -> LimitState | None:
    """Of a limit that counts each one separately, the counter with most used and held."""
    kind = limit.key.subject.kind
    column = "agent" if kind == "tier" else kind
    taken = _taken(reader, limit, column, at_us)
    for scope in sorted(taken, key=lambda scope: (-taken[scope], scope)):
        who = Who(scope if column == "agent" else "", limit.key.service)
        if column != "agent":
            who = who.replace(**{column: scope})
        if any(one.limit.limit_id == limit.limit_id for one in reader.book.policy.binding(who)):
            return _state_of(reader, Bound(limit, scope), at_us)
    return None


def _taken(reader: Reader, limit: Limit, column: str, at_us: int) -> dict[str, int]:
    """Used and held in the current window, per agent (project, session) that has any."""
    since_us, metric = _window_start(limit, at_us), METRICS.index(limit.key.metric)
    query = SummaryQuery(UsageFilter(since_us, service=limit.key.service), (column,))  # pyright: ignore[reportArgumentType]  one of three dimensions
    taken = {
        str(key[0]): sum(figures[OF_METRIC[metric]])
        for key, figures in summarising.sums(reader, query).items()
        if key[0]
    }
    for reserved in reader.open_holds(since_us, at_us):
        scope, amount = getattr(reserved.who, column), reserved.usage.amounts[metric]
        if scope is not None and limit.key.service in (None, reserved.who.service):
            taken[scope] = taken.get(scope, 0) + amount
    return {scope: amount for scope, amount in taken.items() if amount}


def _window_start(limit: Limit, at_us: int) -> int:
    """Where the window current at `at_us` starts, in whole buckets."""
    window = parse_window(limit.key.window)
    if window.kind == "rolling":
        return oldest_bucket(window, at_us) * window.grain_us
    return period(window, limit.zone, at_us)[0]
