"""Of a new limit on each agent (or session), what all have used is read once, not once for each of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent_meter_mcp.core.commands import Ask, Recorded
from agent_meter_mcp.core.models import Subject, Who
from agent_meter_mcp.store.sqlite import SqliteStore, by_scope, open_store
from agent_meter_mcp.store.sqlite.verifying import verify

from ..building import Desk, used
from .steps import applied_in, counted

if TYPE_CHECKING:
    from agent_meter_mcp.core.models import SubjectKind

EACH = Subject("agent", "*")
AGENTS = [f"agent {number}" for number in range(30)]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    store = open_store(str(tmp_path / "ledger.db"), synchronous="OFF")
    yield Desk(store)
    store.close()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_scope, "ALONE", 0)


def use(desk: Desk, times: int) -> None:
    """Each agent as often."""
    desk.apply(
        *[
            desk.recording(agent=agent, session=f"of {agent}", project=f"by {agent}", want=False)
            for _ in range(times)
            for agent in AGENTS
        ]
    )


def limit_anew(desk: Desk) -> None:
    """Every counter has to be worked out."""
    if desk.actions():
        desk.remove_limit("each")
    desk.limit(10**6, "1h", subject=EACH, service="llm", id="each")


def used_by(desk: Desk, agent: str) -> int:
    """What counts of the agent's, for the one limit that there is."""
    (state,) = desk.peek(agent=agent).limits
    return state.used


@pytest.mark.parametrize(
    ("kind", "window"),
    [("agent", "1h"), ("agent", "24h"), ("session", "1h"), ("project", "1h"), ("tier", "1h")],
)
def test_another_one_costs_the_same_however_much_all_have_used(
    desk: Desk, kind: SubjectKind, window: str
) -> None:
    assert isinstance(desk.store, SqliteStore)
    taken: list[int] = []
    for agent in AGENTS:
        desk.set_agent(agent, tier="gold")
    for times in (10, 100):
        use(desk, times)
        desk.now += 0.5
        name = "gold" if kind == "tier" else "*"
        desk.limit(10**6, window, subject=Subject(kind, name), id=f"{times}")
        records = [
            desk.recording(agent=agent, session=f"of {agent}", project=f"by {agent}", want=False)
            for agent in AGENTS
        ]
        steps = [applied_in(desk.store, record, desk.now_us)[1] for record in records]
        taken.append(max(steps[by_scope.ALONE + 1 :]))
        desk.remove_limit(f"{times}")
    assert taken[1] <= taken[0] + 3, taken
    assert list(desk.store.verify()) == []


def test_who_looks_at_all_agents_reads_what_they_have_used_a_few_times(desk: Desk) -> None:
    assert isinstance(desk.store, SqliteStore)
    use(desk, 40)
    desk.limit(10**6, "1h", subject=EACH)
    with desk.store.snapshot() as reads:
        taken: list[int] = []
        for agent in AGENTS:
            with counted(reads.connection) as steps:
                (decision,) = reads.peek([Ask(Who(agent, "llm"), used())], desk.now_us)
            assert decision.limits[0].used == 40
            taken += steps
    assert sum(taken) < (by_scope.ALONE + 8) * taken[0]


@pytest.mark.parametrize("window", ["1h", "day", "total"])
def test_to_verify_a_counter_more_costs_the_same_however_many_there_are(tmp_path: Path, window: str) -> None:
    taken: list[int] = []
    for several in (10, 100):
        with closing(open_store(str(tmp_path / f"{several}.db"), synchronous="OFF")) as store:
            desk = Desk(store)
            desk.limit(10**6, window, subject=EACH)
            for _ in range(10):
                desk.apply(*[desk.recording(agent=f"agent {number}") for number in range(several)])
                desk.now += 60
            with store.snapshot() as reads, counted(reads.connection) as steps:
                assert list(verify(reads, None)) == []
            taken += steps
    assert taken[1] < 13 * taken[0]


