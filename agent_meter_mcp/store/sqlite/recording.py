"""Usage that happened: recorded once, counted always; replays, corrections, settlements."""

from __future__ import annotations

from agent_meter_mcp.core.booking import booked_at
from agent_meter_mcp.core.commands import Record, Recorded, Settle
from agent_meter_mcp.core.errors import Conflict, NotFound
from agent_meter_mcp.core.models import Reservation, StoredEvent, Usage, UsageEvent

from .configuring import link_parent
from .rows import AMOUNTS as AMOUNT_COLUMNS
from .rows import SETTLED, amount_columns, key_of, stored_event, stored_reservation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent_meter_mcp.core.decide import LimitState
    from agent_meter_mcp.core.models import Amounts, Outcome

    from .book import Plan
    from .rows import Row
    from .writer import Writer


def record(writer: Writer, command: Record) -> Recorded:
    """Rules 5 to 9."""
    event = command.event
    who, usage = event.who, event.usage.kept
    if who.parent is not None or usage is not event.usage:
        event = event.replace(who=who.replace(parent=None), usage=usage)
    key = key_of(event.id)
    service = who.service or ""
    if writer.careful or who.parent is not None or writer.has_pending(key, service):
        stored = find_event(writer, service, key)
        if stored is not None:
            sent = event if command.source_is_stated else event.replace(source=stored.event.source)
            return _replay(writer, stored, sent, command.want_limits)
    if writer.holds.has(service, key):
        raise Conflict(
            f"id {event.id!r} belongs to an open reservation at {service}: settle that reservation"
        )
    if who.parent is not None:
        writer.check_totals(usage.amounts)
        link_parent(writer, who)
    at_us = writer.at_us
    booked_us = booked_at(event.occurred_at_us, at_us, may_backdate=command.may_backdate)
    return _store(writer, event, key, at_us, booked_us, want_limits=command.want_limits)


def _store(
    writer: Writer,
    event: UsageEvent,
    key: str | bytes,
    at_us: int,
    booked_us: int,
    *,
    held: Reservation | None = None,
    late: bool = False,
    want_limits: bool = False,
) -> Recorded:
    """Judges, counts and keeps a new event. `held` is the open reservation that it settles."""
    usage = event.usage
    amounts = usage.amounts
    if writer.rollups.nearly_full:
        writer.check_totals(amounts)
    plan = writer.book.plan(event.who)
    counters = writer.ready(plan, at_us)
    if held is None:
        outcome = writer.over(counters, amounts, booked_us, at_us)
    else:
        writer.hold(held, -1, at_us)
        outcome = _settled_outcome(writer, plan, held, amounts, at_us)
    writer.book.last = at_us
    writer.count(counters, amounts, booked_us, at_us)
    dim = dim_of(writer, plan, event, outcome, at_us)
    writer.add_event(event_row(writer, event, key, dim, at_us, booked_us), event.who.service or "", booked_us)
    if want_limits:
        limits, retry_after_us = _limits(writer, plan, at_us)
        return Recorded(
            event.id, at_us, "recorded", outcome, usage.cost_nano_usd, usage.cost_source, booked_us, late,
            limits, retry_after_us, plan.switch,
        )  # fmt: skip
    return Recorded(
        event.id, at_us, "recorded", outcome, usage.cost_nano_usd, usage.cost_source, booked_us, late
    )


def event_row(
    writer: Writer, event: UsageEvent, key: str | bytes, dim: int, at_us: int, booked_us: int
) -> Row:
    """The row of `EVENT_COLUMNS`."""
    usage = event.usage
    return (
        at_us,
        key,
        writer.names.service(event.who.service or ""),
        dim,
        *amount_columns(usage),
        None if usage.price_version is None else writer.names.price(usage.price_version),
        None if booked_us == at_us else booked_us,
        event.occurred_at_us,
        event.status_code,
        event.duration_ms,
        event.metadata,
    )


