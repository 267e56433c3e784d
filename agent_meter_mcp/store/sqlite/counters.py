"""Counters: the cached sums that make admission O(1).

A counter belongs to one limit and scope. It holds its window as buckets of [used, held]: one bucket for a
calendar period or a total, a ring of sixtieths for a rolling window (twice the window is kept, so that usage
booked in the past is judged by what lay around it). Without a `counter` row it is computed from the ledger.

Its copy in the file is a row of `head`, which is the bucket that was written last, and the others in `cell`.
So what changes all the time lies close together, on pages that all counters share, and whoever finds that
only the head has changed (`version` is the same) need not read the rest."""

from __future__ import annotations

from agent_meter_mcp.core.decide import fits, reached
from agent_meter_mcp.core.models import METRICS, Limit
from agent_meter_mcp.core.windows import (
    SLOTS,
    Window,
    bucket,
    oldest_bucket,
    parse_window,
    period,
)

from .edge import Edge
from .rows import check_zone_of
from .sums import FAR_US, HOUR_US, Sums

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent_meter_mcp.core.limits import Coverage, Policy
    from agent_meter_mcp.core.models import Stated

    from .by_scope import ByScope
    from .driver import Connection, Cursor

    Row = tuple[int | None, ...]
    Head = tuple[int, int, int, int]

NEVER = 2**63
NOTHING = (0, 0)
UNFILLED = (-NEVER, 0)
"""No bucket: those of a window that reaches back behind 1970 have numbers below 0."""
_HEAD = "SELECT bucket, used, held, version FROM head WHERE counter = ?"
_HEADS = "SELECT counter, bucket, used, held, version FROM head WHERE counter IN ({})"


def heads_of(cursor: Cursor, counters: list[Counter]) -> dict[int | None, Head]:
    """(bucket, used, held, version) that the file has as the heads of these counters, by their ids."""
    ids = [counter.id for counter in counters if counter.head is not None]
    if not ids:
        return {}
    rows = cursor.execute(_HEADS.format(",".join("?" * len(ids))), ids)
    return {counter: (number, used, held, version) for counter, number, used, held, version in rows}


def has_room(counters: Sequence[Counter], asked: Stated) -> bool:
    """Whether it fits by what is in memory: then no decision need be spelt out."""
    return all(fits(one.used, one.held, asked[one.metric], one.maximum) for one in counters)


