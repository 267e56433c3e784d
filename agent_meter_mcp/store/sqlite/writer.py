"""One write transaction: load what is needed, apply the commands in memory, put everything down at the end.

Commands see each other because counters are changed in memory at once; events and cells go to the file in one
`executemany` each. Whatever fails rolls the whole transaction back, and the caches are dropped with it.
"""

from __future__ import annotations

from agent_meter_mcp.core.decide import reached
from agent_meter_mcp.core.errors import InvalidInput, StoreUnusable
from agent_meter_mcp.core.models import LEDGER_MAX, METRICS, Alert

from .book import Book, Plan
from .counters import NEVER, Counter
from .names import Names
from .open_holds import OpenHolds
from .rollups import Rollups
from .rows import CELL_UPSERT, EVENT_INSERT, EXPIRED, HEAD_UPSERT, bound, key_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from agent_meter_mcp.core.limits import Policy
    from agent_meter_mcp.core.models import Amounts, Outcome, Reservation

    from .driver import Connection
    from .past import Past


class Replayed(Exception):
    """An id in the batch is in the file already: the transaction starts again, looking up each id first."""


class Writer:
    """State of the writing connection, over all its transactions."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.book = Book(connection, writes=True)
        self.cursor = self.book.cursor
        self.book.settle_events = self._put_down_before
        self.book.put_down = self.put_down
        self.book.replaced = self._forget_content
        self.names = Names(connection)
        self.rollups = Rollups(connection, self.names)
        self.now_us = 0
        self.careful = True
        """Look up each id before it is inserted; without it the insert itself finds replays (then
        `Replayed`).
        """
        self.holds = OpenHolds(connection)
        self.next_expiry_us = NEVER
        """No open hold is over before."""
        self.alerts: list[Alert] = []
        self._events: list[tuple[Any, ...]] = []
        self._keys: dict[str, set[str | bytes]] = {}
        """By service, the keys of the events that are pending."""
        self._inserted = 0
        self._pending_from = NEVER
        self._touched: list[Counter] = []
        self._past: Past | None = None
        """What this transaction has read of what lies around usage of long ago; mostly nothing."""

    # -- the frame of a transaction --------------------------------------------------------------------------

    def begin(self, now_us: int, careful: bool) -> None:
        """Call after BEGIN IMMEDIATE."""
        self.now_us = now_us
        self.careful = careful
        self.alerts = []
        if self.book.refresh():
            self.holds.refresh(self.book.last)
            next_us = self.book.next_expiry_us
            self.next_expiry_us = NEVER - 1 if next_us is None else next_us
            self.rollups.load()

    def finish(self) -> None:
        """Call before COMMIT: everything that is still in memory goes to the file."""
        self.put_down()
        self.rollups.advance(self._inserted, self.book.last)
        self._inserted = 0
        self._past = None

    def forget(self) -> None:
        """Call after ROLLBACK: what was interned or counted may not exist."""
        self.book.forget()
        self._forget_content()
        self._events.clear()
        self._keys.clear()
        self._pending_from = NEVER
        for counter in self._touched:
            counter.dirty.clear()
        self._touched.clear()
        self._past = None

    def _forget_content(self) -> None:
        self.names.forget()
        self.holds.forget()

    def reload(self, policy: Policy | None) -> None:
        """The configuration was changed by this transaction, into `policy` if that is known."""
        self.put_down()
        self._past = None
        self.book.load_policy(policy)

    @property
    def at_us(self) -> int:
        """The seq that the next stored thing gets."""
        following = self.book.last + 1
        return following if following > self.now_us else self.now_us  # asked for each command, often

    def take_seq(self) -> int:
        seq = self.book.last = self.at_us
        return seq

    # -- counting --------------------------------------------------------------------------------------------

    def ready(self, plan: Plan, at_us: int, *, enters: bool = True) -> list[Counter]:
        """The plan's counters, loaded and advanced, and entered into the file where they are new to it.

        Without `enters` that is left to the caller, who may take no seq.
        """
        generation = self.book.generation
        for counter in plan.counters:
            if counter.generation != generation or not counter.since <= at_us < counter.until:
                self.book.ready(plan.counters, at_us)
                if enters:
                    self.enter(plan.counters)
                break
        return plan.counters

    def enter(self, counters: Sequence[Counter]) -> None:
        """Notes those that are new to the file as touched."""
        for counter in counters:
            if counter.id is None:
                self._touched.append(counter)
                counter.id = self._new_counter(counter)

    def over(self, counters: Sequence[Counter], amounts: Amounts, booked_us: int, at_us: int) -> Outcome:
        """The outcome of usage that happened (rule 7); it has not been counted yet."""
        for counter in counters:
            amount = amounts[counter.metric]
            taken = counter.used + counter.held
            if booked_us != at_us:
                taken += counter.before
            if booked_us >= counter.whole_from and taken + amount <= counter.maximum:
                continue  # the common case, spared a call
            if counter.hard and not self.inside(counter, amount, booked_us, at_us):
                return "over_limit"
        return "accepted"

    def inside(self, counter: Counter, amount: int, booked_us: int, at_us: int, own_used: int = 0) -> bool:
        """Whether `S(booked) - own + amount <= max` (rule 4). `own` is booked at the same moment."""
        if booked_us == at_us or (not counter.rolling and booked_us >= counter.current):
            room = counter.maximum - amount + own_used
            if counter.used + counter.held <= room:
                return True
            if not counter.rolling:
                return False
            if counter.used + counter.held - sum(counter.buckets.get(counter.oldest, (0, 0))) > room:
                return False
            self._put_down_before(at_us - counter.window.length_us + 1)
            return sum(counter.exact(at_us)) <= room
        room = counter.maximum - amount + own_used
        if booked_us >= counter.whole_from and counter.before + counter.used + counter.held <= room:
            return True  # mostly all of that together fits
        if self._past is None:
            from .past import Past  # which a one-shot record does not need

            self._past = Past(self.put_down)
        return self._past.has_room(counter, booked_us, at_us, room)

    def count(self, counters: Sequence[Counter], amounts: Amounts, booked_us: int, at_us: int) -> None:
        """Adds usage to every counter that binds, and raises alerts."""
        past = self._past
        for counter in counters:
            amount = amounts[counter.metric]
            if not amount:
                continue
            if not counter.dirty:
                self._touched.append(counter)
            if booked_us == at_us and past is None:
                counter.cell[0] += amount
                counter.used += amount
                counter.dirty.add(counter.current)
                if counter.first_us is None:
                    counter.first_us = at_us
            else:
                if past is not None:
                    past.count(counter, amount, booked_us)
                if not counter.add(booked_us, amount, 0):
                    continue
            if amount > 0 and counter.used >= counter.alert_at:
                self._alert(counter, booked_us, at_us)

    def hold(self, held: Reservation, sign: int, at_us: int) -> list[Counter]:
        """Adds (1) or takes off (-1) a hold; answers the counters that bind it."""
        self._past = None
        counters = self.ready(self.book.plan(held.who), at_us)
        amounts = held.usage.amounts
        for counter in counters:
            amount = amounts[counter.metric]
            if amount:
                if not counter.dirty:
                    self._touched.append(counter)
                counter.add(held.reserved_at_us, 0, sign * amount)
        return counters

    def expire(self) -> None:
        """Holds that are over stop counting. Every command is decided after it, so no sweeper has to run."""
        at_us = self.at_us
        if self.next_expiry_us > at_us:
            return
        overdue = self.book.overdue(at_us)
        for held in overdue:
            try:
                self.hold(held, -1, at_us)
            except StoreUnusable:  # a limit that binds it cannot be counted here: that stops nobody else
                continue
            self.connection.execute(
                f"UPDATE reservation SET state = {EXPIRED} WHERE reservation_id = ?", (held.reservation_id,)
            )
            self.holds.closed(held, key_of(held.event_id))
        if overdue:
            self.book.make_final(at_us)
        self._look_for_expiry()

    def _look_for_expiry(self) -> None:
        (self.next_expiry_us,) = self.connection.execute(
            "SELECT coalesce(min(expires), ?) FROM reservation WHERE state = 0", (NEVER - 1,)
        ).fetchone()

    def opened(self, held: Reservation, key: str | bytes) -> None:
        """A hold was made; `key` is that of its event."""
        self.holds.opened(held, key)
        self.next_expiry_us = min(self.next_expiry_us, held.expires_at_us)

    def _alert(self, counter: Counter, booked_us: int, at_us: int) -> None:
        """Rule 21."""
        start_us = counter.alert_start(at_us)
        if counter.rolling:
            if booked_us <= at_us - counter.window.length_us:
                return
        elif booked_us < counter.current:
            return
        limit, execute = counter.limit, self.connection.execute
        for threshold in reached(limit, counter.used):
            row = execute(
                "INSERT INTO alert (limit_id, scope, period_start, threshold, used, max, raised_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING number",
                (limit.limit_id, counter.scope, start_us, threshold, counter.used, limit.max, at_us),
            ).fetchone()
            if row is not None:
                self.alerts.append(
                    Alert(
                        row[0],
                        at_us,
                        limit.limit_id,
                        counter.scope,
                        start_us,
                        threshold,
                        counter.used,
                        limit.max,
                    )
                )
        counter.expect_alert()

    def _new_counter(self, counter: Counter) -> int:
        (number,) = self.connection.execute(
            "INSERT INTO counter (limit_id, scope, first) VALUES (?, ?, ?) RETURNING id",
            (counter.limit.limit_id, counter.scope, counter.first_us),
        ).fetchone()
        return number

    # -- putting down ----------------------------------------------------------------------------------------

    def has_pending(self, key: str | bytes, service: str) -> bool:
        return key in self._keys.get(service, ())

    def add_event(self, row: tuple[Any, ...], service: str, booked_us: int) -> None:
        """A row of `EVENT_COLUMNS`, not in the file yet."""
        self._events.append(row)
        keys = self._keys.get(service)
        if keys is None:
            keys = self._keys[service] = set()
        keys.add(row[1])
        if booked_us < self._pending_from:
            self._pending_from = booked_us

    def add_events(self, rows: list[tuple[Any, ...]]) -> None:
        """All that a transaction brings: nobody will ask which of them are pending."""
        self._events += rows

    def _put_down_before(self, cutoff_us: int) -> None:
        if self._pending_from < cutoff_us:
            self.put_down()

    def put_down(self) -> None:
        """Writes the events and cells that are pending.

        Raises Replayed when an id was in the file already.
        """
        if self._events:
            written = self.cursor.executemany(EVENT_INSERT, map(bound, self._events)).rowcount
            if written != len(self._events):
                raise Replayed
            self._inserted += len(self._events)
            self._events.clear()
            self._keys.clear()
            self._pending_from = NEVER
        if self._touched:
            heads: list[tuple[int | None, ...]] = []
            cells: list[tuple[int | None, ...]] = []
            firsts: list[tuple[int | None, int | None]] = []
            for counter in self._touched:
                counter.put_down(heads, cells)
                if counter.window.kind == "total":
                    firsts.append((counter.first_us, counter.id))
            self._touched.clear()
            self.cursor.executemany(HEAD_UPSERT, heads)
            if cells:
                self.cursor.executemany(CELL_UPSERT, cells)
            if firsts:
                self.connection.executemany(
                    "UPDATE counter SET first = ? WHERE id = ? AND first IS NOT ?1", firsts
                )

    def check_totals(self, amounts: Amounts) -> None:
        """Raises InvalidInput when a sum over the whole ledger would pass the largest integer (rule 9)."""
        if not self.rollups.nearly_full:
            return
        if not self.careful:  # a replay adds nothing: look first whether it is one
            raise Replayed
        self.put_down()
        totals = self.rollups.exact_grand()
        for field, total, amount in zip(METRICS, totals, amounts, strict=True):
            if total + amount > LEDGER_MAX:
                raise InvalidInput(field, "the sum over the whole ledger would pass its largest number")
