"""Sums over the ledger for one counter: what its cached cells must say.

Long stretches are read from the rollups (events up to the watermark, by whole hours and days), the ragged
ends and the tail beyond the watermark from the events themselves, all in the caller's transaction. Intervals
are half-open."""

from __future__ import annotations

from agent_meter_mcp.core.limits import Coverage

from .filters import FEW, broad_dims, is_among
from .schema import ALL, BROAD, DAY, GRAIN_US, HOUR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from agent_meter_mcp.core.models import Metric, SubjectKind

    from .driver import Connection

HOUR_US, DAY_US = GRAIN_US[HOUR], GRAIN_US[DAY]
FAR_US = 2**62
"""Later than any booking."""
LONG_US = 4 * HOUR_US
"""Of a few agents, in so long, only the hours in which they have used something are read."""

BOOKED = "coalesce(x.booked, x.id)"
_BOOKINGS = (("x.booked IS NULL AND x.id", "x.id"), ("x.booked", "x.booked"))
"""Events booked when they were recorded are found by id, the others by their own index.

Where the id is bounded a second time, that bound has a plus before it (`+x.id <= …`): of two upper bounds
SQLite may take the other one to search by, and walk through the rest of the ledger. So it is with the holds:
those that are open have an index, and by their ids it would walk through all that ended in the window.
"""

SCOPED_BY = {"agent": "agent", "tier": "agent", "session": "session", "project": "project"}
"""By the kind of a limit that counts each one separately, the column of `dim` that says which one."""
EVENT_METRIC = {
    "requests": "x.requests",
    "units": "coalesce(x.units, 0)",
    "tokens": "coalesce(x.input, 0) + coalesce(x.output, 0) + coalesce(x.cache_read, 0)"
    " + coalesce(x.cache_write, 0) + coalesce(x.cache_write_1h, 0)",
    "cost_usd": "coalesce(x.cost, 0)",
}
_ROLLUP_METRIC = {
    "requests": "x.requests",
    "units": "x.units",
    "tokens": "x.input + x.output + x.cache_read + x.cache_write + x.cache_write_1h",
    "cost_usd": "x.cost",
}

_THERE = """there (bucket) AS (
    SELECT min(bucket) FROM rollup WHERE grain = ? AND bucket >= ?
    UNION ALL SELECT (SELECT min(x.bucket) FROM rollup x WHERE x.grain = ? AND x.bucket > there.bucket)
    FROM there WHERE there.bucket < ?)"""
"""The buckets that anybody has used something in: from one to the next by the index."""

HOLDS_MAX = 64
"""So many holds are looked at before all that are open are looked through."""
_HOLDERS = "SELECT agent FROM reservation WHERE id >= (SELECT created FROM agent WHERE agent_id = ?) LIMIT ?"
"""Who has made holds since that agent was first heard of."""


def condition(coverage: Coverage, alias: str) -> tuple[str, list[Any]]:
    """SQL that holds for the rows (of `dim` or `reservation`) that a counter counts, and its parameters."""
    terms: list[str] = []
    values: list[Any] = []
    for column, value in (
        ("service", coverage.service),
        ("project", coverage.project),
        ("session", coverage.session),
    ):
        if value is not None:
            terms.append(f"{alias}.{column} = ?")
            values.append(value)
    if coverage.agents is not None:
        term, names = is_among(f"{alias}.agent", coverage.agents)
        terms.append(term)
        values += names
    return " AND ".join(terms) or "1", values


