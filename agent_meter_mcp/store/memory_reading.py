"""What can be read: summaries and lists (rules 25 to 28)."""

from __future__ import annotations

from agent_meter_mcp.core.limits import Bound
from agent_meter_mcp.core.models import EACH, Agent, Who
from agent_meter_mcp.core.queries import (
    TIME_DIMENSIONS,
    AgentsPage,
    AgentView,
    EventsPage,
    Group,
    LimitView,
    Summary,
    Totals,
    UsageFilter,
    status_of,
)
from agent_meter_mcp.core.windows import parse_window, period, periods

from .memory_counting import Counter, counters_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent_meter_mcp.core.decide import LimitState
    from agent_meter_mcp.core.models import Limit, StoredEvent
    from agent_meter_mcp.core.queries import AgentsQuery, EventsQuery, SummaryQuery

    from .memory_book import Book

    Key = tuple[str | int | None, ...]


def chosen(book: Book, wanted: UsageFilter) -> list[StoredEvent]:
    """Events and refusals that the filter lets through, in order of seq."""
    policy = book.policy()
    trees = [policy.tree(wanted.within)] if wanted.within is not None else []
    if wanted.agent is not None:
        trees.append(policy.tree(wanted.agent) if wanted.include_children else frozenset((wanted.agent,)))
    own = ("service", "operation", "model", "project", "session", "source", "outcome")

    def is_wanted(stored: StoredEvent) -> bool:
        named = _named(stored)
        return (
            (wanted.since_us is None or stored.booked_at_us >= wanted.since_us)
            and (wanted.until_us is None or stored.booked_at_us < wanted.until_us)
            and all(stored.event.who.agent in tree for tree in trees)
            and wanted.tier in (None, _agent(book, stored).tier)
            and all(getattr(wanted, dimension) in (None, named[dimension]) for dimension in own)
        )

    return sorted(filter(is_wanted, book.everything()), key=lambda stored: stored.seq)


def _agent(book: Book, stored: StoredEvent) -> Agent:
    return book.agents[stored.event.who.agent]


# Summaries


def summary(book: Book, query: SummaryQuery) -> Summary:
    """Rule 27. Raises InvalidInput when there are too many periods."""
    _check_periods(book, query)
    found = chosen(book, query.filter)
    members: dict[Key, list[StoredEvent]] = {}
    if query.group_by:
        for stored in found:
            members.setdefault(_key(book, stored, query), []).append(stored)
    groups = [Group(key, totals_of(events)) for key, events in members.items()]
    groups.sort(key=lambda group: [(part is not None, part) for part in group.key])
    if query.order_by != "key":
        field = {"cost_usd": "cost_nano_usd", "units": "units_micro"}.get(query.order_by, query.order_by)
        groups.sort(key=lambda group: -getattr(group.totals, field))
    return Summary(totals_of(found), tuple(groups[: query.limit]), max(len(groups) - query.limit, 0))


def _check_periods(book: Book, query: SummaryQuery) -> None:
    """A range is cut from the first to the last usage in it."""
    moments = [
        stored.booked_at_us
        for stored in chosen(book, UsageFilter(query.filter.since_us, query.filter.until_us))
    ]
    for unit in TIME_DIMENSIONS:
        if unit in query.group_by and moments:
            periods(unit, query.zone, min(moments), max(moments) + 1)


def _key(book: Book, stored: StoredEvent, query: SummaryQuery) -> Key:
    agent = _agent(book, stored)
    facts = {**_named(stored), "tier": agent.tier, "owner": agent.owner}
    return tuple(
        period(parse_window(dimension), query.zone, stored.booked_at_us)[0]
        if dimension in TIME_DIMENSIONS
        else facts[dimension]
        for dimension in query.group_by
    )


def totals_of(stored: list[StoredEvent]) -> Totals:
    counted = [one for one in stored if one.outcome != "rejected"]
    usages = [one.event.usage for one in counted]

    def total(field: str) -> int:
        return sum(getattr(usage, field) or 0 for usage in usages)

    return Totals(
        events=len(counted),
        requests=total("requests"),
        units_micro=total("units_micro"),
        input_tokens=total("input_tokens"),
        output_tokens=total("output_tokens"),
        cache_read_tokens=total("cache_read_tokens"),
        cache_write_tokens=total("cache_write_tokens"),
        cache_write_1h_tokens=total("cache_write_1h_tokens"),
        cost_nano_usd=total("cost_nano_usd"),
        unpriced=sum(usage.cost_nano_usd is None for usage in usages),
        over_limit=sum(one.outcome == "over_limit" for one in counted),
        rejected=sum(one.count for one in stored if one.outcome == "rejected"),
    )


# Lists


