"""What the tools that meter give."""

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field

from agent_meter_mcp.core.models import METRICS
from agent_meter_mcp.core.money import number_of
from agent_meter_mcp.core.times import optional_time, time_text
from agent_meter_mcp.core.windows import seconds

from . import wording
from .fields import (
    ListElsewhere,
    ObjectElsewhere,
    Part,
    Result,
    optional_number,
)

if TYPE_CHECKING:
    from agent_meter_mcp.core import decide
    from agent_meter_mcp.core.commands import Recorded, Reserved
    from agent_meter_mcp.core.models import Reservation

Number = int | float


class LimitState(Part):
    """A limit and where it stands. `scope` says whose counter it is, for a limit that counts each one
    separately."""

    limit_id: str
    subject: str
    scope: str | None
    service: str | None
    metric: str
    window: str
    max: Number
    used: Number
    held: Number
    remaining: Number
    percent: float
    action: str
    exceeded: bool
    resets_at: str | None
    frees_at: str | None
    burn_per_hour: Number
    runs_out_at: str | None

    @classmethod
    def of(cls, state: "decide.LimitState") -> Self:
        return cls(**state_fields(state))


def state_fields(state: "decide.LimitState") -> dict[str, Any]:
    """The fields of a DatedLimitState."""
    key, metric = state.limit.key, state.limit.key.metric
    return {
        "limit_id": state.limit.limit_id,
        "subject": str(key.subject),
        "scope": state.scope or None,
        "service": key.service,
        "metric": metric,
        "window": key.window,
        "max": number_of(metric, state.limit.max),
        "used": number_of(metric, state.used),
        "held": number_of(metric, state.held),
        "remaining": number_of(metric, state.remaining),
        "percent": state.percent,
        "action": state.limit.action,
        "exceeded": state.exceeded,
        "resets_at": optional_time(state.resets_at_us),
        "frees_at": optional_time(state.frees_at_us),
        "burn_per_hour": number_of(metric, state.burn_per_hour),
        "runs_out_at": optional_time(state.runs_out_at_us),
        "since": optional_time(state.since_us),
    }


class DatedLimitState(LimitState):
    """Also since when it counts, for whoever works out the rate again."""

    since: str | None


def limit_states(states: "tuple[decide.LimitState, ...]") -> list[LimitState]:
    return [LimitState.of(state) for state in states]


class Holder(Part):
    """Who holds part of a limit."""

    reservation_id: str
    agent: str
    amount: Number
    expires_at: str


class Reason(Part):
    """Why not, or, for `soft_limit`, what to mind."""

    code: Literal["kill_switch", "limit", "soft_limit"]
    message: str
    limit_id: str | None
    asked: Number | None
    retry_at: str | None
    holders: Annotated[list[Holder], ListElsewhere]

    @classmethod
    def of(cls, reason: "decide.Reason", at_us: int) -> Self:
        state = reason.state
        metric = "requests" if state is None else state.limit.key.metric
        return cls(
            code=reason.code,
            message=wording.reason(reason, at_us),
            limit_id=None if state is None else state.limit.limit_id,
            asked=optional_number(metric, reason.asked),
            retry_at=optional_time(reason.retry_at_us),
            holders=[
                Holder(
                    reservation_id=holder.reservation_id,
                    agent=holder.agent,
                    amount=number_of(metric, holder.amount),
                    expires_at=time_text(holder.expires_at_us),
                )
                for holder in reason.holders
            ],
        )


class UsageRecorded(Result):
    id: str
    status: Literal["recorded", "duplicate", "corrected"]
    outcome: Literal["accepted", "over_limit", "rejected"]
    cost_usd: Number | None
    cost_source: Literal["reported", "computed", "unpriced"]
    retry_after_s: int | None
    limits: Annotated[list[LimitState], ListElsewhere]

    @classmethod
    def of(cls, recorded: "Recorded") -> Self:
        return cls(message=wording.recorded(recorded), **_recorded_fields(recorded))


