"""The files beside the ledger, deleted while it is open: what was acknowledged since is not lost."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from agent_meter_mcp.core.commands import Ask, SetLimit
from agent_meter_mcp.core.errors import StoreUnusable
from agent_meter_mcp.core.models import LimitKey, Subject, Usage
from agent_meter_mcp.store.sqlite import SqliteStore, driver, open_store

from .judge import ledger_of
from .processes import Process, now_us, play
from .roles import WHO, one_event

LOGS = [("-wal",), ("-shm",), ("-wal", "-shm")]


def delete(path: str, suffixes: tuple[str, ...]) -> None:
    for suffix in suffixes:
        Path(path + suffix).unlink()


def tell(process: Process, event_id: str) -> bool:
    """Whether it has recorded that. If not, it says what is wrong and the way out."""
    process.tell(event_id)
    answer = process.hear()
    if answer == "recorded":
        return True
    assert answer["error"] == "StoreUnusable"
    for words in ("was deleted or replaced while", "Nothing was written", "stop everything that uses"):
        assert words in answer["text"]
    return False


@contextmanager
def without_log(path: str, suffixes: tuple[str, ...]) -> Generator[Process]:
    """A server that has recorded something, and whose log is deleted then. At the end it closes the file."""
    with Process("recorder", path) as server:
        assert server.hear() == "opened"
        assert tell(server, "server 1")
        delete(path, suffixes)
        yield server
        server.tell(None)
        server.end()


@pytest.mark.parametrize("suffixes", LOGS, ids="".join)
def test_beside_a_log_that_was_deleted_nothing_is_acknowledged_that_others_do_not_see(
    suffixes: tuple[str, ...], tmp_path: Path
) -> None:
    path = str(tmp_path / "usage.db")
    with without_log(path, suffixes) as server:
        recorded = ["server 2"] if tell(server, "server 2") else []
        with Process("open_and_record", path, 1, 5.0) as other:
            if other.hear()["recorded"]:
                recorded.append("event-0")
        recorded += ["server 3"] if tell(server, "server 3") else []
    assert play("look", path, ["server 2", "event-0", "server 3"]) == recorded


def test_who_had_a_log_that_others_replaced_cannot_open_the_ledger_again(tmp_path: Path) -> None:
    """As a dashboard tries to do by itself: SQLite would go by the log that is gone."""
    path = str(tmp_path / "usage.db")
    with Process("reopener", path) as dashboard:
        assert dashboard.hear() == "opened"
        delete(path, ("-wal", "-shm"))
        with Process("recorder", path) as other:
            assert other.hear() == "opened"
            assert tell(other, "1")
            dashboard.tell()
            answer = dashboard.hear()
            assert answer["error"] == "StoreUnusable" and "stop everything that uses" in answer["text"]
            assert tell(other, "2")
            other.tell(None)
            other.end()
        dashboard.end()
    assert play("look", path, ["1", "2"]) == ["1", "2"]


@pytest.mark.parametrize("suffixes", LOGS, ids="".join)
def test_what_was_in_the_log_is_in_the_file_when_its_only_user_ends(
    suffixes: tuple[str, ...], tmp_path: Path
) -> None:
    path = str(tmp_path / "usage.db")
    with without_log(path, suffixes) as server:
        assert not tell(server, "server 2")
    assert play("look", path, ["server 1", "server 2"]) == ["server 1"]
    with Process("recorder", path) as server:
        assert server.hear() == "opened"
        assert tell(server, "server 2")


@pytest.fixture
def settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[SqliteStore]:
    """A ledger in a folder that has long been the same, in another folder."""
    (tmp_path / "home" / "of the meter").mkdir(parents=True)
    path = tmp_path / "home" / "of the meter" / "usage.db"
    store = open_store(str(path))
    opened_ns = path.parent.stat().st_ctime_ns
    while (tmp_path / "now").write_bytes(b"") or (tmp_path / "now").stat().st_ctime_ns <= opened_ns:
        (tmp_path / "now").unlink()  # until the clock of files has made its next step
    monkeypatch.setattr("agent_meter_mcp.store.sqlite.standing.FILES_SETTLED_NS", 0)
    monkeypatch.setattr("agent_meter_mcp.store.sqlite.standing.LOOK_AGAIN_S", 3600.0)
    for number in range(3):
        store.apply([one_event(f"{number}")], now_us())
    with closing(store):
        yield store


def refuses(store: SqliteStore) -> None:
    """Neither writes nor reads any more."""
    with pytest.raises(StoreUnusable, match="or replaced while"):
        store.apply([one_event("3")], now_us())
    with pytest.raises(StoreUnusable, match="or replaced while"):
        store.event("api", "0")


@pytest.mark.parametrize("suffixes", [*LOGS, ("",)], ids="".join)
def test_a_folder_that_has_long_been_the_same_is_no_reason_not_to_notice(
    suffixes: tuple[str, ...], settled: SqliteStore
) -> None:
    delete(settled.path, suffixes)
    refuses(settled)


def test_a_folder_above_that_is_replaced_by_a_copy_is_noticed_at_once(
    settled: SqliteStore, tmp_path: Path
) -> None:
    """As who restores a home from a backup does it."""
    (tmp_path / "home").rename(tmp_path / "before")
    shutil.copytree(tmp_path / "before", tmp_path / "home")
    refuses(settled)


def test_into_a_file_that_was_emptied_nothing_more_is_acknowledged(tmp_path: Path) -> None:
    """The name and the file are the same: SQLite would go on with a log of which nobody can make anything."""
    path = tmp_path / "usage.db"
    with closing(open_store(str(path))) as store:
        store.apply([one_event("0")], now_us())
        os.truncate(path, 0)
        refuses(store)


@pytest.fixture
def copy(tmp_path: Path) -> str:
    """A ledger as `VACUUM INTO` copies one: without a log, so that who reads is in the way of who writes."""
    path = str(tmp_path / "usage.db")
    with closing(open_store(path)) as store:
        store.apply([one_event("0")], now_us())
        with closing(driver.connect(path, synchronous="FULL", busy_timeout_s=0)) as other:
            other.execute("VACUUM INTO ?", (str(tmp_path / "copy.db"),))
    return str(tmp_path / "copy.db")


def test_a_copy_without_a_log_is_written_while_it_is_read(copy: str) -> None:
    with closing(open_store(copy)) as ours, closing(open_store(copy)) as theirs:
        with theirs.snapshot() as reader:
            assert reader.event("api", "0") is not None
            ours.apply([one_event("1")], now_us())
            assert reader.event("api", "1") is None
        assert theirs.event("api", "1") is not None
        assert list(theirs.verify()) == []


def test_a_copy_without_a_log_is_opened_by_many_at_the_same_instant(copy: str) -> None:
    with ExitStack() as stack:
        openers = [stack.enter_context(Process("opener", f"o{number}")) for number in range(6)]
        assert [opener.hear() for opener in openers] == ["ready"] * 6
        at_us = now_us() + 5_000
        for opener in openers:
            opener.tell([copy, at_us])
        assert [opener.hear() for opener in openers] == ["opened"] * 6
        for opener in openers:
            opener.tell(None)
            opener.end()
    with closing(open_store(copy)) as store:
        assert {f"o{number}-1" for number in range(6)} < {one.event.id for one in ledger_of(store)}
        assert list(store.verify()) == []


def test_a_copy_that_cannot_have_a_log_now_is_opened_all_the_same(copy: str) -> None:
    with closing(driver.connect(copy, synchronous="FULL", busy_timeout_s=0)) as other:
        other.execute("BEGIN")
        other.execute("SELECT 1 FROM event").fetchone()
        with closing(open_store(copy, busy_timeout_s=0.1)) as store:
            assert store.event("api", "0") is not None


def test_nothing_that_was_asked_or_written_holds_on_to_the_log(tmp_path: Path) -> None:
    """A statement that was not read to its end would keep its moment, and the log would grow behind it."""
    path = str(tmp_path / "usage.db")
    at_us = now_us()
    with closing(open_store(path)) as ours, closing(open_store(path)) as theirs:
        key = LimitKey(Subject("agent", "*"), None, "tokens", "60s")
        ours.apply([SetLimit("each", key, 3, "operator")], at_us)
        ask = Ask(WHO, Usage(input_tokens=1))
        for number in range(6):  # over the limit from the fourth on, and each sent twice
            for store in (ours, theirs, ours):
                store.apply([one_event(f"event {number}")], at_us)
                assert [each.peek([ask], at_us)[0].allowed for each in (ours, theirs)] == [number < 2] * 2
            with closing(driver.connect(path, synchronous="FULL", busy_timeout_s=0)) as other:
                assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
            assert Path(f"{path}-wal").stat().st_size == 0