class Sums:
    """The sums of one metric over one coverage, as the connection sees them."""

    def __init__(self, connection: Connection, coverage: Coverage, metric: Metric) -> None:
        self._connection = connection
        self._agents = coverage.agents
        self._is_of_all = coverage == Coverage(coverage.service)
        self._where, self._values = condition(coverage, "d")
        self._held_where, self._held_values = condition(coverage, "x")
        self._event_metric = EVENT_METRIC[metric]
        self._rollup_metric = _ROLLUP_METRIC[metric]
        is_broad = coverage.project is None and coverage.session is None
        self._width = BROAD if is_broad else 0
        """What is added to the grain of rollups."""
        is_of_few = coverage.agents is not None and len(coverage.agents) <= FEW
        self._broad = broad_dims(coverage.agents) if is_of_few and coverage.agents is not None else None
        """Of a few agents the rows are looked up in each bucket: what all others have used is not read."""

    def may_have_used(self) -> bool:
        """Whether there may be usage to add up. Of an agent, a project or a session that begins there is
        none, which a look at an index says: what all others have used need not be read for it."""
        if self._is_of_all:
            return True
        found = self._connection.execute(f"SELECT 1 FROM dim d WHERE {self._where} LIMIT 1", self._values)
        return found.fetchone() is not None

    def may_hold(self) -> bool:
        """Whether those who have used nothing may hold something: not an agent that is heard of just now."""
        if self._agents is None or len(self._agents) != 1:
            return True
        (agent,) = self._agents
        holders = self._connection.execute(_HOLDERS, (agent, HOLDS_MAX)).fetchall()
        return len(holders) == HOLDS_MAX or (agent,) in holders

    def used(self, start_us: int, end_us: int) -> int:
        """Usage booked in [start, end), event by event."""
        return sum(amount for _, amount in self._events(start_us, end_us, "0", "1"))

    def used_by(self, kind: SubjectKind, start_us: int, end_us: int) -> dict[str, tuple[int, int | None]]:
        """As `used`, and when the first of it was booked, of each agent (or session, or project) separately,
        as a limit of that kind counts."""
        found: dict[str, tuple[int, int | None]] = {}
        for when, booked in _BOOKINGS:
            for scope, amount, first_us in self._connection.execute(
                f"SELECT d.{SCOPED_BY[kind]}, sum({self._event_metric}),"
                f" min(CASE WHEN {self._event_metric} > 0 THEN {booked} END)"
                " FROM event x CROSS JOIN dim d ON d.id = x.dim"
                f" WHERE {when} >= ? AND {booked} < ? AND {self._where} GROUP BY x.dim",
                (start_us, end_us, *self._values),
            ):
                before, before_us = found.get(scope, (0, None))
                firsts = [one for one in (before_us, first_us) if one is not None]
                found[scope] = before + amount, min(firsts, default=None)
        return found

    def used_long(self, start_us: int, end_us: int) -> int:
        """As `used`, from the rollups where they reach."""
        rolled = self._rolled()
        if start_us <= 0 and end_us >= FAR_US:
            return self._rollup(ALL, 0, 1, "0").get(0, 0) + self._tail(start_us, end_us, rolled, "0").get(
                0, 0
            )
        first, last = -(-start_us // HOUR_US), end_us // HOUR_US
        if first >= last:
            return self.used(start_us, end_us)
        first_day, last_day = -(-first * HOUR_US // DAY_US), last * HOUR_US // DAY_US
        hours = [(first, last)]
        total = 0
        if first_day < last_day:
            hours = [(first, first_day * 24), (last_day * 24, last)]
            total += self._rollup(DAY, first_day, last_day, "0").get(0, 0)
        total += sum(self._rollup(HOUR, *stretch, "0").get(0, 0) for stretch in hours)
        for edge in ((start_us, first * HOUR_US), (last * HOUR_US, end_us)):
            total += sum(amount for _, amount in self._events(*edge, "0", f"+x.id <= {rolled}"))
        return total + self._tail(start_us, end_us, rolled, "0").get(0, 0)

    def buckets(self, start_us: int, end_us: int, grain_us: int) -> dict[int, int]:
        """Usage booked in [start, end) per bucket of `grain_us`; the ends lie on buckets."""
        if grain_us % HOUR_US == 0 and start_us >= 0:
            grain_hours = grain_us // HOUR_US
            rolled = self._rolled()
            found = self._rollup(
                HOUR, start_us // HOUR_US, -(-end_us // HOUR_US), f"x.bucket / {grain_hours}"
            )
            return _added(found, self._tail(start_us, end_us, rolled, f"/ {grain_us}").items())
        by = f"/ {grain_us}"
        if self._broad is None or start_us < 0 or end_us - start_us < LONG_US:
            return _added({}, self._events(start_us, end_us, by, "1"))
        rolled = self._rolled()
        found = self._tail(start_us, end_us, rolled, by)
        for first, last in self._busy_hours(start_us // HOUR_US, -(-end_us // HOUR_US)):
            stretch = max(first * HOUR_US, start_us), min(last * HOUR_US, end_us)
            _added(found, self._events(*stretch, by, f"+x.id <= {rolled}"))
        return found

    def buckets_of_events(self, start_us: int, end_us: int, grain_us: int) -> dict[int, int]:
        """As `buckets`, event by event, whatever the rollups say."""
        return _added({}, self._events(start_us, end_us, f"/ {grain_us}", "1"))

    def _busy_hours(self, first: int, last: int) -> list[tuple[int, int]]:
        """The stretches of [first, last) in which there is something that is rolled up."""
        stretches: list[tuple[int, int]] = []
        for (hour,) in self._rolled_up("DISTINCT x.bucket", HOUR, first, last, "ORDER BY 1"):
            if stretches and stretches[-1][1] == hour:
                stretches[-1] = (stretches[-1][0], hour + 1)
            else:
                stretches.append((hour, hour + 1))
        return stretches

    def held(self, start_us: int, end_us: int, at_us: int) -> list[tuple[int, str, str, int, int]]:
        """Open holds made in [start, end): (reserved_at, reservation_id, agent, amount, expires_at)."""
        return self._connection.execute(
            f"SELECT x.id, x.reservation_id, x.agent, {self._event_metric}, x.expires FROM reservation x"
            f" WHERE x.state = 0 AND x.expires > ? AND +x.id >= ? AND +x.id < ? AND {self._held_where}",
            (at_us, start_us, end_us, *self._held_values),
        ).fetchall()

    def unsettled(self, start_us: int) -> list[tuple[int, int]]:
        """(reserved_at, amount) of holds whose state is open, expired or not, made since `start_us`."""
        return self._connection.execute(
            f"SELECT x.id, {self._event_metric} FROM reservation x WHERE x.state = 0 AND x.expires > 0"
            f" AND +x.id >= ? AND {self._held_where}",
            (start_us, *self._held_values),
        ).fetchall()

    def first_booked(self) -> int | None:
        """When the earliest usage was booked; the rollups say in which hour to look."""
        rolled = self._rolled()
        day = self._first_in(DAY, -FAR_US, FAR_US)
        hour = None if day is None else self._first_in(HOUR, day * 24, (day + 1) * 24)
        known: list[int] = []
        (first,) = self._connection.execute(
            f"SELECT min({BOOKED}) FROM event x CROSS JOIN dim d ON d.id = x.dim"
            f" WHERE x.id > ? AND {self._where} AND {self._event_metric} > 0",
            (rolled, *self._values),
        ).fetchone()
        known += [] if first is None else [first]
        if hour is not None:
            for when, booked in _BOOKINGS:
                (first,) = self._connection.execute(
                    f"SELECT min({booked}) FROM event x CROSS JOIN dim d ON d.id = x.dim WHERE {when} >= ?"
                    f" AND {booked} < ? AND +x.id <= {rolled} AND {self._where} AND {self._event_metric} > 0",
                    (hour * HOUR_US, (hour + 1) * HOUR_US, *self._values),
                ).fetchone()
                known += [] if first is None else [first]
        return min(known, default=None)

    def _events(self, start_us: int, end_us: int, bucket: str, extra: str) -> Iterable[tuple[int, int]]:
        """(bucket, sum) from the events: those booked when they were recorded, and those booked elsewhere."""
        if start_us >= end_us:
            return
        for when, booked in _BOOKINGS:
            grouped = bucket if bucket == "0" else f"{booked} {bucket}"
            yield from self._connection.execute(
                f"SELECT {grouped}, sum({self._event_metric}) FROM event x CROSS JOIN dim d ON d.id = x.dim"
                f" WHERE {when} >= ? AND {booked} < ? AND {extra} AND {self._where} GROUP BY 1",
                (start_us, end_us, *self._values),
            )

    def _tail(self, start_us: int, end_us: int, rolled: int, bucket: str) -> dict[int, int]:
        grouped = bucket if bucket == "0" else f"{BOOKED} {bucket}"
        return dict(
            self._connection.execute(
                f"SELECT {grouped}, sum({self._event_metric}) FROM event x CROSS JOIN dim d ON d.id = x.dim"
                f" WHERE x.id > ? AND {BOOKED} >= ? AND {BOOKED} < ?"
                f" AND {self._where} GROUP BY 1",
                (rolled, start_us, end_us, *self._values),
            ).fetchall()
        )

    def _rollup(self, grain: int, first: int, last: int, bucket: str) -> dict[int, int]:
        if first >= last:
            return {}
        amounts = f"{bucket}, sum({self._rollup_metric})"
        return dict(self._rolled_up(amounts, grain, first, last, "GROUP BY 1"))

    def _first_in(self, grain: int, first: int, last: int) -> int | None:
        """The first bucket in [first, last) that something was used in."""
        is_first = f"AND {self._rollup_metric} > 0 ORDER BY 1 LIMIT 1"
        found = self._rolled_up("x.bucket", grain, first, last, is_first)
        return found[0][0] if found else None

    def _rolled_up(self, columns: str, grain: int, first: int, last: int, ending: str) -> list[Any]:
        """`columns` of the rollups x in the buckets [first, last)."""
        grain += self._width
        if self._broad is None:
            return self._connection.execute(
                f"SELECT {columns} FROM rollup x CROSS JOIN dim d ON d.id = x.dim"
                f" WHERE x.grain = ? AND x.bucket >= ? AND x.bucket < ? AND {self._where} {ending}",
                (grain, first, last, *self._values),
            ).fetchall()
        broad, names = self._broad
        return self._connection.execute(
            f"{broad}, {_THERE} SELECT {columns} FROM broad d CROSS JOIN there CROSS JOIN rollup x"
            " ON x.grain = ? AND x.bucket = there.bucket AND x.dim = d.id"
            f" WHERE there.bucket < ? AND {self._where} {ending}",
            (*names, grain, first, grain, last, grain, last, *self._values),
        ).fetchall()

    def _rolled(self) -> int:
        (rolled,) = self._connection.execute("SELECT v FROM meta WHERE k = 'rolled'").fetchone()
        return rolled


def _added(sums: dict[int, int], more: Iterable[tuple[int, int]]) -> dict[int, int]:
    for bucket, amount in more:
        sums[bucket] = sums.get(bucket, 0) + amount
    return sums
