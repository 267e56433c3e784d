"""What uses budgets: record, settle, reserve, release, extend, refuse (rules 5 to 15 and 21)."""

from __future__ import annotations

from agent_meter_mcp.core.booking import booked_at
from agent_meter_mcp.core.commands import (
    Extend,
    Record,
    Recorded,
    Refusal,
    Refuse,
    Release,
    Reserve,
    Reserved,
    Settle,
)
from agent_meter_mcp.core.decide import Reason, decision, reached
from agent_meter_mcp.core.errors import Conflict
from agent_meter_mcp.core.models import SECOND_US, Alert, Reservation, StoredEvent, Usage, UsageEvent, Who
from agent_meter_mcp.core.replay import classify

from .memory_counting import counters_of, decide, is_over_limit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent_meter_mcp.core.decide import Decision
    from agent_meter_mcp.core.models import Amounts, Outcome

    from .memory_book import Book


def record(book: Book, command: Record) -> Recorded:
    at_us, who = book.at_us, command.event.who
    event = command.event.replace(who=who.replace(parent=None), usage=command.event.usage.kept)
    stored = book.event(who.service, event.id)
    if stored is not None:
        sent = event if command.source_is_stated else event.replace(source=stored.event.source)
        return _replay(book, stored, sent, at_us, want_limits=command.want_limits)
    reserved = book.reservation_of(who.service, event.id, at_us)
    if reserved is not None and reserved.state == "open":
        raise Conflict(f"id {event.id!r} belongs to an open reservation: settle that reservation")
    book.check_sums(event.usage.amounts)
    book.link_parent(who, at_us)
    booked_us = booked_at(event.occurred_at_us, at_us, may_backdate=command.may_backdate)
    outcome = _outcome(book, event, booked_us, at_us)
    return _count(book, event, booked_us, outcome, want_limits=command.want_limits)


def settle(book: Book, command: Settle) -> Recorded:
    at_us = book.at_us
    held = book.reservation(command.reservation_id, at_us)
    usage = (command.usage or held.usage).instead_of(held.usage).kept
    event = UsageEvent(
        held.event_id,
        held.who,
        usage,
        held.operation,
        held.source,
        status_code=command.status_code,
        duration_ms=command.duration_ms,
        metadata=command.metadata,
    )
    stored = book.event(held.who.service, event.id)
    if stored is not None:
        replayed = _replay(book, stored, event, at_us, want_limits=command.want_limits)
        return replayed.replace(late=stored.booked_at_us != held.reserved_at_us)
    book.check_sums(usage.amounts)
    book.replace_reservation(held.replace(state="settled"))
    if held.state == "open":
        booked_us = held.reserved_at_us
        outcome = _outcome_of_hold(book, held, usage.amounts, at_us)
    else:
        booked_us = at_us
        outcome = _outcome(book, event, booked_us, at_us)
    recorded = _count(book, event, booked_us, outcome, want_limits=command.want_limits)
    return recorded.replace(late=held.state != "open")


def _outcome(book: Book, event: UsageEvent, booked_us: int, at_us: int) -> Outcome:
    """Of usage that is not counted yet."""
    counters = counters_of(book, book.policy(), event.who, at_us)
    return "over_limit" if is_over_limit(counters, event.usage.amounts, booked_us) else "accepted"


def _outcome_of_hold(book: Book, held: Reservation, actual: Amounts, at_us: int) -> Outcome:
    """Rule 12: what was held is inside; more than that is judged where the hold was made, without it."""
    surpassed = [
        counter
        for counter in counters_of(book, book.policy(), held.who, at_us)
        if actual[counter.index] > held.usage.amounts[counter.index]
    ]
    return "over_limit" if is_over_limit(surpassed, actual, held.reserved_at_us) else "accepted"


def _count(book: Book, event: UsageEvent, booked_us: int, outcome: Outcome, *, want_limits: bool) -> Recorded:
    """Keeps a new event, which counts from now on."""
    seq = book.take_seq()
    stored = StoredEvent(seq, event, outcome, booked_us)
    book.events.append(stored)
    book.know(event.who.agent, seq)
    _raise_alerts(book, stored, event.usage.amounts, seq)
    return _recorded(book, stored, "recorded", seq, want_limits=want_limits)


def _replay(book: Book, stored: StoredEvent, sent: UsageEvent, at_us: int, *, want_limits: bool) -> Recorded:
    status, differing = classify(stored.event, sent)
    if status == "conflict":
        problem = f"id {sent.id!r} was recorded before with other content: {', '.join(differing)}"
        raise Conflict(problem, differing)
    if status == "corrected":
        stored = _correct(book, stored, sent, at_us)
    return _recorded(book, stored, status, at_us, want_limits=want_limits)


def _correct(book: Book, stored: StoredEvent, sent: UsageEvent, at_us: int) -> StoredEvent:
    """The event takes the figures that were sent, at its old booking."""
    older, newer = stored.event.usage.amounts, sent.usage.amounts
    added = (newer[0] - older[0], newer[1] - older[1], newer[2] - older[2], newer[3] - older[3])
    book.check_sums(added)
    nothing = Usage(requests=0)
    book.replace_event(stored.replace(event=stored.event.replace(usage=nothing)))
    outcome = _outcome(book, sent, stored.booked_at_us, at_us)
    if stored.outcome == "over_limit":
        outcome = "over_limit"
    corrected = stored.replace(
        event=sent.replace(occurred_at_us=stored.event.occurred_at_us), outcome=outcome
    )
    book.replace_event(corrected)
    book.corrections.append((stored.seq, at_us, stored.event.usage))
    book.make_final(at_us)
    _raise_alerts(book, corrected, added, at_us)
    return corrected