def _settled_outcome(writer: Writer, plan: Plan, held: Reservation, actual: Amounts, at_us: int) -> Outcome:
    """Rule 12: inside what was held is inside; the rest is judged where the hold was made."""
    reserved = held.usage.amounts
    for counter in plan.counters:
        index = counter.metric
        if (
            counter.hard
            and actual[index] > reserved[index]
            and not writer.inside(counter, actual[index], held.reserved_at_us, at_us)
        ):
            return "over_limit"
    return "accepted"


def dim_of(writer: Writer, plan: Plan, event: UsageEvent, outcome: Outcome, at_us: int) -> int:
    """The interned dimensions of an event."""
    usage = event.usage
    short = (event.operation, usage.model, event.source, usage.unit_type, outcome)
    dim = plan.dims.get(short)
    if dim is None:
        who = event.who
        dim = writer.names.dim(
            (
                who.service or "",
                who.agent,
                event.operation or "",
                usage.model or "",
                who.project or "",
                who.session or "",
                event.source,
                usage.unit_type or "",
                outcome,
            ),
            at_us,
        )
        if len(plan.dims) > 1000:
            plan.dims.clear()
        plan.dims[short] = dim
    return dim


def _limits(writer: Writer, plan: Plan, at_us: int) -> tuple[tuple[LimitState, ...], int | None]:
    """The states of all that binds, and when one more would fit again, if it does not now."""
    counters = plan.counters
    states = tuple(writer.book.states(counters, at_us))
    retry_after_us = None
    moments = [
        writer.book.retry_at(counter, None, at_us)
        for counter in counters
        if counter.hard and counter.exceeded
    ]
    if moments and None not in moments:
        retry_after_us = max(moment for moment in moments if moment is not None) - at_us
    plan.leave()
    return states, retry_after_us


# -- replays -------------------------------------------------------------------------------------------------


def find_event(writer: Writer, service: str, key: str | bytes) -> StoredEvent | None:
    """The event under this key, pending ones too."""
    if writer.has_pending(key, service):
        writer.put_down()
    return stored_event(writer.connection, service, key)


def _replay(writer: Writer, stored: StoredEvent, sent: UsageEvent, want_limits: bool) -> Recorded:
    """Rule 8."""
    from agent_meter_mcp.core.replay import classify  # which a one-shot record does not need

    status, differing = classify(stored.event, sent)
    if status == "conflict":
        raise Conflict(
            f"id {sent.id!r} was recorded before with other content: {', '.join(differing)}"
            f" {'differs' if len(differing) == 1 else 'differ'}."
            " Nothing was changed. Use a new id for new usage; only growing amounts correct an earlier"
            " report.",
            differing,
        )
    if status == "corrected":
        stored = _correct(writer, stored, sent)
    usage = stored.event.usage
    result = Recorded(
        stored.event.id,
        stored.seq,
        status,
        stored.outcome,
        usage.cost_nano_usd,
        usage.cost_source,
        stored.booked_at_us,
    )
    if not want_limits:
        return result
    plan = writer.book.plan(sent.who)
    limits, retry_after_us = _limits(writer, plan, writer.at_us)
    return result.replace(limits=limits, retry_after_us=retry_after_us, switch=plan.switch)


