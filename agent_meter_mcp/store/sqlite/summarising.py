"""Summaries: rollups for whole hours and days, events for the ragged ends and for what is not rolled up yet.

The time range is cut into spans, one per time group (one in all without them). Each span is read in up to
four pieces, which are added up: whole UTC days, whole hours (those that the days have too much are taken
off), the ends of hours that a span cuts, the tail.
"""

from __future__ import annotations

from itertools import pairwise
from operator import add

from agent_meter_mcp.core.queries import TIME_DIMENSIONS, Group, Summary, Totals
from agent_meter_mcp.core.windows import periods

from .filters import filter_condition
from .schema import ALL, DAY, HOUR
from .sums import FAR_US, HOUR_US

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from agent_meter_mcp.core.queries import SummaryQuery

    from .reading import Reader

    Key = tuple[str | int | None, ...]
    Row = tuple[Any, ...]
    Span = tuple[int, int]

_COLUMNS = {
    **{name: f"nullif(d.{name}, '')" for name in ("operation", "model", "project", "session", "service")},
    "agent": "d.agent",
    "source": "d.source",
    "outcome": "d.outcome",
    "tier": "a.tier",
    "owner": "a.owner",
}
_ROLLED = (
    "sum(x.n * (d.outcome != 'rejected')), sum(x.requests), sum(x.units), sum(x.input), sum(x.output),"
    " sum(x.cache_read), sum(x.cache_write), sum(x.cache_write_1h), sum(x.cost), sum(x.unpriced),"
    " sum(x.n * (d.outcome = 'over_limit')), sum(x.n * (d.outcome = 'rejected'))"
)
_EVENTS = (
    "count(*), sum(x.requests), coalesce(sum(x.units), 0), coalesce(sum(x.input), 0),"
    " coalesce(sum(x.output), 0),"
    " coalesce(sum(x.cache_read), 0), coalesce(sum(x.cache_write), 0), coalesce(sum(x.cache_write_1h), 0),"
    " coalesce(sum(x.cost), 0), sum(x.cost IS NULL), sum(d.outcome = 'over_limit'), 0"
)
_REFUSALS = "0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, sum(x.count)"
_FIGURES = 12


def summary(reader: Reader, query: SummaryQuery) -> Summary:
    """Rule 27, over [since, until) of the filter."""
    pieces = _Pieces(reader, query)
    groups: dict[Key, list[int]] = {}
    for number, span in enumerate(pieces.spans):
        pieces.read(number, span)
    for key, figures in pieces.rows:
        have = groups.get(key)
        groups[key] = [*figures] if have is None else [*map(add, have, figures)]
    total = [sum(column) for column in zip(*groups.values(), strict=True)] or [0] * _FIGURES
    found = [Group(key, Totals(*figures)) for key, figures in groups.items() if any(figures)]
    if not query.group_by:
        found = []
    found.sort(key=lambda group: _sortable(group.key))
    if query.order_by != "key":
        found.sort(key=lambda group: -_ordered(group.totals, query.order_by))
    return Summary(Totals(*total), tuple(found[: query.limit]), max(len(found) - query.limit, 0))


def _sortable(key: Key) -> tuple[tuple[bool, str | int], ...]:
    return tuple((part is not None, "" if part is None else part) for part in key)


def _ordered(totals: Totals, order_by: str) -> int:
    field = {"cost_usd": "cost_nano_usd", "units": "units_micro"}.get(order_by, order_by)
    return getattr(totals, field)