def _raise_alerts(book: Book, stored: StoredEvent, added: Amounts, at_us: int) -> None:
    """Rule 21, after `added` was counted where `stored` is booked."""
    for counter in counters_of(book, book.policy(), stored.event.who, at_us):
        if added[counter.index] <= 0 or not counter.is_current(stored.booked_at_us):
            continue
        limit, start_us, used = counter.limit, counter.period_start_us(), counter.state().used
        known = {(one.limit_id, one.scope, one.period_start_us, one.threshold) for one in book.alerts}
        for threshold in reached(limit, used):
            if (limit.limit_id, counter.scope, start_us, threshold) not in known:
                number = len(book.alerts) + 1
                book.alerts.append(
                    Alert(number, at_us, limit.limit_id, counter.scope, start_us, threshold, used, limit.max)
                )


def _recorded(book: Book, stored: StoredEvent, status: str, at_us: int, *, want_limits: bool) -> Recorded:
    usage = stored.event.usage
    recorded = Recorded(
        stored.event.id,
        stored.seq,
        status,  # pyright: ignore[reportArgumentType]  one of the three
        stored.outcome,
        usage.cost_nano_usd,
        usage.cost_source,
        stored.booked_at_us,
    )
    if not want_limits:
        return recorded
    who, policy = stored.event.who, book.policy()
    counters = counters_of(book, policy, who, at_us)
    states = tuple(counter.state() for counter in counters)
    retries = [
        counter.retry_at(None)
        for counter, state in zip(counters, states, strict=True)
        if counter.is_hard and state.exceeded
    ]
    known = [retry_at_us for retry_at_us in retries if retry_at_us is not None]
    comes_back = retries and len(known) == len(retries)
    return recorded.replace(
        limits=states,
        retry_after_us=max(known) - at_us if comes_back else None,
        switch=policy.stopped_by(who),
    )


# Holds


def reserve(book: Book, command: Reserve) -> Reserved:
    at_us = book.at_us
    who, usage = command.who.replace(parent=None), command.usage.kept
    known = book.reservation_of(who.service, command.event_id, at_us)
    if known is not None:
        source = command.source if command.source_is_stated else known.source
        sent = (who, usage, command.operation, source)
        if sent != (known.who, known.usage, known.operation, known.source):
            raise Conflict(f"id {command.event_id!r} was reserved before with other content: use a new id")
        return Reserved("duplicate", _with_hold(book, who, at_us), known)
    if book.event(who.service, command.event_id) is not None:
        raise Conflict(f"id {command.event_id!r} is usage that was recorded already: use a new id")
    book.check_sums(usage.amounts)
    book.check_holds(usage.amounts, at_us)
    book.link_parent(command.who, at_us)
    verdict = decide(book, who, usage, at_us)
    if not verdict.allowed:
        state = verdict.reasons[0].state
        limit_id = None if state is None else state.limit.limit_id
        _fold(book, Refusal(who, command.operation, command.source, usage, limit_id, at_us))
        return Reserved("denied", verdict, None)
    held = Reservation(
        command.reservation_id,
        command.event_id,
        who,
        usage,
        command.operation,
        command.source,
        book.take_seq(),
        at_us + command.ttl_us,
    )
    book.reservations.append(held)
    book.know(who.agent, at_us)
    return Reserved("reserved", _with_hold(book, who, at_us, verdict.reasons), held)


def _with_hold(book: Book, who: Who, at_us: int, reasons: tuple[Reason, ...] = ()) -> Decision:
    """An allowed decision with the states as they are now."""
    states = [counter.state() for counter in counters_of(book, book.policy(), who, at_us)]
    return decision(states, None, reasons, at_us)


def release(book: Book, command: Release) -> Reservation:
    held = book.reservation(command.reservation_id, book.at_us)
    if held.state == "settled":
        raise Conflict(f"reservation {held.reservation_id!r} is settled: its usage happened")
    if held.state != "open":
        return held
    released = held.replace(state="released")
    book.replace_reservation(released)
    book.make_final(book.at_us)
    return released


def extend(book: Book, command: Extend) -> Reservation:
    held = book.reservation(command.reservation_id, book.at_us)
    if held.state != "open":
        raise Conflict(f"reservation {held.reservation_id!r} is {held.state}: reserve again")
    extended = held.replace(expires_at_us=book.at_us + command.ttl_us)
    book.replace_reservation(extended)
    return extended


# Refusals


def refuse(book: Book, command: Refuse) -> int:
    for refusal in command.refusals:
        _fold(book, refusal.replace(who=refusal.who.replace(parent=None), asked=refusal.asked.kept))
    return sum(refusal.count for refusal in command.refusals)


def _fold(book: Book, refusal: Refusal) -> None:
    """Rule 15."""
    who = refusal.who
    fold = (refusal.first_at_us // SECOND_US, who.agent, who.service, refusal.limit_id)
    row = book.refusals.get(fold)
    if row is None:
        seq = book.take_seq()
        event = UsageEvent(f"refused-{seq}", who, refusal.asked, refusal.operation, refusal.source)
        row = StoredEvent(seq, event, "rejected", seq, 0, refusal.limit_id)
        book.know(who.agent, seq)
    book.refusals[fold] = row.replace(count=row.count + refusal.count)
