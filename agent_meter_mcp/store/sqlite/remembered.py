"""What a reader has summed up before, so that whoever asks again and again pays for the news alone.

It stays exact because events and refusals are added in the order of their ids, and whatever else changes a
sum leaves a trace that is looked at in the same snapshot: a correction its row, a refusal that is folded into
one of more than `LATE_US` before a count in `meta`. Later ones are read each time.
"""

from __future__ import annotations

from operator import add, neg

from .holding import LATE, LATE_US
from .schema import ALL, BROAD
from .sums import FAR_US

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .book import Book
    from .driver import Connection

    Key = tuple[str | int | None, ...]
    Row = tuple[Key, Sequence[int]]
    Place = tuple[object, ...]
    Sums = dict[Key, Sequence[int]]
    Span = tuple[int, int]

NOTHING = (FAR_US, -1)
ROWS_MAX = 120_000
"""So many groups are remembered; beyond that, it begins anew. A sum of more than half
as many is not remembered."""
CROWD = 10_000
"""Where there are more agents, what each has used is read for those that are asked for."""


class Remembered:
    """Sums of one reading connection, by what was asked: the place of a sum."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.rolled = 0
        """Events up to this one are in the rollups."""
        self.tail: Span = NOTHING
        """When the first and the last of the others were booked."""
        self._generation = self._corrected = self._late = -1
        self._upto = self._before = self._settled = 0
        """Up to which event it has looked, this time and the time before."""
        self._news: Span = NOTHING
        """When the first and the last event in between were booked."""
        self._events: dict[Place, tuple[int, Sums]] = {}
        self._refusals: dict[Place, tuple[int, Sums]] = {}
        self._rows = 0
        self._seen: dict[str, int] = {}
        self._seen_upto = 0
        self._is_crowd = False

    def is_crowd(self) -> bool:
        """Whether the agents are more than what is remembered. No agent ever goes."""
        if not self._is_crowd:
            found = self._connection.execute("SELECT 1 FROM agent LIMIT 1 OFFSET ?", (CROWD,)).fetchone()
            self._is_crowd = found is not None
        return self._is_crowd

    def begin(self, book: Book) -> None:
        """Within a read transaction, before any sum of it: forgets what was changed."""
        if book.generation == self._generation:
            return  # nobody has written since
        self._generation = book.generation
        before, rolled = self._upto, self.rolled
        corrected, late, self._upto, self.rolled = self._connection.execute(
            "SELECT coalesce((SELECT max(id) FROM correction), 0),"
            f" coalesce((SELECT v FROM meta WHERE k = '{LATE}'), 0),"
            " coalesce((SELECT max(id) FROM event), 0), (SELECT v FROM meta WHERE k = 'rolled')"
        ).fetchone()
        self._before = before
        if rolled != self.rolled:
            self.tail, before = NOTHING, 0
        self._note_tail(before)
        self._settled = book.last - LATE_US
        if self._rows > ROWS_MAX:
            self._events.clear()
            self._refusals.clear()
            self._rows = 0
        if corrected != self._corrected:
            self._corrected = corrected
            self._events.clear()
        if late != self._late:
            self._late = late
            self._refusals.clear()

    def _note_tail(self, upto: int) -> None:
        """Adds what came after `upto`; a correction moves nothing."""
        first, last = self._connection.execute(
            "SELECT min(coalesce(booked, id)), max(coalesce(booked, id)) FROM event WHERE id > ?",
            (max(self.rolled, upto),),
        ).fetchone()
        news = NOTHING if first is None else (first, last)
        self.tail = min(news[0], self.tail[0]), max(news[1], self.tail[1])
        self._news = news if upto >= self.rolled else (0, FAR_US)

    def events(
        self,
        within: Span,
        place: Place,
        read: Callable[[], Iterable[Row]],
        since: Callable[[int], Iterable[Row]],
    ) -> Sums:
        """Sums of events that were booked `within` [start, end): `read` reads them all, `since(upto)` those
        that were recorded after `upto`.

        They are kept here: neither the sums nor their figures are to be changed.
        """
        known = self._events.pop(place, None)
        if known is None:
            upto, sums = self._upto, _added({}, read())
            self._rows += len(sums)
        else:
            upto, sums = known
            is_apart = self._news[1] < within[0] or self._news[0] >= within[1]
            if upto < self._upto and not (is_apart and upto == self._before):
                before = len(sums)
                sums = _added(sums, since(upto))
                self._rows += len(sums) - before
        if len(sums) <= ROWS_MAX // 2:
            self._events[place] = (self._upto, sums)
        else:
            self._rows -= len(sums)
        return sums

    def refusals(
        self, place: Place, read: Callable[[], Iterable[Row]], between: Callable[[int, int], Iterable[Row]]
    ) -> Iterable[Row]:
        """Sums of refusals: `read` reads them all, `between` those that were recorded in a range of seqs."""
        settled, sums = self._refusals.get(place, (0, {}))
        if place not in self._refusals:
            sums = _added({}, read())
            recent = [(key, tuple(map(neg, figures))) for key, figures in between(self._settled, FAR_US)]
            sums = _added(sums, recent)
            self._rows += len(sums)
        elif settled < self._settled:
            sums = _added(sums, between(settled, self._settled))
        self._refusals[place] = (max(settled, self._settled), sums)
        return [*sums.items(), *between(max(settled, self._settled), FAR_US)]

    def last_seen(self) -> dict[str, int]:
        """When each agent's newest event or refusal was recorded."""
        execute, upto = self._connection.execute, self._seen_upto
        (self._seen_upto,) = execute(
            "SELECT max(coalesce((SELECT max(id) FROM event), 0), coalesce((SELECT max(id) FROM refusal), 0))"
        ).fetchone()
        if not self._seen:
            # The rollups have the older ones; refusals are in them at once.
            (upto,) = execute("SELECT v FROM meta WHERE k = 'rolled'").fetchone()
            self._seen.update(
                execute(
                    "SELECT d.agent, max(x.last) FROM rollup x CROSS JOIN dim d ON d.id = x.dim"
                    f" WHERE x.grain = {ALL + BROAD} GROUP BY 1"
                ).fetchall()
            )
        for agent, seen_us in execute(
            "SELECT d.agent, max(x.id) FROM event x CROSS JOIN dim d ON d.id = x.dim WHERE x.id > ?"
            " GROUP BY 1 UNION ALL"
            " SELECT d.agent, max(x.id) FROM refusal x CROSS JOIN dim d ON d.id = x.dim WHERE x.id > ?1"
            " GROUP BY 1",
            (upto,),
        ):
            self._seen[agent] = max(seen_us, self._seen.get(agent, 0))
        return self._seen


def _added(sums: Sums, rows: Iterable[Row]) -> Sums:
    for key, figures in rows:
        have = sums.get(key)
        sums[key] = figures if have is None else tuple(map(add, have, figures))
    return sums
