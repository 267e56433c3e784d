"""What each agent (or session, or project) has used, bucket by bucket, read for all of them at once.

Of a new limit on each of them, a counter for each has to be worked out. One by itself takes as long as all of
them together: whatever anybody has used in two windows is walked through.
"""

from __future__ import annotations

from array import array

from agent_meter_mcp.core.windows import SLOTS

from .sums import BOOKED, EVENT_METRIC, SCOPED_BY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent_meter_mcp.core.limits import Limit

    from .driver import Connection

    Alike = tuple[str, str | None, str, int]
    """What limits have in common that count the same usage in the same buckets."""

ALONE = 4
"""So many are read each by itself: mostly no more are asked for."""
STEP = 200_000
"""So many events are read at a time by a writer, for whom all others wait: some tenth of a second."""
_NEWEST = "SELECT coalesce((SELECT max(id) FROM event), 0), coalesce((SELECT max(id) FROM correction), 0)"
_STEP_END = "SELECT id FROM event WHERE id > ? ORDER BY id LIMIT 1 OFFSET ?"


class ByScope:
    """As one connection sees them; to be asked within a transaction."""

    def __init__(self, connection: Connection, *, in_steps: bool) -> None:
        self._connection = connection
        self._in_steps = in_steps
        self._walks: dict[Alike, _Walk] = {}

    def used(self, limit: Limit, scope: str, grain_us: int, buckets: range) -> dict[int, int] | None:
        """What it has used in each of those buckets of `grain_us`. None: it is to be read by itself."""
        key = limit.key
        alike = SCOPED_BY[key.subject.kind], key.service, key.metric, grain_us
        walk = self._walks.get(alike)
        if walk is None:
            walk = self._walks[alike] = _Walk(self._connection, limit, grain_us, in_steps=self._in_steps)
        return walk.used(scope, buckets)


class _Walk:
    def __init__(self, connection: Connection, limit: Limit, grain_us: int, *, in_steps: bool) -> None:
        key = limit.key
        self._connection = connection
        self._grain_us = grain_us
        self._in_steps = in_steps
        scope = SCOPED_BY[key.subject.kind]
        at_service = "" if key.service is None else " AND d.service = ?"
        self._services = () if key.service is None else (key.service,)
        self._read = (
            f"SELECT d.{scope}, {BOOKED} / {grain_us} AS bucket, sum({EVENT_METRIC[key.metric]})"
            f" FROM event x CROSS JOIN dim d ON d.id = x.dim{at_service}"
            f" WHERE x.id > ? AND x.id <= ? AND {BOOKED} >= ? GROUP BY x.dim, bucket"
        )
        self._corrected_since = (
            f"SELECT DISTINCT d.{scope} FROM correction c CROSS JOIN event x ON x.id = c.event"
            " CROSS JOIN dim d ON d.id = x.dim WHERE c.id > ? AND x.id <= ?"
        )
        self._asked = 0
        self._first = -1
        """The bucket from which on all is read; -1: nothing has been."""
        self._upto = self._corrected = 0
        """The newest event that was read, and the newest correction then."""
        self._found: dict[str, array[int]] = {}
        """Of each scope, buckets and amounts in turn. A bucket may come several times."""
        self._changed: set[str] = set()
        """Scopes some of whose usage was corrected after it was read."""

    def used(self, scope: str, buckets: range) -> dict[int, int] | None:
        if 0 <= self._first < buckets.start - SLOTS:  # what was read is of a former window
            self._asked, self._first = 0, -1
            self._found.clear()
        self._asked += 1
        if self._asked <= ALONE or buckets.start < self._first:  # a clock went back
            return None
        newest, corrected = self._connection.execute(_NEWEST).fetchone()
        if self._first < 0:
            self._begin(buckets.start, corrected)
        if corrected > self._corrected:
            self._note_corrected(corrected)
        if newest > self._upto:
            self._read_upto(self._step_end(newest))
        return self._found_of(scope, buckets) if newest <= self._upto and scope not in self._changed else None

    def _begin(self, first: int, corrected: int) -> None:
        self._first, self._corrected = first, corrected
        self._upto = first * self._grain_us - 1  # what is booked from there on was recorded from there on
        self._found.clear()
        self._changed.clear()

    def _note_corrected(self, corrected: int) -> None:
        known = self._connection.execute(self._corrected_since, (self._corrected, self._upto))
        self._changed.update(scope for (scope,) in known)
        self._corrected = corrected

    def _step_end(self, newest: int) -> int:
        found = self._connection.execute(_STEP_END, (self._upto, STEP)).fetchone() if self._in_steps else None
        return newest if found is None else found[0]

    def _read_upto(self, upto: int) -> None:
        found, since_us = self._found, self._first * self._grain_us
        first, self._first = self._first, -1  # as long as only a part of it is noted
        for scope, bucket, amount in self._connection.execute(
            self._read, (*self._services, self._upto, upto, since_us)
        ):
            numbers = found.get(scope)
            if numbers is None:
                numbers = found[scope] = array("q")
            numbers.extend((bucket, amount))
        self._first, self._upto = first, upto

    def _found_of(self, scope: str, buckets: range) -> dict[int, int]:
        used: dict[int, int] = {}
        numbers = iter(self._found.get(scope, ()))
        for number, amount in zip(numbers, numbers, strict=True):
            if number in buckets:
                used[number] = used.get(number, 0) + amount
        return used
