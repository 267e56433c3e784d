"""(c): many callers on one event loop share commits, and do not hold up the loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.intake import Intake, Report
from agent_meter_mcp.ledger import Ledger
from agent_meter_mcp.runtime import new_id, system_clock_us
from agent_meter_mcp.store.sqlite import SqliteStore

from . import plain
from .measure import Options, Row, at_least, at_most, duration, percentile, quotients, rate
from .workload import NoPrices, Workload, binding_limits

CALLERS = 64
CALLER = Caller("operator", "benchmark")
LOOK_S = 0.001

Call = Callable[[Report], Awaitable[object]]


def run_callers(options: Options) -> Iterator[Row]:
    """Through the ledger, and with one transaction per call in worker threads; FULL, 3 binding limits."""
    yield from asyncio.run(_Contest(options).rows())


class _Contest:
    """The two ways to write, on a file each."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._work = Workload()
        self._lags: list[float] = []

    async def rows(self) -> list[Row]:
        rounds = self._options.number_of_rounds(9, 5)
        store = _store(self._options.folder / "threads.db")
        ours = Ledger(_store(self._options.folder / "ledger.db"), NoPrices(), system_clock_us, new_id)
        intake = Intake(NoPrices(), new_id, lambda agent: (agent,))

        def transaction(report: Report) -> None:
            now_us = system_clock_us()
            store.apply((intake.record(CALLER, report, now_us),), now_us)

        async with ours as ledger:
            many = await self._turns(
                {"ours": lambda report: ledger.record(CALLER, report), "floor": _in_thread(transaction)},
                {"ours": 40, "floor": 5},
                CALLERS,
                rounds,
            )
            lags = self._lags
            self._lags = []
            one = await self._turns(
                {"ours": lambda report: ledger.record(CALLER, report), "floor": _in_thread(transaction)},
                {"ours": 300, "floor": 300},
                1,
                rounds,
            )
        store.close()
        return [
            Row(
                "c",
                f"{CALLERS} callers, events/s, FULL / a transaction per call in to_thread",
                rate(1, many["ours"]),
                rate(1, many["floor"]),
                quotients(many["floor"], many["ours"]),
                at_least(7),
            ),
            Row(
                "c",
                f"{CALLERS} callers: lag of the event loop, p99",
                duration(percentile(lags, 50) / 1e3),
                "",
                tuple(lags),
                at_most(5),
                "ms",
            ),
            Row(
                "c",
                "one caller, events/s / a transaction per call in to_thread",
                rate(1, one["ours"]),
                rate(1, one["floor"]),
                quotients(one["floor"], one["ours"]),
                at_least(1),
            ),
        ]

    async def _turns(
        self, sides: dict[str, Call], calls: dict[str, int], callers: int, rounds: int
    ) -> dict[str, list[float]]:
        """Seconds per event, per side and round."""
        took: dict[str, list[float]] = {name: [] for name in sides}
        names = list(sides)
        for number in range(-1, rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                seconds, lags = await self._burst(sides[name], calls[name], callers)
                if number >= 0:
                    took[name].append(seconds / (calls[name] * callers))
                    if name == "ours":
                        self._lags.append(percentile(lags, 99) * 1e3)
        return took

    async def _burst(self, call: Call, calls: int, callers: int) -> tuple[float, list[float]]:
        """Each caller calls so many times, one after the other; the seconds, and how late the loop was."""
        reports = [[self._report() for _ in range(calls)] for _ in range(callers)]

        async def caller(own: list[Report]) -> None:
            for report in own:
                await call(report)

        lags: list[float] = []
        watch = asyncio.create_task(_watch(lags))
        began = time.perf_counter()
        await asyncio.gather(*(caller(own) for own in reports))
        seconds = time.perf_counter() - began
        watch.cancel()
        return seconds, lags

    def _report(self) -> Report:
        event = self._work.event()
        return Report(
            event.who,
            event.usage,
            operation=event.operation,
            status_code=event.status_code,
            duration_ms=event.duration_ms,
            metadata=event.metadata,
        )


def _in_thread(transaction: Callable[[Report], None]) -> Call:
    return lambda report: asyncio.to_thread(transaction, report)


async def _watch(lags: list[float]) -> None:
    """How much later than it asked for a task gets its turn, again and again."""
    while True:
        began = time.perf_counter()
        await asyncio.sleep(LOOK_S)
        lags.append(time.perf_counter() - began - LOOK_S)


def _store(path: Path) -> SqliteStore:
    store = plain.new_store(path)
    store.apply(binding_limits(3), system_clock_us())
    return store