class Counter:
    """One counter at one moment of the file.

    `used` and `held` are the sums over the window current at `advance`.
    """

    __slots__ = (
        "_by_scope", "_connection", "_coverage", "_looks_back", "_policy", "_stored", "_sums", "alert_at",
        "before", "binds", "buckets", "cell", "current", "dirty", "edge", "filled", "first_us",
        "first_written", "generation", "hard", "head", "held", "id", "kept", "late_edge", "limit", "maximum",
        "metric", "oldest", "period_end", "rolling", "scope", "since", "until", "used", "version",
        "whole_from", "window",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        limit: Limit,
        scope: str,
        policy: Policy,
        *,
        looks_back: bool,
        stored: bool = True,
        by_scope: Callable[[], ByScope] | None = None,
    ) -> None:
        self.limit = limit
        self.scope = scope
        self.window: Window = parse_window(limit.key.window)
        check_zone_of(limit)
        self.rolling = self.window.kind == "rolling"
        self.metric = METRICS.index(limit.key.metric)
        self.maximum = limit.max
        self.hard = limit.action == "reject"
        self._connection = connection
        self._policy = policy
        self._coverage: Coverage | None = None
        self._sums: Sums | None = None
        self.id: int | None = None
        self.binds = False
        """Whether all that it covers is counted in it: nothing more specific stands in its place."""
        self.generation = -1
        self._looks_back = looks_back
        self._stored = stored
        self._by_scope = by_scope if scope else None
        self.dirty: set[int] = set()
        self._empty()

    def _empty(self) -> None:
        self.buckets: dict[int, list[int]] = {}
        self.used = self.held = 0
        self.before = 0
        """Used and held in what is kept of the time before the window."""
        self.current = self.kept = 0
        self.oldest = NEVER
        """The first bucket of the window; NEVER: nothing has been summed up yet."""
        self.whole_from = 0
        """All that lies around usage booked from here on, by the length of a window, is kept."""
        self.cell = [0, 0]
        self.since = self.until = 0
        self.period_end: int | None = None
        self.first_us: int | None = None
        self.alert_at = 0
        self.edge, self.late_edge = Edge(), Edge()
        """Of the window that ends now, and of the one before usage that is booked a little late."""
        self.head: int | None = None
        """The bucket in the file's `head`; None: there is none, or what is here differs from the file."""
        self.version = 0
        """How often something else than the head was written, in the cells or as `first_us`."""
        self.first_written: int | None = None
        self.filled = UNFILLED
        """(bucket, when it leaves the window) of the oldest bucket with usage, as it was last looked for."""

    @property
    def coverage(self) -> Coverage:
        """What it counts. Mostly nobody asks, and it may be a tree of tens of thousands."""
        if self._coverage is None:
            self._coverage = self._policy.coverage(self.limit, self.scope)
        return self._coverage

    @property
    def sums(self) -> Sums:
        if self._sums is None:
            self._sums = Sums(self._connection, self.coverage, self.limit.key.metric)
        return self._sums

    @property
    def exceeded(self) -> bool:
        """As of its state, which need not be made to know it."""
        return self.used + self.held >= self.maximum

    # -- loading ---------------------------------------------------------------------------------------------

    def load(self, connection: Connection, at_us: int) -> None:
        """From its cells, or from the ledger where the file has none."""
        self._empty()
        self.dirty.clear()
        if not self._stored:
            self._compute(at_us)
            return
        if self.id is None or self.window.kind == "total":
            # A counter that has a row keeps it as long as the configuration stays, and with it this object.
            row = connection.execute(
                "SELECT id, first FROM counter WHERE limit_id = ? AND scope = ?",
                (self.limit.limit_id, self.scope),
            ).fetchone()
            if row is None:
                self.id = None
                self._compute(at_us)
                return
            self.id, self.first_us = row
            self.first_written = self.first_us
        for number, used, held in connection.execute(
            "SELECT bucket, used, held FROM cell WHERE counter = ? AND bucket >= ?",
            (self.id, self._kept_from(at_us)),
        ):
            self.buckets[number] = [used, held]
        head = connection.execute(_HEAD, (self.id,)).fetchone()
        if head is not None:
            number, used, held, self.version = head
            self.head = number
            self.buckets[number] = [used, held]

    def catch_up(self, head: Head | None, at_us: int) -> bool:
        """Takes over the file's head, where that is all that may have changed since this was as the file is.

        False: it has to be loaded. Otherwise it still has to be advanced.
        """
        if head is None or self.head is None or at_us < self.since:
            return False
        number, used, held, version = head
        if number != self.head or version != self.version:
            return False
        cell = self.buckets[number]
        if number >= self.oldest:
            self.used += used - cell[0]
            self.held += held - cell[1]
        elif number >= self.kept:
            self.before += used - cell[0] + held - cell[1]
        cell[0], cell[1] = used, held
        self.filled = UNFILLED
        self.alert_at = 0
        if number <= self.oldest:  # of any other bucket, what is before an edge is as it was
            self._changed(number)
        return True

    def _kept_from(self, at_us: int) -> int:
        """The oldest bucket that may still matter. A writer judges past bookings by the window before as
        well."""
        if self.window.kind == "rolling":
            return oldest_bucket(self.window, at_us - (self.window.length_us if self._looks_back else 0))
        return bucket(self.window, self.limit.zone, at_us)

    def _compute(self, at_us: int) -> None:
        has_used = self.sums.may_have_used()
        if not has_used and not self.sums.may_hold():
            return
        first = self._kept_from(at_us)
        if self.rolling:
            start_us = first * self.window.grain_us
            used = self._used_in(first, at_us // self.window.grain_us) if has_used else {}
            self.buckets = {number: [amount, 0] for number, amount in used.items()}
        else:
            start_us, end_us = period(self.window, self.limit.zone, at_us)
            used = self.sums.used_long(start_us, FAR_US if end_us is None else end_us) if has_used else 0
            self.buckets[first] = [used, 0]
            if has_used and self.window.kind == "total":
                self.first_us = self.sums.first_booked()
        for reserved_us, amount in self.sums.unsettled(start_us):
            number = bucket(self.window, self.limit.zone, reserved_us)
            self.buckets.setdefault(number, [0, 0])[1] += amount
        self.dirty.update(self.buckets)

    # -- the window ------------------------------------------------------------------------------------------

    def advance(self, at_us: int) -> None:
        """Makes `used`, `held` and `cell` those of the window current at `at_us`."""
        window = self.window
        if window.kind == "rolling":
            self.current = at_us // window.grain_us
            self._move(oldest_bucket(window, at_us), self._kept_from(at_us))
            self.whole_from = self.kept * window.grain_us + window.length_us
            grain_us, length_us, alerts_us = window.grain_us, window.length_us, self.alert_start(at_us)
            self.since = max(self.current * grain_us, self.oldest * grain_us + length_us - 1, alerts_us)
            self.until = min(
                (self.current + 1) * grain_us,
                (self.oldest + 1) * grain_us + length_us - 1,
                alerts_us + length_us,
            )
        else:
            start_us, self.period_end = period(window, self.limit.zone, at_us)
            self.current = self.oldest = self.kept = self.since = self.whole_from = start_us
            self.until = NEVER if self.period_end is None else self.period_end
            self._sum_up()
        self.cell = self.buckets.setdefault(self.current, [0, 0])
        self.alert_at = 0

    def _move(self, oldest: int, kept: int) -> None:
        """Makes the sums those of the buckets from `oldest` on, and forgets the buckets before `kept`.

        Mostly a bucket or two, which are then all that is looked at.
        """
        left, forgotten = range(self.oldest, oldest), range(self.kept, kept)
        is_near = self.oldest <= oldest < self.oldest + SLOTS
        self.oldest, self.kept = oldest, kept
        if not is_near or self.dirty or (self.head is not None and self.head < kept):
            self._sum_up()
            return
        for number in left:
            used, held = self.buckets.get(number, NOTHING)
            self.used -= used
            self.held -= held
            self.before += used + held
        for number in forgotten:
            used, held = self.buckets.pop(number, NOTHING)
            self.before -= used + held

    def _sum_up(self) -> None:
        for number in [number for number in self.buckets if number < self.kept]:
            if number not in self.dirty and number != self.head:
                del self.buckets[number]
        self.used = self.held = self.before = 0
        for number, (used, held) in self.buckets.items():
            if number >= self.oldest:
                self.used += used
                self.held += held
            elif number >= self.kept:
                self.before += used + held

    def add(self, booked_us: int, used: int, held: int) -> bool:
        """Counts (or takes back) an amount where it is booked. False: outside what this counter keeps."""
        number = self.bucket_of(booked_us)
        if number < self.kept:
            return False
        cell = self.buckets.get(number)
        if cell is None:
            cell = self.buckets[number] = [0, 0]
        cell[0] += used
        cell[1] += held
        self.dirty.add(number)
        if number < self.filled[0]:
            self.filled = UNFILLED
        if number <= self.oldest:
            self._changed(number)
        if number >= self.oldest:
            self.used += used
            self.held += held
        else:
            self.before += used + held
        if used and (self.first_us is None or booked_us < self.first_us):
            self.first_us = booked_us
        return True

    def _changed(self, number: int) -> None:
        self.edge.changed(number)
        self.late_edge.changed(number)

    def exact(self, at_us: int) -> tuple[int, int]:
        """(used, held) over exactly (at - length, at], for a rolling window; needs all events in the file."""
        grain_us, number = self.window.grain_us, self.oldest
        start_us, cutoff_us = number * grain_us, at_us - self.window.length_us + 1
        oldest = self.buckets.get(number)
        if oldest is None or cutoff_us <= start_us:
            return self.used, self.held
        gone = self.edge.gone(self.sums, number, grain_us, cutoff_us) if oldest[0] else 0
        held_gone = sum(row[3] for row in self.sums.held(start_us, cutoff_us, at_us)) if oldest[1] else 0
        return self.used - gone, self.held - held_gone

    def put_down(self, heads: list[Row], cells: list[Row]) -> None:
        """Adds the rows of `head` and `cell` that changed; from then on none of them is changed any more."""
        dirty, head = self.dirty, self.head
        if not dirty:
            return
        if head != self.current and self.current in dirty:
            if head is not None and head >= self.kept:
                dirty.add(head)
            head = self.head = self.current
        if len(dirty) > 1 or head not in dirty:
            self.version += 1
            cells += [
                (self.id, number % SLOTS, number, *self.buckets[number])
                for number in sorted(dirty)
                if number != head
            ]
        elif self.first_written != self.first_us and self.window.kind == "total":
            self.version += 1
        self.first_written = self.first_us
        if head is not None:
            used, held = self.buckets[head]
            heads.append((self.id, head, used, held, self.version))
        dirty.clear()

    def bucket_of(self, booked_us: int) -> int:
        if self.rolling:
            return booked_us // self.window.grain_us
        if self.since <= booked_us < self.until:
            return self.current
        return bucket(self.window, self.limit.zone, booked_us)

    def period_of(self, booked_us: int) -> tuple[int, int]:
        """The calendar period [start, end) in which `booked_us` counts."""
        start_us, end_us = period(self.window, self.limit.zone, booked_us)
        return start_us, FAR_US if end_us is None else end_us

    def alert_start(self, at_us: int) -> int:
        """What stands for the current window in an alert (rule 21)."""
        return at_us // self.window.length_us * self.window.length_us if self.rolling else self.current

    def expect_alert(self) -> None:
        """`alert_at` becomes the usage at which the next threshold can be reached."""
        told = reached(self.limit, self.used)
        ahead = [percent for percent in self.limit.thresholds if percent not in told]
        self.alert_at = max(-(-min(ahead) * self.maximum // 100), 1) if ahead else NEVER

    def _used_in(self, first: int, last: int) -> dict[int, int]:
        """Used per bucket of a rolling window from `first` to `last`, by what is in the file."""
        grain_us = self.window.grain_us
        if self._by_scope is not None and grain_us % HOUR_US:  # of whole hours the rollups tell
            used = self._by_scope().used(self.limit, self.scope, grain_us, range(first, last + 1))
            if used is not None:
                return used
        return self.sums.buckets(first * grain_us, (last + 1) * grain_us, grain_us)

    def frees_at(self) -> int | None:
        """When the oldest usage in a rolling window has left it; None: there is none."""
        number, at_us = self.filled
        if number >= self.oldest and self.buckets[number][0] > 0:
            return at_us
        filled = [number for number, cell in self.buckets.items() if number >= self.oldest and cell[0] > 0]
        if not filled:
            return None
        number = min(filled)
        self.filled = (number, self.leaves_at(number))
        return self.filled[1]

    def leaves_at(self, number: int) -> int:
        """When a bucket has left the rolling window as a whole."""
        return (number + 1) * self.window.grain_us + self.window.length_us
