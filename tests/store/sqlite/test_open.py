"""Opening: by many at the same instant, one store beside another, in threads, after forks and after close."""

from __future__ import annotations

import os
import random
import re
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent_meter_mcp.core.commands import Recorded
from agent_meter_mcp.core.errors import MeterError, StoreError, StoreUnusable
from agent_meter_mcp.core.queries import SummaryQuery, UsageFilter
from agent_meter_mcp.store.sqlite import SqliteStore, driver, open_store

from .judge import ledger_of
from .processes import LIBRARIES, PATIENCE_S, PROOF, Process, now_us, play
from .roles import one_event

OPENERS = 6
ROUNDS = 10 * PROOF
AHEAD_US = 5_000
SEED = 20_260_101


def schema_of(path: Path) -> list[tuple[str, ...]]:
    connection = driver.connect(str(path), synchronous="FULL", busy_timeout_s=10.0)
    rows: list[tuple[str, ...]] = connection.execute(
        "SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2"
    ).fetchall()
    connection.close()
    return rows


def steps_of(path: Path) -> list[str]:
    """The migrations that the file says it has had."""
    connection = driver.connect(str(path), synchronous="FULL", busy_timeout_s=10.0)
    rows = connection.execute("SELECT name FROM _sqlite_migrations").fetchall()
    connection.close()
    return [name for (name,) in rows]


def record(store: SqliteStore, event_id: str) -> str:
    """Records one event and answers its status."""
    (result,) = store.apply([one_event(event_id)], now_us()).results
    assert isinstance(result, Recorded), result
    return result.status


@pytest.mark.timeout(60 + 20 * PROOF)
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_new_file_is_opened_by_many_at_the_same_instant(library: str, tmp_path: Path) -> None:
    alone = tmp_path / "alone.db"
    open_store(str(alone)).close()
    with ExitStack() as stack:
        openers = [
            stack.enter_context(Process("opener", f"o{number}", first=LIBRARIES[library]))
            for number in range(OPENERS)
        ]
        for opener in openers:
            assert opener.hear() == "ready"
        for number in range(1, ROUNDS + 1):
            path = tmp_path / f"{number}.db"
            at_us = now_us() + AHEAD_US
            for opener in openers:
                opener.tell([str(path), at_us])
            assert [opener.hear() for opener in openers] == ["opened"] * OPENERS
            assert schema_of(path) == schema_of(alone)
            assert steps_of(path) == steps_of(alone)
            store = open_store(str(path))
            ids = {stored.event.id for stored in ledger_of(store)}
            assert ids == {f"o{opener}-{number}" for opener in range(OPENERS)}
            assert list(store.verify()) == []
            store.close()
        for opener in openers:
            opener.tell(None)
            opener.end()


def test_a_process_that_dies_while_it_makes_the_file_leaves_one_that_can_be_opened(tmp_path: Path) -> None:
    """Killed at chance moments of the opening: the file has all migrations or none. The next takes over."""
    chance = random.Random(SEED)
    new = tmp_path / "new.db"
    open_store(str(new)).close()
    for number in range(10 * PROOF):
        path = tmp_path / f"{number}.db"
        with Process("opener", "victim") as victim:
            assert victim.hear() == "ready"
            victim.tell([str(tmp_path / f"first-{number}.db"), 0])  # so that all it needs is loaded
            assert victim.hear() == "opened"
            victim.tell([str(path), 0])
            victim.finished.wait(chance.random() * 0.025)
            victim.kill()
        assert not path.exists() or schema_of(path) in ([], schema_of(new))
        store = open_store(str(path))
        assert record(store, "after") == "recorded"
        assert list(store.verify()) == []
        store.close()


