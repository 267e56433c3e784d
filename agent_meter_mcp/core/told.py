"""What the ledger answers, as JSON has it: its names, numbers of dollars and units, times as text.

The tools and the client make their results of it.
"""

from __future__ import annotations

from .models import METRICS, TOKEN_FIELDS
from .money import number_of
from .times import optional_time, time_text
from .windows import seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .commands import Recorded, Reserved
    from .decide import Decision, LimitState, Reason
    from .models import Metric, Reservation, StoredEvent, Usage

    Fields = dict[str, Any]


def state_fields(state: LimitState) -> Fields:
    """Where a limit stands. `since` when it counts is for whoever works out the rate again."""
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


def reason_fields(reason: Reason, say: Callable[[Reason], str]) -> Fields:
    """Why not. `say` puts it into words."""
    state = reason.state
    metric = "requests" if state is None else state.limit.key.metric
    return {
        "code": reason.code,
        "message": say(reason),
        "limit_id": None if state is None else state.limit.limit_id,
        "asked": None if reason.asked is None else number_of(metric, reason.asked),
        "retry_at": optional_time(reason.retry_at_us),
        "holders": [
            {
                "reservation_id": holder.reservation_id,
                "agent": holder.agent,
                "amount": number_of(metric, holder.amount),
                "expires_at": time_text(holder.expires_at_us),
            }
            for holder in reason.holders
        ],
    }


def decided_fields(decision: Decision, say: Callable[[Reason], str]) -> Fields:
    """Whether it is allowed. `say` puts a reason into words."""
    return {
        "allowed": decision.allowed,
        "reasons": [reason_fields(reason, say) for reason in decision.reasons],
        "retry_after_s": seconds(decision.retry_after_us),
        "affordable": {
            metric: number_of(metric, amount)
            for metric, amount in zip(METRICS, decision.affordable, strict=True)
            if amount is not None
        },
        "limits": [state_fields(state) for state in decision.limits],
    }


def reserved_fields(reserved: Reserved, say: Callable[[Reason], str]) -> Fields:
    """As `decided_fields`, and the hold if there is one."""
    held = reserved.reservation
    return {
        **decided_fields(reserved.decision, say),
        "status": reserved.status,
        "reservation_id": None if held is None else held.reservation_id,
        "expires_at": None if held is None else time_text(held.expires_at_us),
    }


def recorded_fields(recorded: Recorded) -> Fields:
    """What was counted."""
    cost = recorded.cost_nano_usd
    return {
        "id": recorded.event_id,
        "status": recorded.status,
        "outcome": recorded.outcome,
        "cost_usd": None if cost is None else number_of("cost_usd", cost),
        "cost_source": recorded.cost_source,
        "retry_after_s": seconds(recorded.retry_after_us),
        "limits": [state_fields(state) for state in recorded.limits],
    }


def settled_fields(reservation_id: str, recorded: Recorded) -> Fields:
    """What was counted at the end of a hold."""
    return {"reservation_id": reservation_id, "late": recorded.late, **recorded_fields(recorded)}


def hold_fields(held: Reservation) -> Fields:
    """A hold that was released or extended."""
    state = held.state
    return {
        "reservation_id": held.reservation_id,
        "status": state if state in ("open", "expired") else "released",
        "expires_at": time_text(held.expires_at_us),
    }


def usage_fields(usage: Usage, number: Callable[[Metric, int], object] = number_of) -> Fields:
    """How much was used, of what, and what it costs. `number` makes numbers of dollars and units, where the
    nearest will not do."""
    return {
        "requests": usage.requests,
        "units": None if usage.units_micro is None else number("units", usage.units_micro),
        "unit_type": usage.unit_type,
        **{field: getattr(usage, field) for field in TOKEN_FIELDS},
        "model": usage.model,
        "cost_usd": None if usage.cost_nano_usd is None else number("cost_usd", usage.cost_nano_usd),
        "cost_source": usage.cost_source,
        "price_version": usage.price_version,
    }


def event_fields(stored: StoredEvent, number: Callable[[Metric, int], object] = number_of) -> Fields:
    """A usage event. `number` as in `usage_fields`."""
    from json import loads

    event, who = stored.event, stored.event.who
    return {
        "id": event.id,
        "outcome": stored.outcome,
        "recorded_at": time_text(stored.recorded_at_us),
        "occurred_at": optional_time(event.occurred_at_us),
        "counted_at": time_text(stored.booked_at_us),
        "service": who.service,
        "agent": who.agent,
        "operation": event.operation,
        **usage_fields(event.usage, number),
        "status_code": event.status_code,
        "duration_ms": event.duration_ms,
        "session": who.session,
        "project": who.project,
        "source": event.source,
        "metadata": None if event.metadata is None else loads(event.metadata),
        "limit_id": stored.limit_id,
        "count": stored.count,
    }
