"""Summaries: rollups for whole hours and days, events for the ragged ends and for what is not rolled up yet.

The time range is cut into spans, one per time group (one in all without them). Each span is read in up to
four pieces, which are added up: whole UTC days, whole hours, the parts of hours by which those miss its ends,
the tail. What the days and hours have too much is taken off.
"""

from __future__ import annotations

from itertools import pairwise
from operator import add, attrgetter, itemgetter, neg

from agent_meter_mcp.core.queries import TIME_DIMENSIONS, Summary, Totals
from agent_meter_mcp.core.windows import periods

from .filters import broad_dims, filter_condition, is_among
from .schema import ALL, BROAD, DAY, HOUR
from .sums import FAR_US, HOUR_US

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from agent_meter_mcp.core.queries import SummaryQuery

    from .reading import Reader

    Key = tuple[str | int | None, ...]
    Span = tuple[int, int]
    Row = tuple[Key, Sequence[int]]
    Stretch = tuple[int, int, int, int]
    Edge = tuple[int, int, int]

_COLUMNS = {
    **{name: f"nullif(d.{name}, '')" for name in ("operation", "model", "project", "session", "service")},
    "agent": "d.agent",
    "source": "d.source",
    "outcome": "d.outcome",
    "tier": "a.tier",
    "owner": "a.owner",
}
_ROLLED = (
    "sum(x.n), sum(x.requests), sum(x.units), sum(x.input), sum(x.output),"
    " sum(x.cache_read), sum(x.cache_write), sum(x.cache_write_1h), sum(x.cost), sum(x.unpriced),"
    " sum(x.n * (d.outcome = 'over_limit')), 0"
)
_EVENTS = (
    "count(*), sum(x.requests), coalesce(sum(x.units), 0), coalesce(sum(x.input), 0),"
    " coalesce(sum(x.output), 0),"
    " coalesce(sum(x.cache_read), 0), coalesce(sum(x.cache_write), 0), coalesce(sum(x.cache_write_1h), 0),"
    " coalesce(sum(x.cost), 0), sum(x.cost IS NULL), sum(d.outcome = 'over_limit'), 0"
)
_REFUSED = "0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,"
_FINE = ("operation", "model", "project", "session", "source")
"""Whoever asks for one of these needs the rollups by all dimensions."""


def summary(reader: Reader, query: SummaryQuery) -> Summary:
    """Rule 27, over [since, until) of the filter."""
    total, found = reader.told.groups(query.group_by, sums(reader, query))
    if not query.group_by:
        found = []
    if query.order_by != "key":
        figure = {"cost_usd": "cost_nano_usd", "units": "units_micro"}.get(query.order_by, query.order_by)
        found.sort(key=attrgetter(f"totals.{figure}"), reverse=True)
    return Summary(Totals(*total), tuple(found[: query.limit]), max(len(found) - query.limit, 0))


def sums(reader: Reader, query: SummaryQuery) -> dict[Key, Sequence[int]]:
    """The figures of each group, in the order of `Totals`. They are remembered: not to be changed."""
    pieces = _Pieces(reader, query)
    for number, span in enumerate(pieces.spans):
        pieces.read(number, span)
    return pieces.groups


def of_agents(reader: Reader, names: Sequence[str]) -> tuple[dict[Key, Sequence[int]], dict[str, int]]:
    """The figures of each of these agents, and when its newest event or refusal was recorded.

    Nothing is read of all the others but what is not rolled up yet.
    """
    broad, values = broad_dims(names)
    term, wanted = is_among("d.agent", names)
    rolled = (
        f"{broad} SELECT d.agent, max(x.last), {{}} FROM broad d CROSS JOIN rollup x ON x.dim = d.id"
        f" WHERE x.grain = {ALL + BROAD} AND x.bucket = 0 AND d.outcome {{}} GROUP BY 1"
    )
    tail = (
        f"SELECT d.agent, max(x.id), {_EVENTS} FROM event x CROSS JOIN dim d ON d.id = x.dim"
        f" WHERE x.id > (SELECT v FROM meta WHERE k = 'rolled') AND {term} GROUP BY 1"
    )
    sums: dict[Key, Sequence[int]] = {}
    seen: dict[str, int] = {}
    for sql, parameters in (
        (rolled.format(_ROLLED, "!= 'rejected'"), values),
        (rolled.format(f"{_REFUSED} sum(x.n)", "= 'rejected'"), values),
        (tail, wanted),
    ):
        for agent, seen_us, *figures in reader.connection.execute(sql, parameters):
            have = sums.get((agent,))
            sums[agent,] = figures if have is None else tuple(map(add, have, figures))
            seen[agent] = max(seen_us, seen.get(agent, 0))
    return sums, seen


