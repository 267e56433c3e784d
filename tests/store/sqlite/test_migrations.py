"""Files of every version can be opened; what is up to date, without a lock, a write, or sqlite-utils."""

from __future__ import annotations

import os
import random
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent_meter_mcp.core.commands import Ask, Record, Recorded, Settle
from agent_meter_mcp.core.models import Usage, UsageEvent
from agent_meter_mcp.core.queries import SummaryQuery, UsageFilter
from agent_meter_mcp.store.sqlite import SqliteStore, driver, open_store
from agent_meter_mcp.store.sqlite.schema import VERSION

from ..test_state_machine import frequent_rollups
from .freeze import ADA, BOB, FIRST, NOON_US, UUID, fill
from .judge import ledger_of
from .processes import PATIENCE_S, PROOF, Process, now_us, play
from .roles import one_event
from .test_open import SEED, schema_of, steps_of

VERSIONS = sorted((Path(__file__).parent / "versions").glob("*.sql"), key=lambda path: int(path.stem))
OLDER = VERSIONS[:-1]
LATER_US = NOON_US + 10_000_000
NO_ROOM = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))"


def thawed(frozen: Path, folder: Path) -> Path:
    """The file that the SQL stands for."""
    path = folder / "usage.db"
    path.touch()
    connection = driver.connect(str(path), synchronous="FULL", busy_timeout_s=10.0)
    connection.executescript(frozen.read_text(encoding="utf-8"))
    connection.close()
    return path


def test_there_is_a_file_of_every_version() -> None:
    assert [int(path.stem) for path in VERSIONS] == list(range(1, VERSION + 1))


@pytest.mark.parametrize("frozen", VERSIONS, ids=lambda path: f"version {path.stem}")
def test_a_file_of_any_version_is_opened_and_has_the_schema_of_a_new_one(
    frozen: Path, tmp_path: Path
) -> None:
    path = thawed(frozen, tmp_path)
    open_store(str(path)).close()
    new = tmp_path / "new.db"
    open_store(str(new)).close()
    assert schema_of(path) == schema_of(new)
    assert steps_of(path) == steps_of(new)


@pytest.mark.parametrize("frozen", VERSIONS, ids=lambda path: f"version {path.stem}")
def test_a_file_of_any_version_says_what_it_said(frozen: Path, tmp_path: Path) -> None:
    store = open_store(str(thawed(frozen, tmp_path)))
    assert list(store.verify()) == []
    check_content(store)
    store.close()


def test_what_is_frozen_is_what_is_said_to_be_frozen(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "usage.db"))
    fill(store)
    check_content(store)
    store.close()


def check_content(store: SqliteStore) -> None:
    """What `freeze.fill` wrote is there, counts, and is known again."""
    assert [stored.event.id for stored in ledger_of(store)] == [UUID, "plain text", "past", "settled"]
    first = store.event("api", UUID)
    assert first is not None
    assert (first.event, first.outcome, first.seq) == (FIRST, "accepted", NOON_US + 1_000_000)
    past = store.event("api", "past")
    assert past is not None
    assert past.booked_at_us == NOON_US - 7 * 86_400_000_000
    total = store.summary(SummaryQuery(UsageFilter()), LATER_US).total
    assert (total.events, total.requests, total.rejected) == (4, 5, 4)
    assert (total.tokens, total.cost_nano_usd, total.unpriced) == (465 + 9 + 60, 7_000, 3)
    held = store.reservation("r1", LATER_US)
    assert held is not None
    assert held.state == "open"
    states = {view.limit.limit_id: view.state for view in store.limits(None, LATER_US)}
    assert {name: (state.used, state.held) for name, state in states.items() if state is not None} == {
        "l1": (534, 50),
        "l2": (7_000, 0),
        "l3": (2, 1),
    }
    assert [switch.name for switch in store.policy().switches] == ["bad"]
    assert store.policy().lineage("bob") == ("bob", "ada")
    assert len(store.alerts()) == 4
    assert len(store.audit()) == 8
    ada, revoked = store.keys()
    assert (ada.key_id, ada.bound_to, ada.name, ada.last_used_us) == ("k1", "ada", "Ada's", NOON_US)
    assert (revoked.key_id, revoked.expires_at_us, revoked.is_valid(LATER_US)) == ("k2", 2 * NOON_US, False)
    assert store.key_of(bytes([1] * 32)) == ada
    (decision,) = store.peek([Ask(BOB, Usage(input_tokens=417))], LATER_US)
    assert [reason.state.limit.limit_id for reason in decision.reasons if reason.state is not None] == ["l1"]
    plain = Record(UsageEvent("plain text", BOB, Usage()))
    again = [Record(FIRST), plain, Settle("r2", Usage(input_tokens=60))]
    results = store.apply(again, LATER_US).results
    assert [result.status for result in results if isinstance(result, Recorded)] == ["duplicate"] * 3


def test_what_was_rolled_up_before_is_there_by_broad_dims(tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    store = open_store(str(path))
    with frequent_rollups():
        fill(store)
        for number in range(20):
            store.apply(
                [Record(UsageEvent(f"late {number}", ADA, Usage(number, cost_nano_usd=number)))], LATER_US
            )
    store.close()
    connection = driver.connect(str(path), synchronous="FULL", busy_timeout_s=10.0)
    broad = (
        "SELECT x.*, d.agent FROM rollup x JOIN dim d ON d.id = x.dim WHERE grain >= 3"
        " ORDER BY 1, 2, d.agent, d.outcome"
    )
    made = [(*row[:2], *row[3:]) for row in connection.execute(broad).fetchall()]
    connection.executescript(
        "DELETE FROM rollup WHERE grain >= 3; DELETE FROM dim WHERE source = '';"
        " DELETE FROM _sqlite_migrations WHERE name = 'm002_broad_rollups'; PRAGMA user_version = 1"
    )
    store = open_store(str(path))
    assert [(*row[:2], *row[3:]) for row in connection.execute(broad).fetchall()] == made
    assert {row[0] for row in made} == {3, 4, 5}
    connection.close()
    assert list(store.verify()) == []
    store.close()


# -- what is up to date ----------------------------------------------------------------------------------


def signs(path: Path) -> dict[str, tuple[bytes, int]]:
    """The bytes of the database and its log, and when they were written."""
    files = [path, Path(f"{path}-wal")]
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in files if file.exists()}


