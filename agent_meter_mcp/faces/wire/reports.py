"""What the tools about usage and agents give."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from agent_meter_mcp.core.money import number_of
from agent_meter_mcp.core.queries import TIME_DIMENSIONS
from agent_meter_mcp.core.times import optional_time, time_text
from agent_meter_mcp.core.told import event_fields, state_fields
from agent_meter_mcp.core.windows import zone_of

from . import rows, wording
from .controls import ListedLimit
from .fields import (
    ListElsewhere,
    ObjectElsewhere,
    OptionalElsewhere,
    Part,
    Result,
    beside,
)
from .results import DatedLimitState, Number
from .rows import Listed

if TYPE_CHECKING:
    from agent_meter_mcp.core import models, queries


class Totals(Part):
    """Sums over usage that was counted. `rejected` counts refusals, which are in no other figure."""

    events: int
    requests: int
    units: Number
    tokens: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    cost_usd: Number
    unpriced: int
    over_limit: int
    rejected: int

    @classmethod
    def of(cls, totals: "queries.Totals") -> Self:
        return cls(**_totals_fields(totals))


def _totals_fields(totals: "queries.Totals") -> dict[str, Any]:
    fields = totals.as_dict()
    units, cost = fields.pop("units_micro"), fields.pop("cost_nano_usd")
    return {
        **fields,
        "units": number_of("units", units),
        "cost_usd": number_of("cost_usd", cost),
        "tokens": totals.tokens,
    }


class Group(Totals):
    """`key` has one value per dimension; null: not given. A period is named by its start."""

    key: dict[str, str | None]


class UsageSummary(Listed):
    since: str | None
    until: str | None
    total: Totals
    groups: Annotated[list[Group], ListElsewhere]
    groups_left_out: int

    @classmethod
    def of_query(cls, query: "queries.SummaryQuery", summary: "queries.Summary") -> Self:
        made = cls(
            message=wording.summary(query, summary),
            since=optional_time(query.filter.since_us),
            until=optional_time(query.filter.until_us),
            total=Totals.of(summary.total),
            groups=[
                Group(key=_group_key(query, group.key), **_totals_fields(group.totals))
                for group in summary.groups
            ],
            groups_left_out=summary.groups_left_out,
        )
        made._rows = partial(rows.of_summary, query, summary)
        return made


def _group_key(query: "queries.SummaryQuery", key: tuple[str | int | None, ...]) -> dict[str, str | None]:
    zone = zone_of(query.zone)
    return {
        dimension: time_text(value, zone)
        if isinstance(value, int) and dimension in TIME_DIMENSIONS
        else _text(value)
        for dimension, value in zip(query.group_by, key, strict=True)
    }


def _text(value: str | int | None) -> str | None:
    return None if value is None else str(value)


class Event(Part):
    """A usage event. `count` is above 1 for refusals within one second, which share a row."""

    id: str
    outcome: Literal["accepted", "over_limit", "rejected"]
    recorded_at: str
    occurred_at: str | None
    counted_at: str
    service: str | None
    agent: str
    operation: str | None
    requests: int
    units: Number | None
    unit_type: str | None
    input_tokens: int | None
    output_tokens: int | None
    cache_read_tokens: int | None
    cache_write_tokens: int | None
    cache_write_1h_tokens: int | None
    model: str | None
    cost_usd: Number | None
    cost_source: Literal["reported", "computed", "unpriced"]
    price_version: str | None
    status_code: int | None
    duration_ms: int | None
    session: str | None
    project: str | None
    source: str
    metadata: dict[str, Any] | None
    limit_id: str | None
    count: int

    @classmethod
    def of(cls, stored: "models.StoredEvent") -> Self:
        return cls(**event_fields(stored))


class UsageEvents(Listed):
    events: Annotated[
        list[Event], beside("outcome", "recorded_at", "counted_at", "cost_source", "limit_id", "count")
    ]
    next_cursor: str | None

    @classmethod
    def of(cls, page: "queries.EventsPage") -> Self:
        made = cls(
            message=wording.events(page),
            events=[Event.of(stored) for stored in page.events],
            next_cursor=None if page.next_seq is None else str(page.next_seq),
        )
        made._rows = partial(rows.of_events, page)
        return made


class Agent(Part):
    """Who uses, and how they stand. `spent` is over all time; `tightest` the hard limit with the least
    room."""

    agent: str
    name: str | None
    tier: str | None
    owner: str | None
    parent: str | None
    status: Literal["active", "idle", "over_limit", "stopped"]
    first_seen: str | None
    last_seen: str | None
    spent: Annotated[Totals, ObjectElsewhere]
    tightest: Annotated[DatedLimitState | None, OptionalElsewhere]

    @classmethod
    def of(cls, view: "queries.AgentView") -> Self:
        return cls(
            **_agent_fields(view.agent),
            status=view.status,
            first_seen=optional_time(view.first_seen_us),
            last_seen=optional_time(view.last_seen_us),
            spent=Totals.of(view.totals),
            tightest=None if view.tightest is None else DatedLimitState(**state_fields(view.tightest)),
        )


def _agent_fields(agent: "models.Agent") -> dict[str, Any]:
    return {
        "agent": agent.agent_id,
        "name": agent.name,
        "tier": agent.tier,
        "owner": agent.owner,
        "parent": agent.parent,
    }


class Agents(Listed):
    agents: list[Agent]
    next_cursor: str | None

    @classmethod
    def of(cls, page: "queries.AgentsPage") -> Self:
        agents = [Agent.of(view) for view in page.agents]
        made = cls(message=wording.agents(page), agents=agents, next_cursor=page.next_agent)
        made._rows = partial(rows.of_agents, page)
        return made


class AgentSet(Result):
    agent: str
    name: str | None
    tier: str | None
    owner: str | None
    parent: str | None

    @classmethod
    def of(cls, agent: "models.Agent") -> Self:
        return cls(message=wording.agent_set(agent), **_agent_fields(agent))


class AgentCard(Agent):
    """An agent with the limits that match it."""

    limits: list[ListedLimit]

    @classmethod
    def of_view(cls, view: "queries.AgentView", limits: "list[queries.LimitView]") -> Self:
        return cls(**dict(Agent.of(view)), limits=[ListedLimit.of_view(limit) for limit in limits])
