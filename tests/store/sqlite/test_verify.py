"""`verify` finds what was tampered with, and nothing in a ledger that was used as it is meant to be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_meter_mcp.core.commands import Record, Recorded, Reserve, SetAgent, SetLimit, Settle
from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.models import Agent, LimitKey, Subject, Usage, UsageEvent, Who
from agent_meter_mcp.core.queries import Difference
from agent_meter_mcp.store.sqlite import driver, open_store
from agent_meter_mcp.store.sqlite.rollups import ROLL_AT

from .freeze import NOON_US, fill
from .roles import one_event

WHO = Who("ada", "api")
SECOND_US = 1_000_000
ADAS, BOBS = (f"(SELECT id FROM counter WHERE scope = '{name}')" for name in ("ada", "bob"))
SWAPPED = (
    "UPDATE sqlite_master SET sql = 'CREATE UNIQUE INDEX event_key ON event (service, key)'"
    " WHERE name = 'event_key'"
)


def tamper(path: Path, *statements: str) -> None:
    connection = driver.connect(str(path), synchronous="FULL", busy_timeout_s=10.0)
    for statement in statements:
        assert connection.execute(statement).rowcount != 0  # -1: of what changes no rows
    connection.close()


@pytest.mark.parametrize(
    ("statement", "view"),
    [
        ("UPDATE head SET used = used + 1 WHERE counter = 1", "counter used"),
        (f"UPDATE head SET held = held - 1 WHERE counter = {BOBS}", "counter held"),
        ("DELETE FROM head WHERE counter = 1", "counter used"),
        (f"DELETE FROM cell WHERE counter = {ADAS}", "counter used"),
        (f"DELETE FROM head WHERE counter = {BOBS}", "counter held"),
        ("UPDATE event SET cost = cost + 1 WHERE id = (SELECT min(id) FROM event)", "counter used"),
        ("DELETE FROM event WHERE id = (SELECT max(id) FROM event)", "reservation"),
        ("UPDATE reservation SET state = 2 WHERE reservation_id = 'r1'", "counter held"),
        ("DELETE FROM quota WHERE limit_id = 'l1'", "counter"),
        ("DELETE FROM counter WHERE id = (SELECT max(id) FROM counter)", "counter"),
        ("UPDATE rollup SET n = n + 1 WHERE grain = 1", "rollup day"),
        ("DELETE FROM rollup WHERE grain = 3", "rollup hour, broad, events"),
        ("UPDATE rollup SET grain = 9 WHERE grain = 1", "rollup 9 events"),
        ("UPDATE rollup SET last = last - 1 WHERE grain = 5", "rollup last seen"),
        ("DELETE FROM refusal WHERE id = (SELECT max(id) FROM refusal)", "rollup all"),
        ("UPDATE event SET dim = 9999 WHERE id = (SELECT max(id) FROM event)", "file"),
        ("UPDATE event SET service = 9999 WHERE id = (SELECT min(id) FROM event)", "file"),
        ("DELETE FROM dim WHERE id = (SELECT max(dim) FROM refusal)", "file"),
        ("DROP INDEX event_key", "file"),
        ("DROP TABLE alert", "file"),
        ("DELETE FROM meta WHERE k = 'rolled'", "file"),
        ("INSERT INTO meta (k, v) VALUES ('grand_3', 5)", "rollup grand total"),
        ("UPDATE counter SET first = first + 1 WHERE first IS NOT NULL", "counter first"),
        ("DELETE FROM agent", "agent"),
    ],
)
def test_what_was_tampered_with_is_named(statement: str, view: str, tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    store = open_store(str(path))
    fill(store)
    assert list(store.verify()) == []
    tamper(path, statement)
    assert any(found.view.startswith(view) for found in store.verify())
    store.close()


def test_agents_that_descend_from_each_other_can_be_put_right(tmp_path: Path) -> None:
    """Only somebody's hand can make that. Every look at such a file took all the memory there was."""
    path = tmp_path / "usage.db"
    store = open_store(str(path))
    limit = SetLimit("l1", LimitKey(Subject("agent", "ada"), None, "requests", "total"), 9, "op")
    store.apply([limit, *(SetAgent(name, (("parent", "eve"),), "op") for name in ("ada", "bob"))], NOON_US)
    store.close()
    tamper(path, "UPDATE agent SET parent = 'ada' WHERE agent_id = 'eve'")
    store = open_store(str(path))
    store.apply([Record(UsageEvent("e1", Who("eve", "api"), Usage(1), None, "self"))], NOON_US + SECOND_US)
    assert list(store.verify()) == []
    assert store.policy().lineage("eve") == ("eve", "ada")
    assert store.policy().tree("ada") == {"ada", "eve", "bob"}
    (refused, mended) = store.apply(
        [SetAgent("eve", (("parent", "bob"),), "op"), SetAgent("eve", (("parent", None),), "op")],
        NOON_US + 2 * SECOND_US,
    ).results
    assert isinstance(refused, InvalidInput) and isinstance(mended, Agent)
    assert store.policy().lineage("ada") == ("ada", "eve")
    store.close()


