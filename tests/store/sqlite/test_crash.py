"""Writers that are killed at any moment, processes that stand in the way: nothing acknowledged is lost."""

from __future__ import annotations

import random
import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent_meter_mcp.core.commands import Record, Recorded, Reserve, Settle
from agent_meter_mcp.core.errors import StoreBusy
from agent_meter_mcp.store.sqlite import SqliteStore, open_store

from .judge import ledger_of
from .processes import LIBRARIES, PATIENCE_S, PROOF, Process, now_us, play
from .roles import batch, one_event

KILLS = 60 * PROOF
"""In each of two tests."""
WRITERS = 3
LONGEST_S = 0.03


class Victims:
    """Writers on one file: how far each came, by its own word, until it was killed."""

    def __init__(self, path: Path, synchronous: str, first: str) -> None:
        self._arguments = (str(path), synchronous, first)
        self.tried: dict[str, int] = {}
        self.acknowledged: dict[str, int] = {}

    def start(self, name: str) -> Process:
        path, synchronous, first = self._arguments
        return Process("writer", path, name, synchronous, 20, first=first)

    def kill(self, name: str, process: Process, after_s: float) -> None:
        """Lets it write for that long, kills it, and keeps what it said."""
        assert process.hear() == "ready"
        assert not process.finished.wait(after_s), "it ended by itself"
        with process:
            process.kill()
            said = process.heard()
        self.tried[name] = max((number for what, number in said if what == "try"), default=-1)
        self.acknowledged[name] = max((number for what, number in said if what == "acknowledged"), default=-1)


def kill_many(victims: Victims, chance: random.Random) -> None:
    """Always `WRITERS` of them write; one after the other is killed and another takes its place."""
    running = [(name, victims.start(name)) for name in map(str, range(WRITERS))]
    try:
        for number in range(WRITERS, KILLS + WRITERS):
            name, process = running.pop(0)
            running.append((str(number), victims.start(str(number))))
            victims.kill(name, process, chance.random() * LONGEST_S)
        while running:
            victims.kill(*running.pop(0), 0.0)
    finally:
        for _, process in running:
            with process:
                pass


def ids_of(name: str, number: int) -> tuple[set[str], set[str]]:
    """The events and the reservations of a writer's batch."""
    events: set[str] = set()
    reservations: set[str] = set()
    for command in batch(name, number):
        if isinstance(command, Reserve):
            reservations.add(command.reservation_id)
        elif isinstance(command, Settle):
            events.add(command.reservation_id.removeprefix("r-"))
        elif isinstance(command, Record):
            events.add(command.event.id)
    return events, reservations


def check_whole(store: SqliteStore, victims: Victims, ids: set[str]) -> list[tuple[str, int]]:
    """Each batch is there whole or not at all, and there if acknowledged. Answers those that are not."""
    missing: list[tuple[str, int]] = []
    for name, tried in victims.tried.items():
        for number in range(tried + 1):
            events, reservations = ids_of(name, number)
            found = {known for known in reservations if store.reservation(known, now_us()) is not None}
            there = (events <= ids, found == reservations)
            nothing = (not events & ids, not found)
            if all(there):
                continue
            assert all(nothing), f"half of batch {number} of writer {name} is there"
            assert number > victims.acknowledged[name], f"batch {number} of writer {name} was acknowledged"
            missing.append((name, number))
    return missing


