"""(a), (b): what enforcing limits costs, against inserting the same rows without any."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from agent_meter_mcp.core.models import FILES_SETTLED_NS
from agent_meter_mcp.store.sqlite import SqliteStore, open_store

from . import filled, plain
from .measure import Options, Row, at_least, interleave, quotients, rate, timed
from .workload import START_US, Ids, Workload, binding_limits, ordered_id, random_id

if TYPE_CHECKING:
    from agent_meter_mcp.store.sqlite import driver

BATCH, TURNS = 1000, 8
KEYS = (("random", random_id), ("time-ordered", ordered_id))


def run_batches(options: Options) -> Iterator[Row]:
    """1000 events in one transaction, FULL: 3 and 8 binding limits, and none at all."""
    for name, ids in KEYS:
        yield from _batches(options, name, ids)


def _batches(options: Options, name: str, ids: Ids) -> Iterator[Row]:
    folder = options.folder / f"batches-{name}"
    folder.mkdir()
    bare, rows = _plain(options, folder, name, ids, "FULL")
    stores = {count: _store(options, folder, name, ids, "FULL", count) for count in (3, 8)}

    def insert_batch() -> float:
        batch = rows.rows(BATCH)
        return timed(lambda: plain.insert(bare, batch))

    def apply_batch(count: int) -> float:
        store, work = stores[count]
        batch = work.records(BATCH)
        return timed(lambda: store.apply(batch, work.at_us))

    rounds = options.number_of_rounds(9, 5)
    turns = 4
    sides = {"floor": insert_batch, "3": lambda: apply_batch(3), "8": lambda: apply_batch(8)}
    took = interleave(sides, rounds, turns)
    bare.close()
    for store, _ in stores.values():
        store.close()
    events = BATCH * turns
    floor, three, eight = took["floor"], took["3"], took["8"]
    goal = at_least(0.75 if name == "random" else 0.40)
    yield Row(
        "a",
        f"apply 1000, 3 limits, {name} ids / executemany",
        rate(events, three),
        rate(events, floor),
        quotients(floor, three),
        goal,
    )
    yield Row(
        "a",
        f"apply 1000, 8 limits / 3 limits, {name} ids",
        rate(events, eight),
        rate(events, three),
        quotients(three, eight),
        at_least(0.7),
    )


def run_single(options: Options) -> Iterator[Row]:
    """One event, one transaction, 3 binding limits."""
    for synchronous, goal, count in (("FULL", 0.80, 25), ("NORMAL", 0.50, 100)):
        for name, ids in KEYS:
            folder = options.folder / f"single-{synchronous}-{name}"
            folder.mkdir()
            bare, rows = _plain(options, folder, name, ids, synchronous)
            store, work = _store(options, folder, name, ids, synchronous, 3)
            time.sleep(FILES_SETTLED_NS / 1e9)  # before, each looks closer whether all is there

            def insert_some(
                bare: driver.Connection = bare, rows: Workload = rows, count: int = count
            ) -> float:
                return plain.insert_each(bare, rows.rows(count))

            def apply_some(store: SqliteStore = store, work: Workload = work, count: int = count) -> float:
                return apply_each(store, work, count)

            took = interleave(
                {"floor": insert_some, "ours": apply_some}, options.number_of_rounds(9, 5), TURNS
            )
            bare.close()
            store.close()
            yield Row(
                "b",
                f"apply 1, 3 limits, {name} ids, {synchronous} / one-row transaction",
                rate(TURNS * count, took["ours"]),
                rate(TURNS * count, took["floor"]),
                quotients(took["floor"], took["ours"]),
                at_least(goal),
            )


def apply_each(store: SqliteStore, work: Workload, count: int) -> float:
    """So many events, each in its own transaction; the seconds it took."""
    records = work.records(count)
    now_us = work.at_us - count * 1000
    began = time.perf_counter()
    for record in records:
        now_us += 1000
        store.apply((record,), now_us)
    return time.perf_counter() - began


def _store(
    options: Options, folder: Path, name: str, ids: Ids, synchronous: str, limits: int
) -> tuple[SqliteStore, Workload]:
    path = folder / f"ours-{limits}.db"
    filled.recent(options, name, ids, path)
    store = open_store(str(path), synchronous=synchronous)
    store.apply(binding_limits(limits), START_US)
    return store, Workload(ids)


def _plain(
    options: Options, folder: Path, name: str, ids: Ids, synchronous: str
) -> tuple[driver.Connection, Workload]:
    pattern = folder / "pattern.db"
    filled.recent(options, name, ids, pattern)
    bare = plain.new_table(folder / "floor.db", synchronous=synchronous)
    plain.copy_events(bare, pattern)
    return bare, Workload(ids, seed=2)
