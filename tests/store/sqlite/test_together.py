"""A batch that fits for sure is recorded at once, and nobody can tell the difference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from agent_meter_mcp.core.commands import Record, Recorded
from agent_meter_mcp.core.errors import InvalidInput, MeterError
from agent_meter_mcp.core.models import LEDGER_MAX, LimitKey, Subject, Usage, UsageEvent, Who
from agent_meter_mcp.store.memory import MemoryStore
from agent_meter_mcp.store.sqlite import open_store, together
from agent_meter_mcp.store.sqlite.rollups import ROLL_AT

from ..building import Desk, at, subject, used

if TYPE_CHECKING:
    from agent_meter_mcp.core.commands import Command

EACH = subject("agent", "*")
MADE = together.record_together


class Both:
    """A file and the store that walks everything, which are told the same."""

    def __init__(self, path: Path, watched: pytest.MonkeyPatch) -> None:
        self.files = [open_store(str(path), synchronous="NORMAL") for _ in range(2)]
        self.file, self.model = Desk(self.files[0]), Desk(MemoryStore())
        self.at_once: list[bool] = []
        """Of each batch, whether it was recorded at once."""

        def record_together(writer: Any, commands: Sequence[Command]) -> Any:
            results = MADE(writer, commands)
            self.at_once.append(results is not None)
            return results

        watched.setattr(together, "record_together", record_together)

    def close(self) -> None:
        """Whatever was done, all views agree with the events."""
        assert list(self.file.store.verify()) == []
        for store in self.files:
            store.close()

    def do(self, commands: Callable[[Desk], Sequence[Command]], *, at: float, by: int = 0) -> list[Any]:
        """Applies the commands that a desk makes, and answers what both have answered.

        `by`: which of two processes that have the file open."""
        self.file.now = self.model.now = at
        self.file.store = self.files[by]
        made = commands(self.file)
        applied = self.file.store.apply(made, self.file.now_us)
        expected = self.model.store.apply(made, self.model.now_us)
        assert [_comparable(one) for one in applied.results] == [_comparable(one) for one in expected.results]
        assert applied.alerts == expected.alerts
        stands, should_stand = (desk.store.limits(None, desk.now_us) for desk in (self.file, self.model))
        assert stands == should_stand
        return list(applied.results)


def _comparable(result: object) -> object:
    return type(result) if isinstance(result, MeterError) else result


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Both]:
    stores = Both(tmp_path / "ledger.db", monkeypatch)
    yield stores
    stores.close()


def batch(count: int, **details: Any) -> Callable[[Desk], list[Record]]:
    """So many events of one request each."""
    return lambda desk: [desk.recording(want=False, **details) for _ in range(count)]


def test_all_that_fits_is_counted_once_and_for_everybody(both: Both) -> None:
    none: tuple[int, ...] = ()
    both.do(
        lambda desk: [
            desk.limiting(20, "1h", thresholds=none),
            desk.limiting(50, "day", subject=EACH, thresholds=none),
        ],
        at=0,
    )
    both.do(lambda desk: [*batch(4)(desk), *batch(3, agent="bob")(desk)], at=1)
    both.do(lambda desk: [*batch(2)(desk), *batch(1, agent="cy")(desk)], at=2)
    assert both.at_once == [True, True]
    both.do(lambda desk: [desk.limiting(11, "1h", thresholds=none)], at=3)
    outcomes = [recorded.outcome for recorded in both.do(batch(2), at=4)]
    assert (outcomes, both.at_once[-1]) == (["accepted", "over_limit"], False)


@pytest.mark.parametrize(
    ("limit", "at_once"),
    [
        ({"maximum": 9, "window": "60s"}, True),
        ({"maximum": 8, "window": "60s"}, False),
        ({"maximum": 9, "window": "day"}, True),
        ({"maximum": 8, "window": "day"}, False),
        ({"maximum": 8, "window": "day", "action": "warn"}, True),
        ({"maximum": 9, "window": "total"}, True),
        ({"maximum": 10, "window": "day", "thresholds": (90,)}, False),
        ({"maximum": 10, "window": "day", "thresholds": (91,)}, True),
        ({"maximum": 10, "window": "day", "thresholds": (10,)}, True),
        ({"maximum": 0, "window": "day", "metric": "tokens"}, True),
    ],
)
def test_it_ends_where_a_limit_or_a_threshold_is_reached(
    both: Both, limit: dict[str, Any], at_once: bool
) -> None:
    """Four events are there already, and five come."""
    details: dict[str, Any] = {"thresholds": (), **limit}
    both.do(lambda desk: [desk.limiting(**details)], at=0)
    for second in range(1, 5):
        both.do(batch(1), at=second)
    both.do(batch(5), at=6)
    assert both.at_once == [at_once]


def test_whoever_is_over_already_is_over_with_nothing_as_well(both: Both) -> None:
    both.do(lambda desk: [desk.limiting(3, "day", "tokens")], at=0)
    both.do(batch(1, usage=used(1, tokens=5)), at=1)
    outcomes = [recorded.outcome for recorded in both.do(batch(2), at=2)]
    assert (outcomes, both.at_once) == (["over_limit"] * 2, [False])


def test_a_total_begins_with_the_first_that_it_counts(both: Both) -> None:
    limit = both.do(lambda desk: [desk.limiting(9, "total", "tokens")], at=0)[0].limit
    both.do(lambda desk: [*batch(2)(desk), *batch(2, usage=used(1, tokens=1))(desk)], at=1)
    assert both.at_once == [False]
    assert both.file.state(limit).since_us == both.file.now_us + 2


@pytest.mark.parametrize(
    ("ago", "maximum", "window", "at_once"),
    [
        (20, 20, "60s", True),
        (59, 16, "60s", True),
        (59, 15, "60s", False),
        (61, 20, "60s", False),
        (20, 20, "day", True),
        (100_000, 20, "day", False),
    ],
)
def test_what_occurred_earlier_must_fit_with_all_around_it(
    both: Both, ago: float, maximum: int, window: str, at_once: bool
) -> None:
    """Ten a minute before, and five that came late."""
    both.do(lambda desk: [desk.limiting(maximum, window, thresholds=())], at=0)
    both.do(batch(10), at=140)
    both.do(batch(1), at=201)
    both.do(batch(5, occurred=202 - ago), at=202)
    assert both.at_once == [maximum >= 10, at_once]


def test_what_another_process_has_counted_leaves_less_room(both: Both) -> None:
    both.do(lambda desk: [desk.limiting(10, "60s", thresholds=(90,))], at=0)
    both.do(batch(3), at=1)
    both.do(batch(3), at=2, by=1)
    outcomes = [recorded.outcome for recorded in both.do(batch(6), at=3)]
    assert (outcomes, both.at_once) == (["accepted"] * 4 + ["over_limit"] * 2, [True, True, False])


def test_it_ends_where_a_window_does(both: Both) -> None:
    """The second event of the batch is the first of a day, the third of the next second of a minute."""
    both.do(lambda desk: [desk.limiting(20, "day", thresholds=())], at=0)
    both.do(batch(3), at=16 * 3600 - 0.000_001)
    both.do(lambda desk: [desk.limiting(20, "60s", thresholds=())], at=16 * 3600 + 1)
    both.do(batch(3), at=16 * 3600 + 2 - 0.000_002)
    both.do(batch(3), at=16 * 3600 + 3)
    assert both.at_once == [False, False, True]


def held(desk: Desk) -> list[Command]:
    return [desk.reserving(used(4), id="hold", event="held", ttl=10)]


@pytest.mark.parametrize("more", [{"id": "twice"}, {"id": "held"}, {"id": "known"}])
def test_an_id_that_is_taken_is_found(both: Both, more: dict[str, Any]) -> None:
    both.do(held, at=0)
    both.do(batch(1, id="known"), at=1)
    both.do(lambda desk: [*batch(1, id="twice")(desk), *batch(1)(desk), *batch(1, **more)(desk)], at=2)
    both.do(lambda desk: [*batch(1, id="known", service="other")(desk), *batch(1)(desk)], at=3)
    assert both.at_once[-1] and both.at_once[0] is (more == {"id": "known"})


def test_a_hold_that_is_over_counts_no_longer(both: Both) -> None:
    both.do(lambda desk: [desk.limiting(7, "day", thresholds=())], at=0)
    both.do(held, at=0)
    both.do(batch(7), at=20)
    assert both.at_once == [True]


def test_what_is_held_is_not_there_for_others(both: Both) -> None:
    both.do(lambda desk: [desk.limiting(7, "day", thresholds=())], at=0)
    both.do(held, at=0)
    assert [recorded.outcome for recorded in both.do(batch(4), at=1)] == ["accepted"] * 3 + ["over_limit"]
    assert both.at_once == [False]


def test_a_threshold_that_was_reached_before_it_was_set_is_told_with_the_next(both: Both) -> None:
    both.do(batch(6), at=0)
    both.do(lambda desk: [desk.limiting(10, "day", thresholds=(50,))], at=1)
    both.do(batch(2), at=2)
    assert both.file.thresholds() == [(50, 7)]
    assert both.at_once == [True, False]


def test_a_limit_of_nothing_is_over_with_the_first(both: Both) -> None:
    both.do(lambda desk: [desk.limiting(0, "day", action="warn", thresholds=(80, 100))], at=0)
    both.do(batch(2, usage=used(0)), at=1)
    both.do(batch(2), at=2)
    assert both.at_once == [True, False]
    assert both.file.thresholds() == [(80, 1), (100, 1)]


def test_who_is_not_trusted_with_the_past_counts_later(both: Both) -> None:
    both.do(batch(3, occurred=-600, trusted=False), at=0)
    assert {stored.booked_at_us for stored in both.file.events().events} == {at(-300) + n for n in range(3)}


def test_the_largest_number_is_not_passed_by_a_batch(both: Both) -> None:
    both.do(batch(2, usage=used(1, cost=LEDGER_MAX // 2)), at=0)
    both.do(batch(ROLL_AT, usage=used(0)), at=1)
    results = both.do(batch(2, usage=used(1, cost=1)), at=2)
    assert both.at_once == [True, True, False, False]
    assert [type(result) for result in results] == [Recorded, InvalidInput]


def test_a_hold_that_ends_within_it_ends_there(both: Both) -> None:
    """Ended by a later command that takes no seq, it would have kept the clock from being set right."""
    both.do(lambda desk: [desk.reserving(ttl=10)], at=0)
    both.do(batch(1, id="known"), at=1)
    both.do(batch(2), at=10 - 0.000_001)
    both.do(batch(1, id="known"), at=3600)
    (recorded,) = both.do(batch(1), at=20)
    assert recorded.seq == at(20)
    assert both.at_once == [False]


def test_what_needs_more_than_counting_is_done_one_by_one(both: Both) -> None:
    both.do(lambda desk: [desk.recording(), desk.recording()], at=0)
    both.do(lambda desk: [*batch(2)(desk), *held(desk)], at=1)
    both.do(batch(2, agent="bob", parent="ann"), at=2)
    both.do(batch(2, usage=Usage(1, cost_source="reported")), at=3)
    assert both.at_once == [False] * 4


def test_after_an_error_nothing_of_it_is_left(both: Both) -> None:
    """The whole batch was taken in when the file said that one of its ids is known."""
    both.do(lambda desk: [desk.limiting(9, "day", thresholds=())], at=0)
    both.do(batch(1, id="known"), at=1)
    results = both.do(lambda desk: [*batch(3)(desk), *batch(1, id="known")(desk)], at=2)
    assert [recorded.status for recorded in results] == ["recorded"] * 3 + ["duplicate"]
    assert both.at_once == [True, False]
    both.do(batch(4), at=3)
    both.do(batch(2), at=4)
    assert both.at_once[2:] == [True, False]


WHOS = st.builds(
    Who,
    st.sampled_from(["ann", "bob", "cy"]),
    st.sampled_from(["api", "llm"]),
    st.none(),
    st.none() | st.just("p"),
)
AMOUNTS = st.integers(0, 4)
LIMITS = st.tuples(
    st.builds(
        LimitKey,
        st.sampled_from([Subject(), Subject("agent", "*"), Subject("agent", "ann"), Subject("project", "p")]),
        st.none() | st.just("api"),
        st.sampled_from(["requests", "tokens", "cost_usd"]),
        st.sampled_from(["2s", "60s", "1h", "hour", "day", "total"]),
    ),
    st.sampled_from([0, 1]) | st.integers(2, 120),
    st.sampled_from([None, "reject", "warn"]),
    st.sampled_from([(), (), (50, 80)]),
)
AGOS_US = st.sampled_from([None, None, None, 30_000, 2_500_000])
BATCHES = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1]),
        st.sampled_from([0, 1, 40_000, 1_000_000, 3_300_000, 61_000_000]),
        st.lists(
            st.tuples(WHOS, AMOUNTS, AMOUNTS, AMOUNTS, AGOS_US),
            min_size=1,
            max_size=12,
        ),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150, deadline=None, print_blob=True)
@given(limits=st.lists(LIMITS, min_size=1, max_size=4), batches=BATCHES)
def test_batches_are_as_their_events_one_by_one(
    limits: list[Any], batches: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        both = Both(tmp_path_factory.mktemp("ledger") / "ledger.db", patched)

        def limiting(desk: Desk) -> list[Command]:
            return [
                desk.limiting(
                    maximum,
                    key.window,
                    key.metric,
                    subject=key.subject,
                    service=key.service,
                    action=action,
                    thresholds=thresholds,
                )
                for key, maximum, action, thresholds in limits
            ]

        both.do(limiting, at=0)
        now_us = 0
        for by, pause_us, events in batches:
            now_us += pause_us
            both.do(lambda desk, events=events: _records(desk, events), at=now_us / 1_000_000, by=by)
        both.close()
        event(f"at once: {sorted(set(both.at_once))}")


def _records(desk: Desk, events: list[Any]) -> list[Command]:
    return [
        Record(
            UsageEvent(
                desk.new_id("event"),
                who,
                used(requests, tokens=tokens, cost=cost),
                occurred_at_us=None if ago_us is None else desk.now_us - ago_us,
            )
        )
        for who, requests, tokens, cost, ago_us in events
    ]


def test_one_alone_is_no_batch(both: Both) -> None:
    (recorded,) = both.do(batch(1), at=0)
    assert isinstance(recorded, Recorded)
    assert both.at_once == []
