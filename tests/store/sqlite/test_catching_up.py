"""Counters that only took over what others wrote are as if they had been loaded from the file just now.

Two stores write the same file in turn, and a third one only reads. After every step they, and a store that
is opened for it, are asked for all that their counters hold. `METER_PROOF` makes it longer.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent_meter_mcp.core.commands import (
    Ask,
    Extend,
    LimitSet,
    Record,
    Recorded,
    Release,
    Reserve,
    Reserved,
    SetAgent,
    SetLimit,
    Settle,
)
from agent_meter_mcp.core.models import LimitKey, Subject, Usage, UsageEvent, Who
from agent_meter_mcp.store.memory import MemoryStore
from agent_meter_mcp.store.sqlite import SqliteStore, open_store
from agent_meter_mcp.store.sqlite.counters import Counter

from ..building import Desk, used
from ..test_state_machine import frequent_rollups
from .processes import PROOF
from .steps import applied_in, counted

if TYPE_CHECKING:
    from agent_meter_mcp.core.commands import Command
    from agent_meter_mcp.core.models import Metric

SECOND = 1_000_000
START_US = 1_792_893_590_000_000  # ten seconds before the hour in which clocks go back in Berlin
WINDOWS = ("1s", "2s", "60s", "90s", "61h", "hour", "day", "total")
SUBJECTS = (Subject(), Subject("agent", "*"), Subject("agent", "ann"), Subject("session", "*"))
CROWD = [Who(agent, "llm", None, None, session) for agent in ("ann", "bob") for session in ("s", "t")]
ANN = Who("ann", "llm")
BIG = Usage(10**6, input_tokens=10**6)
"""Fits nowhere: every rolling counter says what it holds exactly."""

PAUSES = (0, 0, 0, 1, 1, 500, 16_667, 100_000, SECOND, 1_500_000, 7 * SECOND, 100 * SECOND, 3600 * SECOND)
JUMPS = (-SECOND, -20_000, -3 * SECOND, 30 * 3600 * SECOND, -2 * 3600 * SECOND)


class Crowd:
    """By chance, commands that meet: the same few agents, sessions, windows and moments."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.now_us: int = START_US
        self._made = 0
        self._events: list[UsageEvent] = []
        self._holds: list[str] = []

    def wait(self) -> None:
        self.now_us += self._chance.choice(JUMPS if self._chance.random() < 0.04 else PAUSES)

    def commands(self) -> list[Command]:
        return [self._command() for _ in range(self._chance.choice((1, 1, 1, 2, 5)))]

    def _command(self) -> Command:
        deed = self._chance.random()
        if deed < 0.4 or not self._events:
            return self._record()
        if deed < 0.5:
            return self._record_again()
        if deed < 0.7 or not self._holds:
            return self._reserve()
        if deed < 0.96:
            return self._finish()
        if deed < 0.98:
            return SetAgent(self._chance.choice(("bob", "cyd")), (("parent", self._parent()),), "op")
        return self.limit()

    def _id(self) -> str:
        self._made += 1
        return f"id{self._made}"

    def _usage(self) -> Usage:
        return Usage(self._chance.randrange(3), input_tokens=self._chance.randrange(5))

    def _parent(self) -> str | None:
        return self._chance.choice((None, "ann"))

    def _record(self) -> Record:
        ago_us = self._chance.choice((None, None, None, None, 0, 20_000, SECOND, 50 * SECOND, 4000 * SECOND))
        occurred_us = None if ago_us is None else self.now_us - ago_us
        event = UsageEvent(self._id(), self._chance.choice(CROWD), self._usage(), occurred_at_us=occurred_us)
        self._events.append(event)
        return Record(event, want_limits=self._chance.random() < 0.5)

    def _record_again(self) -> Record:
        """The same, or with more tokens."""
        index = self._chance.randrange(max(0, len(self._events) - 12), len(self._events))
        event = self._events[index]
        tokens = (event.usage.input_tokens or 0) + self._chance.choice((0, 1, 3))
        self._events[index] = event.replace(usage=event.usage.replace(input_tokens=tokens))
        return Record(self._events[index], want_limits=self._chance.random() < 0.5)

    def _reserve(self) -> Reserve:
        number = self._id()
        self._holds.append(number)
        ttl_us = self._chance.choice((20_000, SECOND, 10 * SECOND, 120 * SECOND, 3600 * SECOND))
        return Reserve(number, number, self._chance.choice(CROWD), self._usage(), ttl_us, is_new=True)

    def _finish(self) -> Command:
        number = self._chance.choice(self._holds[-12:])
        deed = self._chance.random()
        if deed < 0.5:
            return Settle(number, self._chance.choice((None, self._usage())))
        return Release(number) if deed < 0.8 else Extend(number, self._chance.choice((1000, 60 * SECOND)))

    def limit(self) -> SetLimit:
        metric: Metric = self._chance.choice(("requests", "tokens"))
        key = LimitKey(
            self._chance.choice(SUBJECTS),
            self._chance.choice((None, "llm")),
            metric,
            self._chance.choice(WINDOWS),
        )
        return SetLimit(self._id(), key, self._chance.choice((5, 40, 1000)), "op", zone="Europe/Berlin")


