"""Where thousands of agents come and go, and thousands of holds are open, another costs what the first did:
SQLite's own steps are counted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent_meter_mcp.core.commands import (
    Applied,
    Record,
    Recorded,
    Release,
    RemoveLimit,
    Reserve,
    Reserved,
    SetAgent,
    SetLimit,
    Settle,
)
from agent_meter_mcp.core.errors import Conflict, InvalidInput
from agent_meter_mcp.core.models import LEDGER_MAX, LimitKey, Subject, Usage, UsageEvent, Who
from agent_meter_mcp.core.queries import AgentsQuery
from agent_meter_mcp.intake import known_lineage
from agent_meter_mcp.store.sqlite import SqliteStore, open_holds, open_store, remembered, rollups

from .steps import applied_in, counted

if TYPE_CHECKING:
    from agent_meter_mcp.core.commands import Command
    from agent_meter_mcp.core.models import SubjectKind

NOW_US = 1_790_000_000_000_000


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[SqliteStore, SqliteStore]]:
    """Of two processes on one file."""
    ours, theirs = (open_store(str(tmp_path / "meter.db"), synchronous="NORMAL") for _ in range(2))
    yield ours, theirs
    ours.close()
    theirs.close()


def usage_of(agent: str, event_id: str) -> Record:
    return Record(UsageEvent(event_id, Who(agent, "llm"), Usage()), want_limits=True)


def hold_of(agent: str, event_id: str, usage: Usage | None = None) -> Reserve:
    return Reserve(f"r-{event_id}", event_id, Who(agent, "llm"), usage or Usage(), 3_600_000_000)


def limit_each(store: SqliteStore, window: str) -> None:
    key = LimitKey(Subject("agent", "*"), None, "requests", window)
    store.apply([SetLimit(f"each-{window}", key, 10**6, "olga")], NOW_US)


def steps_of(store: SqliteStore, command: Command, at_us: int) -> int:
    applied, steps = applied_in(store, command, at_us)
    assert isinstance(applied.results[0], Recorded | Reserved), applied.results
    return steps


@pytest.mark.parametrize("kind", ["session", "project"])
def test_what_begins_costs_the_same_however_many_there_were(
    stores: tuple[SqliteStore, SqliteStore], kind: SubjectKind
) -> None:
    store, _ = stores
    for window in ("total", "day"):
        key = LimitKey(Subject(kind, "*"), None, "requests", window)
        store.apply([SetLimit(f"each-{window}", key, 10**6, "olga")], NOW_US)
    taken: list[int] = []
    for number in range(600):
        who = Who("ann", "llm").replace(**{kind: f"the {number}th"})
        used = Record(UsageEvent(f"e{number}", who, Usage()), want_limits=True)
        taken.append(steps_of(store, used, NOW_US + number))
    assert max(taken[-10:]) <= 2 * max(taken[:10])
    assert list(store.verify()) == []


@pytest.mark.parametrize("kind", ["usage", "a hold"])
def test_a_new_agent_costs_the_same_however_many_came_today(
    stores: tuple[SqliteStore, SqliteStore], kind: str
) -> None:
    store, _ = stores
    limit_each(store, "day")
    limit_each(store, "60s")
    make = usage_of if kind == "usage" else hold_of
    taken = [steps_of(store, make(f"agent-{number}", f"e{number}"), NOW_US + number) for number in range(600)]
    assert max(taken[-10:]) <= 2 * max(taken[:10])
    assert list(store.verify()) == []


def test_whether_an_agent_is_known_costs_the_same_however_many_there_are(
    stores: tuple[SqliteStore, SqliteStore],
) -> None:
    """An agent that records for its children asks that for each."""
    store, _ = stores
    taken: list[int] = []
    for thousand in range(3):
        used = [usage_of(f"child {thousand}-{number}", f"e{thousand}-{number}") for number in range(1000)]
        store.apply(used, NOW_US + 1000 * thousand)
        for agent, lineage in ((f"child {thousand}-7", (f"child {thousand}-7",)), ("a new one", ())):
            with store.snapshot() as reads:
                reads.policy()
                with counted(reads.connection) as steps:
                    assert known_lineage(reads, agent) == lineage
            taken += steps
    assert max(taken) <= 10


def test_a_page_of_agents_costs_the_same_however_many_there_are(
    stores: tuple[SqliteStore, SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "CROWD", 500)
    monkeypatch.setattr(rollups, "ROLL_AT", 1)
    store, _ = stores
    limit_each(store, "day")
    taken: list[int] = []
    for thousand in range(3):
        agents = [f"agent-{thousand}-{number}" for number in range(1000)]
        at_us = NOW_US + 10_000 * thousand
        store.apply([usage_of(agent, f"a{agent}") for agent in agents], at_us)
        in_sessions = [Who("agent-0-0", "llm", session=f"{thousand}-{number}") for number in range(1000)]
        store.apply(
            [Record(UsageEvent(f"s{who.session}", who, Usage())) for who in in_sessions], at_us + 5000
        )
        with store.snapshot() as reads:
            reads.policy()
            with counted(reads.connection) as steps:
                page = reads.agents(AgentsQuery(limit=20), at_us + 9000)
        taken += steps
        first = page.agents[0]
        assert (first.agent.agent_id, first.totals.events) == ("agent-0-0", 1 + 1000 * (thousand + 1))
        assert first.last_seen_us == at_us + 5999
    assert max(taken) <= 2 * min(taken), taken
    assert list(store.verify()) == []


@pytest.mark.parametrize("window", ["day", "month", "7d"])
def test_a_limit_that_is_set_costs_each_agent_the_same_however_many_have_used(
    stores: tuple[SqliteStore, SqliteStore], monkeypatch: pytest.MonkeyPatch, window: str
) -> None:
    monkeypatch.setattr(rollups, "ROLL_AT", 1)
    store, _ = stores
    taken: list[int] = []
    for several in range(3):
        agents = [f"agent-{several}-{number}" for number in range(500)]
        at_us = NOW_US + 10_000 * several
        store.apply([usage_of(agent, f"a{agent}") for agent in agents], at_us)
        key = LimitKey(Subject("agent", "*"), None, "requests", window)
        store.apply([SetLimit("each", key, 10**6, "olga")], at_us + 5000)
        store.apply([usage_of("agent-0-0", f"first-{several}")], at_us + 5001)
        taken.append(steps_of(store, usage_of("agent-0-1", f"e{several}"), at_us + 5002))
        (view,) = store.limits(Who("agent-0-1"), at_us + 6000)
        assert view.state is not None and view.state.used == 2 + several
        store.apply([RemoveLimit("olga", "each")], at_us + 7000)
    assert max(taken) <= 2 * min(taken), taken
    assert list(store.verify()) == []


def test_of_a_long_window_those_hours_are_read_in_which_the_agent_has_used_something(
    stores: tuple[SqliteStore, SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollups, "ROLL_AT", 1)
    store, _ = stores
    taken: list[int] = []
    for hour in range(21):
        at_us = NOW_US + hour * 3_600_000_000
        used = [usage_of(f"agent-{number}", f"{hour}-{number}") for number in range(300)]
        store.apply([*used, usage_of("ann", f"ann {hour}")] if hour in (0, 5) else used, at_us)
        if hour in (6, 20):
            limit_each(store, "24h")
            taken.append(steps_of(store, usage_of("ann", f"ann {hour}"), at_us + 1000))
            (view,) = store.limits(Who("ann"), at_us + 2000)
            assert view.state is not None and view.state.used == 2 + len(taken)
            store.apply([RemoveLimit("olga", "each-24h")], at_us + 3000)
    assert taken[1] <= 2 * taken[0], taken
    assert list(store.verify()) == []


def test_who_was_named_before_begins_at_the_same_cost_however_much_was_held_since(
    stores: tuple[SqliteStore, SqliteStore],
) -> None:
    store, _ = stores
    limit_each(store, "60s")
    store.apply([SetAgent(f"agent-{number}", (("tier", "gold"),), "olga") for number in range(10)], NOW_US)
    taken: list[int] = []
    for number in range(1000):
        at_us = NOW_US + 100 + 10 * number
        store.apply([hold_of("busy", f"h{number}"), Release(f"r-h{number}")], at_us)
        if number % 100 == 99:
            agent = f"agent-{number // 100}"
            taken.append(steps_of(store, usage_of(agent, f"e{number}"), at_us + 5))
    assert max(taken[-2:]) <= 2 * max(taken[:2])
    assert list(store.verify()) == []


def test_what_others_do_costs_the_same_however_many_holds_are_open(
    stores: tuple[SqliteStore, SqliteStore],
) -> None:
    ours, theirs = stores
    limit_each(ours, "day")
    taken: list[int] = []
    for number in range(2000):
        at_us = NOW_US + 10 * number
        theirs.apply([hold_of("ann", f"h{number}")], at_us)
        if number % 100 == 99:
            taken.append(steps_of(ours, usage_of("bob", f"e{number}"), at_us + 5))
    assert max(taken[-3:]) <= 2 * max(taken[:3])
    assert list(ours.verify()) == []


def test_a_hold_costs_the_same_however_many_are_open(
    stores: tuple[SqliteStore, SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_holds, "ALWAYS_FIT", 0)
    store, _ = stores
    taken = [steps_of(store, hold_of("ann", f"h{number}"), NOW_US + number) for number in range(1000)]
    assert max(taken[-10:]) <= 2 * max(taken[1:10])


@pytest.fixture
def always_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were thousands of holds: what others have done since is looked through for what is new."""
    monkeypatch.setattr(open_holds, "FEW", 0)
    monkeypatch.setattr(open_holds, "ALWAYS_FIT", 0)