def _recorded_fields(recorded: "Recorded") -> dict[str, Any]:
    return {
        "id": recorded.event_id,
        "status": recorded.status,
        "outcome": recorded.outcome,
        "cost_usd": optional_number("cost_usd", recorded.cost_nano_usd),
        "cost_source": recorded.cost_source,
        "retry_after_s": seconds(recorded.retry_after_us),
        "limits": limit_states(recorded.limits),
    }


class Decided(Result):
    """Whether it is allowed, and everything that explains it. `affordable` has the metrics that a limit
    counts."""

    allowed: bool
    reasons: list[Reason]
    retry_after_s: int | None
    affordable: dict[str, Number]
    limits: list[LimitState]

    @classmethod
    def of(cls, decision: "decide.Decision", at_us: int) -> Self:
        return cls(message=wording.decision(decision, at_us), **_decided_fields(decision, at_us))


def _decided_fields(decision: "decide.Decision", at_us: int) -> dict[str, Any]:
    return {
        "allowed": decision.allowed,
        "reasons": [Reason.of(reason, at_us) for reason in decision.reasons],
        "retry_after_s": seconds(decision.retry_after_us),
        "affordable": {
            metric: number_of(metric, amount)
            for metric, amount in zip(METRICS, decision.affordable, strict=True)
            if amount is not None
        },
        "limits": limit_states(decision.limits),
    }


class BudgetReserved(Decided):
    status: Literal["reserved", "duplicate", "denied"]
    reasons: Annotated[list[Reason], ListElsewhere]
    affordable: Annotated[dict[str, Number], ObjectElsewhere]
    limits: Annotated[list[LimitState], ListElsewhere]
    reservation_id: str | None
    expires_at: str | None

    @classmethod
    def of_reserved(cls, reserved: "Reserved", at_us: int) -> Self:
        held = reserved.reservation
        return cls(
            message=wording.reserved(reserved, at_us),
            status=reserved.status,
            reservation_id=None if held is None else held.reservation_id,
            expires_at=None if held is None else time_text(held.expires_at_us),
            **_decided_fields(reserved.decision, at_us),
        )


class ReservationSettled(Result):
    """`status` and what follows describe the usage; released and extended ones have none."""

    reservation_id: str
    status: Literal["recorded", "duplicate", "corrected", "released", "expired", "open"]
    expires_at: str | None = None
    late: bool = False
    id: str | None = None
    outcome: Literal["accepted", "over_limit", "rejected"] | None = None
    cost_usd: Number | None = None
    cost_source: Literal["reported", "computed", "unpriced"] | None = None
    retry_after_s: int | None = None
    limits: Annotated[list[LimitState], ListElsewhere] = Field(default_factory=list[LimitState])

    @classmethod
    def of_usage(cls, reservation_id: str, recorded: "Recorded") -> Self:
        return cls(
            message=wording.recorded(recorded),
            reservation_id=reservation_id,
            late=recorded.late,
            **_recorded_fields(recorded),
        )

    @classmethod
    def of_hold(cls, held: "Reservation") -> Self:
        return cls(
            message=wording.hold(held),
            reservation_id=held.reservation_id,
            status="open" if held.state == "open" else "expired" if held.state == "expired" else "released",
            expires_at=time_text(held.expires_at_us),
        )


class GateAnswered(Result):
    """`hook` is what the harness reads; it is the text of the answer."""

    verdict: Literal["allow", "warn", "stop"]
    allowed: bool
    reasons: Annotated[list[Reason], ListElsewhere]
    retry_after_s: int | None
    hook: dict[str, Any] = Field(exclude=True)

    def text(self) -> str:
        return json.dumps(self.hook, ensure_ascii=False)

    @classmethod
    def of(
        cls,
        decision: "decide.Decision",
        verdict: Literal["allow", "warn", "stop"],
        hook: dict[str, Any],
        at_us: int,
    ) -> Self:
        return cls(
            message=wording.decision(decision, at_us),
            verdict=verdict,
            allowed=decision.allowed,
            reasons=[Reason.of(reason, at_us) for reason in decision.reasons],
            retry_after_s=seconds(decision.retry_after_us),
            hook=hook,
        )
