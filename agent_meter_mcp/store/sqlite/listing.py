"""Lists: events, agents, limits."""

from __future__ import annotations

from agent_meter_mcp.core.limits import Bound
from agent_meter_mcp.core.models import EACH, METRICS, Agent, Limit, StoredEvent, Who
from agent_meter_mcp.core.queries import (
    ACTIVE_WITHIN_US,
    AgentsPage,
    AgentView,
    EventsPage,
    LimitView,
    SummaryQuery,
    Totals,
    UsageFilter,
)

from . import summarising
from .counters import window_start
from .filters import filter_condition
from .rows import EVENT_SELECT, REFUSAL_SELECT, event_of, key_of, refusal_of
from .schema import ALL
from .sums import FAR_US

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from agent_meter_mcp.core.decide import LimitState
    from agent_meter_mcp.core.queries import AgentsQuery, AgentStatus, EventsQuery

    from .reading import Reader

_CHUNK = 200


def events(reader: Reader, query: EventsQuery) -> EventsPage:
    """Events and refusals together, newest first."""
    where, values = filter_condition(query.filter, reader.book.policy)
    if query.ids is not None:
        where += f" AND e.id IN (SELECT id FROM event WHERE key IN ({', '.join('?' * len(query.ids))}))"
        values = [*values, *map(key_of, query.ids)]
    before = FAR_US if query.before_seq is None else query.before_seq
    since, until = query.filter.since_us or 0, query.filter.until_us
    until = FAR_US if until is None else until

    def newest(
        select: str, alias: str, booked: str, read: Callable[[tuple[Any, ...]], StoredEvent]
    ) -> list[StoredEvent]:
        # What is booked at or after `since` was recorded at or after it, so the id bounds the search.
        rows = reader.connection.execute(
            f"{select} WHERE {alias}.id < ? AND {alias}.id >= ? AND {booked} >= ? AND {booked} < ?"
            f" AND {where} ORDER BY {alias}.id DESC LIMIT ?",
            (before, since, since, until, *values, query.limit + 1),
        )
        return [read(row) for row in rows]

    found = newest(EVENT_SELECT, "e", "coalesce(e.booked, e.id)", event_of)
    if query.ids is None:
        found += newest(REFUSAL_SELECT, "r", "r.id", refusal_of)
    found.sort(key=lambda event: -event.seq)
    page = tuple(found[: query.limit])
    return EventsPage(page, page[-1].seq if len(found) > query.limit else None)


def agents(reader: Reader, query: AgentsQuery, at_us: int) -> AgentsPage:
    """Rule 25, in the order of ids; agents that a status leaves out are passed over."""
    views: list[AgentView] = []
    after = query.after_agent or ""
    totals = _totals(reader)
    while True:
        rows = _agent_rows(reader, query, after)
        found = _views(reader, rows, totals, at_us)
        views.extend(view for view in found if query.status in (None, view.status))
        if len(views) > query.limit:
            return AgentsPage(tuple(views[: query.limit]), views[query.limit - 1].agent.agent_id)
        if len(rows) < _CHUNK:
            return AgentsPage(tuple(views), None)
        after = rows[-1][0]


def _agent_rows(reader: Reader, query: AgentsQuery, after: str) -> list[tuple[Any, ...]]:
    terms, values = ["agent_id > ?"], [after]
    for column, value in (("agent_id", query.agent), ("tier", query.tier), ("owner", query.owner)):
        if value is not None:
            terms.append(f"{column} = ?")
            values.append(value)
    if query.within is not None:
        tree = reader.book.policy.tree(query.within)
        terms.append(f"agent_id IN ({', '.join('?' * len(tree))})")
        values.extend(sorted(tree))
    return reader.connection.execute(
        f"SELECT agent_id, name, tier, owner, parent, created FROM agent WHERE {' AND '.join(terms)}"
        f" ORDER BY agent_id LIMIT {_CHUNK}",
        values,
    ).fetchall()