def only(applied: Applied) -> object:
    (result,) = applied.results
    return result


@pytest.mark.usefixtures("always_new")
def test_the_id_of_an_open_hold_is_nobodys_usage_whoever_holds_it(
    stores: tuple[SqliteStore, SqliteStore],
) -> None:
    ours, theirs = stores
    ours.apply([hold_of("ann", "first"), hold_of("ann", "second")], NOW_US)
    theirs.apply([hold_of("ann", "third")], NOW_US + 10)
    for event_id in ("first", "third"):
        assert isinstance(only(ours.apply([usage_of("ann", event_id)], NOW_US + 20)), Conflict)
    theirs.apply([Settle("r-first", None), Settle("r-third", None)], NOW_US + 30)
    for event_id in ("first", "third"):
        again = only(ours.apply([usage_of("ann", event_id)], NOW_US + 40))
        assert isinstance(again, Recorded) and again.status == "duplicate"
    assert isinstance(only(ours.apply([usage_of("ann", "second")], NOW_US + 50)), Conflict)
    assert list(ours.verify()) == []


@pytest.mark.usefixtures("always_new")
def test_a_hold_whose_end_was_rolled_back_is_open(
    stores: tuple[SqliteStore, SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = stores
    ours.apply([hold_of("ann", "first"), hold_of("ann", "second")], NOW_US)

    def fail() -> None:
        raise RuntimeError("before the COMMIT")

    with monkeypatch.context() as patch:
        patch.setattr(ours._writer, "finish", fail)  # pyright: ignore[reportPrivateUsage] - where it fails
        with pytest.raises(RuntimeError):
            ours.apply([Settle("r-first", None)], NOW_US + 10)
    theirs.apply([hold_of("ann", "third")], NOW_US + 20)
    for event_id in ("first", "second", "third"):
        assert isinstance(only(ours.apply([usage_of("ann", event_id)], NOW_US + 30)), Conflict)
    assert list(ours.verify()) == []


@pytest.mark.usefixtures("always_new")
def test_no_sum_of_holds_passes_the_largest_integer_whoever_made_them(
    stores: tuple[SqliteStore, SqliteStore],
) -> None:
    ours, theirs = stores
    half = Usage(0, input_tokens=LEDGER_MAX // 2 + 1)
    ours.apply([hold_of("ann", "small"), hold_of("ann", "small too")], NOW_US)
    theirs.apply([hold_of("ann", "large", half)], NOW_US + 10)
    assert isinstance(only(ours.apply([hold_of("ann", "larger", half)], NOW_US + 20)), InvalidInput)
    theirs.apply([Settle("r-large", Usage(0))], NOW_US + 30)
    held = only(ours.apply([hold_of("ann", "larger", half)], NOW_US + 40))
    assert isinstance(held, Reserved) and held.status == "reserved"
