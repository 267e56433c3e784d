"""Sums per hour, day and all time, so that a summary need not read the events: by all dimensions, and by
agent, service and outcome alone, since sessions make many rows.

Events are rolled up in order of id by whoever's write finds enough of them beyond the watermark; what is
beyond it is read from the events, in the same snapshot. Refusals are added as they come. A correction of an
event that is rolled up already moves its figures."""

from __future__ import annotations

from operator import add

from .rows import OF_METRIC
from .schema import ALL, BROAD, DAY, GRAIN_US, HOUR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .driver import Connection
    from .names import Names

    Sums = tuple[int, ...]
    Place = tuple[int, int, int]

ROLL_AT = 2048
"""So many events beyond the watermark are rolled up together."""
LOOK_EVERY = 256
"""After so many events of its own a process looks how many there are. One that writes few looks now and then.
"""
HEADROOM = 2**62
"""Below this total, what is not rolled up yet cannot bring a sum past the largest integer."""

_UPSERT = """
INSERT INTO rollup (grain, bucket, dim, n, requests, units, input, output, cache_read, cache_write,
    cache_write_1h,
    cost, unpriced, last) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (grain, bucket, dim) DO UPDATE SET n = n + excluded.n, requests = requests + excluded.requests,
    units = units + excluded.units, input = input + excluded.input, output = output + excluded.output,
    cache_read = cache_read + excluded.cache_read, cache_write = cache_write + excluded.cache_write,
    cache_write_1h = cache_write_1h + excluded.cache_write_1h, cost = cost + excluded.cost,
    unpriced = unpriced + excluded.unpriced, last = max(last, excluded.last)"""
HOURLY = f"""
SELECT coalesce(booked, id) / {GRAIN_US[HOUR]}, dim, count(*), sum(requests), coalesce(sum(units), 0),
    coalesce(sum(input), 0), coalesce(sum(output), 0), coalesce(sum(cache_read), 0),
    coalesce(sum(cache_write), 0),
    coalesce(sum(cache_write_1h), 0), coalesce(sum(cost), 0), sum(cost IS NULL), max(id)
FROM event WHERE id > ? AND id <= ? GROUP BY 1, 2"""
"""Events of a range of ids as rollup rows of the hour grain."""


class Rollups:
    """The rollups as the writing connection keeps them.

    `grand`: requests, units, tokens, cost of all rolled events.
    """

    def __init__(self, connection: Connection, names: Names) -> None:
        self._connection = connection
        self._names = names
        self._rolled = 0
        self._since_look = 0
        self.grand = [0, 0, 0, 0]
        self.nearly_full = False

    def load(self) -> None:
        """Somebody else may have rolled up."""
        meta = dict(self._connection.execute("SELECT k, v FROM meta").fetchall())
        self._rolled = meta["rolled"]
        self.grand = [meta.get(f"grand_{index}", 0) for index in range(4)]
        self.nearly_full = max(self.grand) >= HEADROOM

    def advance(self, inserted: int, last_seq: int) -> None:
        """Rolls up when there is enough. `last_seq` is the newest seq in the file."""
        self._since_look += inserted
        if not inserted or (self._since_look < LOOK_EVERY and last_seq % LOOK_EVERY):
            return
        self._since_look = 0
        (waiting,) = self._connection.execute(
            "SELECT count(*) FROM event WHERE id > ?", (self._rolled,)
        ).fetchone()
        if waiting >= ROLL_AT:
            self._roll()

    def _roll(self) -> None:
        (upto,) = self._connection.execute("SELECT max(id) FROM event").fetchone()
        rows = self._connection.execute(HOURLY, (self._rolled, upto)).fetchall()
        self._add(rows)
        for row in rows:
            for index, amount in enumerate((row[3], row[4], sum(row[5:10]), row[10])):
                self.grand[index] += amount
        self.nearly_full = max(self.grand) >= HEADROOM
        self._rolled = upto
        keep = [("rolled", upto), *((f"grand_{index}", amount) for index, amount in enumerate(self.grand))]
        self._connection.executemany(
            "INSERT INTO meta (k, v) VALUES (?, ?) ON CONFLICT (k) DO UPDATE SET v = excluded.v", keep
        )

    def _add(self, hourly: list[Sums]) -> None:
        """Adds rows (hour, dim, n, ..., last) to all grains."""
        added: dict[Place, Sums] = {}
        for hour, dim, *figures, last in hourly:
            sums, broad = (*figures, last), self._names.broad(dim)
            for grain, bucket in ((HOUR, hour), (DAY, hour // 24), (ALL, 0)):
                _fold(added, (grain, bucket, dim), sums)
                _fold(added, (grain + BROAD, bucket, broad), sums)
        self._connection.executemany(_UPSERT, [(*place, *sums) for place, sums in added.items()])

    def add_refusals(self, dim: int, count: int, seq: int) -> None:
        """Refusals that were folded under `seq`."""
        self._add([(seq // GRAIN_US[HOUR], dim, count, 0, 0, 0, 0, 0, 0, 0, 0, 0, seq)])

    def correct(self, seq: int, booked_us: int, older: Sums, newer: Sums) -> None:
        """Replaces an event's figures, if it is rolled up. Both are (dim, requests, units, the five kinds of
        tokens, cost, unpriced)."""
        if seq > self._rolled:
            return
        hour = booked_us // GRAIN_US[HOUR]
        self._add([(hour, older[0], -1, *(-amount for amount in older[1:]), 0)])
        self._add([(hour, newer[0], 1, *newer[1:], seq)])
        for index, figures in enumerate(OF_METRIC):
            self.grand[index] += sum(newer[figures]) - sum(older[figures])
            self._connection.execute(
                "UPDATE meta SET v = ? WHERE k = ?", (self.grand[index], f"grand_{index}")
            )

    def exact_grand(self) -> list[int]:
        """Requests, units, tokens and cost of all events in the file."""
        tail = self._connection.execute(HOURLY, (self._rolled, 2**62)).fetchall()
        beyond = [(row[3], row[4], sum(row[5:10]), row[10]) for row in tail]
        return [total + sum(row[index] for row in beyond) for index, total in enumerate(self.grand)]


def _fold(into: dict[Place, Sums], place: Place, sums: Sums) -> None:
    have = into.get(place)
    into[place] = sums if have is None else (*map(add, have[:-1], sums[:-1]), max(have[-1], sums[-1]))
