"""What the routes take in their path and query, where the tools take it in their arguments.

In a query everything is text, so what is a number or a flag there is read from its text. Models are built at
once here (`defer_build=False`), because FastAPI's own use of those that are built later warns.
"""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from agent_meter_mcp.core import check
from agent_meter_mcp.core.queries import AGENTS_PAGE_MAX, EVENTS_PAGE_MAX, GROUPS_MAX
from agent_meter_mcp.faces.wire import arguments, queries
from agent_meter_mcp.faces.wire.arguments import (
    AmountsArguments,
    DetailArguments,
    SettleReservation,
    SourceName,
)
from agent_meter_mcp.faces.wire.fields import Arguments, Moment
from agent_meter_mcp.faces.wire.queries import DimensionName, GetUsageSummary, ListAgents, ListUsageEvents
from agent_meter_mcp.ledger.looking import ALERTS_MAX, AUDIT_MAX

if TYPE_CHECKING:
    from agent_meter_mcp.core.models import Source
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.intake import Report


def _with_plus(text: str) -> str:
    """A time whose "+" was not escaped in a query, where it means a space."""
    return f"{text[:-6]}+{text[-5:]}" if text[-6:-5] == " " and "T" in text else text


Time = Annotated[Moment, AfterValidator(_with_plus)]
CHILDREN = Field(description="with agent: also those that it spawned")


class SummaryParameters(GetUsageSummary, defer_build=False):
    group_by: list[DimensionName] | None = None
    since: Time | None = None
    until: Time | None = None
    include_children: Annotated[bool | None, CHILDREN] = None
    limit: Annotated[int, Field(json_schema_extra={"minimum": 1, "maximum": GROUPS_MAX})] = 100


class UsageParameters(ListUsageEvents, defer_build=False):
    since: Time | None = None
    until: Time | None = None
    include_children: Annotated[bool | None, CHILDREN] = None
    limit: Annotated[int, Field(json_schema_extra={"minimum": 1, "maximum": EVENTS_PAGE_MAX})] = 50


class AgentsParameters(ListAgents, defer_build=False):
    limit: Annotated[int, Field(json_schema_extra={"minimum": 1, "maximum": AGENTS_PAGE_MAX})] = 50


class AlertsParameters(Arguments, defer_build=False):
    after: Annotated[int, Field(description="the number of the newest alert that you know")] = 0
    limit: Annotated[int, Field(json_schema_extra={"minimum": 1, "maximum": ALERTS_MAX})] = 100

    def number(self) -> int:
        """How many at most. Raises InvalidInput."""
        return check.page_size(self.limit, ALERTS_MAX)


class AuditParameters(Arguments, defer_build=False):
    cursor: str | None = None
    limit: Annotated[int, Field(json_schema_extra={"minimum": 1, "maximum": AUDIT_MAX - 1})] = 100

    def page(self) -> tuple[int | None, int]:
        """Before which entry, and how many. Raises InvalidInput."""
        return check.before_seq(self.cursor), check.page_size(self.limit, AUDIT_MAX - 1)


class NoParameters(Arguments, defer_build=False):
    """A route that takes none: an unknown one is refused here, too."""


class LimitsParameters(queries.ListLimits, defer_build=False):
    """With agent: those that match it."""


class RemovedLimit(arguments.RemoveLimit, defer_build=False):
    """A limit by its id, or by what it was set with."""


class SetLimit(arguments.SetLimit, defer_build=False):
    """A limit: at most `max` of a metric in a window."""


class SetKillSwitch(arguments.SetKillSwitch, defer_build=False):
    """Exactly one of agent, service and everything; with a reason to engage it."""


class CheckBudget(arguments.CheckBudget, defer_build=False):
    """A step that somebody thinks of taking. What is left out is unknown."""


class ReserveBudget(arguments.ReserveBudget, defer_build=False):
    """A step that somebody is about to take, and for how long budget is held for it."""

    source: SourceName | None = None

    def report(self, caller: "Caller") -> "Report":
        """Without a source it is as in a batch: an agent's own word, or an SDK's. Raises InvalidInput."""
        return super().report(caller).replace(source=self.source, usual_source=usual_source(caller))


class AgentChanges(arguments.AgentChanges, defer_build=False):
    """What is to change of the agent in the path; null clears."""


class Settlement(AmountsArguments, DetailArguments, defer_build=False):
    """What becomes of the reservation in the path."""

    action: Literal["settle", "release", "extend"] = "settle"
    ttl: str = check.TTL_DEFAULT

    def of(self, reservation_id: str) -> SettleReservation:
        given = {field: getattr(self, field) for field in self.model_fields_set}
        return SettleReservation.model_validate({"reservation_id": reservation_id, **given})


def usual_source(caller: "Caller") -> "Source":
    """Who measured what comes over HTTP, where that is not said."""
    return "self" if caller.role == "agent" else "sdk"