def test_an_index_that_does_not_agree_with_its_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    store = open_store(str(path))
    fill(store)
    store.close()
    tamper(path, "PRAGMA writable_schema = ON", SWAPPED)
    store = open_store(str(path))
    assert any(found.where.endswith("index event_key") for found in store.verify())
    store.close()


@pytest.mark.parametrize("window", ["1s", "hour", "day", "total"])
@pytest.mark.parametrize("end", ["settle", "expire", "import"])
def test_what_ends_or_comes_long_after_its_window_leaves_no_difference(
    window: str, end: str, tmp_path: Path
) -> None:
    store = open_store(str(tmp_path / "usage.db"))
    estimate = Usage(input_tokens=5)
    store.apply(
        [
            SetLimit("l", LimitKey(Subject(), "api", "tokens", window), 100, "operator"),
            Reserve("r", "held", WHO, estimate, 3_600 * SECOND_US),
            one_event("first", WHO, 7),
        ],
        NOON_US,
    )
    later_us = NOON_US + (3_500 if end == "settle" else 90_000) * SECOND_US
    if end == "settle":
        last = Settle("r", Usage(input_tokens=6))
    elif end == "expire":
        last = one_event("elsewhere", Who("bob", "another"))
    else:
        last = Record(UsageEvent("import", WHO, estimate, occurred_at_us=NOON_US + 1))
    (result,) = store.apply([last], later_us).results
    assert isinstance(result, Recorded)
    assert list(store.verify()) == []
    store.apply([one_event("after", WHO, 7)], later_us + SECOND_US)
    assert list(store.verify()) == []
    store.close()


def of_a_window(path: Path, window: str) -> None:
    """A ledger with a rolling limit, and usage in two hours."""
    store = open_store(str(path), synchronous="OFF")
    store.apply([SetLimit("l", LimitKey(Subject("agent", "*"), None, "requests", window), 99, "op")], NOON_US)
    for number, at_us in enumerate((NOON_US, NOON_US + 2 * 3_600_000_000)):
        used = [Record(UsageEvent(f"{number} {each}", WHO, Usage())) for each in range(ROLL_AT)]
        store.apply(used, at_us)
    store.close()


@pytest.mark.parametrize("window", ["5h", "7d", "60h"])
def test_a_rollup_that_is_wrong_makes_no_counter_wrong(tmp_path: Path, window: str) -> None:
    """It is compared with the events, not with another sum of them."""
    path = tmp_path / "usage.db"
    of_a_window(path, window)
    tamper(path, f"UPDATE rollup SET requests = requests + 5 WHERE bucket = {NOON_US // 3_600_000_000}")
    found = verified(path)
    assert found
    assert not [one for one in found if one.view.startswith("counter")]


def test_a_cell_before_the_window_is_compared_too(tmp_path: Path) -> None:
    """It decides about what comes late."""
    path = tmp_path / "usage.db"
    of_a_window(path, "90m")
    tamper(path, "UPDATE cell SET used = used + 10 WHERE bucket = (SELECT min(bucket) FROM cell)")
    assert [one.view for one in verified(path)] == ["counter used"]


def verified(path: Path) -> list[Difference]:
    store = open_store(str(path), synchronous="OFF")
    found = list(store.verify())
    store.close()
    return found
