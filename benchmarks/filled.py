"""Ledgers with 90 days of history, written once through the store itself and kept for the next run."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from agent_meter_mcp.core.commands import Record, SetLimit
from agent_meter_mcp.core.models import LimitKey, Subject, Usage, UsageEvent, Who
from agent_meter_mcp.store.sqlite import SqliteStore, open_store

from . import plain
from .measure import Options
from .workload import START_US, STEP_US, Ids, Workload

if TYPE_CHECKING:
    from agent_meter_mcp.core.models import Metric

DAYS = 90
SMALL, LARGE, HUGE, RECENT = 10_000, 1_000_000, 10_000_000, 100_000
BATCHES_PER_HOUR_MAX = 6
TAIL = 1000
"""So many events are not rolled up: about as many as there are on average."""
ASKING = "agent-01"
"""The agent that all five limits bind."""

_HOUR_US = 3_600_000_000
_LIMITS: tuple[tuple[Subject, Metric, str], ...] = (
    (Subject("agent", "*"), "tokens", "1h"),
    (Subject("agent", "*"), "cost_usd", "24h"),
    (Subject(), "cost_usd", "month"),
    (Subject("agent", ASKING), "requests", "day"),
    (Subject(), "requests", "total"),
)


def ledger(options: Options, events: int) -> Path:
    """A ledger of so many events up to START_US, with five limits. To make it may take minutes, once."""
    return _kept(options, f"{events}", lambda making: _fill(making, events))


def recent(options: Options, name: str, ids: Ids, path: Path) -> None:
    """Makes at `path` a ledger of 100,000 events, without limits. `name` says what kind of `ids` it has."""
    shutil.copyfile(_kept(options, f"recent-{name}", lambda making: _fill_recent(making, ids)), path)


def _kept(options: Options, name: str, make: Callable[[Path], None]) -> Path:
    path = options.cache / f"{name}-{_fingerprint(options)}.db"
    if not path.exists():
        options.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        making = path.with_name(f"{path.name}.{os.getpid()}")
        make(making)
        making.rename(path)
        making.with_name(f"{making.name}-queue").unlink()
    return path


def _fingerprint(options: Options) -> str:
    """Another schema, or another way of filling, is another file."""
    place = options.folder / "fingerprint.db"
    schema = plain.schema_text(place)
    place.unlink()
    return hashlib.sha256(schema.encode() + Path(__file__).read_bytes()).hexdigest()[:12]


def _fill_recent(path: Path, ids: Ids) -> None:
    work = Workload(ids, seed=3, at_us=START_US - RECENT * STEP_US)
    store = open_store(str(path), synchronous="NORMAL")
    for _ in range(RECENT // 1000):
        store.apply(work.records(1000), work.at_us)
    store.close()


def _fill(path: Path, events: int) -> None:
    hours = DAYS * 24
    batches = hours * min(BATCHES_PER_HOUR_MAX, max(events // hours // 50, 1))
    work = Workload(at_us=START_US - hours * _HOUR_US)
    store = open_store(str(path), synchronous="NORMAL")
    written, told = 0, time.monotonic()
    for number in range(batches):
        work.at_us = START_US - hours * _HOUR_US + hours * _HOUR_US // batches * number
        batch = (events - written) // (batches - number)
        store.apply(work.records(batch), work.at_us)
        written += batch
        if time.monotonic() - told > 5:
            told = time.monotonic()
            print(f"making a ledger of {events:,} events, once: {written:,}", file=sys.stderr, flush=True)
    _leave_tail(path, work)
    _set_limits(store)
    store.close()


def _set_limits(store: SqliteStore) -> None:
    """Each of them has counted something since."""
    store.apply(
        [
            SetLimit(f"limit-{number}", LimitKey(subject, None, metric, window), 10**17, "operator")
            for number, (subject, metric, window) in enumerate(_LIMITS)
        ],
        START_US,
    )
    used = UsageEvent(f"the first of {ASKING}", Who(ASKING, "openai"), Usage(cost_nano_usd=10**6))
    store.apply([Record(used)], START_US)


def _leave_tail(path: Path, work: Workload) -> None:
    """Adds events one by one until exactly so many wait to be rolled up."""
    store = open_store(str(path), synchronous="NORMAL")
    while (waiting := waiting_events(path)) != TAIL:
        few: list[Record] = work.records(TAIL - waiting if waiting < TAIL else 1)
        work.at_us = min(work.at_us, START_US - 1000)
        store.apply(few, work.at_us)
    store.close()


def waiting_events(path: Path) -> int:
    """How many events of a ledger are not rolled up."""
    reader = plain.connect(path)
    try:
        (waiting,) = reader.execute(
            "SELECT count(*) FROM event WHERE id > (SELECT v FROM meta WHERE k = 'rolled')"
        ).fetchone()
    finally:
        reader.close()
    return waiting
