"""(h): many processes on one file: turns are fair, and who is denied does not slow down who is not."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from agent_meter_mcp.core.commands import Record, SetLimit
from agent_meter_mcp.core.models import LimitKey, Subject, Usage, UsageEvent, Who
from agent_meter_mcp.runtime import system_clock_us

from . import plain
from .measure import Options, Row, at_least, at_most, duration, quotients
from .worker import Job, Workers
from .workload import binding_limits

WRITERS = 4
DENIED = 3
ROGUE = "rogue-bot"


def run_fairness(options: Options) -> Iterator[Row]:
    """Four processes write single events without a pause, FULL: by turns, and with the busy handler alone."""
    seconds = 1.0 if options.quick else 1.5
    shares: dict[str, list[float]] = {"ours": [], "floor": []}
    longest: dict[str, list[float]] = {"ours": [], "floor": []}
    rates: dict[str, list[float]] = {"ours": [], "floor": []}
    for number in range(options.number_of_rounds(5, 3)):
        for side in ("ours", "floor") if number % 2 else ("floor", "ours"):
            path = options.folder / f"fair-{side}-{number}.db"
            _ledger(path)
            jobs = [_writer(path, seed, turns=side == "ours") for seed in range(WRITERS)]
            with Workers(jobs) as workers:
                answers = workers.run(seconds)
            written = [answer["written"] for answer in answers]
            shares[side].append(min(written) / max(max(written), 1))
            longest[side].append(max(answer["longest"] for answer in answers))
            rates[side].append(sum(written) / seconds)
    yield Row(
        "h",
        f"{WRITERS} writers: slowest / fastest",
        f"{statistics.median(shares['ours']):.2f}",
        f"{statistics.median(shares['floor']):.2f}",
        tuple(shares["ours"]),
        at_least(0.8),
    )
    yield Row(
        "h",
        f"{WRITERS} writers: longest wait / with the busy handler alone",
        duration(statistics.median(longest["ours"])),
        duration(statistics.median(longest["floor"])),
        quotients(longest["ours"], longest["floor"]),
        at_most(0.1),
    )
    yield Row(
        "h",
        f"{WRITERS} writers: events together / with the busy handler alone",
        f"{statistics.median(rates['ours']):,.0f}/s",
        f"{statistics.median(rates['floor']):,.0f}/s",
        quotients(rates["ours"], rates["floor"]),
    )


def _writer(path: Path, seed: int, *, turns: bool = True) -> Job:
    arguments = {"path": str(path), "seed": seed, "synchronous": "FULL", "prepared": 20_000, "turns": turns}
    return ("write", arguments)


def _ledger(path: Path) -> None:
    with closing(plain.new_store(path)) as store:
        store.apply(binding_limits(3), system_clock_us())


def run_denials(options: Options) -> Iterator[Row]:
    """A writer, FULL, beside three processes that ask for what they are denied, or that only compute."""
    seconds = 1.0 if options.quick else 1.5
    path = options.folder / "denied.db"
    _ledger(path)
    _exhaust(path)
    beside: dict[str, list[Job]] = {
        "alone": [],
        "denied": [("reserve", {"path": str(path), "agent": ROGUE})] * DENIED,
        "busy": [("spin", {})] * DENIED,
    }
    rates: dict[str, list[float]] = {name: [] for name in beside}
    denials: list[float] = []
    names = list(beside)
    for number in range(options.number_of_rounds(5, 3)):
        first = number % len(names)
        for place, name in enumerate(names[first:] + names[:first]):
            with Workers([_writer(path, number * len(names) + place), *beside[name]]) as workers:
                answers = workers.run(seconds)
            rates[name].append(answers[0]["written"] / seconds)
            if name == "denied":
                denials.append(sum(answer["denied"] for answer in answers[1:]) / seconds)
    alone = f"{statistics.median(rates['alone']):,.0f}/s"
    yield Row(
        "h",
        f"a writer beside {DENIED} denied ({statistics.median(denials):,.0f} denials/s) / alone",
        f"{statistics.median(rates['denied']):,.0f}/s",
        alone,
        quotients(rates["denied"], rates["alone"]),
        at_least(0.75),
    )
    yield Row(
        "h",
        f"a writer beside {DENIED} that only compute / alone",
        f"{statistics.median(rates['busy']):,.0f}/s",
        alone,
        quotients(rates["busy"], rates["alone"]),
    )
    yield Row(
        "h",
        f"a writer beside {DENIED} denied / beside {DENIED} that only compute",
        f"{statistics.median(rates['denied']):,.0f}/s",
        f"{statistics.median(rates['busy']):,.0f}/s",
        quotients(rates["denied"], rates["busy"]),
    )


def _exhaust(path: Path) -> None:
    """The rogue's one request is used up."""
    now_us = system_clock_us()
    limit = SetLimit("none-left", LimitKey(Subject("agent", ROGUE), None, "requests", "total"), 1, "operator")
    used = Record(UsageEvent("the-one", Who(ROGUE, "openai"), Usage()))
    with closing(plain.new_store(path)) as store:
        store.apply([limit, used], now_us)