def _correct(writer: Writer, stored: StoredEvent, sent: UsageEvent) -> StoredEvent:
    """Counts the difference at the old booking, and keeps the older figures."""
    from json import dumps

    at_us, booked_us = writer.at_us, stored.booked_at_us
    older, newer = stored.event.usage.amounts, sent.usage.amounts
    delta = (newer[0] - older[0], newer[1] - older[1], newer[2] - older[2], newer[3] - older[3])
    writer.check_totals(delta)
    plan = writer.book.plan(sent.who)
    counters = writer.ready(plan, at_us)
    writer.put_down()
    outcome = stored.outcome
    for counter in counters:
        if counter.hard and not writer.inside(
            counter, newer[counter.metric], booked_us, at_us, own_used=older[counter.metric]
        ):
            outcome = "over_limit"
    writer.count(counters, delta, booked_us, at_us)
    writer.book.make_final(at_us)
    dims = [
        dim_of(writer, plan, stored.event, stored.outcome, at_us),
        dim_of(writer, plan, stored.event, outcome, at_us),
    ]
    usage, execute = sent.usage, writer.connection.execute
    execute(
        "INSERT INTO correction (event, at, older) VALUES (?, ?, ?)",
        (
            stored.seq,
            at_us,
            dumps(dict(zip(AMOUNT_COLUMNS.split(", "), amount_columns(stored.event.usage), strict=True))),
        ),
    )
    settings = ", ".join(f"{column} = ?" for column in AMOUNT_COLUMNS.split(", "))
    execute(
        f"UPDATE event SET dim = ?, {settings}, price = ?, status = ?, duration = ?, metadata = ?"
        " WHERE id = ?",
        (
            dims[1],
            *amount_columns(usage),
            None if usage.price_version is None else writer.names.price(usage.price_version),
            sent.status_code,
            sent.duration_ms,
            sent.metadata,
            stored.seq,
        ),
    )
    writer.rollups.correct(
        stored.seq, booked_us, _rollup_row(dims[0], stored.event.usage), _rollup_row(dims[1], usage)
    )
    for counter in counters:
        is_first = counter.window.kind == "total" and counter.first_us == booked_us
        if is_first and older[counter.metric] > newer[counter.metric] == 0:
            counter.first_us = counter.sums.first_booked()
    return stored.replace(event=sent, outcome=outcome)


def _rollup_row(dim: int, usage: Usage) -> tuple[int, ...]:
    amounts = amount_columns(usage)
    return (dim, *(amount or 0 for amount in amounts), int(amounts[7] is None))


# -- settling ------------------------------------------------------------------------------------------------


_SETTLE = f"UPDATE reservation SET state = {SETTLED} WHERE id = ?"


def find_reservation(writer: Writer, reservation_id: str, at_us: int) -> Reservation:
    """Raises NotFound."""
    held = writer.holds.newest.get(reservation_id)
    if held is not None and held.expires_at_us > at_us:
        return held
    stored = stored_reservation(writer.connection, reservation_id, at_us)
    if stored is None:
        raise NotFound(
            f"there is no reservation {reservation_id!r}. Its id is in the answer of reserve_budget."
        )
    return stored


def settle(writer: Writer, command: Settle) -> Recorded:
    """Rule 12."""
    at_us = writer.at_us
    held = find_reservation(writer, command.reservation_id, at_us)
    usage = held.usage if command.usage is None else command.usage.instead_of(held.usage)
    event = UsageEvent(
        held.event_id,
        held.who,
        usage.kept,
        held.operation,
        held.source,
        None,
        command.status_code,
        command.duration_ms,
        command.metadata,
    )
    key = key_of(event.id)
    is_open = held.state == "open"
    # The id of an open hold is nobody's usage: whoever tries is a conflict.
    stored = None if is_open and not writer.careful else find_event(writer, held.who.service or "", key)
    if stored is not None:
        answer = _replay(writer, stored, event, command.want_limits)
        return answer.replace(late=stored.booked_at_us != held.reserved_at_us)
    writer.check_totals(usage.amounts)
    # A counter that is computed now must still find the hold, which is taken off it next.
    writer.ready(writer.book.plan(held.who), at_us)
    writer.cursor.execute(_SETTLE, (held.reserved_at_us,))
    writer.holds.closed(held, key)
    booked_us = held.reserved_at_us if is_open else at_us
    return _store(
        writer,
        event,
        key,
        at_us,
        booked_us,
        held=held if is_open else None,
        late=not is_open,
        want_limits=command.want_limits,
    )
