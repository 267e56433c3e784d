"""Every view rebuilt from the events, beside the live one, in one snapshot."""

from __future__ import annotations

from operator import add

from agent_meter_mcp.core.limits import Coverage
from agent_meter_mcp.core.models import METRICS
from agent_meter_mcp.core.queries import Difference

from . import schema
from .book import Book
from .by_scope import ByScope
from .counters import Counter
from .rollups import HOURLY
from .rows import OF_METRIC, RESERVATION_COLUMNS, reservation_of
from .schema import ALL, BROAD, DAY, GRAIN_US, HOUR
from .sums import FAR_US, Sums

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .driver import Connection
    from .reading import Reader

    Progress = Callable[[str, int, int], None]
    Place = tuple[int, int, int]
    """Grain, bucket and dim of a rollup."""
    Figures = tuple[int, ...]
    Total = tuple[int, int | None]
    """How much, and when the first of it was booked."""

CHUNK = 50_000
_GRAINS = dict(enumerate(("hour", "day", "all", "hour, broad,", "day, broad,", "all, broad,")))
_FIGURES = (
    "events",
    "requests",
    "units",
    "input",
    "output",
    "cache_read",
    "cache_write",
    "cache_write_1h",
    "cost",
    "unpriced",
)
_NONE = (0,) * len(_FIGURES)


def verify(reader: Reader, progress: Progress | None) -> Iterator[Difference]:
    """Yields each difference between a view and the ledger."""
    report = progress or _silent
    missing = _missing(reader)
    yield from missing
    yield from _file(reader, report)
    if missing:
        return  # what is there cannot be compared without it
    yield from _rollups(reader, report)
    yield from _counters(reader, report)
    yield from _references(reader)


def _silent(_what: str, _done: int, _total: int) -> None:
    return


def _missing(reader: Reader) -> list[Difference]:
    """Tables, indexes and rows that every ledger has."""
    execute = reader.connection.execute
    there = {name for (name,) in execute("SELECT type || ' ' || name FROM sqlite_master")}
    absent = sorted(schema.parts() - there)
    if not absent:
        marks = {f"row {name} of meta" for (name,) in execute("SELECT k FROM meta")}
        absent = sorted({f"row {name} of meta" for name in ("epoch", "rolled", "swept")} - marks)
    return [Difference("file", f"{part} is missing", 0, 1) for part in absent]


def _file(reader: Reader, report: Progress) -> Iterator[Difference]:
    """SQLite's own check of the pages, the indexes, and what refers to what."""
    report("file", 0, 1)
    execute = reader.connection.execute
    found = [line for (line,) in execute("PRAGMA integrity_check") if line != "ok"]
    for line in found:
        yield Difference("file", line, 1, 0)
    for table, row, other, _ in execute("PRAGMA foreign_key_check"):
        yield Difference("file", f"row {row} of {table} refers to a row of {other} that is missing", 0, 1)
    report("file", 1, 1)


