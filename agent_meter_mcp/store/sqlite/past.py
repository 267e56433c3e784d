"""Usage that is booked at another moment than now is judged by all that lies around it (rule 4): in a rolling
window by what is less than its length away on either side, else by the period that it falls into.

An SDK's batch is always some seconds old: what lies around that is in memory, with the counter. What lies
around usage of long ago is read, once in a transaction.
"""

from __future__ import annotations

from .edge import Edge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .counters import Counter

NOTHING = (0, 0)


class Past:
    """For one transaction. `put_down` brings everything that is pending into the file."""

    def __init__(self, put_down: Callable[[], None]) -> None:
        self._put_down = put_down
        self._read: dict[tuple[str, str], tuple[dict[int, list[int]], Edge]] = {}
        """Per counter, used and held in each bucket (or period) that this transaction has read, and the edge
        in the first of those that were looked at last."""

    def count(self, counter: Counter, amount: int, booked_us: int) -> None:
        """Adds usage to what was read."""
        read = self._read.get((counter.limit.limit_id, counter.scope))
        if read is not None:
            cells, edge = read
            number = counter.bucket_of(booked_us)
            if number in cells:
                cells[number][0] += amount
            edge.changed(number)

    def has_room(self, counter: Counter, booked_us: int, at_us: int, room: int) -> bool:
        """Whether what is used and held around that moment is at most `room`."""
        if not counter.rolling:
            start_us, end_us = counter.period_of(booked_us)
            cells, _ = self._around(counter, range(start_us, start_us + 1), start_us, end_us, at_us)
            return sum(cells[start_us]) <= room
        length_us, grain_us = counter.window.length_us, counter.window.grain_us
        start_us, end_us = booked_us - length_us + 1, min(booked_us + length_us, at_us + 1)
        numbers = range(start_us // grain_us, (end_us - 1) // grain_us + 1)
        cells: Mapping[int, Sequence[int]]
        if booked_us >= counter.whole_from:
            cells, edge = counter.buckets, counter.late_edge
        else:
            cells, edge = self._around(counter, numbers, start_us, end_us, at_us)
        # By whole buckets first, which can only say too much.
        used = sum([cells.get(number, NOTHING)[0] for number in numbers])
        held = sum([cells.get(number, NOTHING)[1] for number in numbers])
        if used + held <= room:
            return True
        is_cut = end_us <= at_us
        ends = (numbers[0], numbers[-1]) if is_cut else (numbers[0],)
        if used + held - sum(sum(cells.get(number, NOTHING)) for number in ends) > room:
            return False
        self._put_down()
        used -= edge.gone(counter.sums, numbers[0], grain_us, start_us)
        if is_cut:
            used -= counter.sums.used(end_us, (numbers[-1] + 1) * grain_us)
        if held:
            held = _held(counter, start_us, end_us, at_us)
        return used + held <= room

    def _around(
        self, counter: Counter, numbers: range, start_us: int, end_us: int, at_us: int
    ) -> tuple[dict[int, list[int]], Edge]:
        cells, edge = self._read.setdefault((counter.limit.limit_id, counter.scope), ({}, Edge()))
        unknown = [number for number in numbers if number not in cells]
        if unknown:
            self._put_down()
            if counter.rolling:
                cells.update(_in_buckets(counter, range(unknown[0], unknown[-1] + 1), at_us))
            else:
                held = _held(counter, start_us, end_us, at_us)
                cells[start_us] = [counter.sums.used_long(start_us, end_us), held]
        return cells, edge


def _in_buckets(counter: Counter, numbers: range, at_us: int) -> dict[int, list[int]]:
    grain_us = counter.window.grain_us
    used = counter.sums.buckets(numbers[0] * grain_us, (numbers[-1] + 1) * grain_us, grain_us)
    found = {number: [used.get(number, 0), 0] for number in numbers}
    for reserved_us, _, _, amount, _ in counter.sums.held(
        numbers[0] * grain_us, (numbers[-1] + 1) * grain_us, at_us
    ):
        found[reserved_us // grain_us][1] += amount
    return found


def _held(counter: Counter, start_us: int, end_us: int, at_us: int) -> int:
    return sum(row[3] for row in counter.sums.held(start_us, end_us, at_us))