def _views(
    reader: Reader, rows: list[tuple[Any, ...]], totals: dict[str | int | None, Totals], at_us: int
) -> list[AgentView]:
    if not rows:
        return []
    seen = _last_seen(reader, rows[0][0], rows[-1][0])
    book = reader.book
    plans = {row[0]: book.plan(Who(row[0])) for row in rows}
    # All at once: what changed since the last look is read with one statement.
    book.ready(
        list({id(counter): counter for plan in plans.values() for counter in plan.counters}.values()), at_us
    )
    views: list[AgentView] = []
    for *described, created in rows:
        agent = Agent(*described)
        who = Who(agent.agent_id)
        states = book.states([counter for counter in plans[agent.agent_id].counters if counter.hard], at_us)
        tightest = max(states, key=_fullness, default=None)
        last_seen = seen.get(agent.agent_id)
        status: AgentStatus = "idle"
        if book.policy.stopped_by(who) is not None:
            status = "stopped"
        elif any(state.exceeded for state in states):
            status = "over_limit"
        elif last_seen is not None and at_us - last_seen <= ACTIVE_WITHIN_US:
            status = "active"
        views.append(
            AgentView(agent, status, created, last_seen, totals.get(agent.agent_id, Totals()), tightest)
        )
    return views


def _fullness(state: LimitState) -> tuple[float, str]:
    maximum = state.limit.max
    full = (state.used + state.held) / maximum if maximum else float("inf")
    return (full, _reversed(state.limit.limit_id))


def _reversed(text: str) -> str:
    """Sorts the other way round: of equally full limits the one with the lowest id is meant."""
    return "".join(chr(0x10FFFF - ord(char)) for char in text)


def _totals(reader: Reader) -> dict[str | int | None, Totals]:
    """Per agent, over all time."""
    found = summarising.summary(reader, SummaryQuery(UsageFilter(), ("agent",), limit=2**31))
    return {group.key[0]: group.totals for group in found.groups}


def _last_seen(reader: Reader, first: str, last: str) -> dict[str, int]:
    (rolled,) = reader.connection.execute("SELECT v FROM meta WHERE k = 'rolled'").fetchone()
    return dict(
        reader.connection.execute(
            "SELECT agent, max(last) FROM ("
            f" SELECT d.agent AS agent, max(x.last) AS last FROM dim d CROSS JOIN rollup x ON x.grain = {ALL}"
            " AND x.bucket = 0 AND x.dim = d.id WHERE d.agent BETWEEN ? AND ? GROUP BY 1 UNION ALL"
            " SELECT d.agent, max(x.id) FROM event x CROSS JOIN dim d ON d.id = x.dim"
            " WHERE x.id > ? AND d.agent BETWEEN ?1 AND ?2 GROUP BY 1) GROUP BY 1",
            (first, last, rolled),
        ).fetchall()
    )


def limits(reader: Reader, who: Who | None, at_us: int) -> list[LimitView]:
    """Rule 26."""
    book = reader.book
    if who is not None:
        bound = sorted(
            book.policy.matching(who), key=lambda one: (one.limit.created_at_us, one.limit.limit_id)
        )
        return [LimitView(one.limit, _state_of(reader, one, at_us), one) for one in bound]
    views: list[LimitView] = []
    for limit in sorted(book.policy.limits.values(), key=lambda limit: (limit.created_at_us, limit.limit_id)):
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
    since_us, metric = window_start(limit, at_us), METRICS.index(limit.key.metric)
    found = summarising.summary(
        reader,
        SummaryQuery(UsageFilter(since_us, service=limit.key.service), (column,), limit=2**31),  # pyright: ignore[reportArgumentType]  one of three dimensions
    )
    taken = {str(group.key[0]): _metric(group.totals, metric) for group in found.groups if group.key[0]}
    for reserved in reader.open_holds(since_us, at_us):
        scope, amount = getattr(reserved.who, column), reserved.usage.amounts[metric]
        if scope is not None and limit.key.service in (None, reserved.who.service):
            taken[scope] = taken.get(scope, 0) + amount
    return {scope: amount for scope, amount in taken.items() if amount}


def _metric(totals: Totals, index: int) -> int:
    return (totals.requests, totals.units_micro, totals.tokens, totals.cost_nano_usd)[index]
