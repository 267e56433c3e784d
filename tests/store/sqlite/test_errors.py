"""Files that cannot be used: an error that names the file and the way out, and nothing is half-written."""

from __future__ import annotations

import os
import random
import re
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from agent_meter_mcp.core.commands import Recorded, Reserved, Settle
from agent_meter_mcp.core.errors import (
    MeterError,
    NotFound,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreTooNew,
    StoreUnusable,
)
from agent_meter_mcp.store.sqlite import SqliteStore, driver, open_store, schema
from agent_meter_mcp.store.sqlite.schema import APPLICATION_ID, VERSION

from ..building import Desk, subject, used
from .judge import ledger_of
from .processes import Process, now_us, play
from .roles import batch, one_event
from .test_crash import ids_of

NOBODY = 65_534


def record(store: SqliteStore, event_id: str) -> str:
    (result,) = store.apply([one_event(event_id)], now_us()).results
    assert isinstance(result, Recorded), result
    return result.status


def run_sql(path: Path, *statements: str) -> None:
    connection = driver.connect(str(path), synchronous="FULL", busy_timeout_s=10.0)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def made(path: Path) -> Path:
    """A ledger with one event in it."""
    store = open_store(str(path))
    record(store, "before")
    store.close()
    return path


def contents(folder: Path) -> dict[str, bytes | None]:
    """Names and bytes of all there is in a folder."""
    return {entry.name: entry.read_bytes() if entry.is_file() else None for entry in sorted(folder.iterdir())}


def refused(path: Path, kind: type[MeterError], *words: str) -> None:
    """The file is refused with an error of that kind, which has these words; the folder is as it was."""
    before = contents(path.parent) if path.parent.is_dir() else None
    with pytest.raises(kind) as error:
        open_store(str(path), busy_timeout_s=0.2)
    assert type(error.value) is kind
    for word in (str(path), *words):
        assert word in str(error.value)
    assert (contents(path.parent) if path.parent.is_dir() else None) == before


# -- what is not a ledger, or not one of ours ------------------------------------------------------------


def test_a_file_of_a_newer_version(tmp_path: Path) -> None:
    path = made(tmp_path / "usage.db")
    run_sql(path, f"PRAGMA user_version={VERSION + 1}")
    refused(path, StoreTooNew, "newer version", f"format {VERSION + 1}", "Upgrade agent-meter-mcp")


def test_a_file_that_a_newer_version_changes_while_it_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(made(tmp_path / "usage.db")))
    store.policy()
    steps = schema.migrations()

    @steps(name="m999_of_tomorrow")
    def m999_of_tomorrow(db: Database) -> None:
        db.conn.execute("ALTER TABLE service ADD COLUMN colour TEXT")

    monkeypatch.setattr(schema, "migrations", lambda: steps)
    monkeypatch.setattr(schema, "VERSION", VERSION + 1)
    open_store(store.path).close()
    for _ in range(2):
        with pytest.raises(StoreTooNew, match="Start it again, with the newer"):
            record(store, "after")
        with pytest.raises(StoreTooNew, match=f"format {VERSION + 1} while"):
            store.policy()
    store.close()
    connection = driver.connect(store.path, synchronous="FULL", busy_timeout_s=10.0)
    assert connection.execute("SELECT key FROM event").fetchall() == [("before",)]
    connection.close()