def held_by(store: SqliteStore | MemoryStore, now_us: int) -> object:
    """All figures, and the exact ones of whoever might ask."""
    decisions = store.peek([Ask(who, usage) for who in CROWD for usage in (BIG, Usage())], now_us)
    return store.limits(None, now_us), decisions


@contextmanager
def stores(path: str) -> Generator[list[SqliteStore]]:
    """Three on one file."""
    opened = [open_store(path, synchronous="OFF") for _ in range(3)]
    try:
        yield opened
    finally:
        for store in opened:
            store.close()


@pytest.mark.parametrize("seed", range(3 * PROOF))
def test_counters_that_caught_up_are_as_if_they_were_loaded(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance, path = random.Random(seed), str(tmp_path / "ledger.db")
    crowd, model = Crowd(chance), MemoryStore()
    caught_up = _counted(monkeypatch)
    _summed(monkeypatch)
    with frequent_rollups(), stores(path) as (one, other, reader):
        for step in range(220):
            commands = [crowd.limit() for _ in range(6)] if step == 0 else crowd.commands()
            writer = chance.choice((one, one, one, other))
            done = writer.apply(commands, crowd.now_us).results
            assert [_told(result) for result in done] == [
                _told(result) for result in model.apply(commands, crowd.now_us).results
            ]
            if chance.random() < 0.5:
                crowd.wait()
            expected = held_by(model, crowd.now_us)
            fresh = open_store(path, synchronous="OFF")
            assert held_by(fresh, crowd.now_us) == expected
            fresh.close()
            for store in chance.sample((one, other, reader), chance.randrange(4)):
                assert held_by(store, crowd.now_us) == expected
            crowd.wait()
        assert list(reader.verify()) == []
    assert caught_up[True] > 100, "it is about those"


def _told(result: object) -> object:
    return result if isinstance(result, Recorded | Reserved | LimitSet) else type(result)


def _counted(monkeypatch: pytest.MonkeyPatch) -> dict[bool, int]:
    """How often a counter caught up (True), and how often it had to be loaded."""
    counts = {True: 0, False: 0}
    catch_up = Counter.catch_up

    def noted(counter: Counter, *arguments: object) -> bool:
        done = catch_up(counter, *arguments)  # pyright: ignore[reportArgumentType]  as it was called
        counts[done] += 1
        return done

    monkeypatch.setattr(Counter, "catch_up", noted)
    return counts


def _summed(monkeypatch: pytest.MonkeyPatch) -> None:
    """However a counter moved on, its sums are those of its buckets."""
    advance = Counter.advance

    def checked(counter: Counter, at_us: int) -> None:
        advance(counter, at_us)
        window = [cell for number, cell in counter.buckets.items() if number >= counter.oldest]
        before = [cell for number, cell in counter.buckets.items() if counter.kept <= number < counter.oldest]
        sums = sum(used for used, _ in window), sum(held for _, held in window), sum(map(sum, before))
        assert (counter.used, counter.held, counter.before) == sums
        gone = {number for number in counter.buckets if number < counter.kept}
        assert len(gone - counter.dirty) <= 2, "but for a head, and one that was"

    monkeypatch.setattr(Counter, "advance", checked)


@pytest.fixture
def desks(tmp_path: Path) -> Generator[tuple[Desk, Desk]]:
    """Of two processes at one file."""
    with stores(str(tmp_path / "ledger.db")) as (one, other, _):
        yield Desk(one), Desk(other)


def test_a_head_that_has_left_the_window_is_in_no_sum(desks: tuple[Desk, Desk]) -> None:
    one, other = desks
    one.limit(10, "1s")
    held = one.hold(used(2))
    one.now = other.now = 1.5
    assert other.peek().affordable[0] == 10
    one.settle(held.reservation_id, used(4))
    assert other.peek().affordable[0] == 10


def test_what_others_book_before_the_edge_is_behind_it(desks: tuple[Desk, Desk]) -> None:
    one, other = desks
    limit = one.limit(3, "60s")
    one.now = 0.2
    one.record()
    one.now = other.now = 60.5
    assert other.peek(used(3)).allowed, "by the exact edge"
    one.record(occurred=0.1)
    assert other.peek(used(3)).allowed
    assert other.state(limit).used == 2, "by buckets"


def test_what_has_left_the_window_is_not_read_again_when_others_have_written(
    desks: tuple[Desk, Desk],
) -> None:
    """Near a limit, all that was used in an hour's oldest minute: once for each usage of anybody else."""
    one, other = desks
    assert isinstance(other.store, SqliteStore)
    one.apply(*[one.recording() for _ in range(1000)])
    one.limit(1000, "1h")
    one.now = other.now = 3630
    assert other.record(id="first").outcome == "accepted", "by the exact edge, as all that follows"
    one.record()
    other.record(id="second")
    assert other.peek().allowed
    for number in range(3):
        one.now = other.now = one.now + 1
        one.record()
        with other.store.snapshot() as reads, counted(reads.connection) as looking:
            assert reads.peek([Ask(ANN, used())], other.now_us)[0].allowed
        applied, writing = applied_in(other.store, other.recording(id=f"{number}"), other.now_us)
        (recorded,) = applied.results
        assert isinstance(recorded, Recorded)
        assert recorded.outcome == "accepted"
        assert looking[0] < 30
        assert writing < 60


def test_what_others_add_to_the_bucket_that_is_leaving_has_left(desks: tuple[Desk, Desk]) -> None:
    """When it is the head: nobody has used anything since."""
    one, other = desks
    one.limit(3, "60s")
    one.now = 0.2
    one.record(used(2))
    one.now = other.now = 60.5
    assert other.peek(used(3)).allowed
    one.now = 0.3  # its clock went back
    one.record()
    assert other.peek(used(3)).allowed


def test_what_ends_in_a_head_that_is_kept_no_more_makes_no_room(desks: tuple[Desk, Desk]) -> None:
    """A duplicate brings a counter forward, and takes no moment: another process may be behind it."""
    one, other = desks
    other.now = 9
    other.limit(5, "60s")
    other.now = 10
    held = other.hold(used(5), ttl=3600)
    other.now = 80
    other.record(used(3), id="same", occurred=50, want=False)
    one.now = 150
    assert one.record(used(3), id="same", occurred=50).status == "duplicate"
    other.now = 100
    other.release(held.reservation_id)
    assert one.record(used(4), id="late", occurred=100, want=False).outcome == "over_limit"


def test_a_head_that_moved_on_is_seen_by_a_clock_that_went_back(desks: tuple[Desk, Desk]) -> None:
    one, other = desks
    one.limit(10, "2s")
    one.record()
    other.now = 2.5
    assert other.peek().affordable[0] == 10
    one.now = other.now = 0.01
    one.record()
    assert other.peek().affordable[0] == 8


def test_that_usage_began_earlier_is_seen_by_others(desks: tuple[Desk, Desk]) -> None:
    one, other = desks
    limit = one.limit(10, "total")
    one.now = other.now = 100
    one.record()
    one.record()
    began_us = other.state(limit).since_us
    one.record(occurred=50)
    state = other.state(limit)
    assert (state.since_us, state.used) == (began_us - 50 * SECOND, 3)


def test_holds_of_yesterday_that_end_at_midnight_are_nobodys_view(desks: tuple[Desk, Desk]) -> None:
    one, other = desks
    midnight = 57_600  # seconds after the desk's start
    one.now = midnight - 10
    one.limit(3, "day")
    one.hold(used(2), ttl=1)
    one.now = midnight
    one.switch(False)
    assert list(other.store.verify()) == []


def test_a_hold_that_another_process_has_ended_is_not_ended_again(desks: tuple[Desk, Desk]) -> None:
    one, other = desks
    limit = one.limit(10)
    held = one.hold(used(3))
    other.settle(held.reservation_id, used(2))
    assert one.settle(held.reservation_id, used(2)).status == "duplicate"
    assert (one.state(limit).used, one.state(limit).held) == (2, 0)


def test_a_hold_that_another_process_has_extended_is_settled_in_time(desks: tuple[Desk, Desk]) -> None:
    one, other = desks
    held = one.hold(ttl=2)
    other.extend(held.reservation_id, 60)
    one.now = 30
    assert not one.settle(held.reservation_id).late


def test_a_hold_that_is_over_and_still_in_the_file_is_taken_off_once(
    desks: tuple[Desk, Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever holds and dies leaves it there until somebody writes; until then every look read everything."""
    one, other = desks
    limit = one.limit(10, "60s")
    one.hold(used(4), ttl=1)
    loaded: list[Counter] = []
    load = Counter.load

    def noted(counter: Counter, *arguments: object) -> None:
        loaded.append(counter)
        load(counter, *arguments)  # pyright: ignore[reportArgumentType]  as it was called

    monkeypatch.setattr(Counter, "load", noted)
    other.now = 0.5
    assert (other.state(limit).held, other.peek().affordable[0]) == (4, 6)
    for second in range(2, 6):
        other.now = second
        assert (other.state(limit).held, other.peek().affordable[0]) == (0, 10)
    assert len(loaded) == 1
    other.now = 0.5
    assert other.state(limit).held == 4, "its clock went back to when the hold was open"
    one.now = other.now = 7
    one.record()
    assert (other.state(limit).used, other.state(limit).held) == (1, 0)