def test_a_file_that_is_up_to_date_is_opened_past_whoever_holds_its_locks(tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    store = open_store(str(path))
    fill(store)
    with Process("hold_both", str(path)) as holder:
        assert holder.hear() == "held"
        before = signs(path)
        assert len(before) == 2
        assert play("open_quietly", str(path)) == {"limits": 3, "loaded": []}
        assert signs(path) == before
        holder.tell()
        assert holder.hear() == "gone"
        holder.end()
    store.close()


def test_a_file_that_nobody_else_has_open_is_opened_and_closed_without_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    store = open_store(str(path))
    fill(store)
    store.close()
    before = signs(path), sorted(os.listdir(tmp_path))
    assert play("open_quietly", str(path)) == {"limits": 3, "loaded": []}
    assert (signs(path), sorted(os.listdir(tmp_path))) == before


def test_a_new_file_is_made_with_the_migrations_of_sqlite_utils(tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    assert play("open_quietly", str(path)) == {"limits": 0, "loaded": ["sqlite_utils"]}
    assert play("open_quietly", str(path)) == {"limits": 0, "loaded": []}


# -- when it goes wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [0, 512, 4_096, 10_000, 30_000, 60_000])
def test_a_file_that_cannot_be_made_for_lack_of_space_can_be_made_when_there_is_some(
    room: int, tmp_path: Path
) -> None:
    path = tmp_path / "usage.db"
    said = play("open_and_record", str(path), 1, PATIENCE_S, first=NO_ROOM.format(room))
    assert not said["opened"]
    assert said["error"] in ("StoreError", "StoreFull", "StoreReadOnly")
    assert str(path) in said["text"]
    store = open_store(str(path))
    (result,) = store.apply([one_event("1")], now_us()).results
    assert isinstance(result, Recorded)
    assert list(store.verify()) == []
    store.close()


@pytest.mark.parametrize("frozen", OLDER, ids=lambda path: f"version {path.stem}")
def test_an_older_file_is_brought_up_to_date_by_one_of_many_at_the_same_instant(
    frozen: Path, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        openers = [stack.enter_context(Process("opener", f"o{number}")) for number in range(4)]
        assert [opener.hear() for opener in openers] == ["ready"] * 4
        for turn in range(1, 4):
            (folder := tmp_path / str(turn)).mkdir()
            path = thawed(frozen, folder)
            at_us = now_us() + 50_000
            for opener in openers:
                opener.tell([str(path), at_us])
            assert [opener.hear() for opener in openers] == ["opened"] * 4
            store = open_store(str(path))
            recorded = {stored.event.id for stored in ledger_of(store)}
            assert recorded == {
                UUID,
                "plain text",
                "past",
                "settled",
                *(f"o{one}-{turn}" for one in range(4)),
            }
            assert steps_of(path) == steps_of_new(tmp_path)
            assert list(store.verify()) == []
            store.close()
        for opener in openers:
            opener.tell(None)
            opener.end()


@pytest.mark.parametrize("frozen", OLDER, ids=lambda path: f"version {path.stem}")
def test_a_process_that_dies_while_it_brings_a_file_up_to_date_leaves_what_was_there(
    frozen: Path, tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    for number in range(10 * PROOF):
        (folder := tmp_path / str(number)).mkdir()
        path = thawed(frozen, folder)
        with Process("opener", "victim") as victim:
            assert victim.hear() == "ready"
            victim.tell([str(folder / "first.db"), 0])  # so that all it needs is loaded
            assert victim.hear() == "opened"
            victim.tell([str(path), 0])
            victim.finished.wait(chance.random() * 0.05)
            victim.kill()
        assert steps_of(path) in (steps_of_new(tmp_path)[: int(frozen.stem)], steps_of_new(tmp_path))
        store = open_store(str(path))
        assert {stored.event.id for stored in ledger_of(store)} >= {UUID, "plain text", "past", "settled"}
        assert list(store.verify()) == []
        store.close()


@pytest.mark.parametrize("room", [0, 4_096, 20_000])
@pytest.mark.parametrize("frozen", OLDER, ids=lambda path: f"version {path.stem}")
def test_an_older_file_is_as_it_was_when_there_is_no_room_to_bring_it_up_to_date(
    frozen: Path, room: int, tmp_path: Path
) -> None:
    path = thawed(frozen, tmp_path)
    said = play("open_and_record", str(path), 1, PATIENCE_S, first=NO_ROOM.format(room))
    assert not said["opened"]
    assert said["error"] in ("StoreError", "StoreFull", "StoreReadOnly")
    assert str(path) in said["text"]
    assert steps_of(path) == steps_of_new(tmp_path)[: int(frozen.stem)]
    store = open_store(str(path))
    assert list(store.verify()) == []
    check_content(store)
    store.close()


def steps_of_new(folder: Path) -> list[str]:
    path = folder / "new.db"
    open_store(str(path)).close()
    return steps_of(path)