class _Pieces:
    """Reads the pieces of each span into `rows`: (key, figures)."""

    def __init__(self, reader: Reader, query: SummaryQuery) -> None:
        self._execute = reader.connection.execute
        self._where, self._values = filter_condition(query.filter, reader.book.policy)
        (self._rolled,) = self._execute("SELECT v FROM meta WHERE k = 'rolled'").fetchone()
        self._times = [dimension for dimension in query.group_by if dimension in TIME_DIMENSIONS]
        self._group_by = query.group_by
        columns = [_COLUMNS[dimension] for dimension in query.group_by if dimension not in TIME_DIMENSIONS]
        self._keys = "".join(f"{column}, " for column in columns)
        self._by = (
            f" GROUP BY {', '.join(str(number + 1) for number in range(len(columns)))}" if columns else ""
        )
        self._width = len(columns)
        self._agents = (
            " LEFT JOIN agent a ON a.agent_id = d.agent" if {"tier", "owner"} & set(query.group_by) else ""
        )
        since_us = query.filter.since_us or 0
        until_us = FAR_US if query.filter.until_us is None else query.filter.until_us
        self._tail: Span = self._execute(
            "SELECT coalesce(min(coalesce(booked, id)), 0), coalesce(max(coalesce(booked, id)), -1)"
            " FROM event WHERE id > ?",
            (self._rolled,),
        ).fetchone()
        self.rows: list[tuple[Key, tuple[int, ...]]] = []
        self._starts: list[tuple[int, ...]] = []
        self._missed_hours: tuple[Span, list[Row]] = ((0, 0), [])
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
        """The part of the range in which there is anything, so that an open range has an end."""
        lowest, highest = self._execute(
            # min and max in a query each: only then SQLite looks them up in the index
            "SELECT min(first), max(last) FROM ("
            f"SELECT (SELECT min(bucket) FROM rollup WHERE grain = {HOUR}) * ? AS first,"
            f" (SELECT max(bucket) + 1 FROM rollup WHERE grain = {HOUR}) * ?1 AS last UNION ALL"
            " SELECT min(coalesce(booked, id)), max(coalesce(booked, id)) + 1 FROM event WHERE id > ?)",
            (HOUR_US, self._rolled),
        ).fetchone()
        if lowest is None:
            return (0, 0)
        first, last = max(since_us, lowest), min(until_us, highest)
        return (first, last) if first < last else (0, 0)

    def read(self, number: int, span: Span) -> None:
        """All pieces of one span."""
        start_us, end_us = span
        if start_us <= 0 and end_us >= FAR_US:
            self._keep(number, self._rollup(ALL, 0, 1))
        else:
            first, last = -(-start_us // HOUR_US), end_us // HOUR_US
            if first >= last:
                self._edge(number, start_us, end_us)
            else:
                self._whole(number, first, last)
                self._edge(number, start_us, first * HOUR_US)
                self._edge(number, last * HOUR_US, end_us)
        if self._tail[1] < start_us or self._tail[0] >= end_us:
            return
        self._take(
            number,
            f"SELECT {self._keys}{_EVENTS} FROM event x CROSS JOIN dim d ON d.id = x.dim{self._agents}"
            f" WHERE x.id > ? AND coalesce(x.booked, x.id) >= ? AND coalesce(x.booked, x.id) < ? AND"
            f" {self._where}",
            (self._rolled, start_us, end_us),
        )

    def _whole(self, number: int, first: int, last: int) -> None:
        """Hours [first, last): UTC days from the day grain, and the hours by which they miss its ends."""
        first_day, last_day = (first + 12) // 24, (last + 12) // 24
        if first_day >= last_day:
            self._keep(number, self._rollup(HOUR, first, last))
            return
        self._missed(number, first, first_day * 24)
        self._keep(number, self._rollup(DAY, first_day, last_day))
        self._missed(number, last_day * 24, last)

    def _missed(self, number: int, first: int, last: int) -> None:
        """Adds the hours from `first` to `last`, or takes them off where `last` is the earlier one.

        A day of another zone than UTC ends where the next one begins: these hours are read once for both.
        """
        hours = min(first, last), max(first, last)
        if self._missed_hours[0] != hours:
            self._missed_hours = hours, self._rollup(HOUR, *hours)
        rows = self._missed_hours[1]
        if last < first:
            width = self._width
            rows = [(*row[:width], *(-figure for figure in row[width:])) for row in rows]
        self._keep(number, rows)

    def _rollup(self, grain: int, first: int, last: int) -> list[Row]:
        if first >= last:
            return []
        return self._fetch(
            f"SELECT {self._keys}{_ROLLED} FROM rollup x CROSS JOIN dim d ON d.id = x.dim{self._agents}"
            f" WHERE x.grain = {grain} AND x.bucket >= ? AND x.bucket < ? AND {self._where}",
            (first, last),
        )

    def _edge(self, number: int, start_us: int, end_us: int) -> None:
        """A part of an hour: rolled-up events one by one, and refusals."""
        if start_us >= end_us:
            return
        is_rolled = f"+x.id <= {self._rolled}"  # with the plus, SQLite does not search by it
        for when, figures, table in (
            (f"{is_rolled} AND x.booked IS NULL AND x.id >= ? AND x.id < ?", _EVENTS, "event"),
            (f"{is_rolled} AND x.booked >= ? AND x.booked < ?", _EVENTS, "event"),
            ("x.id >= ? AND x.id < ?", _REFUSALS, "refusal"),
        ):
            self._take(
                number,
                f"SELECT {self._keys}{figures} FROM {table} x CROSS JOIN dim d ON d.id = x.dim{self._agents}"
                f" WHERE {when} AND {self._where}",
                (start_us, end_us),
            )

    def _take(self, number: int, sql: str, values: Iterable[Any]) -> None:
        self._keep(number, self._fetch(sql, values))

    def _fetch(self, sql: str, values: Iterable[Any]) -> list[Row]:
        """Rows of keys and figures, where there is anything."""
        rows: list[Row] = self._execute(sql + self._by, (*values, *self._values)).fetchall()
        width = self._width
        return [row for row in rows if row[width] is not None and any(row[width:])]

    def _keep(self, number: int, rows: Iterable[Row]) -> None:
        self.rows += [(self._key(number, row), row[self._width :]) for row in rows]

    def _key(self, number: int, row: Row) -> Key:
        if not self._times:
            return row[: self._width]
        named, starts = iter(row[: self._width]), iter(self._starts[number])
        return tuple(next(starts if dimension in TIME_DIMENSIONS else named) for dimension in self._group_by)
