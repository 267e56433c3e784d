"""Usage that comes late, near a limit, is judged as the reference judges it, and does not read the ledger."""

from __future__ import annotations

import random
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent_meter_mcp.core.commands import Record, Recorded, Reserved, SetAgent, SetLimit, Settle
from agent_meter_mcp.core.models import LimitKey, Subject, Usage
from agent_meter_mcp.store.memory import MemoryStore
from agent_meter_mcp.store.sqlite import by_scope, open_store

from ..building import Desk, used
from ..test_state_machine import frequent_rollups
from .processes import PROOF
from .steps import applied_in, counted
from .test_catching_up import Crowd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent_meter_mcp.core.commands import Command

SECOND = 1_000_000
LIMITS = (
    (Subject(), "60s", 30),
    (Subject("agent", "*"), "10s", 5),
    (Subject(), "120s", 55),
    (Subject(), "hour", 90),
)


@pytest.fixture(params=["file", "reference"])
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    store = MemoryStore() if request.param == "reference" else open_store(str(tmp_path / "ledger.db"))
    yield Desk(store)
    store.close()


class Late(Crowd):
    """Usage and holds, of which many come some seconds or minutes late."""

    def wait(self) -> None:
        self.now_us += self._chance.choice((0, 1, 150_000, SECOND, SECOND, 3 * SECOND))

    def _command(self) -> Command:
        deed = self._chance.random()
        if deed < 0.12:
            return self._reserve()
        if deed < 0.2 and self._holds:
            return self._finish()
        return self._record_again() if deed < 0.3 and self._events else self._record()

    def _usage(self) -> Usage:
        return Usage(self._chance.choice((0, 1, 1, 2)))

    def _record(self) -> Record:
        late_us = self._chance.choice((0, 0, 1, 2, 4, 9, 11, 59, 61, 70, 130)) * SECOND
        occurred_us = self.now_us - late_us - self._chance.randrange(SECOND)
        record = super()._record()
        self._events[-1] = record.event.replace(occurred_at_us=occurred_us)
        return record.replace(event=self._events[-1])


def told(result: object) -> object:
    if isinstance(result, Recorded):
        return result.status, result.outcome
    return result.decision.allowed if isinstance(result, Reserved) else type(result)


@pytest.mark.parametrize("seed", range(6 * PROOF))
def test_what_comes_late_is_judged_by_all_that_lies_around_it(tmp_path: Path, seed: int) -> None:
    chance, path = random.Random(seed), str(tmp_path / "ledger.db")
    late, model = Late(chance), MemoryStore()
    seen: set[object] = set()
    with frequent_rollups(), ExitStack() as opened:
        one, other = (opened.enter_context(closing(open_store(path, synchronous="OFF"))) for _ in range(2))
        limits: list[Command] = [
            SetLimit(f"limit {number}", LimitKey(subject, None, "requests", window), most, "op")
            for number, (subject, window, most) in enumerate(LIMITS)
        ]
        for step in range(150):
            commands = limits if step == 0 else late.commands()
            # The other one's clock is behind, sometimes by more than a window.
            writer, behind_s = chance.choice(((one, 0), (one, 0), (other, chance.choice((0, 3, 70)))))
            now_us = late.now_us - behind_s * SECOND
            done = [told(result) for result in writer.apply(commands, now_us).results]
            assert done == [told(result) for result in model.apply(commands, now_us).results]
            seen.update(done)
            late.wait()
        assert list(one.verify()) == []
    assert {("recorded", "accepted"), ("recorded", "over_limit"), True, False} <= seen


@pytest.mark.parametrize("now", [100, 1000], ids=["in memory", "read in this transaction"])
def test_what_is_added_behind_the_edge_is_behind_it(desk: Desk, now: int) -> None:
    """More than a window before what comes next."""
    desk.limit(5, "60s")
    for moment, times in ((30.1, 2), (95, 3)):
        desk.now = moment
        desk.record(used(times))
    desk.now = now
    done = desk.apply(*[desk.recording(occurred=moment) for moment in (90.5, 30.2, 90.6, 90.7)])
    assert [one.outcome for one in done] == ["accepted", "accepted", "accepted", "over_limit"]


