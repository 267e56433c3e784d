"""A backup that SQLite puts back into the file while it is in use: nobody goes by what was there before."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest

from agent_meter_mcp.core.errors import NotFound
from agent_meter_mcp.core.queries import AgentsQuery, SummaryQuery, UsageFilter
from agent_meter_mcp.store.sqlite import SqliteStore, driver, open_store

from ..building import Desk, subject, used


@pytest.fixture
def ours(tmp_path: Path) -> Generator[Desk]:
    with closing(open_store(str(tmp_path / "usage.db"))) as store:
        yield Desk(store)


@pytest.fixture
def theirs(tmp_path: Path, ours: Desk) -> Generator[Desk]:
    with closing(open_store(str(tmp_path / "usage.db"))) as store:
        yield Desk(store)


def copy(source: Path, target: Path) -> None:
    """As `.backup` and `.restore` of the sqlite3 program do it."""
    target.touch()
    with (
        closing(driver.connect(str(source), synchronous="FULL", busy_timeout_s=10)) as one,
        closing(driver.connect(str(target), synchronous="FULL", busy_timeout_s=10)) as other,
    ):
        one.backup(other)


def events_of(desk: Desk) -> dict[object, int]:
    """By agent."""
    found = desk.store.summary(SummaryQuery(UsageFilter(), ("agent",)), desk.now_us)
    return {group.key[0]: group.totals.events for group in found.groups}


def test_what_is_recorded_after_a_restore_is_nobody_elses(ours: Desk, theirs: Desk, tmp_path: Path) -> None:
    """Of the agents since the backup nothing is in the file: their numbers are given to others."""
    file, backup = tmp_path / "usage.db", tmp_path / "copy.db"
    ours.record(agent="ann")
    copy(file, backup)
    for _ in range(3):
        ours.record(agent="zed", id=ours.new_id("zed"))
    assert events_of(ours) == {"ann": 1, "zed": 3}
    copy(backup, file)

    assert events_of(ours) == {"ann": 1}
    theirs.now = ours.now = 1
    theirs.record(agent="bob", id="bob")
    ours.record(agent="zed", id="zed")
    for desk in (ours, theirs):
        assert events_of(desk) == {"ann": 1, "bob": 1, "zed": 1}
        agents = desk.store.agents(AgentsQuery(), desk.now_us).agents
        assert {view.agent.agent_id: view.totals.events for view in agents} == events_of(desk)
        assert isinstance(desk.store, SqliteStore)
        assert list(desk.store.verify()) == []


def test_limits_and_holds_are_those_of_the_backup(ours: Desk, theirs: Desk, tmp_path: Path) -> None:
    """Also where as many changes have been made since as before: they count up the same number."""
    file, backup = tmp_path / "usage.db", tmp_path / "copy.db"
    ours.limit(5, "total", subject=subject("agent", "ann"))
    ours.record(used(2), agent="ann")
    copy(file, backup)
    ours.limit(1, "total", subject=subject("agent", "bob"))
    held = ours.hold(used(3), agent="ann")
    theirs.record(agent="cy", id="cy")
    assert ours.reserve(used(2), agent="bob").status == "denied"
    copy(backup, file)

    theirs.now = ours.now = 1
    theirs.limit(4, "total", subject=subject("agent", "ann"))
    assert ours.reserve(used(2), agent="bob").status == "reserved"
    assert ours.reserve(used(3), agent="ann").status == "denied"
    assert ours.reserve(used(2), agent="ann").status == "reserved"
    with pytest.raises(NotFound):
        ours.settle(held.reservation_id)