def _rollups(reader: Reader, report: Progress) -> Iterator[Difference]:
    execute = reader.connection.execute
    (rolled,) = execute("SELECT v FROM meta WHERE k = 'rolled'").fetchone()
    (total,) = execute("SELECT count(*) FROM event WHERE id <= ?", (rolled,)).fetchone()
    rebuilt: dict[Place, Figures] = {}
    broad = _broad(reader)
    last: dict[int, int] = {}
    after, done = 0, 0
    while after < rolled:
        (upto,) = execute(
            f"SELECT coalesce(max(id), ?) FROM (SELECT id FROM event WHERE id > ? AND id <= ?1 ORDER BY id"
            f" LIMIT {CHUNK})",
            (rolled, after),
        ).fetchone()
        for row in execute(HOURLY, (after, upto)):
            _add(rebuilt, row[0], (row[1], broad.get(row[1], 0)), row[2:12])
            last[row[1]] = max(row[12], last.get(row[1], 0))
            done += row[2]
        after = upto
        report("rollups", done, total)
    for seq, dim, count in execute("SELECT id, dim, count FROM refusal"):
        _add(rebuilt, seq // GRAIN_US[HOUR], (dim, broad.get(dim, 0)), (count, *_NONE[1:]))
        last[dim] = max(seq, last.get(dim, 0))
    live: dict[Place, Figures] = {
        row[:3]: row[3:]
        for row in execute(
            "SELECT grain, bucket, dim, n, requests, units, input, output, cache_read, cache_write,"
            " cache_write_1h, cost, unpriced FROM rollup"
        )
    }
    differing = [place for place, should in rebuilt.items() if live.get(place, _NONE) != should]
    differing += [place for place, have in live.items() if have != _NONE and place not in rebuilt]
    for place in sorted(differing):
        have, should = live.get(place, _NONE), rebuilt.get(place, _NONE)
        for name, one, other in zip(_FIGURES, have, should, strict=True):
            if one != other:
                grain, bucket, dim = place
                yield Difference(
                    f"rollup {_GRAINS.get(grain, grain)} {name}",
                    f"bucket {bucket}, dim {dim}",
                    one,
                    other,
                )
    yield from _grand(reader, rebuilt)
    yield from _last(reader, last)


def _grand(reader: Reader, rebuilt: dict[Place, Figures]) -> Iterator[Difference]:
    """What the largest number is watched by: requests, units, tokens and cost of all that is rolled up."""
    sums = [figures for (grain, _, _), figures in rebuilt.items() if grain == ALL]
    live = dict(reader.connection.execute("SELECT k, v FROM meta").fetchall())
    for index, columns in enumerate(OF_METRIC):
        have, should = live.get(f"grand_{index}", 0), sum(sum(figures[columns]) for figures in sums)
        if have != should:
            yield Difference("rollup grand total", METRICS[index], have, should)


def _last(reader: Reader, last: dict[int, int]) -> Iterator[Difference]:
    """When each agent was seen last, by the newest of its events and refusals that are rolled up (by dim)."""
    should: dict[str, int] = {}
    for dim, agent in reader.connection.execute("SELECT id, agent FROM dim"):
        should[agent] = max(last.get(dim, 0), should.get(agent, 0))
    live = dict(
        reader.connection.execute(
            "SELECT d.agent, max(x.last) FROM rollup x CROSS JOIN dim d ON d.id = x.dim"
            f" WHERE x.grain = {ALL + BROAD} GROUP BY 1"
        ).fetchall()
    )
    for agent, seen_us in sorted(should.items()):
        if live.get(agent, 0) != seen_us:
            yield Difference("rollup last seen", f"agent {agent!r}", live.get(agent, 0), seen_us)


def _broad(reader: Reader) -> dict[int, int]:
    """By dim, the one of all that its agent did at its service with its outcome (0: there is none yet)."""
    found: dict[tuple[str, str, str], int] = {}
    dims: list[tuple[int, tuple[str, str, str]]] = []
    rows = reader.connection.execute("SELECT id, source, service, agent, outcome FROM dim")
    for dim, source, service, agent, outcome in rows:
        of = (service, agent, outcome)
        if source:
            dims.append((dim, of))
        else:
            found[of] = dim
    return {dim: found.get(of, 0) for dim, of in dims}


def _add(rebuilt: dict[Place, Figures], hour: int, dims: tuple[int, int], figures: Figures) -> None:
    for added, dim in zip((0, BROAD), dims, strict=True):
        for place in ((HOUR + added, hour, dim), (DAY + added, hour // 24, dim), (ALL + added, 0, dim)):
            sums = rebuilt.get(place)
            rebuilt[place] = figures if sums is None else tuple(map(add, sums, figures))


def _counters(reader: Reader, report: Progress) -> Iterator[Difference]:
    """Each stored cell against the events and open holds of its stretch, event by event."""
    book = Book(reader.connection)
    book.refresh()
    execute = reader.connection.execute
    expected = _Expected(reader.connection)
    stored = execute("SELECT id, limit_id, scope, first FROM counter ORDER BY id").fetchall()
    for done, (number, limit_id, scope, first_us) in enumerate(stored):
        report("counters", done, len(stored))
        limit = book.policy.limits.get(limit_id)
        if limit is None:
            yield Difference("counter", f"{limit_id} {scope!r}: its limit is gone", 1, 0)
            continue
        name = f"{limit.key} {scope!r}"
        counter = Counter(reader.connection, limit, scope, book.policy, looks_back=True)
        counter.advance(book.last + 1)  # the clock never goes back before it: what is older is nobody's view
        if counter.window.kind == "total" and first_us != (should_us := expected.first_us(counter)):
            yield Difference("counter first", name, first_us or 0, should_us or 0)
        cells = {
            bucket: (used, held)
            for bucket, used, held in execute(
                # of a bucket that is in both, the head is what counts
                "SELECT bucket, used, held FROM cell WHERE counter = ?1 AND bucket >= ?2 UNION ALL"
                " SELECT bucket, used, held FROM head WHERE counter = ?1 AND bucket >= ?2",
                (number, counter.kept),
            )
        }
        all_used, all_held = expected.used(counter), expected.held(counter)
        for bucket in sorted({*cells, *all_used, *all_held}):
            used, held = cells.get(bucket, (0, 0))
            where = f"{name}, from {_stretch(counter, bucket)[0]}"
            if used != (should := all_used.get(bucket, 0)):
                yield Difference("counter used", where, used, should)
            if held != (should := all_held.get(bucket, 0)):
                yield Difference("counter held", where, held, should)
    for table in ("head", "cell"):
        for (number,) in execute(
            f"SELECT DISTINCT counter FROM {table} WHERE counter NOT IN (SELECT id FROM counter)"
        ):
            yield Difference("counter", f"{number}: it is gone, what it counted is in {table}", 1, 0)
    report("counters", len(stored), len(stored))


class _Expected:
    """What counters should hold, by the events and the open holds.

    A limit on each agent has thousands of counters; what all of them should hold is read at once.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._by_scope = ByScope(connection, in_steps=False)
        self._together: dict[tuple[str, str | None, str, int, int], dict[str, Total]] = {}
        """Of each scope, by what the limits have in common, and the stretch of time."""

    def used(self, counter: Counter) -> dict[int, int]:
        """In each bucket, as far back as they are kept."""
        if counter.rolling:
            first, last, grain_us = counter.kept, counter.current, counter.window.grain_us
            used = None
            if counter.scope:
                used = self._by_scope.used(counter.limit, counter.scope, grain_us, range(first, last + 1))
            if used is None:
                used = counter.sums.buckets_of_events(first * grain_us, (last + 1) * grain_us, grain_us)
            return used
        return {counter.kept: self._total(counter)[0]}

    def held(self, counter: Counter) -> dict[int, int]:
        held: dict[int, int] = {}
        for at_us, amount in counter.sums.unsettled(_stretch(counter, counter.kept)[0]):
            bucket = counter.bucket_of(at_us)
            held[bucket] = held.get(bucket, 0) + amount
        return held

    def first_us(self, counter: Counter) -> int | None:
        """When what a counter of all time counts began."""
        return self._total(counter)[1]

    def _total(self, counter: Counter) -> Total:
        start_us, end_us = _stretch(counter, counter.kept)
        if not counter.scope:
            first_us = counter.sums.first_booked() if counter.window.kind == "total" else None
            return counter.sums.used(start_us, end_us), first_us
        key = counter.limit.key
        kind = key.subject.kind
        alike = kind, key.service, key.metric, start_us, end_us
        if alike not in self._together:
            sums = Sums(self._connection, Coverage(key.service), key.metric)
            self._together[alike] = sums.used_by(kind, start_us, end_us)
        return self._together[alike].get(counter.scope, (0, None))


def _stretch(counter: Counter, bucket: int) -> tuple[int, int]:
    if counter.rolling:
        return bucket * counter.window.grain_us, (bucket + 1) * counter.window.grain_us
    return counter.period_of(bucket) if counter.window.kind == "calendar" else (0, FAR_US)


def _references(reader: Reader) -> Iterator[Difference]:
    """Settled reservations have their event, and whoever used something is a known agent."""
    execute = reader.connection.execute
    for (agent,) in execute("SELECT DISTINCT agent FROM dim EXCEPT SELECT agent_id FROM agent"):
        yield Difference("agent", f"{agent!r} is missing", 0, 1)
    for row in execute(f"SELECT {RESERVATION_COLUMNS} FROM reservation WHERE state = 1").fetchall():
        held = reservation_of(row, 0)
        found = execute(
            "SELECT 1 FROM event WHERE key = ? AND service = (SELECT id FROM service WHERE name = ?)",
            (row[2], held.who.service or ""),
        ).fetchone()
        if found is None:
            yield Difference("reservation", f"{held.reservation_id} is settled, its event is missing", 1, 0)