class _Pieces:
    """Reads the pieces of each span, and adds them up in `groups`."""

    def __init__(self, reader: Reader, query: SummaryQuery) -> None:
        self._execute = reader.connection.execute
        self._where, self._values = filter_condition(query.filter, reader.book.policy)
        self._last = reader.book.last
        self._remembered = reader.remembered
        self._remembered.begin(reader.book)
        self._rolled, self._tail = self._remembered.rolled, self._remembered.tail
        self._times = [dimension for dimension in query.group_by if dimension in TIME_DIMENSIONS]
        self._arranged = _arranged(query.group_by)
        is_fine = any(name in query.group_by or getattr(query.filter, name) is not None for name in _FINE)
        self._broad = 0 if is_fine else BROAD
        columns = [_COLUMNS[dimension] for dimension in query.group_by if dimension not in TIME_DIMENSIONS]
        self._keys = "".join(f"{column}, " for column in columns)
        self._by = (
            f" GROUP BY {', '.join(str(number + 1) for number in range(len(columns)))}" if columns else ""
        )
        self._width = len(columns)
        self._agents = (
            " LEFT JOIN agent a ON a.agent_id = d.agent" if {"tier", "owner"} & set(query.group_by) else ""
        )
        self._is_by_agent = bool(self._agents) or query.filter.tier is not None
        """It depends on what is known of agents, which changes without a trace."""
        since_us = query.filter.since_us or 0
        until_us = FAR_US if query.filter.until_us is None else query.filter.until_us
        self._from_events = f"{_EVENTS} FROM event x CROSS JOIN dim d ON d.id = x.dim{self._agents}"
        self.groups: dict[Key, Sequence[int]] = {}
        self._starts: list[tuple[int, ...]] = []
        self._missed: dict[str, tuple[Span, list[Row]]] = {}
        """The hours that were read last. A day of another zone than UTC ends where the next one begins: what
        they miss of UTC's days is read once for both."""
        self.spans = self._cut(since_us, until_us, query.zone)

    def _cut(self, since_us: int, until_us: int, zone: str) -> list[Span]:
        """Spans that lie in one period of each time dimension."""
        if not self._times:
            self._starts = [()]
            return [(since_us, until_us)] if since_us < until_us else []
        first, last = self._extent(since_us, until_us)
        tilings = [periods(unit, zone, first, last) for unit in self._times]  # pyright: ignore[reportArgumentType]  hour, day, week, month are units
        edges = sorted({first, last, *(edge for tiling in tilings for span in tiling for edge in span)})
        edges = [edge for edge in edges if first <= edge <= last]
        spans: list[Span] = []
        places = [0] * len(tilings)
        for start_us, end_us in pairwise(edges):
            for index, tiling in enumerate(tilings):
                while tiling[places[index]][1] <= start_us:
                    places[index] += 1
            self._starts.append(
                tuple(tiling[place][0] for tiling, place in zip(tilings, places, strict=True))
            )
            spans.append((start_us, end_us))
        return spans

    def _extent(self, since_us: int, until_us: int) -> Span:
        """The part of the range in which there is anything: so an open range has an end, and what was used
        long before a range does not make it longer."""
        lowest, highest = self._execute(
            # min and max in a query each: only then SQLite looks them up in the index
            f"SELECT coalesce((SELECT min(bucket) FROM rollup WHERE grain = {HOUR} AND bucket >= ?1), ?2),"
            f" coalesce((SELECT max(bucket) + 1 FROM rollup WHERE grain = {HOUR} AND bucket < ?2), ?1)",
            (since_us // HOUR_US, -(-until_us // HOUR_US)),
        ).fetchone()
        tail_first, tail_last = self._tail
        if tail_first < since_us or tail_last >= until_us:
            booked = "coalesce(booked, id)"
            tail_first, tail_last = self._execute(
                f"SELECT coalesce(min({booked}), ?2), coalesce(max({booked}), 0) FROM event"
                f" WHERE {booked} >= ?1 AND {booked} < ?2 AND id > {self._rolled}",
                (since_us, until_us),
            ).fetchone()
        first = max(since_us, min(lowest * HOUR_US, tail_first))
        last = min(until_us, max(highest * HOUR_US, tail_last + 1))
        return (first, last) if first < last else (0, 0)

    def read(self, number: int, span: Span) -> None:
        """All pieces of one span: those of whole hours as they are remembered, with what came since."""
        start_us, end_us = max(span[0], 0), span[1]
        whole_us = -(-start_us // HOUR_US) * HOUR_US
        if whole_us >= end_us or self._is_by_agent:
            self._note(number, self._events_in(start_us, end_us))
            self._note(number, self._refusals_in(start_us, end_us))
            return
        if end_us > self._last:
            end_us = FAR_US  # nothing is booked after it was recorded
        place = (whole_us, end_us, self._keys, self._where, *self._values)
        used = self._remembered.events(
            (whole_us, end_us),
            place,
            lambda: self._events_in(whole_us, end_us),
            lambda upto: self._events_since(upto, whole_us, end_us),
        )
        if self._times:
            self._note(number, used.items())
        else:
            self.groups = used.copy()  # the only span there is
        refused = self._remembered.refusals(
            place,
            lambda: self._refusals_in(whole_us, end_us),
            lambda first, last: self._refusals_between(max(first, whole_us), min(last, end_us)),
        )
        self._note(number, refused)
        if start_us < whole_us:
            self._note(number, self._events_in(start_us, whole_us))
            self._note(number, self._refusals_in(start_us, whole_us))

    def _note(self, number: int, found: Iterable[Row]) -> None:
        """Adds what was found in a span."""
        if self._times:
            starts, arranged = self._starts[number], self._arranged
            found = [(arranged(named + starts), figures) for named, figures in found]
        groups = self.groups
        for key, figures in found:
            have = groups.get(key)
            groups[key] = figures if have is None else tuple(map(add, have, figures))

    def _events_in(self, start_us: int, end_us: int) -> list[Row]:
        """What was used in [start, end)."""
        found: list[Row] = []
        if start_us >= end_us:
            return found
        # By all dimensions, an hour may have as many rows as events: it is not read to take most of it off.
        stretches, edges = cover(start_us, end_us, is_near=self._broad != 0)
        for stretch in stretches:
            found += self._rolled_up(_ROLLED, "rollup x CROSS JOIN dim d ON", "!= 'rejected'", stretch)
        is_rolled = f"+x.id <= {self._rolled}"  # with the plus, SQLite does not search by it
        for sign, *edge in edges:
            for when in ("x.booked IS NULL AND x.id >= ? AND x.id < ?", "x.booked >= ? AND x.booked < ?"):
                found += _signed(sign, self._take(f"{self._from_events} WHERE {is_rolled} AND {when}", edge))
        if self._tail[1] >= start_us and self._tail[0] < end_us:
            found += self._events_since(self._rolled, start_us, end_us)
        return found

    def _events_since(self, upto: int, start_us: int, end_us: int) -> list[Row]:
        """What was recorded after `upto` of it."""
        return self._take(
            f"{self._from_events} WHERE x.id > ? AND coalesce(x.booked, x.id) >= ?"
            " AND coalesce(x.booked, x.id) < ?",
            (upto, start_us, end_us),
        )

    def _refusals_in(self, start_us: int, end_us: int) -> list[Row]:
        """What was refused in [start, end)."""
        found: list[Row] = []
        is_any = "SELECT 1 FROM refusal WHERE id >= ? AND id < ? LIMIT 1"
        if self._execute(is_any, (start_us, end_us)).fetchone() is None:
            return found  # as mostly: then the rollups need not be walked through once more
        stretches, edges = cover(start_us, end_us, is_near=False)
        for stretch in stretches:
            # Few of all dims are of refusals: with all time in one bucket, they are looked at first.
            tables = "dim d CROSS JOIN rollup x ON" if stretch[1] == ALL else "rollup x CROSS JOIN dim d ON"
            found += self._rolled_up(f"{_REFUSED} sum(x.n)", tables, "= 'rejected'", stretch)
        for sign, *edge in edges:
            found += _signed(sign, self._refusals_between(*edge))
        return found

    def _refusals_between(self, start_us: int, end_us: int) -> list[Row]:
        """As `_refusals_in`, row by row."""
        if start_us >= end_us:
            return []
        return self._take(
            f"{_REFUSED} sum(x.count) FROM refusal x CROSS JOIN dim d ON d.id = x.dim{self._agents}"
            " WHERE x.id >= ? AND x.id < ?",
            (start_us, end_us),
        )

    def _rolled_up(self, figures: str, tables: str, outcome: str, stretch: Stretch) -> list[Row]:
        sign, grain, first, last = stretch
        before = self._missed.get(figures)
        if grain == HOUR and before is not None and before[0] == (first, last):
            rows = before[1]
        else:
            rows = self._take(
                f"{figures} FROM {tables} d.id = x.dim{self._agents} WHERE x.grain = ?"
                f" AND x.bucket >= ? AND x.bucket < ? AND d.outcome {outcome}",
                (grain + self._broad, first, last),
            )
        if grain == HOUR:
            self._missed[figures] = (first, last), rows
        return _signed(sign, rows)

    def _take(self, sql: str, values: Iterable[Any]) -> list[Row]:
        wanted = f"SELECT {self._keys}{sql} AND {self._where}{self._by}"
        width = self._width
        return [
            (row[:width], row[width:])
            for row in self._execute(wanted, (*values, *self._values))
            if row[width] is not None and any(row[width:])
        ]


def _arranged(group_by: Sequence[str]) -> Callable[[Key], Key]:
    """Puts the parts of a key, names before times, into the order of `group_by`."""
    if len(group_by) < 2:
        return tuple
    order = sorted(range(len(group_by)), key=lambda place: group_by[place] in TIME_DIMENSIONS)
    return itemgetter(*[order.index(place) for place in range(len(group_by))])


def cover(start_us: int, end_us: int, is_near: bool) -> tuple[list[Stretch], list[Edge]]:
    """What the rollups have of it, as (sign, grain, first, last): the UTC days that come closest to it, and
    the hours by which those miss its ends. And the parts of hours by which all that misses them, as (sign,
    first, last). What has the sign -1 is to be taken off.

    `is_near`: the hours are those that come closest, not only those that lie in it.
    """
    if start_us <= 0 and end_us >= FAR_US:
        return [(1, ALL, 0, 1)], []
    half_us = HOUR_US // 2
    first, last = -(-start_us // HOUR_US), end_us // HOUR_US
    if is_near:
        first, last = (start_us + half_us) // HOUR_US, (end_us + half_us) // HOUR_US
    edges = _misses(start_us, end_us, first * HOUR_US, last * HOUR_US)
    if first >= last or end_us - start_us < sum(after - before for _, before, after in edges):
        return [], [(1, start_us, end_us)]
    first_day, last_day = (first + 12) // 24, (last + 12) // 24
    if first_day >= last_day:
        return [(1, HOUR, first, last)], edges
    hours = _misses(first, last, first_day * 24, last_day * 24)
    return [(1, DAY, first_day, last_day), *((sign, HOUR, one, other) for sign, one, other in hours)], edges


def _misses(start: int, end: int, first: int, last: int) -> list[Edge]:
    """What is to be added to [first, last), or taken off, so that it is [start, end)."""
    ends = ((1 if start < first else -1, start, first), (1 if last < end else -1, last, end))
    return [(sign, min(one, other), max(one, other)) for sign, one, other in ends if one != other]


def _signed(sign: int, rows: list[Row]) -> list[Row]:
    return rows if sign > 0 else [(key, tuple(map(neg, figures))) for key, figures in rows]