def test_whoever_comes_by_a_link_stands_in_the_same_queue(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to("usage.db")
    with ExitStack() as stack:
        first, second = (open_store(str(tmp_path / name)) for name in ("usage.db", "link.db"))
        for store in (first, second):
            stack.callback(store.close)
        assert [record(first, "one"), record(second, "one")] == ["recorded", "duplicate"]
    assert not list(tmp_path.glob("link.db-*"))


def test_two_stores_in_one_process_see_each_other(tmp_path: Path) -> None:
    path = str(tmp_path / "usage.db")
    one, other = open_store(path), open_store(path)
    for number in range(20):
        assert record(one, f"one-{number}") == "recorded"
        assert record(other, f"one-{number}") == "duplicate"
        assert record(other, f"other-{number}") == "recorded"
        assert one.event("api", f"other-{number}") is not None
    one.close()
    assert record(other, "after") == "recorded"
    assert play("look", path, ["one-19", "other-19", "after"]) == ["one-19", "other-19", "after"]
    assert list(other.verify()) == []
    other.close()


@pytest.mark.parametrize("library", LIBRARIES)
def test_threads_that_open_a_new_file_at_once_take_no_lock_from_each_other(
    library: str, tmp_path: Path
) -> None:
    """Who closes any descriptor of a file drops all POSIX locks of its process on it: only SQLite may do so.

    Without its locks a store is not seen by other processes, and the last of those that leaves takes the log
    away.
    """
    path, count = str(tmp_path / "usage.db"), 8
    with Process("open_in_threads", path, count, first=LIBRARIES[library]) as process:
        assert process.hear() == "opened"
        for number in range(count):
            process.tell()
            assert process.hear() == "recorded"
            found = play("look", path, [f"store-{index}" for index in range(count)], first=LIBRARIES[library])
            assert len(found) == number + 1
        process.end()
    assert len(play("look", path, [f"store-{index}" for index in range(count)])) == count


def test_many_threads_write_and_read_one_store(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "usage.db"))
    writers, each = 6, 40
    failures: list[BaseException] = []
    done = threading.Event()

    def write(name: int) -> None:
        try:
            for number in range(each):
                assert record(store, f"{name}-{number}") == "recorded"
        except BaseException as error:
            failures.append(error)

    def read() -> None:
        try:
            seen = 0
            while not done.is_set():
                total = store.summary(SummaryQuery(UsageFilter()), now_us()).total.events
                assert total >= seen
                seen = total
                assert len(ledger_of(store)) >= seen
                assert list(store.verify()) == []
        except BaseException as error:
            failures.append(error)

    writing = [threading.Thread(target=write, args=(name,)) for name in range(writers)]
    reading = [threading.Thread(target=read) for _ in range(3)]
    for thread in writing + reading:
        thread.start()
    for thread in writing:
        thread.join(PATIENCE_S)
    done.set()
    for thread in reading:
        thread.join(PATIENCE_S)
    assert failures == []
    assert len({stored.event.id for stored in ledger_of(store)}) == writers * each
    store.close()


def test_a_store_that_is_closed_while_it_is_read_ends_what_was_begun(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "usage.db"))
    for number in range(30):
        record(store, str(number))
    began, stop = threading.Event(), threading.Event()
    unexpected: list[BaseException] = []
    reads = 0

    def read() -> None:
        nonlocal reads
        try:
            while not stop.is_set():
                assert len(ledger_of(store)) == 30
                reads += 1
                began.set()
        except MeterError:  # closed: said as an error of ours
            pass
        except BaseException as error:
            unexpected.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert began.wait(PATIENCE_S)
    store.close()
    stop.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert unexpected == []
    assert reads > 0


