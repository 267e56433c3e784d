"""(d), (e): that answers do not take longer the more there is in the ledger."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

from agent_meter_mcp.core.commands import Ask
from agent_meter_mcp.core.models import Usage, Who
from agent_meter_mcp.core.queries import SummaryQuery, UsageFilter
from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.ledger import Ledger
from agent_meter_mcp.runtime import new_id
from agent_meter_mcp.store.sqlite import SqliteStore, open_store

from . import filled, plain
from .measure import Options, Row, at_most, duration, interleave, middle, quotients, timed
from .worker import Job, Workers
from .workload import START_US, NoPrices

DAY_US = 86_400_000_000
CHECK_GOAL_US = 150
FLAT_GOAL = 1.5
ASKS = [Ask(Who(filled.ASKING, "openai"), Usage(input_tokens=1000, output_tokens=200, cost_nano_usd=10**7))]
SCAN = """
SELECT d.agent, count(*), sum(requests), sum(units), sum(input), sum(output), sum(cost)
FROM event e JOIN dim d ON d.id = e.dim GROUP BY 1"""


def _sizes(options: Options) -> tuple[int, ...]:
    return (filled.SMALL, filled.LARGE, *((filled.HUGE,) if options.full else ()))


def run_check(options: Options) -> Iterator[Row]:
    """`peek` with 5 binding limits: nothing has changed; another process wrote; and through the ledger."""
    paths = {size: filled.ledger(options, size) for size in _sizes(options)}
    yield from _unchanged(options, paths)
    yield from _after_another_process(options, paths)
    yield from asyncio.run(_through_the_ledger(options, paths))


def _check_rows(what: str, took: dict[str, list[float]], goal: bool) -> Iterator[Row]:
    """`took`: median seconds of one check, per round and ledger."""
    smallest, *larger = took
    for name, seconds in took.items():
        micros = tuple(second * 1e6 for second in seconds)
        limit = at_most(CHECK_GOAL_US) if goal else None
        yield Row("d", f"{what}, {name} events: p50", middle(seconds), "", micros, limit, "µs")
    for name in larger:
        yield Row(
            "d",
            f"{what}, {name} / {smallest}",
            middle(took[name]),
            middle(took[smallest]),
            quotients(took[name], took[smallest]),
            at_most(FLAT_GOAL) if goal else None,
        )


def _name(size: int) -> str:
    return f"{size // 1_000_000}M" if size >= 1_000_000 else f"{size // 1000}k"


def _unchanged(options: Options, paths: dict[int, Path]) -> Iterator[Row]:
    with ExitStack() as stack:
        sides: dict[str, Callable[[], float]] = {}
        for size, path in paths.items():
            store = stack.enter_context(closing(open_store(str(path))))
            moments = iter(range(START_US, START_US + 10**9, 100))

            def check(store: SqliteStore = store, moments: Iterator[int] = moments) -> float:
                now_us = next(moments)
                return statistics.median(timed(lambda: store.peek(ASKS, now_us)) for _ in range(200))

            sides[_name(size)] = check
        yield from _check_rows("check", interleave(sides, options.number_of_rounds(15, 7)), goal=True)


def _after_another_process(options: Options, paths: dict[int, Path]) -> Iterator[Row]:
    with ExitStack() as stack:
        sides: dict[str, Callable[[], float]] = {}
        for size, path in paths.items():
            store = stack.enter_context(closing(open_store(str(path))))
            other = stack.enter_context(Workers([_other(path)]))

            def check(store: SqliteStore = store, other: Workers = other) -> float:
                seconds: list[float] = []
                for _ in range(20):
                    other.step()
                    seconds.append(timed(lambda: store.peek(ASKS, START_US)))
                return statistics.median(seconds)

            sides[_name(size)] = check
        took = interleave(sides, options.number_of_rounds(15, 7))
        yield from _check_rows("check after another process wrote", took, goal=True)


def _other(path: Path) -> Job:
    """A process that writes an event when it is told to, at the end of the history."""
    seed = time.time_ns()  # ids that no run before has used
    arguments = {
        "path": str(path),
        "seed": seed,
        "synchronous": "NORMAL",
        "prepared": 1000,
        "at_us": START_US,
    }
    return ("write", arguments)


async def _through_the_ledger(options: Options, paths: dict[int, Path]) -> list[Row]:
    """Ledger.check from one caller: the same, and two changes of threads."""
    took: dict[str, list[float]] = {_name(size): [] for size in paths}
    for size, path in paths.items():
        async with Ledger(open_store(str(path)), NoPrices(), lambda: START_US, new_id) as ledger:
            for _ in range(options.number_of_rounds(15, 7)):
                took[_name(size)].append(await _median_check(ledger))
    return list(_check_rows("Ledger.check", took, goal=False))


async def _median_check(ledger: Ledger) -> float:
    caller = Caller("operator", "benchmark")
    seconds: list[float] = []
    for _ in range(100):
        began = time.perf_counter()
        await ledger.check(caller, ASKS[0].who, ASKS[0].usage)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def run_summary(options: Options) -> Iterator[Row]:
    """By agent over all time, against a scan; a month by agent and day."""
    path = filled.ledger(options, filled.LARGE)
    everything = SummaryQuery(UsageFilter(), ("agent",))
    with closing(open_store(str(path))) as store, closing(plain.connect(path)) as scanner:

        def summarised() -> float:
            # The scan leaves a million freed pieces in the heap of this process. The next to ask for memory
            # pays for putting them together; that is not what is measured here.
            store.summary(everything, START_US)
            return timed(lambda: store.summary(everything, START_US))

        took = interleave(
            {"floor": lambda: timed(lambda: scanner.execute(SCAN).fetchall()), "ours": summarised},
            options.number_of_rounds(9, 5),
        )
    yield Row(
        "e",
        "summary by agent, all time, 1M / SUM scan",
        middle(took["ours"]),
        middle(took["floor"]),
        quotients(took["ours"], took["floor"]),
        at_most(1 / 500),
    )
    for size in _sizes(options)[1:]:
        yield from _month(options, size)


def _month(options: Options, size: int) -> Iterator[Row]:
    """30 days whose ends are no round hours: asked by a process for the first time, and asked again after
    an event was added. What a reader has summed up before, it remembers."""
    since_us = START_US - 30 * DAY_US - 1_234_567_890
    query = SummaryQuery(UsageFilter(since_us, START_US - 1_234_567_890), ("agent", "day"), limit=1000)
    path = filled.ledger(options, size)

    def first() -> float:
        with closing(open_store(str(path))) as store:
            store.policy()  # the connection is there, and nothing is summed up
            return timed(lambda: store.summary(query, START_US))

    with closing(open_store(str(path))) as store, Workers([_other(path)]) as other:

        def again() -> float:
            other.step()
            return timed(lambda: store.summary(query, START_US))

        took = interleave({"first": first, "again": again}, options.number_of_rounds(15, 9))
    for asked, seconds in took.items():
        millis = tuple(second * 1e3 for second in seconds)
        what = f"summary of a month by agent and day, {_name(size)}, asked {asked}"
        yield Row("e", what, duration(statistics.median(seconds)), "", millis, at_most(25), "ms")
