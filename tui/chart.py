"""The chart of what was spent: bars of blocks, as high as there is room, over their times. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_meter_mcp.core.figures import dollars
from agent_meter_mcp.core.windows import parse_window, period

from .format import SPARKS
from .view import moment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import tzinfo

    from agent_meter_mcp.sources.base import Range

_FORMS = {"hour": "%H:%M", "day": "%d %b", "month": "%b %Y"}
_LONGEST_US = {"hour": 23 * 3_600_000_000, "day": 29 * 86_400_000_000}
"""How far back the first bar is; months begin with the first that has any."""
PERIODS_MAX = 400


def filled(
    bars: Sequence[tuple[int, int]], wanted: Range, zone: tzinfo, now_us: int
) -> list[tuple[int, int]]:
    """A bar for every period up to now: those in which nothing was spent are 0."""
    costs = dict(bars)
    window, name = parse_window(wanted.chart), str(zone)
    first_us = (
        now_us - _LONGEST_US[wanted.chart] if wanted.chart in _LONGEST_US else min(costs, default=now_us)
    )
    found: list[tuple[int, int]] = []
    end: int | None = period(window, name, min(first_us, now_us))[0]
    while end is not None and end <= now_us:
        start, end = period(window, name, end)
        found.append((start, costs.get(start, 0)))
    return found[-PERIODS_MAX:]


def blocks(values: Sequence[int], width: int, height: int) -> list[str]:
    """`height` lines of `width` cells, the highest first; above 0 there is at least the lowest block."""
    shown = values[-width:]
    top = max(shown, default=0)
    levels = [-(-value * height * 8 // top) if top and value > 0 else 0 for value in shown]
    has_gap = bool(shown) and width // len(shown) > 2
    lines: list[str] = []
    for line in reversed(range(height)):
        fills = [min(max(level - line * 8, 0), 8) for level in levels]
        bars = zip(fills, _widths(len(fills), width), strict=True)
        lines.append("".join(_bar(fill, thick, has_gap) for fill, thick in bars).ljust(width))
    return lines


def _widths(count: int, width: int) -> list[int]:
    """How many cells each of so many bars has: together all of them."""
    return [width * (number + 1) // count - width * number // count for number in range(count)]


def _bar(fill: int, thick: int, has_gap: bool) -> str:
    drawn = (SPARKS[fill - 1] if fill else " ") * (thick - has_gap)
    return drawn.ljust(thick)


def drawn(bars: Sequence[tuple[int, int]], wanted: Range, zone: tzinfo, width: int, height: int) -> list[str]:
    """The chart in `height` lines of at most `width` cells: a title, the bars with their scale, the times."""
    highest = max((cost for _, cost in bars), default=0)
    half = dollars(highest // 2) if highest else ""
    scale = max(len(dollars(highest)), len(half))
    room = max(width - scale - 1, 8)
    shown = bars[-room:]
    rows = blocks([cost for _, cost in shown], room, max(height - 2, 1))
    middle = len(rows) // 2
    marks = {middle: half, 0: dollars(highest)}
    total = dollars(sum(cost for _, cost in shown))
    title = f"spend per {wanted.chart}, last {wanted.chart_window}"
    title = f"spend per {wanted.chart}" if wanted.chart_window == "total" else title
    lines = [_title(title, width, f"max {dollars(highest)}", f"sum {total}")]
    lines += [f"{marks.get(number, ''):>{scale}}│{row}" for number, row in enumerate(rows)]
    return [*lines, f"{'':>{scale}}╰{_times(shown, wanted, zone, room)}"]


def _title(title: str, width: int, highest: str, total: str) -> str:
    """With what there is room for: an amount that is cut is another one. The bars show the highest, too."""
    for line in (f"{title}   {highest}   {total}", f"{title}   {total}"):
        if len(line) <= width:
            return line
    return title[:width]


def _times(shown: Sequence[tuple[int, int]], wanted: Range, zone: tzinfo, room: int) -> str:
    """When the first, the middle and the last bar begin."""
    if not shown:
        return "─" * room
    line = ["─"] * room
    last = len(shown) - 1
    for number in (0, last, last // 2):
        label = moment(shown[number][0], zone, _FORMS[wanted.chart])
        at = max(min(room * number // len(shown), room - len(label)), 0)
        if all(mark == "─" for mark in line[max(at - 1, 0) : at + len(label) + 1]):
            line[at : at + len(label)] = label
    return "".join(line)
