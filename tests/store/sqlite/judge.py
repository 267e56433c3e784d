"""Whether what a crowd of callers was told is what the ledger's rules say: worked out anew, event by event.

The ledger says in which order things were admitted (`seq`), when they count and how they were judged. For
each of them the usage around it is summed up again, with arithmetic of its own, and compared: nothing
accepted that did not fit, nothing refused that did. The end of a hold by release has no place in that order:
whether it was still open is told from the times in the logs, and where those overlap, both are right.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from agent_meter_mcp.core.models import LimitKey, StoredEvent
from agent_meter_mcp.core.queries import EventsQuery, UsageFilter
from agent_meter_mcp.store.sqlite import SqliteStore

from .callers import CHILD_OF, LIMITS, Log

METRICS = ("requests", "units", "tokens", "cost_usd")
NEVER = 2**62


class Item(NamedTuple):
    """Something that was judged at `seq`: an event, a hold, or a denial."""

    seq: int
    kind: str
    service: str
    agent: str
    booked: int
    amounts: tuple[int | None, ...]
    admitted: bool
    call: int
    ack: int
    hold: int
    """The seq of the hold that this event settled in time, else 0."""


class Hold(NamedTuple):
    """What a reservation held, and how it ended: `settled` is a seq, a release happened within its times."""

    made: int
    service: str
    agent: str
    amounts: tuple[int, ...]
    expires: int
    settled: int
    settle_ack: int
    release_call: int
    release_ack: int

    def surely_open(self, item: Item) -> bool:
        return (
            self.made < item.seq < self.settled and item.seq < self.expires and item.ack <= self.release_call
        )

    def maybe_open(self, item: Item) -> bool:
        settled = item.seq > self.settled
        if item.kind == "denial":  # it may have been decided in a snapshot that is a little older
            settled = item.call >= self.settle_ack
        return self.made < item.seq < self.expires and not settled and item.call < self.release_ack


def ledger_of(store: SqliteStore) -> list[StoredEvent]:
    """All events that count, in order of seq, through the store's own pages."""
    found: list[StoredEvent] = []
    before: int | None = None
    while True:
        page = store.events(EventsQuery(UsageFilter(), 500, before))
        found += [event for event in page.events if event.outcome != "rejected"]
        before = page.next_seq
        if before is None:
            return found[::-1]


def timeline(store: SqliteStore, log: Log, at_us: int) -> tuple[list[Item], list[Hold]]:
    """What was judged and what was held, from the ledger; when it was called and answered, from the logs."""
    first = {entry["id"]: entry for entry in log if entry.get("status") == "recorded"}
    ledger = ledger_of(store)
    holds = list(_holds(store, log, [(stored, first[stored.event.id]) for stored in ledger], at_us))
    held = [entry for entry in log if entry.get("status") == "reserved"]
    items = [_hold_item(store, entry, at_us) for entry in held]
    settled = {hold.settled: hold.made for hold in holds}
    items += [_event_item(stored, first[stored.event.id], settled.get(stored.seq, 0)) for stored in ledger]
    items += [_denial_item(entry) for entry in log if entry.get("status") == "denied"]
    # A denial at the moment of an event was decided before it: the event would have moved the clock.
    return sorted(items, key=lambda item: (item.seq, item.kind != "denial")), holds


def _holds(
    store: SqliteStore, log: Log, recorded: list[tuple[StoredEvent, dict[str, Any]]], at_us: int
) -> Iterator[Hold]:
    released: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in log:
        if entry["did"] == "release":
            released[entry["hold"]].append(entry)
    settled = {entry["hold"]: (stored.seq, entry) for stored, entry in recorded if entry["did"] == "settle"}
    for reservation_id in [entry["hold"] for entry in log if entry.get("status") == "reserved"]:
        held = store.reservation(reservation_id, at_us)
        assert held is not None
        seq, settle = settled.get(reservation_id, (NEVER, None))
        in_time = settle is not None and not settle["late"]
        ends = [] if in_time or held.state == "expired" else released[reservation_id]
        yield Hold(
            held.reserved_at_us,
            held.who.service or "",
            held.who.agent,
            held.usage.amounts,
            held.expires_at_us,
            seq if in_time else NEVER,
            settle["ack"] if settle is not None and in_time else NEVER,
            min((end["call"] for end in ends), default=NEVER),
            min((end["ack"] for end in ends), default=NEVER),
        )


