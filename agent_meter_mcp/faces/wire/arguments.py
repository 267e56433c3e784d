"""What the tools take. Each model turns itself into what the ledger takes; the core checks the values."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

from pydantic import Field, WithJsonSchema, model_validator

from agent_meter_mcp.core import check
from agent_meter_mcp.core.commands import Settle
from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.models import LIMIT_FIELDS, LimitKey, Usage, Who
from agent_meter_mcp.core.money import limit_maximum, micro_units, nano_usd
from agent_meter_mcp.core.text import name
from agent_meter_mcp.intake import AGENT_FIELDS, Report

from .fields import Arguments, Count, Decimals, Flag, Moment, Several, parse_time

if TYPE_CHECKING:
    from agent_meter_mcp.core.models import Source, SwitchKind
    from agent_meter_mcp.core.roles import Caller

PATH_MAX = 4096

Clearable = Annotated[str | None, WithJsonSchema({"type": ["string", "null"]})]
Json = Annotated[dict[str, Any], WithJsonSchema({"type": "object"})]
SourceName = Annotated[
    Literal["self", "sdk", "middleware", "proxy", "transcript", "otlp", "import"],
    WithJsonSchema({"type": "string"}),
]
MetricName = Literal["requests", "units", "tokens", "cost_usd"]
ActionName = Literal["reject", "warn"]


class WhoArguments(Arguments):
    """Whose usage it is. What is left out is what the client told us about itself."""

    agent: str | None = None
    parent: str | None = None
    session: str | None = None
    project: str | None = None

    def who(self, caller: "Caller", service: str | None = None, *, project: str | None = None) -> Who:
        """`project` is used where neither the argument nor the caller names one. Raises InvalidInput."""
        agent = self.agent if self.agent is not None else caller.default_agent
        if agent is None:
            raise InvalidInput(
                "agent", "is required here: say which agent this is for, such as agent='research-bot'"
            )
        return Who(
            agent,
            service,
            self.parent,
            _first(self.project, caller.default_project, project),
            _first(self.session, caller.default_session),
        )


class AmountsArguments(Arguments):
    """How much. Unstated is unknown, not 0."""

    requests: Count = 1
    units: Decimals | None = None
    unit_type: str | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_read_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    cache_write_1h_tokens: Count | None = None
    model: str | None = None
    cost_usd: Decimals | None = None

    def usage(self) -> Usage:
        """Raises InvalidInput."""
        return Usage(
            self.requests,
            None if self.units is None else micro_units(self.units),
            self.unit_type,
            self.input_tokens,
            self.output_tokens,
            self.cache_read_tokens,
            self.cache_write_tokens,
            self.cache_write_1h_tokens,
            self.model,
            None if self.cost_usd is None else nano_usd(self.cost_usd),
            "unpriced" if self.cost_usd is None else "reported",
        )


class DetailArguments(Arguments):
    """What else is known about usage that happened."""

    status_code: Count | None = None
    duration_ms: Count | None = None
    metadata: Json | None = None


class RecordUsage(WhoArguments, AmountsArguments, DetailArguments):
    service: str
    operation: str | None = None
    id: Annotated[str | None, Field(description="your key: a repeat with the same id counts once")] = None
    occurred_at: Moment | None = None
    source: SourceName | None = None

    def report(self, caller: "Caller", usual_source: "Source" = "self") -> Report:
        """Raises InvalidInput."""
        return Report(
            self.who(caller, self.service),
            self.usage(),
            self.id,
            self.operation,
            self.source,
            None if self.occurred_at is None else parse_time(self.occurred_at, "occurred_at"),
            self.status_code,
            self.duration_ms,
            check.metadata_text(self.metadata),
            usual_source,
        )


class CheckBudget(WhoArguments, AmountsArguments):
    service: str | None = None


class ReserveBudget(WhoArguments, AmountsArguments):
    service: str
    operation: str | None = None
    id: str | None = None
    ttl: str = check.TTL_DEFAULT

    def report(self, caller: "Caller") -> Report:
        """Raises InvalidInput."""
        return Report(self.who(caller, self.service), self.usage(), self.id, self.operation)

    def ttl_us(self) -> int:
        return check.ttl_of(self.ttl)


class SettleReservation(AmountsArguments, DetailArguments):
    reservation_id: str
    action: Literal["settle", "release", "extend"] = "settle"
    ttl: str = check.TTL_DEFAULT

    def settle(self) -> Settle:
        """What was used; as estimated, if no amount is stated. Raises InvalidInput."""
        self._refuse("ttl")
        stated = self.model_fields_set.intersection(AmountsArguments.model_fields)
        return Settle(
            self.reservation_id,
            self.usage() if stated else None,
            self.status_code,
            self.duration_ms,
            check.metadata_text(self.metadata),
            want_limits=True,
        )

    def release(self) -> str:
        """The id. Raises InvalidInput when usage is stated: it would be lost."""
        self._refuse("ttl", *AmountsArguments.model_fields, *DetailArguments.model_fields)
        return self.reservation_id

    def extend_us(self) -> int:
        """For how long from now. Raises InvalidInput."""
        self._refuse(*AmountsArguments.model_fields, *DetailArguments.model_fields)
        return check.ttl_of(self.ttl)

    def _refuse(self, *fields: str) -> None:
        for field in fields:
            if field in self.model_fields_set:
                raise InvalidInput(field, f"means nothing with action={self.action!r}: leave it out")


class Gate(WhoArguments):
    harness: Literal["claude-code", "codex", "gemini"]
    event: Annotated[str, Field(description="hook_event_name")]
    transcript_path: str | None = None
    cwd: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _leave_out_empty(cls, sent: Any) -> Any:
        """A hook fills in what the harness knows, and that is "" where it knows nothing."""
        if not isinstance(sent, dict):
            return sent
        arguments = cast("dict[str, Any]", sent)
        return {field: value for field, value in arguments.items() if value != "" or field == "event"}

    def checked(self) -> Self:
        """Itself. Raises InvalidInput."""
        name(self.event, "event")
        for field, path in (("transcript_path", self.transcript_path), ("cwd", self.cwd)):
            if path is not None and len(path) > PATH_MAX:
                raise InvalidInput(field, f"is {len(path)} characters long; at most {PATH_MAX} are allowed")
        return self


class AgentChanges(Arguments):
    clearable = AGENT_FIELDS

    name: Clearable = None
    tier: Clearable = None
    owner: Clearable = None
    parent: Clearable = None

    def changes(self) -> dict[str, str | None]:
        """What is to change; null clears. Raises InvalidInput when nothing is."""
        changes = {field: getattr(self, field) for field in self.clearable if field in self.model_fields_set}
        if not changes:
            raise InvalidInput(
                "name", "nothing to change: give name, tier, owner or parent (null clears one)"
            )
        return changes


class SetAgent(AgentChanges):
    agent: str


class LimitKeyArguments(Arguments):
    """What a limit is known by."""

    agent: str | None = None
    tier: str | None = None
    project: str | None = None
    session: str | None = None
    service: str | None = None

    def key_of(self, metric: MetricName, window: str) -> LimitKey:
        """Raises InvalidInput."""
        named = {field: getattr(self, field) for field in LIMIT_FIELDS}
        return LimitKey(check.subject(**named), self.service, metric, window)


class SetLimit(LimitKeyArguments):
    max: Decimals
    metric: MetricName
    window: Annotated[str, Field(description='rolling "1s".."366d", or hour, day, week, month, year, total')]
    action: ActionName | None = None
    timezone: str | None = None
    thresholds: Annotated[Several[Count] | None, Field(description="alert at these %")] = None

    def key(self) -> LimitKey:
        return self.key_of(self.metric, self.window)

    def maximum(self) -> int:
        """In the metric's integer unit. Raises InvalidInput."""
        return limit_maximum(self.metric, self.max)


