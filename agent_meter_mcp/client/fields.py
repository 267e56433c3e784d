"""What a caller says in keyword arguments, named as the tools' arguments, and what the ledger makes of it."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Required, TypedDict

from agent_meter_mcp.core import check
from agent_meter_mcp.core.commands import Settle
from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.models import TOKEN_FIELDS, Usage, UsageEvent, Who
from agent_meter_mcp.core.money import micro_units, nano_usd, number_of
from agent_meter_mcp.core.times import optional_time, us_of
from agent_meter_mcp.intake import Report

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent_meter_mcp.core.models import Source


class WhoFields(TypedDict, total=False):
    """Whose usage it is."""

    agent: str | None
    parent: str | None
    session: str | None
    project: str | None


class AmountFields(TypedDict, total=False):
    """How much. What is left out is unknown, not 0; `requests` is 1."""

    requests: int
    units: Decimal | float | str | None
    unit_type: str | None
    input_tokens: int | None
    output_tokens: int | None
    cache_read_tokens: int | None
    cache_write_tokens: int | None
    cache_write_1h_tokens: int | None
    model: str | None
    cost_usd: Decimal | float | str | None


class DetailFields(TypedDict, total=False):
    """What else is known about usage that happened."""

    status_code: int | None
    duration_ms: int | None
    metadata: Mapping[str, object] | None


class RecordFields(WhoFields, AmountFields, DetailFields, total=False):
    service: Required[str]
    operation: str | None
    id: str | None
    occurred_at: datetime | str | None
    source: Source


class CheckFields(WhoFields, AmountFields, total=False):
    service: str | None


class ReserveFields(WhoFields, AmountFields, total=False):
    service: Required[str]
    operation: str | None
    id: str | None
    ttl: str


class SettleFields(AmountFields, DetailFields):
    pass


AMOUNTS = frozenset(AmountFields.__annotations__)
_TOKENS = frozenset(TOKEN_FIELDS)


def refuse_unknown(given: Mapping[str, object], kind: type[Any]) -> None:
    """Raises TypeError for a keyword that `kind`, a TypedDict, does not have."""
    known: dict[str, object] = kind.__annotations__
    for field in given:
        if field not in known:
            raise TypeError(f"unexpected keyword argument {field!r}: it takes {', '.join(sorted(known))}")


def who_of(given: Mapping[str, Any], agent: str | None) -> Who:
    """`agent` is who it is for if that is not said; None: it must be. Raises InvalidInput."""
    named = given.get("agent")
    acting = agent if named is None else named
    if acting is None:
        raise InvalidInput(
            "agent", "is required here: say which agent this is for, such as agent='research-bot'"
        )
    if named == "":
        raise InvalidInput("agent", "must not be empty")
    if not isinstance(acting, str):
        raise InvalidInput("agent", "must be text")
    return Who(
        acting,
        _text(given, "service"),
        _text(given, "parent"),
        _text(given, "project"),
        _text(given, "session"),
    )


def usage_of(given: Mapping[str, Any]) -> Usage:
    """Raises InvalidInput."""
    units, cost_usd, requests = given.get("units"), given.get("cost_usd"), given.get("requests")
    tokens = () if _TOKENS.isdisjoint(given) else [_optional_whole(given.get(f), f) for f in TOKEN_FIELDS]
    return Usage(
        1 if requests is None else _whole(requests, "requests"),
        None if units is None else micro_units(units),
        _text(given, "unit_type"),
        *tokens,
        model=_text(given, "model"),
        cost_nano_usd=None if cost_usd is None else nano_usd(cost_usd),
        cost_source="unpriced" if cost_usd is None else "reported",
    )


def report_of(given: Mapping[str, Any], agent: str | None, source: Source) -> Report:
    """Raises InvalidInput."""
    return Report(
        who_of(given, agent),
        usage_of(given),
        _text(given, "id"),
        _text(given, "operation"),
        given.get("source"),
        _moment_us(given.get("occurred_at")),
        _optional_whole(given.get("status_code"), "status_code"),
        _optional_whole(given.get("duration_ms"), "duration_ms"),
        check.metadata_text(given.get("metadata")),
        source,
    )


def settle_of(given: Mapping[str, Any], reservation_id: str, *, want_limits: bool) -> Settle:
    """Without any amount: as estimated. Raises InvalidInput."""
    return Settle(
        reservation_id,
        usage_of(given) if any(given[field] is not None for field in AMOUNTS.intersection(given)) else None,
        _optional_whole(given.get("status_code"), "status_code"),
        _optional_whole(given.get("duration_ms"), "duration_ms"),
        check.metadata_text(given.get("metadata")),
        want_limits,
    )


def added(before: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Amounts used before, and `more`. Of models and units the later one stands. Raises InvalidInput."""
    usage_of(more)
    total = dict(before)
    for field, value in more.items():
        if value is None:
            continue
        earlier = total.get(field)
        if earlier is None or field in ("model", "unit_type"):
            total[field] = value
        elif field in ("units", "cost_usd"):
            total[field] = Decimal(str(earlier)) + Decimal(str(value))
        else:
            total[field] = earlier + value
    return total