@pytest.mark.parametrize(
    "content",
    [b"SQLite format 3", b"usage,cost\n" * 1_000, random.Random(1).randbytes(100_000)],
    ids=["half a header", "text", "garbage"],
)
def test_a_file_that_is_no_database(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    path.write_bytes(content)
    refused(path, StoreUnusable, "not a usable database", "Restore a copy", "AGENT_METER_DB")


@pytest.mark.parametrize("journal", ["delete", "wal"])
@pytest.mark.parametrize("version", [0, VERSION, VERSION + 1])
def test_the_database_of_another_program(journal: str, version: int, tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    path.touch()
    run_sql(
        path,
        f"PRAGMA journal_mode={journal}",
        "CREATE TABLE bookmark (url)",
        f"PRAGMA user_version={version}",
    )
    refused(path, StoreUnusable, "another program", "AGENT_METER_DB")


@pytest.mark.parametrize("version", [VERSION, VERSION + 1])
def test_a_database_without_tables_is_taken_whatever_its_number(version: int, tmp_path: Path) -> None:
    """Nothing is in it that could be lost; it is no ledger yet, so its number says nothing about ours."""
    path = tmp_path / "usage.db"
    path.touch()
    run_sql(path, f"PRAGMA user_version={version}")
    store = open_store(str(path))
    assert record(store, "1") == "recorded"
    assert list(store.verify()) == []
    store.close()


def test_an_empty_file_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    path.touch()
    store = open_store(str(path))
    assert record(store, "1") == "recorded"
    store.close()


def test_a_ledger_with_a_destroyed_page_says_so_and_stays_as_it_is(tmp_path: Path) -> None:
    path = made(tmp_path / "usage.db")
    content = bytearray(path.read_bytes())
    content[4_096:] = random.Random(2).randbytes(len(content) - 4_096)
    path.write_bytes(content)
    with pytest.raises(StoreUnusable, match=r"usage\.db is not a usable database .*Restore a copy"):
        record(open_store(str(path)), "1")
    assert path.read_bytes() == content


def test_a_ledger_that_was_cut_short_says_so(tmp_path: Path) -> None:
    path = made(tmp_path / "usage.db")
    path.write_bytes(path.read_bytes()[: 3 * 4_096])
    with pytest.raises(StoreUnusable, match=r"usage\.db is not a usable database"):
        record(open_store(str(path)), "1")


# -- folders ---------------------------------------------------------------------------------------------


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    path.mkdir()
    refused(path, StoreUnusable, "is a folder", "AGENT_METER_DB")


@pytest.mark.skipif(os.name == "nt", reason="there are no such pipes")
def test_a_pipe_in_place_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    os.mkfifo(path)
    refused(path, StoreUnusable, "is a device or a pipe", "AGENT_METER_DB")
    assert os.listdir(tmp_path) == ["usage.db"]


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    refused(tmp_path / "missing" / "usage.db", StoreUnusable, "folder", "does not exist", "AGENT_METER_DB")


@pytest.mark.parametrize(
    "name", ["a b.db", "50%.db", "%41.db", "who?.db", "#1.db", "x.db?mode=memory", "é 🧮.db", "a'b;.db"]
)
def test_any_name_is_the_name_of_the_file(name: str, tmp_path: Path) -> None:
    made(tmp_path / name)
    assert set(os.listdir(tmp_path)) == {name, f"{name}-queue"}
    assert play("look", str(tmp_path / name), ["before"]) == ["before"]


def test_a_relative_name_means_the_same_file_after_the_process_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    store = open_store("usage.db")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert record(store, "1") == "recorded"
    assert store.event("api", "1") is not None
    store.close()
    assert os.listdir(tmp_path / "elsewhere") == []


def test_a_link_to_a_file_leads_to_that_file(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "usage.db"
    link.symlink_to(tmp_path / "real" / "ledger.db")
    made(link)
    assert play("look", str(tmp_path / "real" / "ledger.db"), ["before"]) == ["before"]


# -- rights ----------------------------------------------------------------------------------------------


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that a user without rights can reach."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # that is the point
        yield Path(folder)
        os.chmod(folder, 0o700)


def without_rights(path: Path) -> dict[str, Any]:
    """What becomes of opening, reading and recording for a user who may do what the file's rights say."""
    return play("record_without_rights", str(path), NOBODY)


def test_a_file_that_may_only_be_read(shared: Path) -> None:
    path = made(shared / "usage.db")
    os.chmod(path, 0o444)
    os.chmod(shared, 0o777)  # the folder can be written, the file cannot
    before = path.read_bytes()
    said = without_rights(path)
    assert said["recorded"] == 0
    assert said["error"] in ("StoreReadOnly", "StoreUnusable")
    assert re.search(rf"{path}.*Check.*(rights|written)", said["text"])
    assert path.read_bytes() == before


def test_a_file_in_a_folder_that_may_only_be_read(shared: Path) -> None:
    path = made(shared / "usage.db")
    os.chmod(path, 0o666)  # the file can be written, the folder cannot
    os.chmod(shared, 0o555)
    before = contents(shared)
    said = without_rights(path)
    assert said["recorded"] == 0
    assert said["error"] in ("StoreReadOnly", "StoreUnusable")
    assert re.search(rf"{path}.*Check.*folder", said["text"])
    assert contents(shared) == before


def test_a_file_that_may_not_even_be_read(shared: Path) -> None:
    path = made(shared / "usage.db")
    os.chmod(path, 0o000)
    said = without_rights(path)
    assert not said["opened"]
    assert said["error"] in ("StoreReadOnly", "StoreUnusable")
    assert re.search(rf"{path} cannot be (opened|read|written).*Check", said["text"])


def test_a_new_file_in_a_folder_that_may_only_be_read(shared: Path) -> None:
    os.chmod(shared, 0o555)
    said = without_rights(shared / "usage.db")
    assert (said["opened"], said["error"]) == (False, "StoreReadOnly")
    assert re.search(r"usage\.db cannot be written .*Check the rights of its folder", said["text"])
    assert os.listdir(shared) == []


def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "usage.db"))
    record(store, "1")
    assert {entry.name: entry.stat().st_mode & 0o777 for entry in tmp_path.iterdir()} == dict.fromkeys(
        ("usage.db", "usage.db-wal", "usage.db-shm", "usage.db-queue"), 0o600
    )
    store.close()


# -- space -----------------------------------------------------------------------------------------------


def test_a_database_that_may_not_grow_is_full_and_takes_more_when_it_may(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "usage.db"))
    record(store, "before")
    connection = store._writer.connection  # pyright: ignore[reportPrivateUsage]  the limit is the connection's
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count={pages + 8}")
    number = 0
    with pytest.raises(
        StoreFull, match=r"disk that holds .*usage\.db is full\. Nothing was written; free some space"
    ) as full:
        while number < 10_000:
            store.apply([one_event(f"{number}-{index}") for index in range(50)], now_us())
            number += 1
    assert full.value.retryable
    assert number > 0
    ids = {stored.event.id for stored in ledger_of(store)}
    assert ids == {"before", *(f"{known}-{index}" for known in range(number) for index in range(50))}
    assert list(store.verify()) == []
    connection.execute("PRAGMA max_page_count=1000000")
    store.apply([one_event(f"{number}-{index}") for index in range(50)], now_us())
    assert len(ledger_of(store)) == 1 + 50 * (number + 1)
    assert list(store.verify()) == []
    store.close()


