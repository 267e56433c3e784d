"""Reservations: held atomically, released, extended; and refusals, kept."""

from __future__ import annotations

from agent_meter_mcp.core.commands import Extend, Refusal, Refuse, Release, Reserve, Reserved
from agent_meter_mcp.core.decide import Decision, Reason, decision
from agent_meter_mcp.core.errors import Conflict
from agent_meter_mcp.core.models import SECOND_US, Reservation, UsageEvent

from .configuring import link_parent
from .counters import has_room
from .driver import IntegrityError
from .recording import dim_of, find_event, find_reservation
from .rows import (
    ONE_MORE,
    REFUSAL_INSERT,
    RELEASED,
    RESERVATION_COLUMNS,
    RESERVATION_INSERT,
    amount_columns,
    bound,
    key_of,
    reservation_columns,
    reservation_of,
)
from .writer import Replayed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from agent_meter_mcp.core.commands import Result

    from .writer import Writer

LATE_US = 15_000_000
LATE = "late"
"""The row of `meta` that counts refusals which were written so late: who keeps sums has to read them anew."""


def reserve(writer: Writer, command: Reserve) -> Reserved:
    """Rules 10 and 11."""
    who, usage = command.who, command.usage.kept
    if who.parent is not None:
        who = who.replace(parent=None)
    service = who.service or ""
    key = key_of(command.event_id)
    if writer.careful or not command.is_new:
        held = _find_hold(writer, service, key)
        if held is not None:
            return _again(writer, command, held)
        if find_event(writer, service, key) is not None:
            raise Conflict(
                f"id {command.event_id!r} is usage that was recorded already at {service}: use a new id"
            )
    amounts = usage.amounts
    writer.check_totals(amounts)
    writer.holds.check_room(amounts)
    if command.who.parent is not None:
        link_parent(writer, command.who)
    at_us = writer.at_us
    plan = writer.book.plan(who)
    counters = writer.ready(plan, at_us, enters=False)
    reasons: tuple[Reason, ...] = ()
    if plan.switch is not None or not has_room(counters, usage.stated):
        verdict = writer.book.decide(who, usage, at_us)
        if not verdict.allowed:
            first = verdict.reasons[0]
            limit_id = None if first.state is None else first.state.limit.limit_id
            _fold(writer, Refusal(who, command.operation, command.source, usage, limit_id, at_us))
            if writer.book.last == at_us:
                writer.enter(counters)
            else:  # one more of a fold: it takes no seq
                plan.leave()
            return Reserved("denied", verdict, None)
        reasons = verdict.reasons
    writer.enter(counters)
    writer.book.last = at_us
    held = Reservation(
        command.reservation_id,
        command.event_id,
        who,
        usage,
        command.operation,
        command.source,
        at_us,
        at_us + command.ttl_us,
    )
    try:
        writer.cursor.execute(RESERVATION_INSERT, bound(reservation_columns(held, key)))
    except IntegrityError:
        if writer.careful:
            raise
        raise Replayed from None
    writer.opened(held, key)
    writer.names.know_agent(who.agent, at_us)
    writer.hold(held, 1, at_us)
    return Reserved("reserved", _after(writer, held, at_us, reasons), held)


def _find_hold(writer: Writer, service: str, key: str | bytes) -> Reservation | None:
    """The reservation whose event has this key."""
    row = writer.connection.execute(
        f"SELECT {RESERVATION_COLUMNS} FROM reservation WHERE key = ? AND service = ?", (key, service)
    ).fetchone()
    return None if row is None else reservation_of(row, writer.at_us)


def _after(writer: Writer, held: Reservation, at_us: int, reasons: tuple[Reason, ...] = ()) -> Decision:
    """The decision as the caller gets it: allowed, with the states as they are with this hold."""
    plan = writer.book.plan(held.who)
    states = writer.book.states(plan.counters, at_us)
    plan.leave()
    return decision(states, None, reasons, at_us)


def _again(writer: Writer, command: Reserve, held: Reservation) -> Reserved:
    source = command.source if command.source_is_stated else held.source
    sent = (command.who.replace(parent=None), command.usage.kept, command.operation, source)
    if sent != (held.who, held.usage, held.operation, held.source):
        raise Conflict(f"id {command.event_id!r} was reserved before with other content: use a new id")
    return Reserved("duplicate", _after(writer, held, writer.at_us), held)


def release(writer: Writer, command: Release) -> Reservation:
    """Rule 13."""
    at_us = writer.at_us
    held = find_reservation(writer, command.reservation_id, at_us)
    if held.state == "settled":
        raise Conflict(
            f"reservation {held.reservation_id!r} is settled: its usage happened and stays recorded"
        )
    if held.state != "open":
        return held
    writer.hold(held, -1, at_us)
    writer.book.make_final(at_us)
    writer.connection.execute(
        f"UPDATE reservation SET state = {RELEASED} WHERE reservation_id = ?", (held.reservation_id,)
    )
    writer.holds.closed(held, key_of(held.event_id))
    return held.replace(state="released")


def extend(writer: Writer, command: Extend) -> Reservation:
    """Rule 13."""
    at_us = writer.at_us
    held = find_reservation(writer, command.reservation_id, at_us)
    if held.state != "open":
        raise Conflict(f"reservation {held.reservation_id!r} is {held.state}: reserve again")
    expires_us = at_us + command.ttl_us
    writer.connection.execute(
        "UPDATE reservation SET expires = ? WHERE reservation_id = ?", (expires_us, held.reservation_id)
    )
    writer.next_expiry_us = min(writer.next_expiry_us, expires_us)
    writer.holds.newest.pop(held.reservation_id, None)
    return held.replace(expires_at_us=expires_us)


def refuse(writer: Writer, command: Refuse) -> int:
    """Rule 15."""
    for refusal in command.refusals:
        _fold(writer, refusal)
    return sum(refusal.count for refusal in command.refusals)


def _fold(writer: Writer, refusal: Refusal) -> None:
    who, execute = refusal.who.replace(parent=None), writer.connection.execute
    second = refusal.first_at_us // SECOND_US
    place = (second, who.agent, who.service or "", refusal.limit_id or "")
    row = execute(
        "UPDATE refusal SET count = count + ? WHERE second = ? AND agent = ? AND service = ? AND limit_id = ?"
        " RETURNING id, dim",
        (refusal.count, *place),
    ).fetchone()
    if row is not None:
        writer.rollups.add_refusals(row[1], refusal.count, row[0])
        if writer.at_us - row[0] > LATE_US:
            execute(ONE_MORE, (LATE,))
        return
    seq = writer.take_seq()
    asked = refusal.asked.kept
    event = UsageEvent("", who, asked, refusal.operation, refusal.source)
    dim = dim_of(writer, writer.book.plan(who), event, "rejected", seq)
    execute(
        REFUSAL_INSERT,
        bound((seq, *place, dim, refusal.count, *amount_columns(asked), asked.price_version)),
    )
    writer.rollups.add_refusals(dim, refusal.count, seq)


HANDLERS: dict[type, Callable[[Writer, Any], Result]] = {
    Reserve: reserve,
    Release: release,
    Extend: extend,
    Refuse: refuse,
}
