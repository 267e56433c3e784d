"""What the reading tools take, turned into the ledger's queries."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, WithJsonSchema

from agent_meter_mcp.core import check
from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.limits import concerns
from agent_meter_mcp.core.models import Who
from agent_meter_mcp.core.queries import (
    AGENTS_PAGE_MAX,
    EVENTS_PAGE_MAX,
    GROUPS_MAX,
    AgentsQuery,
    EventsQuery,
    SummaryQuery,
    UsageFilter,
)
from agent_meter_mcp.core.text import ID_MAX, name, optional_name
from agent_meter_mcp.core.windows import check_zone, parse_window, span

from .arguments import SourceName
from .fields import Arguments, Count, Flag, Moment, Several, parse_time, up_to

if TYPE_CHECKING:
    from agent_meter_mcp.core.queries import LimitView
    from agent_meter_mcp.core.roles import Caller

DimensionName = Literal[
    "agent", "service", "operation", "model", "project", "session", "tier", "owner", "source", "outcome",
    "hour", "day", "week", "month",
]  # fmt: skip
OrderName = Annotated[
    Literal["cost_usd", "tokens", "requests", "units", "events", "rejected", "key"],
    WithJsonSchema({"type": "string"}),
]


class FilterArguments(Arguments):
    """Which usage."""

    since: Moment | None = None
    until: Moment | None = None
    agent: str | None = None
    include_children: Flag | None = None
    service: str | None = None
    operation: str | None = None
    model: str | None = None
    project: str | None = None
    session: str | None = None
    tier: str | None = None
    source: SourceName | None = None
    outcome: Literal["accepted", "over_limit", "rejected"] | None = None

    def filtered(self, since_us: int | None, until_us: int | None) -> UsageFilter:
        """Raises InvalidInput."""
        return check.usage_filter(
            UsageFilter(
                since_us,
                until_us,
                self.agent,
                bool(self.include_children),
                None,
                self.service,
                self.operation,
                self.model,
                self.project,
                self.session,
                self.tier,
                self.source,
                self.outcome,
            )
        )

    def since_us(self) -> int | None:
        return None if self.since is None else parse_time(self.since, "since")

    def until_us(self) -> int | None:
        return None if self.until is None else parse_time(self.until, "until")


class GetUsageSummary(FilterArguments):
    group_by: Several[DimensionName] | None = None
    window: Annotated[str | None, Field(description="as in set_limit; default day")] = None
    timezone: str | None = None
    limit: Annotated[Count, up_to(GROUPS_MAX)] = 100
    order_by: OrderName = "cost_usd"

    def query(self, now_us: int, timezone: str) -> SummaryQuery:
        """`timezone` is the one in which days begin if none is given. Raises InvalidInput."""
        zone = check_zone(self.timezone or timezone)
        group_by = tuple(self.group_by or ())
        if len(set(group_by)) != len(group_by):
            raise InvalidInput("group_by", "names a dimension twice")
        chosen = self.filtered(*self._range(now_us, zone))
        return SummaryQuery(chosen, group_by, zone, self.order_by, check.page_size(self.limit, GROUPS_MAX))

    def _range(self, now_us: int, zone: str) -> tuple[int | None, int | None]:
        if self.since is not None or self.until is not None:
            if self.window is not None:
                raise InvalidInput("window", "give either window, or since and until")
            return self.since_us(), self.until_us()
        return span(parse_window(self.window or "day"), zone, now_us)


class ListUsageEvents(FilterArguments):
    cursor: str | None = None
    limit: Annotated[Count, up_to(EVENTS_PAGE_MAX)] = 50

    def query(self) -> EventsQuery:
        """Raises InvalidInput."""
        chosen = self.filtered(self.since_us(), self.until_us())
        return EventsQuery(
            chosen, check.page_size(self.limit, EVENTS_PAGE_MAX), check.before_seq(self.cursor)
        )


class ListAgents(Arguments):
    status: Literal["active", "idle", "over_limit", "stopped"] | None = None
    tier: str | None = None
    owner: str | None = None
    cursor: str | None = None
    limit: Annotated[Count, up_to(AGENTS_PAGE_MAX)] = 50

    def query(self) -> AgentsQuery:
        """Raises InvalidInput."""
        for field in ("tier", "owner", "cursor"):
            optional_name(getattr(self, field), field)
        return AgentsQuery(
            status=self.status,
            tier=self.tier,
            owner=self.owner,
            after_agent=self.cursor,
            limit=check.page_size(self.limit, AGENTS_PAGE_MAX),
        )


class ListLimits(Arguments):
    agent: str | None = None
    service: str | None = None
    project: str | None = None
    session: str | None = None

    def who(self, caller: "Caller") -> Who | None:
        """For whom; None: all limits. Raises InvalidInput."""
        optional_name(self.service, "service")
        optional_name(self.project, "project", maximum=ID_MAX)
        optional_name(self.session, "session", maximum=ID_MAX)
        agent = self.agent if self.agent is not None or caller.role != "agent" else caller.bound_to
        if agent is None:
            return None
        own = caller if agent == caller.bound_to else None
        project = self.project if self.project is not None or own is None else own.default_project
        session = self.session if self.session is not None or own is None else own.default_session
        return Who(name(agent, "agent"), self.service, None, project, session)

    def concerns(self, view: "LimitView") -> bool:
        """Whether the limit can count usage at the service, project and session that are named."""
        return concerns(view.limit, self.service, self.project, self.session)