@pytest.mark.parametrize("now", [100, 1000], ids=["in memory", "read in this transaction"])
def test_what_comes_in_another_order_is_judged_by_its_own_moment(desk: Desk, now: int) -> None:
    desk.limit(2, "60s")
    for moment in (30.2, 30.7):
        desk.now = moment
        desk.record()
    desk.now = now
    done = desk.apply(*[desk.recording(occurred=moment) for moment in (90.8, 90.6)])
    assert [one.outcome for one in done] == ["accepted", "over_limit"]


@pytest.mark.parametrize(("moment", "outcome"), [(30.4, "accepted"), (30.6, "over_limit")])
@pytest.mark.parametrize("now", [90.95, 1000], ids=["in memory", "read in this transaction"])
def test_what_came_a_window_later_does_not_lie_around_it(
    desk: Desk, now: float, moment: float, outcome: str
) -> None:
    desk.limit(1, "60s")
    desk.now = 90.5
    desk.record()
    desk.now = now
    assert desk.record(occurred=moment).outcome == outcome


def test_a_hold_that_is_settled_among_late_ones_is_usage_alone(desk: Desk) -> None:
    desk.limit(3, "hour")
    desk.now = 3590
    held = desk.hold()
    desk.now = 3610
    first, _, last = desk.apply(
        desk.recording(occurred=3580), Settle(held.reservation_id, None), desk.recording(occurred=3581)
    )
    assert [first.outcome, last.outcome] == ["accepted", "accepted"]


def test_who_comes_under_a_limit_among_late_ones_brings_what_it_has_used(desk: Desk) -> None:
    desk.limit(3, "hour", subject=Subject("agent", "pam"))
    desk.now = 3590
    desk.record(used(2), "cy")
    desk.now = 3610
    first, _, last = desk.apply(
        desk.recording(agent="pam", occurred=3580),
        SetAgent("cy", (("parent", "pam"),), "op"),
        desk.recording(agent="pam", occurred=3581),
    )
    assert [first.outcome, last.outcome] == ["accepted", "over_limit"]


@pytest.mark.parametrize("now", [3630, 10_000], ids=["a little late", "late by more than the window"])
def test_a_hundred_late_ones_near_a_limit_read_what_lies_around_them_once(tmp_path: Path, now: int) -> None:
    """What was used in the first minute is more than a window away, by the second and not by the minute."""
    taken: list[int] = []
    for several in (1, 100):
        with closing(open_store(str(tmp_path / f"{several}.db"), synchronous="OFF")) as store:
            desk = Desk(store)
            desk.apply(*[desk.recording(want=False) for _ in range(1000)])
            desk.limit(1000, "1h")
            desk.now = now
            desk.record(occurred=3610, want=False)
            late = [desk.recording(occurred=3615 + at / 100, want=False) for at in range(several)]
            with counted(store._writer.connection) as steps:  # pyright: ignore[reportPrivateUsage] - its own
                results = desk.apply(*late)
            assert {told(result) for result in results} == {("recorded", "accepted")}
            taken += steps
    assert taken[1] < taken[0] + 100 * 20, taken


def test_an_old_one_reads_what_lies_around_it_alone_whoever_opens_the_file(tmp_path: Path) -> None:
    """Not all that came since, as who works out the counters of many does."""
    path = str(tmp_path / "ledger.db")
    taken: list[int] = []
    with closing(open_store(path, synchronous="OFF")) as store:
        desk = Desk(store)
        desk.limit(10**6, "1h", subject=Subject("agent", "*"))
        for number in range(40):
            desk.now = 3600 * number
            desk.apply(*[desk.recording(want=False) for _ in range(100)])
    for _ in range(2):
        with closing(open_store(path, synchronous="OFF")) as store:
            desk.store = store
            for moment in range(by_scope.ALONE + 4):
                record = desk.recording(occurred=3600 + 300 * moment, want=False)
                taken.append(applied_in(store, record, desk.now_us)[1])
    assert max(taken) < 2 * sorted(taken)[len(taken) // 2], taken