@pytest.mark.usefixtures("at_once")
def test_what_was_corrected_or_came_late_or_elsewhere_counts_as_it_should(desk: Desk) -> None:
    desk.now = 6000
    use(desk, 1)
    desk.now = 7000
    desk.record(used(2), agent="ann", id="grows", want=False)
    desk.record(agent=AGENTS[0], want=False)
    desk.record(agent="ann", service="mail", want=False)
    limit_anew(desk)
    assert [used_by(desk, agent) for agent in ("ann", AGENTS[0])] == [2, 2]
    desk.record(used(5), agent="ann", id="grows", want=False)
    desk.record(used(3), agent="cid", occurred=5000, want=False)
    desk.record(used(4), agent="cid", occurred=100, want=False)
    desk.now = 7001
    limit_anew(desk)
    assert [used_by(desk, agent) for agent in ("ann", "cid", AGENTS[0])] == [5, 3, 2]
    desk.now = 8700
    limit_anew(desk)
    assert [used_by(desk, agent) for agent in ("ann", "cid", AGENTS[0])] == [5, 0, 2]
    desk.now = 9700
    limit_anew(desk)
    assert [used_by(desk, agent) for agent in ("ann", AGENTS[0])] == [5, 1]
    desk.now = 70_000
    desk.record(agent="cid", want=False)
    limit_anew(desk)
    assert [used_by(desk, agent) for agent in ("ann", "cid")] == [0, 1]


@pytest.mark.usefixtures("at_once")
def test_what_was_rolled_back_was_not_used(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer has read what it had written in the transaction that failed then."""
    assert isinstance(desk.store, SqliteStore)
    desk.record(agent="bob", want=False)
    limit = desk.limiting(10**6, "1h", subject=EACH)

    def fail() -> None:
        raise RuntimeError("before the COMMIT")

    with monkeypatch.context() as patch:
        patch.setattr(desk.store._writer, "finish", fail)  # pyright: ignore[reportPrivateUsage] - where it fails
        with pytest.raises(RuntimeError):
            desk.apply(desk.recording(used(7), agent="bob"), limit, desk.recording(agent="bob"))
    desk.now = 1
    desk.record(agent="cid")
    desk.apply(limit)
    assert desk.record(agent="bob").limits[0].used == 2


@pytest.mark.usefixtures("at_once")
def test_a_writer_reads_a_little_at_a_time(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_scope, "STEP", 50)
    assert isinstance(desk.store, SqliteStore)
    use(desk, 10)
    desk.limit(10**6, "1h", subject=EACH)
    taken: list[int] = []
    for agent in AGENTS:
        applied, steps = applied_in(desk.store, desk.recording(agent=agent), desk.now_us)
        (recorded,) = applied.results
        assert isinstance(recorded, Recorded)
        assert recorded.limits[0].used == 11
        taken.append(steps)
    assert max(taken) < 2 * min(taken[:3]), "by itself, and a step"
    assert max(taken[10:]) < min(taken[:3]) / 3, "then all is known"


@pytest.mark.usefixtures("at_once")
def test_a_clock_that_goes_back_sees_what_there_was(desk: Desk) -> None:
    """As far as it may: behind what somebody looked at, not behind what was recorded."""
    desk.now = 100
    desk.record(agent="ann", want=False)
    limit_anew(desk)
    for moment, expected in ((4000, 0), (200, 1), (4000, 0)):
        desk.now = moment
        assert used_by(desk, "ann") == expected


@pytest.mark.usefixtures("at_once")
def test_what_was_read_of_former_windows_is_not_kept(desk: Desk) -> None:
    assert isinstance(desk.store, SqliteStore)
    limit_anew(desk)
    for hour in range(5):
        desk.now = 3600 * hour
        use(desk, 1)
        limit_anew(desk)
        assert used_by(desk, AGENTS[0]) == (1 if hour == 0 else 2)
    with desk.store.snapshot() as reads:
        (walk,) = reads.book.by_scope()._walks.values()  # pyright: ignore[reportPrivateUsage] - what it keeps
    kept = walk._found  # pyright: ignore[reportPrivateUsage] - as before
    assert sum(map(len, kept.values())) <= 2 * 3 * len(AGENTS)