def _text(given: Mapping[str, Any], field: str) -> str | None:
    value = given.get(field)
    if value is None or isinstance(value, str):
        return value
    raise InvalidInput(field, "must be text")


def _whole(value: object, field: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise InvalidInput(field, "must be a whole number")


def _optional_whole(value: object, field: str) -> int | None:
    return None if value is None else _whole(value, field)


def _moment_us(value: datetime | str | None) -> int | None:
    if value is None:
        return None
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else value
        if time.tzinfo is None:
            raise ValueError
        return us_of(time)
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise InvalidInput(
            "occurred_at", 'must be a time with an offset from UTC, such as "2026-01-31T18:00:00Z"'
        ) from None


# Onto the wire: the tools' arguments as JSON; what is not stated is left out.


def record_json(event: UsageEvent, source: Source | None) -> dict[str, Any]:
    """The arguments of record_usage."""
    return _stated(
        {
            **_who_json(event.who),
            **usage_json(event.usage),
            "id": event.id,
            "operation": event.operation,
            "source": source,
            "occurred_at": optional_time(event.occurred_at_us),
            "status_code": event.status_code,
            "duration_ms": event.duration_ms,
            "metadata": None if event.metadata is None else json.loads(event.metadata),
        }
    )


def ask_json(who: Who, usage: Usage, **more: str | None) -> dict[str, Any]:
    """The arguments of check_budget or, with `more`, of reserve_budget."""
    return _stated({**_who_json(who), **usage_json(usage), **more})


def settle_json(settle: Settle) -> dict[str, Any]:
    """The arguments of settle_reservation."""
    return _stated(
        {
            "reservation_id": settle.reservation_id,
            **({} if settle.usage is None else usage_json(settle.usage)),
            "status_code": settle.status_code,
            "duration_ms": settle.duration_ms,
            "metadata": None if settle.metadata is None else json.loads(settle.metadata),
        }
    )


def source_json(report: Report) -> Source | None:
    """What nobody has named is left out: the meter knows from the key whether it is an agent's own word."""
    return None if report.source is None and report.usual_source == "self" else report.measured_by


def usage_json(usage: Usage) -> dict[str, Any]:
    """The amounts; a cost only if it was reported."""
    cost = usage.cost_nano_usd if usage.cost_source == "reported" else None
    return {
        "requests": usage.requests,
        "units": None if usage.units_micro is None else number_of("units", usage.units_micro),
        "unit_type": usage.unit_type,
        **{field: getattr(usage, field) for field in TOKEN_FIELDS},
        "model": usage.model,
        "cost_usd": None if cost is None else number_of("cost_usd", cost),
    }


def _who_json(who: Who) -> dict[str, Any]:
    return {**who.as_dict(), "agent": who.agent or None}


def _stated(members: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in members.items() if value is not None}