def test_a_hold_is_as_before_when_its_transaction_finds_no_room(tmp_path: Path) -> None:
    """What was made in it is not there, and what was ended in it is open: the writer remembers neither."""
    store = open_store(str(tmp_path / "usage.db"))
    desk = Desk(store)
    limit = desk.limit(10)
    kept = desk.hold(used(2), event="kept")
    connection = store._writer.connection  # pyright: ignore[reportPrivateUsage]  the limit is the connection's
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count={pages}")
    made = desk.reserving(used(3), id="made", event="made")
    crowd = [one_event(f"more-{number}") for number in range(2_000)]
    with pytest.raises(StoreFull):
        desk.apply(made, Settle(kept.reservation_id, used(1)), *crowd)
    connection.execute("PRAGMA max_page_count=1000000")
    assert (desk.state(limit).used, desk.state(limit).held) == (0, 2)
    with pytest.raises(NotFound):
        desk.settle("made", used(3))
    assert desk.settle(kept.reservation_id, used(1)).status == "recorded"
    assert desk.do(made, Reserved).status == "reserved"
    assert (desk.state(limit).used, desk.state(limit).held) == (1, 3)
    assert list(store.verify()) == []
    store.close()


@pytest.mark.parametrize("kilobytes", [150, 400, 1_000])
def test_a_file_that_may_not_grow_stops_the_writer_and_loses_nothing(kilobytes: int, tmp_path: Path) -> None:
    path = made(tmp_path / "usage.db")
    with Process("run_out_of_space", str(path), kilobytes * 1_024) as process:
        said = process.hear()
        assert said["error"] in ("StoreError", "StoreFull")
        assert re.search(rf"{path}.*Nothing was written; (check the disk|free some space)", said["text"])
        again = process.hear()
        process.end()
    store = open_store(str(path))
    ids = {stored.event.id for stored in ledger_of(store)}
    assert ids == {"before"}.union(*(ids_of("w", number)[0] for number in range(again["recorded"])))
    assert again["recorded"] == said["recorded"] + 1
    assert list(store.verify()) == []
    for number in range(again["recorded"]):
        told = {
            result.status
            for result in store.apply(batch("w", number), now_us()).results
            if isinstance(result, Recorded)
        }
        assert told == {"duplicate"}
    store.close()