class RemoveLimit(LimitKeyArguments):
    limit_id: str | None = None
    metric: MetricName | None = None
    window: str | None = None

    def key(self) -> LimitKey | None:
        """The natural key; None when the limit is named by its id. Raises InvalidInput."""
        if self.limit_id is not None:
            for field in sorted(self.model_fields_set - {"limit_id"}):
                raise InvalidInput(field, "leave it out: limit_id already names the limit")
            return None
        if self.metric is None or self.window is None:
            missing = "metric" if self.metric is None else "window"
            raise InvalidInput(
                missing, "is required, unless limit_id names the limit (list_limits shows ids)"
            )
        return self.key_of(self.metric, self.window)


class SetKillSwitch(Arguments):
    engaged: Flag
    agent: str | None = None
    service: str | None = None
    everything: Flag | None = None
    reason: Annotated[str | None, Field(description="required to engage")] = None

    def target(self) -> "tuple[SwitchKind, str | None]":
        """Raises InvalidInput unless exactly one is named."""
        given = [
            field for field in ("agent", "service", "everything") if getattr(self, field) not in (None, False)
        ]
        if len(given) != 1:
            raise InvalidInput(
                given[1] if given else "agent", "name exactly one of agent, service and everything (true)"
            )
        if given == ["agent"]:
            return "agent", self.agent
        return ("service", self.service) if given == ["service"] else ("everything", None)


def _first(*values: str | None) -> str | None:
    return next((value for value in values if value is not None), None)