def events(book: Book, query: EventsQuery) -> EventsPage:
    newest_first = chosen(book, query.filter)[::-1]
    if query.before_seq is not None:
        newest_first = [stored for stored in newest_first if stored.seq < query.before_seq]
    if query.ids is not None:
        newest_first = [
            stored for stored in newest_first if stored.outcome != "rejected" and stored.event.id in query.ids
        ]
    page = tuple(newest_first[: query.limit])
    return EventsPage(page, page[-1].seq if len(newest_first) > query.limit else None)


def agents(book: Book, query: AgentsQuery, at_us: int) -> AgentsPage:
    found: list[AgentView] = []
    tree = None if query.within is None else book.policy().tree(query.within)
    for agent_id in sorted(book.agents):
        agent = book.agents[agent_id]
        if (
            (query.agent in (None, agent_id))
            and (query.tier in (None, agent.tier))
            and (query.owner in (None, agent.owner))
            and (tree is None or agent_id in tree)
            and (query.agents is None or agent_id in query.agents)
            and (query.after_agent is None or agent_id > query.after_agent)
        ):
            found.append(_agent_view(book, agent, at_us))
    found = [view for view in found if query.status in (None, view.status)]
    page = tuple(found[: query.limit])
    return AgentsPage(page, page[-1].agent.agent_id if len(found) > query.limit else None)


def _agent_view(book: Book, agent: Agent, at_us: int) -> AgentView:
    """Rule 25."""
    who, policy = Who(agent.agent_id), book.policy()
    states = [counter.state() for counter in counters_of(book, policy, who, at_us) if counter.is_hard]
    own = chosen(book, UsageFilter(agent=agent.agent_id))
    last_seen_us = max((stored.seq for stored in own), default=None)
    status = status_of(
        is_stopped=policy.stopped_by(who) is not None,
        is_over=any(state.exceeded for state in states),
        last_seen_us=last_seen_us,
        at_us=at_us,
    )
    first_seen_us = book.first_seen_us[agent.agent_id]
    return AgentView(agent, status, first_seen_us, last_seen_us, totals_of(own), _tightest(states))


def _tightest(states: list[LimitState]) -> LimitState | None:
    from fractions import Fraction

    def room(state: LimitState) -> tuple[bool, Fraction, str]:
        maximum = state.limit.max
        fullness = Fraction(state.used + state.held, maximum) if maximum else Fraction(0)
        return (maximum > 0, -fullness, state.limit.limit_id)

    return min(states, key=room, default=None)


def limits(book: Book, who: Who | None, at_us: int) -> list[LimitView]:
    """Rule 26."""
    policy = book.policy()
    if who is not None:
        return [
            LimitView(bound.limit, Counter(book, policy, bound, at_us).state(), bound)
            for bound in policy.matching(who)
        ]
    return [LimitView(limit, _state_of_limit(book, limit, at_us)) for limit in policy.limits.values()]


def _state_of_limit(book: Book, limit: Limit, at_us: int) -> LimitState | None:
    """Of a limit that counts each one separately, its fullest counter among those that bind."""
    policy, subject = book.policy(), limit.key.subject
    if subject.kind != "tier" and subject.name != EACH:
        return Counter(book, policy, Bound(limit, ""), at_us).state()
    if subject.kind in ("agent", "tier"):
        everybody = [Who(agent_id, limit.key.service) for agent_id in book.agents]
    else:
        whos = [*(stored.event.who for stored in book.events), *(held.who for held in book.reservations)]
        names = {getattr(who, subject.kind) for who in whos} - {None}
        everybody = [Who("", limit.key.service).replace(**{subject.kind: name}) for name in names]
    states = [
        Counter(book, policy, bound, at_us).state()
        for who in everybody
        for bound in policy.binding(who)
        if bound.limit == limit
    ]
    taken = [state for state in states if state.used + state.held > 0]
    return min(taken, key=lambda state: (-state.used - state.held, state.scope), default=None)


def names(book: Book, kind: str, prefix: str, limit: int) -> list[str]:
    """Rule 28. Raises KeyError for an unknown kind."""
    known: set[str | None] = {*book.agents}
    if kind != "agent":
        known = {_named(stored)[kind] for stored in book.everything()}
    return sorted(name for name in known if name is not None and name.startswith(prefix))[:limit]


def _named(stored: StoredEvent) -> dict[str, str | None]:
    """What an event carries of the dimensions that are its own."""
    event, who = stored.event, stored.event.who
    return {
        "agent": who.agent,
        "service": who.service,
        "operation": event.operation,
        "model": event.usage.model,
        "project": who.project,
        "session": who.session,
        "source": event.source,
        "outcome": stored.outcome,
    }
