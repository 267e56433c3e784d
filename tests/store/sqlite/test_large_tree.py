"""An agent that spawns others for months: its tree has more members than SQLite takes parameters, and another
one costs no more than the first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent_meter_mcp.core.commands import (
    Ask,
    Record,
    Recorded,
    Reserve,
    Reserved,
    SetAgent,
    SetLimit,
    SetSwitch,
)
from agent_meter_mcp.core.models import Agent, LimitKey, Subject, Usage, UsageEvent, Who
from agent_meter_mcp.core.queries import AgentsQuery, EventsQuery, SummaryQuery, UsageFilter
from agent_meter_mcp.store.sqlite import SqliteStore, driver, open_store, rows
from agent_meter_mcp.store.sqlite.filters import FEW, is_among

from .steps import applied_in

if TYPE_CHECKING:
    from agent_meter_mcp.core.models import Metric

NOW_US = 1_790_000_000_000_000
MEMBERS = 33_000
"""SQLite takes 32,766 parameters, where nobody has built it for more."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = open_store(str(tmp_path / "meter.db"), synchronous="NORMAL")
    yield opened
    opened.close()


def spawn(store: SqliteStore, members: int) -> None:
    """As if `root` had spawned so many; by hand, because a record of each would take a minute."""
    with closing(driver.connect(store.path, synchronous="NORMAL", busy_timeout_s=5)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO agent (agent_id, created) VALUES ('root', 0)")
        connection.executemany(
            "INSERT INTO agent (agent_id, parent, created) VALUES (?, 'root', 0)",
            [(f"child-{number}",) for number in range(members)],
        )
        connection.execute("UPDATE meta SET v = v + 1 WHERE k = 'epoch'")
        connection.execute("COMMIT")


def limit(metric: Metric, window: str, most: int) -> SetLimit:
    key = LimitKey(Subject("agent", "root"), None, metric, window)
    return SetLimit(f"{metric}-{window}", key, most, "olga")


def usage_of(agent: str, event_id: str, parent: str | None = None, tokens: int = 1) -> Record:
    return Record(
        UsageEvent(event_id, Who(agent, "llm", parent), Usage(1, input_tokens=tokens)), want_limits=True
    )


@pytest.mark.parametrize("count", [0, 1, FEW, FEW + 1, MEMBERS])
def test_however_many_names_there_are_sqlite_takes_them(store: SqliteStore, count: int) -> None:
    spawn(store, 100)
    names = {f"child-{number}" for number in range(count)}
    term, values = is_among("agent_id", names)
    assert len(values) <= FEW
    with closing(driver.connect(store.path, synchronous="NORMAL", busy_timeout_s=5)) as connection:
        found = connection.execute(f"SELECT agent_id FROM agent WHERE {term}", values).fetchall()
    assert {name for (name,) in found} == names & {f"child-{number}" for number in range(100)}


def test_a_tree_may_be_larger_than_sqlite_takes_parameters(store: SqliteStore) -> None:
    spawn(store, MEMBERS)
    store.apply(
        [limit("requests", "60s", 4), limit("tokens", "total", 100), limit("tokens", "day", 90)], NOW_US
    )
    done = store.apply([usage_of(f"child-{number}", f"e{number}") for number in range(3)], NOW_US + 1)
    assert [one.outcome for one in done.results if isinstance(one, Recorded)] == ["accepted"] * 3

    reserved = store.apply([Reserve("r1", "r1", Who("child-9", "llm"), Usage(), 60_000_000)], NOW_US + 9)
    assert isinstance(reserved.results[0], Reserved) and reserved.results[0].status == "reserved"
    (decision,) = store.peek([Ask(Who("child-5", "llm"), Usage())], NOW_US + 59_000_000)
    assert not decision.allowed
    (decision,) = store.peek([Ask(Who("somebody", "llm", "root"), Usage())], NOW_US + 59_000_000)
    assert not decision.allowed
    assert [view.state.used for view in store.limits(Who("child-1"), NOW_US + 20) if view.state] == [3, 3, 3]

    tree = UsageFilter(agent="root", include_children=True)
    assert store.summary(SummaryQuery(tree), NOW_US + 20).total.tokens == 3
    assert len(store.events(EventsQuery(tree, 50)).events) == 3
    assert store.events(EventsQuery(UsageFilter(within="root"), 50)).events
    assert len(store.agents(AgentsQuery(within="root", limit=50), NOW_US + 20).agents) == 50
    stopped = store.apply([SetSwitch("agent", "root", True, "enough", "olga")], NOW_US + 30)
    assert stopped.results
    (decision,) = store.peek([Ask(Who("child-5", "llm"), Usage())], NOW_US + 200_000_000)
    assert decision.reasons[0].code == "kill_switch"
    assert list(store.verify()) == []


def test_a_new_child_costs_the_same_however_many_there_are(store: SqliteStore) -> None:
    store.apply([limit("requests", "60s", 10**6), limit("tokens", "month", 10**6)], NOW_US)
    store.apply([usage_of("root", "first")], NOW_US)
    children = [usage_of(f"child-{number}", f"e{number}", parent="root") for number in range(300)]
    spawned = [applied_in(store, child, NOW_US + 1 + at)[1] for at, child in enumerate(children)]
    assert max(spawned[-10:]) <= 2 * max(spawned[:10])
    (view, _) = store.limits(Who("root"), NOW_US + 1000)
    assert view.state is not None and view.state.used == 301
    assert list(store.verify()) == []


def test_what_a_child_has_used_before_it_is_linked_counts_for_its_parent(store: SqliteStore) -> None:
    """The counters of one that is known have to be worked out anew, where those of a new one need not."""
    store.apply([limit("tokens", "day", 100)], NOW_US)
    store.apply([usage_of("root", "a", tokens=1), usage_of("known", "b", tokens=10)], NOW_US)
    store.apply([usage_of("new", "c", parent="root", tokens=2)], NOW_US + 10)
    store.apply([usage_of("known", "d", parent="root", tokens=20)], NOW_US + 20)
    (view,) = store.limits(Who("new"), NOW_US + 30)
    assert view.state is not None and view.state.used == 33
    assert list(store.verify()) == []


def test_a_new_child_is_all_that_other_processes_read(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(agent_id: str, *rest: str | None) -> Agent:
        read.append(agent_id)
        return Agent(agent_id, *rest)

    spawn(store, 50)
    theirs = open_store(store.path, synchronous="NORMAL")
    theirs.apply([usage_of("root", "first")], NOW_US)
    monkeypatch.setattr(rows, "Agent", counted)
    for number in range(3):
        store.apply([usage_of(f"new-{number}", f"e{number}", parent="root")], NOW_US + 10 * number)
        theirs.apply([usage_of("child-1", f"theirs-{number}")], NOW_US + 10 * number)
        theirs.apply([SetAgent(f"theirs-{number}", (("tier", "gold"),), "olga")], NOW_US + 10 * number)
        store.apply([usage_of("child-2", f"ours-{number}")], NOW_US + 10 * number)
    assert 0 < len(read) <= 50 + 3 * 2 * 3, "the first look reads all, each other one what is new"
    everybody = {f"child-{number}" for number in range(50)} | {f"new-{number}" for number in range(3)}
    for one in (store, theirs):
        assert one.policy().tree("root") == everybody | {"root"}
        assert {f"theirs-{number}" for number in range(3)} < one.policy().agents.keys()
    theirs.close()


@pytest.mark.parametrize("how", ["an operator", "its own word", "a version that counts no new agents"])
def test_what_becomes_of_one_that_was_known_is_read_by_all(store: SqliteStore, how: str) -> None:
    store.apply([limit("requests", "day", 100)], NOW_US)
    store.apply([usage_of("known", "a"), usage_of("root", "b")], NOW_US)
    theirs = open_store(store.path, synchronous="NORMAL")
    theirs.apply([usage_of("new", "c", parent="root")], NOW_US + 10)
    (before,) = store.peek([Ask(Who("known", "llm"), Usage())], NOW_US + 20)
    assert not before.limits
    if how == "an operator":
        theirs.apply([SetAgent("known", (("parent", "root"),), "olga")], NOW_US + 30)
    elif how == "its own word":
        theirs.apply([usage_of("known", "d", parent="root")], NOW_US + 30)
    else:
        with closing(driver.connect(store.path, synchronous="NORMAL", busy_timeout_s=5)) as connection:
            connection.execute("UPDATE agent SET parent = 'root' WHERE agent_id = 'known'")
            connection.execute("DELETE FROM counter")
            connection.execute("UPDATE meta SET v = v + 1 WHERE k = 'epoch'")
    (now,) = store.peek([Ask(Who("known", "llm"), Usage())], NOW_US + 40)
    assert [state.used for state in now.limits] == [3 + (how == "its own word")]
    assert isinstance(store.apply([usage_of("known", "e")], NOW_US + 50).results[0], Recorded)
    theirs.close()
    assert list(store.verify()) == []