# -- a file that is locked, or gone ----------------------------------------------------------------------


def test_a_new_file_that_somebody_has_locked(tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    path.touch()
    with Process("hold_write_lock", str(path)) as holder:
        assert holder.hear() == "held"
        with pytest.raises(
            StoreBusy, match=r"usage\.db is locked by another process\. Nothing was written; try again"
        ):
            open_store(str(path), busy_timeout_s=0.2)
        assert path.read_bytes() == b""
        holder.tell()
        assert holder.hear() == "gone"
    store = open_store(str(path))
    assert record(store, "1") == "recorded"
    store.close()


def remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink()


def replace(path: Path) -> None:
    """By an older copy, as somebody does who restores one while the server runs."""
    made(path.with_name("copy.db")).replace(path)


def rename(path: Path) -> None:
    path.rename(path.with_name("old.db"))


@pytest.mark.parametrize("happens", [remove, replace, rename], ids=lambda happens: happens.__name__)
def test_a_file_that_is_gone_while_it_is_open_takes_no_more(happens: Any, tmp_path: Path) -> None:
    """What is written to it would be acknowledged, and nobody would ever see it."""
    path = made(tmp_path / "usage.db")
    store = open_store(str(path))
    assert record(store, "1") == "recorded"
    happens(path)
    with pytest.raises(StoreError, match=r"usage\.db was (moved|deleted|replaced).*Nothing was written"):
        record(store, "2")
    store.close()


def test_every_store_error_tells_the_way_out() -> None:
    """Each code of SQLite that can come up, as its own error: the file, and what to do."""
    known: dict[int, tuple[type[MeterError], str]] = {
        5: (StoreBusy, "try again"),
        6: (StoreBusy, "try again"),
        8: (StoreReadOnly, "Check the rights"),
        10: (StoreError, "check the disk"),
        11: (StoreUnusable, "Restore a copy"),
        13: (StoreFull, "free some space"),
        14: (StoreUnusable, "Check that its folder exists"),
        26: (StoreUnusable, "Restore a copy"),
    }
    for code, (kind, words) in known.items():
        for extended in (code, code | 3 << 8):
            error = driver.Error("the words of SQLite")
            error.sqlite_errorcode = extended
            told = driver.meter_error(error, "usage.db")
            assert type(told) is kind
            assert "usage.db" in str(told)
            assert words in str(told)
    assert APPLICATION_ID == int.from_bytes(b"AMET", "big")


def test_a_limit_in_a_time_zone_that_is_not_known_here_spoils_no_other_usage(tmp_path: Path) -> None:
    """As where the list of zones is older than the one by which it was set. Usage that it binds is no bad
    input: whoever keeps it until the meter takes it is to go on doing so."""
    path = tmp_path / "usage.db"
    with closing(open_store(str(path))) as store:
        desk = Desk(store)
        desk.limit(5, "day", subject=subject("agent", "ann"), zone="Europe/Kyiv")
        desk.reserve(used(2), ttl=10)
    run_sql(path, "UPDATE quota SET zone = 'Europe/Newtown'")
    with closing(open_store(str(path))) as store:
        desk = Desk(store)
        desk.now = 60  # the hold has expired, and cannot be taken off the limit
        stopped, recorded = desk.apply(*[desk.recording(agent=agent, want=False) for agent in ("ann", "bob")])
        assert isinstance(recorded, Recorded)
        assert isinstance(stopped, StoreUnusable)
        with pytest.raises(StoreUnusable, match=r"requests per day for agent ann.*'Europe/Newtown'.*tzdata"):
            desk.peek()
        desk.limit(5, "day", subject=subject("agent", "ann"), zone="Europe/Berlin")
        assert desk.reserve(used(5)).status == "reserved"
        assert list(store.verify()) == []