@pytest.mark.timeout(60 + 20 * PROOF)
def test_what_is_asked_or_written_as_a_store_closes_is_done_or_told_as_an_error_of_ours(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "usage.db")
    unexpected: list[BaseException] = []
    recorded: list[str] = []

    def use(store: SqliteStore, work: Callable[[SqliteStore, str], object], name: str) -> None:
        try:
            for number in range(10_000):
                work(store, f"{name}-{number}")
                began.set()
        except MeterError:  # closed
            pass
        except BaseException as error:
            unexpected.append(error)

    def write(store: SqliteStore, event_id: str) -> None:
        record(store, event_id)
        recorded.append(event_id)

    def look(store: SqliteStore, _: str) -> None:
        store.changed()

    for turn in range(10 * PROOF):
        store, began = open_store(path, synchronous="OFF"), threading.Event()
        threads = [
            threading.Thread(target=use, args=(store, work, f"{turn}-{number}"))
            for number, work in enumerate((write, write, look, look))
        ]
        for thread in threads:
            thread.start()
        assert began.wait(PATIENCE_S)
        store.close()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert unexpected == []
    assert recorded
    assert play("look", path, recorded) == recorded


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "usage.db"))
    record(store, "1")
    store.close()
    store.close()
    with pytest.raises(StoreError):
        record(store, "2")
    assert play("look", str(tmp_path / "usage.db"), ["1", "2"]) == ["1"]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="only Linux tells what a process has open")
def test_a_closed_store_opens_nothing_to_keep(tmp_path: Path) -> None:
    path = str(tmp_path / "usage.db")
    other, store = open_store(path), open_store(path)
    store.close()
    kept = len(os.listdir("/proc/self/fd"))
    with pytest.raises(StoreError, match="closed"):
        store.changed()
    assert len(os.listdir("/proc/self/fd")) == kept
    other.close()


def in_a_child(path: str, store: SqliteStore | None, meanwhile: Callable[[], None]) -> str:
    """What a forked process is told when it records, after `meanwhile` has happened in this one."""
    hear, go = os.pipe()
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        answer = "failed"
        try:
            mine = store or open_store(path)
            os.read(hear, 1)
            answer = record(mine, "child")
        except MeterError as error:
            answer = f"{type(error).__name__} {error}"
        finally:
            os.write(tell, answer.encode())
            os._exit(0)
    meanwhile()
    os.write(go, b"!")
    answer = os.read(told, 1_000).decode()
    os.waitpid(child, 0)
    for end in (hear, go, told, tell):
        os.close(end)
    return answer


@pytest.mark.filterwarnings(
    "ignore:.*multi-threaded, use of fork:DeprecationWarning"
)  # threads of other tests
@pytest.mark.parametrize("which", ["inherited", "new"])
def test_what_a_process_acknowledges_whose_parent_had_the_file_open_is_not_lost(
    which: str, tmp_path: Path
) -> None:
    """As a server does that opens its ledger, forks its workers, and lets the first process go.

    A clear no will do.
    """
    path = str(tmp_path / "usage.db")
    store = open_store(path)
    record(store, "before")

    def go_on() -> None:
        record(store, "parent")
        store.close()

    answer = in_a_child(path, store if which == "inherited" else None, go_on)
    assert answer == "recorded" or re.search(r"^Store.*usage\.db.*fork", answer)
    kept = ["before", "parent", *(["child"] if answer == "recorded" else [])]
    assert play("look", path, ["before", "parent", "child"]) == kept


@pytest.mark.filterwarnings(
    "ignore:.*multi-threaded, use of fork:DeprecationWarning"
)  # threads of other tests
def test_a_store_that_was_closed_before_the_fork_can_be_opened_after_it(tmp_path: Path) -> None:
    path = str(tmp_path / "usage.db")
    store = open_store(path)
    record(store, "before")
    store.close()
    assert in_a_child(path, None, lambda: None) == "recorded"
    assert play("look", path, ["before", "child"]) == ["before", "child"]


def test_no_new_file_is_made_beside_the_log_of_one_that_was_moved(tmp_path: Path) -> None:
    """After a kill the log has what was acknowledged, and SQLite empties it for a new file."""
    path = tmp_path / "usage.db"
    store = open_store(str(path))
    assert record(store, "1") == "recorded"
    moved = path.rename(path.with_name("old.db"))
    with pytest.raises(
        StoreUnusable, match=r"usage\.db is not there, but .*usage\.db-wal is.*Put the file back"
    ):
        open_store(str(path))
    assert not path.exists()
    moved.rename(path)
    other = open_store(str(path))
    assert record(other, "1") == "duplicate"
    other.close()
    store.close()
