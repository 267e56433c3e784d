"""What a meter answers: small values with the names of the tools' results, from a ledger or from JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from agent_meter_mcp.core.models import METRICS
from agent_meter_mcp.core.money import number_of
from agent_meter_mcp.core.times import optional_time, time_text
from agent_meter_mcp.core.value import Value
from agent_meter_mcp.core.windows import seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Literal, TypeAlias

    from agent_meter_mcp.core import decide
    from agent_meter_mcp.core.commands import Recorded, Reserved
    from agent_meter_mcp.core.models import CostSource, Outcome, Reservation

    Number: TypeAlias = int | float
    ReasonCode: TypeAlias = Literal["kill_switch", "limit", "soft_limit", "unreachable"]
    Finished: TypeAlias = Literal["recorded", "duplicate", "corrected", "spooled"]


class LimitState(Value):
    """A limit that binds, and where it stands."""

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


class Holder(Value):
    """Who holds part of a limit."""

    reservation_id: str
    agent: str
    amount: Number
    expires_at: str


class Reason(Value):
    """Why not, or, for `soft_limit`, what to mind. `unreachable`: the meter could not be asked."""

    code: ReasonCode
    message: str
    limit_id: str | None = None
    asked: Number | None = None
    retry_at: str | None = None
    holders: tuple[Holder, ...] = ()


class Decided(Value):
    """Whether it is allowed, and everything that explains it."""

    message: str
    allowed: bool
    reasons: tuple[Reason, ...] = ()
    retry_after_s: int | None = None
    affordable: Mapping[str, Number] | None = None
    limits: tuple[LimitState, ...] = ()


class BudgetReserved(Decided):
    """`reservation_id` is None when denied, and when the meter could not be asked."""

    status: Literal["reserved", "duplicate", "denied", "unreachable"] = "denied"
    reservation_id: str | None = None
    expires_at: str | None = None


class UsageRecorded(Value):
    """`status` "spooled": it is on disk here until the meter can be reached; `outcome` is not known yet."""

    message: str
    id: str
    status: Finished
    outcome: Outcome | None = None
    cost_usd: Number | None = None
    cost_source: CostSource | None = None
    retry_after_s: int | None = None
    limits: tuple[LimitState, ...] = ()


class ReservationSettled(Value):
    """`id` and what follows describe the usage; released and extended holds have none."""

    message: str
    reservation_id: str | None
    status: Literal["recorded", "duplicate", "corrected", "spooled", "released", "expired", "open"]
    expires_at: str | None = None
    late: bool = False
    id: str | None = None
    outcome: Outcome | None = None
    cost_usd: Number | None = None
    cost_source: CostSource | None = None
    retry_after_s: int | None = None
    limits: tuple[LimitState, ...] = ()


def members_of(document: object) -> dict[str, Any]:
    """The members of a JSON object; none of anything else."""
    return cast("dict[str, Any]", document) if isinstance(document, dict) else {}


T = TypeVar("T", bound=Value)
_INSIDE: dict[str, type[Value]] = {"limits": LimitState, "reasons": Reason, "holders": Holder}


def parsed(kind: type[T], document: object) -> T:
    """A result from its JSON. What a newer server adds is left out.

    Raises:
        ValueError: it is none.
    """
    members = members_of(document)
    given = {field: members[field] for field in kind.fields if field in members}
    for field, inside in _INSIDE.items():
        if field in given:
            given[field] = tuple(parsed(inside, part) for part in given[field] or ())
    try:
        return kind(**given)
    except TypeError as error:
        raise ValueError(f"no {kind.__name__}: {error}") from error


# From a ledger of this process


def _limit(state: decide.LimitState) -> LimitState:
    key, metric = state.limit.key, state.limit.key.metric
    return LimitState(
        state.limit.limit_id,
        str(key.subject),
        state.scope or None,
        key.service,
        metric,
        key.window,
        number_of(metric, state.limit.max),
        number_of(metric, state.used),
        number_of(metric, state.held),
        number_of(metric, state.remaining),
        state.percent,
        state.limit.action,
        state.exceeded,
        optional_time(state.resets_at_us),
        optional_time(state.frees_at_us),
        number_of(metric, state.burn_per_hour),
        optional_time(state.runs_out_at_us),
    )


def _reason(reason: decide.Reason, say: Callable[[decide.Reason], str]) -> Reason:
    state = reason.state
    metric = "requests" if state is None else state.limit.key.metric
    return Reason(
        reason.code,
        say(reason),
        None if state is None else state.limit.limit_id,
        None if reason.asked is None else number_of(metric, reason.asked),
        optional_time(reason.retry_at_us),
        tuple(
            Holder(
                holder.reservation_id,
                holder.agent,
                number_of(metric, holder.amount),
                time_text(holder.expires_at_us),
            )
            for holder in reason.holders
        ),
    )


def decided_fields(decision: decide.Decision, say: Callable[[decide.Reason], str]) -> dict[str, Any]:
    """All of a Decided but its message. `say` puts a reason into words."""
    return {
        "allowed": decision.allowed,
        "reasons": tuple(_reason(reason, say) for reason in decision.reasons),
        "retry_after_s": seconds(decision.retry_after_us),
        "affordable": {
            metric: number_of(metric, amount)
            for metric, amount in zip(METRICS, decision.affordable, strict=True)
            if amount is not None
        },
        "limits": tuple(_limit(state) for state in decision.limits),
    }


def reserved_fields(reserved: Reserved) -> dict[str, Any]:
    """What a BudgetReserved has beside what a Decided has."""
    held = reserved.reservation
    return {
        "status": reserved.status,
        "reservation_id": None if held is None else held.reservation_id,
        "expires_at": None if held is None else time_text(held.expires_at_us),
    }


def recorded_fields(recorded: Recorded) -> dict[str, Any]:
    """All of a UsageRecorded but its message."""
    cost = recorded.cost_nano_usd
    return {
        "id": recorded.event_id,
        "status": recorded.status,
        "outcome": recorded.outcome,
        "cost_usd": None if cost is None else number_of("cost_usd", cost),
        "cost_source": recorded.cost_source,
        "retry_after_s": seconds(recorded.retry_after_us),
        "limits": tuple(_limit(state) for state in recorded.limits),
    }


def hold_fields(held: Reservation) -> dict[str, Any]:
    """A ReservationSettled of a hold that was released or extended, without its message."""
    state = held.state
    return {
        "reservation_id": held.reservation_id,
        "status": state if state in ("open", "expired") else "released",
        "expires_at": time_text(held.expires_at_us),
    }