@pytest.mark.slow
@pytest.mark.timeout(60 + 120 * PROOF)
@pytest.mark.parametrize(("synchronous", "library"), [("FULL", "newest"), ("NORMAL", "standard")])
def test_whatever_was_acknowledged_survives_the_killing_of_its_writer(
    synchronous: str, library: str, tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    path = tmp_path / "usage.db"
    open_store(str(path)).close()
    victims = Victims(path, synchronous, LIBRARIES[library])
    kill_many(victims, random.Random(seed))

    store = open_store(str(path))
    events = [stored.event.id for stored in ledger_of(store)]
    assert len(events) == len(set(events))
    expected = {
        event_id
        for name, tried in victims.tried.items()
        for number in range(tried + 1)
        for event_id in ids_of(name, number)[0]
    }
    assert set(events) <= expected
    assert list(store.verify()) == []
    missing = check_whole(store, victims, set(events))
    for name, last in victims.tried.items():  # as a client does that never got an answer to its last batch
        if last >= 0:
            results = store.apply(batch(name, last), now_us()).results
            told = {result.status for result in results if isinstance(result, Recorded)}
            assert told == {"recorded" if (name, last) in missing else "duplicate"}
    events = [stored.event.id for stored in ledger_of(store)]
    assert len(events) == len(set(events))
    assert set(events) == expected
    assert check_whole(store, victims, set(events)) == []
    assert list(store.verify()) == []
    store.close()
    unheard = sum(victims.tried[name] > victims.acknowledged[name] for name in victims.tried)
    sys.stdout.write(
        f"{len(victims.tried)} killed, {unheard} in the middle of a batch, {len(missing)} of those undone;"
        f" {len(events)} events\n"
    )
    assert len(victims.tried) == KILLS + WRITERS
    assert unheard > KILLS // 4


# -- standing in the way ---------------------------------------------------------------------------------


@contextmanager
def standing_in_the_way(role: str, path: Path) -> Generator[Process]:
    with Process(role, str(path)) as process:
        assert process.hear() == "held"
        yield process


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "usage.db"
    store = open_store(str(path))
    store.apply([one_event("before")], now_us())
    store.close()
    return path


GUARDS = ["hold_write_lock", "hold_both"]
HOLDERS = ["hold_queue", *GUARDS]


@pytest.mark.parametrize("role", GUARDS)
def test_who_is_in_the_way_for_a_while_delays_and_loses_nothing(role: str, path: Path) -> None:
    store = open_store(str(path), busy_timeout_s=PATIENCE_S)
    answers: list[Any] = []
    with standing_in_the_way(role, path) as holder:
        writing = threading.Thread(
            target=lambda: answers.extend(store.apply([one_event("1")], now_us()).results)
        )
        writing.start()
        writing.join(0.3)
        assert writing.is_alive()
        assert store.event("api", "before") is not None  # who reads does not wait
        assert store.event("api", "1") is None
        holder.tell()
        writing.join(PATIENCE_S)
        assert [answer.status for answer in answers] == ["recorded"]
        assert list(store.verify()) == []
        holder.end()
    store.close()


@pytest.mark.parametrize("role", GUARDS)
def test_beyond_the_timeout_the_store_is_busy_and_the_next_try_works(role: str, path: Path) -> None:
    store = open_store(str(path), busy_timeout_s=0.2)
    with standing_in_the_way(role, path) as holder:
        before = path.read_bytes(), Path(f"{path}-wal").read_bytes()
        began = time.monotonic()
        with pytest.raises(StoreBusy, match=r"(?s)usage\.db.*Nothing was written.*try again") as busy:
            store.apply([one_event("1"), one_event("2")], now_us())
        assert busy.value.retryable
        assert 0.2 <= time.monotonic() - began < PATIENCE_S
        assert (path.read_bytes(), Path(f"{path}-wal").read_bytes()) == before
        assert store.event("api", "1") is None
        holder.tell()
        assert holder.hear() == "gone"
    assert (
        play("open_and_record", str(path), 1, PATIENCE_S)["recorded"] == 1
    )  # who gave up stands in nobody's way
    (result,) = store.apply([one_event("1")], now_us()).results
    assert isinstance(result, Recorded)
    assert result.status == "recorded"
    assert list(store.verify()) == []
    store.close()


@pytest.mark.parametrize("role", HOLDERS)
def test_who_dies_in_the_way_is_in_the_way_no_longer(role: str, path: Path) -> None:
    store = open_store(str(path), busy_timeout_s=PATIENCE_S)
    with standing_in_the_way(role, path) as holder:
        holder.signal(signal.SIGKILL)
        (result,) = store.apply([one_event("1")], now_us()).results
        assert isinstance(result, Recorded)
    assert list(store.verify()) == []
    store.close()


@pytest.mark.parametrize("role", GUARDS)
def test_who_is_stopped_in_the_way_makes_the_store_busy_until_it_goes_on(role: str, path: Path) -> None:
    store = open_store(str(path), busy_timeout_s=0.2)
    with standing_in_the_way(role, path) as holder:
        holder.signal(signal.SIGSTOP)
        holder.tell()  # it hears that when it goes on
        with pytest.raises(StoreBusy):
            store.apply([one_event("1")], now_us())
        assert store.event("api", "1") is None
        holder.signal(signal.SIGCONT)
        assert holder.hear() == "gone"
        (result,) = store.apply([one_event("1")], now_us()).results
        assert isinstance(result, Recorded)
    assert list(store.verify()) == []
    store.close()


def test_who_is_stopped_at_the_head_of_the_queue_keeps_nobody_from_writing(path: Path) -> None:
    store = open_store(str(path), busy_timeout_s=PATIENCE_S)
    with standing_in_the_way("hold_queue", path) as holder:
        holder.signal(signal.SIGSTOP)
        holder.tell()  # it hears that when it goes on
        (result,) = store.apply([one_event("1")], now_us()).results
        assert isinstance(result, Recorded)
        holder.signal(signal.SIGCONT)
        assert holder.hear() == "gone"
    assert list(store.verify()) == []
    store.close()


def test_writers_that_are_stopped_in_mid_write_lose_nothing(path: Path) -> None:
    """Stopped wherever they are, some with the lock: the others are busy or go on, and all is whole."""
    victims = Victims(path, "FULL", "")
    chance = random.Random(7)
    names = ["a", "b"]
    store = open_store(str(path), busy_timeout_s=0.3)
    processes = [victims.start(name) for name in names]
    written = 0
    try:
        for number in range(12 * PROOF):
            stopped = processes[number % 2]
            assert not stopped.finished.wait(chance.random() * LONGEST_S)
            stopped.signal(signal.SIGSTOP)
            try:
                store.apply([one_event(f"ours-{number}")], now_us())
                written += 1
            except StoreBusy:
                pass
            stopped.signal(signal.SIGCONT)
        for name, process in zip(names, processes, strict=True):
            victims.kill(name, process, 0.0)
    finally:
        for process in processes:
            with process:
                pass
    ids = {stored.event.id for stored in ledger_of(store)}
    check_whole(store, victims, ids)
    assert len([event_id for event_id in ids if event_id.startswith("ours-")]) == written
    assert list(store.verify()) == []
    store.close()
