"""What a meter answers over the wire, read back into the values of the core.

Amounts are exact up to 8 million dollars and 8 thousand million units, and whole ones of any size; beyond,
they are the nearest that a number of JSON can say, which is all there is on the wire. What is told is another
program's: a missing member or a wrong kind of value is a KeyError, TypeError or ValueError here.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

from agent_meter_mcp.core.decide import LimitState
from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.keys import Key
from agent_meter_mcp.core.limits import Bound
from agent_meter_mcp.core.models import (
    ACTIONS,
    LIMIT_FIELDS,
    METRICS,
    OUTCOMES,
    Agent,
    Alert,
    AuditEntry,
    KillSwitch,
    Limit,
    LimitKey,
    Reservation,
    StoredEvent,
    Subject,
    Usage,
    UsageEvent,
    Who,
    audited,
)
from agent_meter_mcp.core.money import amount_of
from agent_meter_mcp.core.queries import (
    STATUSES,
    TIME_DIMENSIONS,
    AgentView,
    AlertView,
    Group,
    LimitView,
    Summary,
    Totals,
)
from agent_meter_mcp.core.value import Value
from agent_meter_mcp.core.windows import parse_window
from agent_meter_mcp.faces.wire.fields import parse_time

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from agent_meter_mcp.core.models import Metric
    from agent_meter_mcp.core.queries import Dimension

    Told = dict[str, Any]

_TIMES = {
    field.removesuffix("_us") for kept in (KillSwitch, Key) for field in kept.fields if field.endswith("_us")
}
_KINDS: dict[str, type] = {"int": int, **dict.fromkeys(("str", "CostSource", "Source", "SwitchKind"), str)}
_WORDS: dict[str, Collection[str]] = {
    "Action": ACTIONS,
    "AgentStatus": STATUSES,
    "Metric": METRICS,
    "Outcome": OUTCOMES,
    "SubjectKind": ("pool", *LIMIT_FIELDS),
}
"""Of these there are no others: they are on the screen as they are."""
PER_CENT = 1000
"""What stands for the maximum of a limit that is gone: of its alerts only the percentage is told."""


V = TypeVar("V", bound=Value)


def _sound(made: V) -> V:
    """Raises TypeError where a field is not what its class says that it is."""
    for field, says in type(made).__annotations__.items():
        kind, value = says.removesuffix(" | None"), getattr(made, field)
        if value is None and kind != says:
            continue
        is_so = value in _WORDS[kind] if kind in _WORDS else isinstance(value, _KINDS.get(kind, object))
        if not is_so:
            raise TypeError(f"{field} is {value!r}")
    return made


def moment(text: str) -> int:
    """Raises ValueError."""
    try:
        return parse_time(text, "time")
    except InvalidInput as error:
        raise ValueError(str(error)) from error


def optional_moment(text: str | None) -> int | None:
    return None if text is None else moment(text)


def optional_amount(metric: Metric, number: float | None) -> int | None:
    return None if number is None else amount_of(metric, number)


# Usage


def totals(told: Told) -> Totals:
    counted = {field: told[field] for field in Totals.fields if field in told}
    made = Totals(
        **counted,
        units_micro=amount_of("units", told["units"]),
        cost_nano_usd=amount_of("cost_usd", told["cost_usd"]),
    )
    return _sound(made)


def summary(told: Told, group_by: tuple[Dimension, ...]) -> Summary:
    groups = tuple(
        Group(tuple(_part(dimension, group["key"][dimension]) for dimension in group_by), totals(group))
        for group in told["groups"]
    )
    return Summary(totals(told["total"]), groups, told["groups_left_out"])


def _part(dimension: Dimension, text: str | None) -> str | int | None:
    return moment(text) if text is not None and dimension in TIME_DIMENSIONS else text


def _usage(told: Told) -> Usage:
    plain = {field: told[field] for field in Usage.fields if field in told}
    made = Usage(
        **plain,
        units_micro=optional_amount("units", told["units"]),
        cost_nano_usd=optional_amount("cost_usd", told["cost_usd"]),
    )
    return _sound(made)


def _who(told: Told) -> Who:
    return _sound(Who(told["agent"], told["service"], None, told["project"], told["session"]))


def event(told: Told) -> StoredEvent:
    metadata = told["metadata"]
    happened = UsageEvent(
        told["id"],
        _who(told),
        _usage(told),
        told["operation"],
        told["source"],
        optional_moment(told["occurred_at"]),
        told["status_code"],
        told["duration_ms"],
        None
        if metadata is None
        else json.dumps(metadata, sort_keys=True, separators=(",", ":"), ensure_ascii=False),
    )
    stored = StoredEvent(
        moment(told["recorded_at"]),
        _sound(happened),
        told["outcome"],
        moment(told["counted_at"]),
        told["count"],
        told["limit_id"],
    )
    return _sound(stored)


def hold(told: Told) -> Reservation:
    """One that is open."""
    made = Reservation(
        told["reservation_id"],
        told["id"],
        _who(told),
        _usage(told),
        told["operation"],
        told["source"],
        moment(told["reserved_at"]),
        moment(told["expires_at"]),
    )
    return _sound(made)


# Limits


def limit_view(told: Told, at_us: int) -> LimitView:
    """`at_us` is the meter's time, at which it stood so."""
    limit = _limit(told)
    bound = None if told["binds"] is None else _sound(Bound(limit, told["scope"] or "", told["replaced_by"]))
    return LimitView(limit, None if told["since"] is None else _state(told, limit, at_us), bound)


