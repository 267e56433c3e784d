"""Taking turns at the machine, and what comes out of it: rows of a table."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Side = Callable[[], float]
"""Does its work once and answers how many seconds count. What it prepares before that does not count."""


@dataclass(frozen=True)
class Options:
    """`folder` is for files of this run, `cache` for ledgers that are kept for the next ones."""

    folder: Path
    cache: Path
    quick: bool = False
    full: bool = False
    rounds: int | None = None

    def number_of_rounds(self, usual: int, quick: int) -> int:
        return self.rounds or (quick if self.quick else usual)


@dataclass(frozen=True)
class Goal:
    """What the median of the rounds has to reach, or to stay within."""

    limit: float
    at_least: bool

    def met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


def at_least(limit: float) -> Goal:
    return Goal(limit, at_least=True)


def at_most(limit: float) -> Goal:
    return Goal(limit, at_least=False)


@dataclass(frozen=True)
class Row:
    """One line of the table. `rounds` is what each round gave, in `unit`; "x" is a ratio.

    `ours` and `floor` are for people: the absolute figures, medians of the rounds.
    """

    item: str
    what: str
    ours: str
    floor: str
    rounds: tuple[float, ...]
    goal: Goal | None = None
    unit: str = "x"

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def verdict(self) -> str:
        if self.goal is None:
            return ""
        return "ok" if self.goal.met(self.median) else "MISSED"


def interleave(sides: Mapping[str, Side], rounds: int, turns: int = 1) -> dict[str, list[float]]:
    """Seconds per side and round. Within a round each side has `turns` turns; who begins rotates.

    One turn of each, before the first round, is not counted.
    """
    names = list(sides)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for side in sides.values():
        side()
    gc.collect()
    gc.freeze()  # what was prepared so far is not searched for garbage while the clock runs
    for number in range(rounds):
        spent = dict.fromkeys(names, 0.0)
        for turn in range(turns):
            first = (number + turn) % len(names)
            for name in names[first:] + names[:first]:
                spent[name] += sides[name]()
        for name in names:
            seconds[name].append(spent[name])
    gc.unfreeze()
    return seconds


def quotients(above: Sequence[float], below: Sequence[float]) -> tuple[float, ...]:
    """Round by round."""
    return tuple(one / other for one, other in zip(above, below, strict=True))


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)]


def rate(count: int, seconds: Sequence[float]) -> str:
    """`count` things a round, as a rate."""
    return f"{count / statistics.median(seconds):,.0f}/s"


def duration(seconds: float) -> str:
    """With the unit that reads best."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} µs"


def middle(seconds: Sequence[float]) -> str:
    """The median, as a duration."""
    return duration(statistics.median(seconds))
