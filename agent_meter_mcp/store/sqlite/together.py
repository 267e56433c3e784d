"""A batch of usage that fits for sure, recorded at once.

If all that a batch brings fits every counter that binds any of it, so does each event by itself, in whatever
order, and none reaches a threshold. Then counters are looked at and changed once for a batch, not once for an
event. Where that is not certain nothing is done here, and each event is judged by itself (`recording`).
"""

from __future__ import annotations

from agent_meter_mcp.core.booking import booked_at
from agent_meter_mcp.core.commands import Record, Recorded
from agent_meter_mcp.core.decide import reached

from .recording import dim_of, event_row
from .rows import key_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent_meter_mcp.core.commands import Command, Result
    from agent_meter_mcp.core.models import Amounts, UsageEvent

    from .book import Plan
    from .counters import Counter
    from .rows import Row
    from .writer import Writer

    Planned = tuple[UsageEvent, str | bytes, int, int, Plan]
    """With its key, its seq, when it is booked, and what binds it."""


def record_together(writer: Writer, commands: Sequence[Command]) -> list[Result] | None:
    """The answers, if all of this is new usage that fits. None: nothing of it was done.

    Call first in a transaction."""
    writer.expire()
    planned = _planned(writer, commands)
    if planned is None:
        return None
    now: dict[Plan, list[Amounts]] = {}
    earlier: dict[Plan, list[tuple[Amounts, int]]] = {}
    for event, _, at_us, booked_us, plan in planned:
        if not plan.counters:
            continue
        amounts = event.usage.amounts
        if booked_us == at_us:
            now.setdefault(plan, []).append(amounts)
        else:
            earlier.setdefault(plan, []).append((amounts, booked_us))
    first_us, last_us = planned[0][2], planned[-1][2]
    sums = {plan: _sum(amounts) for plan, amounts in now.items()}
    if not _fit(writer, sums, earlier, first_us, last_us):
        return None
    for plan, amounts in sums.items():
        writer.count(plan.counters, amounts, last_us, last_us)
    for plan, several in earlier.items():
        for amounts, booked_us in several:
            writer.count(plan.counters, amounts, booked_us, last_us)
    return _kept(writer, planned)


def _planned(writer: Writer, commands: Sequence[Command]) -> list[Planned] | None:
    at_us = writer.at_us
    # A hold that ends between two of these events has to end there.
    if writer.careful or writer.rollups.nearly_full or writer.next_expiry_us < at_us + len(commands):
        return None
    planned: list[Planned] = []
    ids: set[tuple[str, str | bytes]] = set()
    plan_of = writer.book.plan
    for command in commands:
        if type(command) is not Record or command.want_limits:
            return None
        event = command.event
        who = event.who
        if who.parent is not None or event.usage.kept is not event.usage:
            return None
        key = key_of(event.id)
        ids.add((who.service or "", key))
        booked_us = booked_at(event.occurred_at_us, at_us, may_backdate=command.may_backdate)
        planned.append((event, key, at_us, booked_us, plan_of(who)))
        at_us += 1
    return planned if len(ids) == len(planned) and not writer.holds.may_have(ids) else None


def _fit(
    writer: Writer,
    now: dict[Plan, Amounts],
    earlier: dict[Plan, list[tuple[Amounts, int]]],
    first_us: int,
    last_us: int,
) -> bool:
    """Whether no counter has to be looked at more closely for any of it. `earlier` is with its moments."""
    added: dict[Counter, int] = {}
    for plan, amounts in now.items():
        for counter in writer.ready(plan, first_us):
            added[counter] = added.get(counter, 0) + amounts[counter.metric]
    looked_back: set[Counter] = set()
    for plan, several in earlier.items():
        amounts = _sum([amounts for amounts, _ in several])
        since_us = min(booked_us for _, booked_us in several)
        for counter in writer.ready(plan, first_us):
            if since_us < counter.whole_from:
                return False
            added[counter] = added.get(counter, 0) + amounts[counter.metric]
            looked_back.add(counter)
    return all(
        last_us < counter.until
        and _has_room(counter, amount + (counter.before if counter in looked_back else 0))
        for counter, amount in added.items()
    )


def _has_room(counter: Counter, amount: int) -> bool:
    """Whether it may grow by so much and reach neither its limit nor a threshold."""
    if counter.first_us is None and counter.window.kind == "total":
        return False  # it begins with the first usage that it counts
    if not counter.alert_at and not reached(counter.limit, counter.used):
        counter.expect_alert()
    if counter.used + amount >= counter.alert_at:
        return False
    return not counter.hard or counter.used + counter.held + amount <= counter.maximum


def _kept(writer: Writer, planned: list[Planned]) -> list[Result]:
    rows: list[Row] = []
    answers: list[Result] = []
    for event, key, at_us, booked_us, plan in planned:
        dim = dim_of(writer, plan, event, "accepted", at_us)
        rows.append(event_row(writer, event, key, dim, at_us, booked_us))
        cost, source = event.usage.cost_nano_usd, event.usage.cost_source
        answers.append(Recorded(event.id, at_us, "recorded", "accepted", cost, source, booked_us))
    writer.book.last = planned[-1][2]
    writer.add_events(rows)
    return answers


def _sum(amounts: list[Amounts]) -> Amounts:
    requests, units, tokens, cost = map(sum, zip(*amounts, strict=True))
    return requests, units, tokens, cost