def agent_view(told: Told, limits: Mapping[str, Limit], at_us: int) -> AgentView:
    """`limits` are all that were told, by their ids: an agent's answer says only the half of its own."""
    tightest = told["tightest"]
    view = AgentView(
        _sound(Agent(told["agent"], told["name"], told["tier"], told["owner"], told["parent"])),
        told["status"],
        optional_moment(told["first_seen"]),
        optional_moment(told["last_seen"]),
        totals(told["spent"]),
        None
        if tightest is None
        else _state(tightest, limits.get(tightest["limit_id"]) or _limit(tightest), at_us),
    )
    return _sound(view)


def _limit(told: Told) -> Limit:
    metric: Metric = told["metric"]
    made = Limit(
        told["limit_id"],
        _limit_key(told, metric),
        amount_of(metric, told["max"]),
        told["action"],
    )
    _sound(made)
    if "timezone" not in told:  # of an agent's tightest limit, when it was removed a moment ago
        return made
    made = made.replace(
        zone=told["timezone"],
        thresholds=tuple(map(int, told["thresholds"])),
        created_at_us=moment(told["created_at"]),
    )
    return _sound(made)


def _limit_key(told: Told, metric: Metric) -> LimitKey:
    try:
        parse_window(told["window"])
    except InvalidInput as error:
        raise ValueError(str(error)) from error
    return _sound(LimitKey(_subject(told["subject"]), told["service"], metric, told["window"]))


def _subject(text: str) -> Subject:
    """The inverse of `str`."""
    if text == "everyone":
        return Subject()
    kind, _, name = text.partition(" ")
    return _sound(Subject(kind, name))  # pyright: ignore[reportArgumentType] - that is what is looked at


def _state(told: Told, limit: Limit, at_us: int) -> LimitState:
    metric = limit.key.metric
    made = LimitState(
        limit,
        told["scope"] or "",
        amount_of(metric, told["used"]),
        amount_of(metric, told["held"]),
        moment(told["since"]),
        optional_moment(told["resets_at"]),
        optional_moment(told["frees_at"]),
        at_us,
    )
    return _sound(made)


# What is kept beside usage


def switch(told: Told) -> KillSwitch:
    at_us = moment(told["engaged_at"])
    return _sound(KillSwitch(told["kind"], told["name"], told["reason"], told["engaged_by"], at_us))


def alert_view(told: Told) -> AlertView:
    """Where the limit is gone, its amounts are not told in any unit: they stand for the percentage."""
    metric: Metric | None = told["metric"]
    used, maximum = (
        (round(told["percent"] * PER_CENT / 100), PER_CENT)
        if metric is None
        else (amount_of(metric, told["used"]), amount_of(metric, told["max"]))
    )
    raised = Alert(
        told["number"],
        moment(told["raised_at"]),
        told["limit_id"],
        told["scope"] or "",
        moment(told["period_start"]),
        told["threshold"],
        used,
        maximum,
    )
    return AlertView(_sound(raised), None if metric is None else _limit_key(told, metric))


def audit_entry(told: Told) -> AuditEntry:
    made = AuditEntry(
        moment(told["at"]),
        told["actor"],
        told["action"],
        told["target"],
        _kept(told["before"]),
        _kept(told["after"]),
        told["reason"],
    )
    return _sound(made)


def _kept(told: Told | None) -> str | None:
    """As the ledger keeps it: the names of the core, times as numbers."""
    if told is None:
        return None
    if "metric" in told:
        value: Any = _limit(told)
    elif "agent" in told:
        value = {"agent_id": told["agent"], **{name: it for name, it in told.items() if name != "agent"}}
    else:
        value = dict(_named(name, it) for name, it in told.items())
    return audited(value)


def _named(name: str, told: Any) -> tuple[str, Any]:
    return (f"{name}_us", optional_moment(told)) if name in _TIMES else (name, told)