def _hold_item(store: SqliteStore, entry: dict[str, Any], at_us: int) -> Item:
    held = store.reservation(entry["hold"], at_us)
    assert held is not None
    made, stated = held.reserved_at_us, held.usage.stated
    return Item(made, "hold", "api", held.who.agent, made, stated, True, entry["call"], entry["ack"], 0)


def _event_item(stored: StoredEvent, entry: dict[str, Any], hold: int) -> Item:
    return Item(
        stored.seq,
        "event",
        stored.event.who.service or "",
        stored.event.who.agent,
        stored.booked_at_us,
        stored.event.usage.amounts,
        stored.outcome == "accepted",
        entry["call"],
        entry["ack"],
        hold,
    )


def _denial_item(entry: dict[str, Any]) -> Item:
    at_us, stated = entry["at"], tuple(entry["stated"])
    return Item(at_us, "denial", "api", entry["agent"], at_us, stated, False, entry["call"], entry["ack"], 0)


class Window:
    """All usage of one counter, as it grows."""

    def __init__(self, key: LimitKey, zone: str) -> None:
        self._text = key.window
        self._zone = ZoneInfo(zone)
        units = {"s": 1, "m": 60, "h": 3600}
        self._length_us = (
            int(key.window[:-1]) * units[key.window[-1]] * 1_000_000 if key.window[0].isdigit() else 0
        )
        self._booked: list[tuple[int, int]] = []
        self._sums: dict[tuple[int, int], int] = defaultdict(int)
        self._known: tuple[int, int] = (1, 0)

    def around(self, moment: int) -> tuple[int, int]:
        """[start, end): the period that holds the moment, or everything less than a window away from it."""
        if self._length_us:
            return moment - self._length_us + 1, moment + self._length_us
        if self._text == "total":
            return 0, NEVER
        if not self._known[0] <= moment < self._known[1]:
            self._known = self._period(moment)
        return self._known

    def _period(self, moment: int) -> tuple[int, int]:
        """The local hour or day; the zone of these tests never changes its offset."""
        local = datetime.fromtimestamp(moment // 1_000_000, UTC).astimezone(self._zone)
        start = (
            local.replace(minute=0, second=0)
            if self._text == "hour"
            else local.replace(hour=0, minute=0, second=0)
        )
        length = timedelta(hours=1) if self._text == "hour" else timedelta(days=1)
        return int(start.timestamp()) * 1_000_000, int((start + length).timestamp()) * 1_000_000

    def add(self, booked: int, amount: int) -> None:
        if not amount:
            return
        if self._length_us:
            insort(self._booked, (booked, amount))
        else:
            self._sums[self.around(booked)] += amount

    def used(self, moment: int) -> int:
        """What was added so far around a moment."""
        start, end = self.around(moment)
        if not self._length_us:
            return self._sums[start, end]
        low, high = bisect_left(self._booked, (start, 0)), bisect_left(self._booked, (end, 0))
        return sum(amount for _, amount in self._booked[low:high])


class Judge:
    """All counters of all limits, and the verdicts that the rules ask for."""

    def __init__(self, holds: list[Hold]) -> None:
        self._holds = sorted(holds)
        self._made = [hold.made for hold in self._holds]
        self._by_made = {hold.made: hold for hold in self._holds}
        self._counters: dict[tuple[int, str], Window] = {}
        self.wrong: list[str] = []

    def binding(self, item: Item | Hold) -> Iterator[tuple[int, LimitKey, int, str, Window]]:
        """Number, key, maximum, scope and counter of each limit that binds it."""
        for number, (key, maximum, zone) in enumerate(LIMITS):
            if key.service not in (None, item.service):
                continue
            if key.subject.kind == "pool":
                scope = ""
            elif key.subject.name == "*":
                scope = item.agent
            elif key.subject.name in (item.agent, CHILD_OF.get(item.agent)):
                scope = ""
            else:
                continue
            counter = self._counters.get((number, scope))
            if counter is None:
                counter = self._counters[number, scope] = Window(key, zone)
            yield number, key, maximum, scope, counter

    def see(self, item: Item) -> None:
        """Judges it, and counts it if it is usage."""
        reasons: list[str] = []
        certain = True
        for number, key, maximum, scope, counter in self.binding(item):
            asked = item.amounts[METRICS.index(key.metric)]
            own = self._by_made.get(item.hold)
            if own is not None and (asked or 0) <= own.amounts[METRICS.index(key.metric)]:
                continue  # inside what was held
            used = counter.used(item.booked)
            least, most = self._held(item, number, scope, counter)
            room = maximum - (1 if asked is None else asked)
            if used + least > room:
                reasons.append(f"{key} holds {used} and at least {least} of {maximum}, asked {asked}")
            if used + least <= room < used + most:
                certain = False
        if item.admitted and reasons:
            self.wrong.append(f"admitted {item}: {'; '.join(reasons)}")
        if not item.admitted and not reasons and certain:
            self.wrong.append(f"refused what fitted: {item}")
        if item.kind == "event":
            for _, key, _, _, counter in self.binding(item):
                counter.add(item.booked, item.amounts[METRICS.index(key.metric)] or 0)

    def _held(self, item: Item, number: int, scope: str, counter: Window) -> tuple[int, int]:
        """The least and the most that was held around it, without its own hold."""
        start, end = counter.around(item.booked)
        metric = METRICS.index(LIMITS[number][0].metric)
        least = most = 0
        low = bisect_left(self._made, max(start, item.seq - 10_000_000))  # no hold lasts that long
        for hold in self._holds[low : bisect_right(self._made, min(end - 1, item.seq))]:
            if hold.made in (item.hold, item.seq) or not hold.amounts[metric]:
                continue
            if any(number == other and scope == its for other, _, _, its, _ in self.binding(hold)):
                least += hold.amounts[metric] * hold.surely_open(item)
                most += hold.amounts[metric] * hold.maybe_open(item)
        return least, most


def wrong_verdicts(items: list[Item], holds: list[Hold]) -> list[str]:
    """What should have been judged otherwise."""
    judge = Judge(holds)
    for item in items:
        judge.see(item)
    return judge.wrong


def most_admitted(items: list[Item], holds: list[Hold]) -> dict[tuple[int, str], int]:
    """Per limit and scope: the most admitted usage that any window of that length, or any period, has.

    Admitted is what was accepted, and of usage beyond its hold the part that was held.
    """
    judge = Judge(holds)
    admitted: dict[tuple[int, str], list[tuple[int, int]]] = defaultdict(list)
    windows: dict[tuple[int, str], Window] = {}
    for item in items:
        own = next((hold for hold in holds if hold.made == item.hold), None) if not item.admitted else None
        if item.kind != "event" or not (item.admitted or own):
            continue
        for number, key, _, scope, counter in judge.binding(item):
            metric = METRICS.index(key.metric)
            amount = item.amounts[metric] or 0
            if own is not None:
                amount = min(amount, own.amounts[metric])
            admitted[number, scope].append((item.booked, amount))
            windows[number, scope] = counter
    return {
        place: _most(windows[place], LIMITS[place[0]][0], sorted(usage)) for place, usage in admitted.items()
    }


def _most(window: Window, key: LimitKey, usage: list[tuple[int, int]]) -> int:
    if not key.window[0].isdigit():
        sums: dict[tuple[int, int], int] = defaultdict(int)
        for booked, amount in usage:
            sums[window.around(booked)] += amount
        return max(sums.values())
    length_us = (window.around(0)[1] - window.around(0)[0] + 1) // 2
    most = total = oldest = 0
    for booked, amount in usage:
        total += amount
        while usage[oldest][0] <= booked - length_us:
            total -= usage[oldest][1]
            oldest += 1
        most = max(most, total)
    return most
