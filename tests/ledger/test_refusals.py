"""Refusals: judged in a snapshot, folded, kept, and never in anybody's way."""

from __future__ import annotations

import asyncio

import pytest
from anyio import fail_after

from agent_meter_mcp.core.commands import Refusal, Refuse, Reserve, Reserved
from agent_meter_mcp.core.errors import InvalidInput, StoreFull
from agent_meter_mcp.core.models import StoredEvent, Usage, Who
from agent_meter_mcp.core.queries import EventsQuery, SummaryQuery, UsageFilter
from agent_meter_mcp.ledger import Ledger, engine, refusals
from agent_meter_mcp.ledger.refusals import FOLDS_MAX, Refusals

from .conftest import NOON_US, OPERATOR, SECOND_US, AnyStore, ManualClock, ledger_on, report, requests_per_day


@pytest.fixture(autouse=True)
def counts_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """No timer writes counts while a test looks, and no answer waits; those that are about it set it
    themselves."""
    monkeypatch.setattr(engine, "FOLD_S", 3600.0)
    monkeypatch.setattr(refusals, "PAUSE_S", 0.0)


async def rejected(ledger: Ledger) -> int:
    return (await ledger.summary(OPERATOR, SummaryQuery(UsageFilter()))).total.rejected


def kept(store: AnyStore) -> list[int]:
    """The count of each refusal in the store itself, oldest first."""
    page: tuple[StoredEvent, ...] = store.events(EventsQuery(UsageFilter(outcome="rejected"), 500)).events
    return [event.count for event in reversed(page)]


def kinds(store: AnyStore) -> list[str]:
    """The commands that were applied, in order."""
    return [type(command).__name__ for batch in store.seen.batches for command in batch]


async def refused(ledger: Ledger, agent: str = "bot") -> Reserved:
    answer = await ledger.reserve(OPERATOR, report(agent))
    assert answer.status == "denied"
    return answer


async def test_a_flood_of_refusals_costs_a_few_writes(ledger: Ledger, store: AnyStore) -> None:
    async with ledger:
        await ledger.set_limit(OPERATOR, requests_per_day(), 0)

        async def hammer() -> None:
            for _ in range(200):
                await refused(ledger)

        with fail_after(60):
            await asyncio.gather(*(hammer() for _ in range(50)))
            assert await rejected(ledger) == 10_000
        # The limit; the first of each hammer, at once; the first of the fold; the count of the others.
        assert len(store.seen.batches) <= 6
        assert kinds(store).count("Reserve") == 50
        assert kinds(store).count("Refuse") == 2


async def test_who_comes_again_at_once_waits_longer_for_each_no(
    ledger: Ledger, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    wait = asyncio.sleep

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await wait(0)

    monkeypatch.setattr(refusals, "PAUSE_S", 0.01)
    monkeypatch.setattr(engine.asyncio, "sleep", sleep)
    async with ledger:
        await ledger.set_limit(OPERATOR, requests_per_day(), 0)
        for _ in range(3):
            await refused(ledger)
        await ledger.gate(OPERATOR, Who("bot", "openai"), Usage())
        assert pauses == [0.01, 0.02, 0.03]
        await refused(ledger, "another")
        assert len(pauses) == 3
        for _ in range(10):
            await refused(ledger)
        assert pauses[-3:] == [0.1, 0.1, 0.1]
        clock.now_us += SECOND_US
        await refused(ledger)
        await refused(ledger)
        assert pauses[-2:] == [0.1, 0.01]
        clock.now_us -= 3600 * SECOND_US
        await refused(ledger)
        assert pauses[-2:] == [0.1, 0.01]
        await refused(ledger)
        assert pauses[-2:] == [0.01, 0.01]


async def test_one_flood_leaves_the_writer_to_others(ledger: Ledger, store: AnyStore) -> None:
    async with ledger:
        await ledger.set_limit(OPERATOR, requests_per_day("bot"), 0)
        await refused(ledger)
        await refused(ledger)
        store.seen.hold()
        other = asyncio.create_task(ledger.record(OPERATOR, report("another")))
        with fail_after(30):
            await asyncio.gather(*(refused(ledger) for _ in range(100)))
        assert not other.done()
        store.seen.let_go()
        with fail_after(30):
            await other


async def test_the_first_refusal_of_a_fold_is_written_before_it_is_answered(
    ledger: Ledger, store: AnyStore
) -> None:
    async with ledger:
        await ledger.set_limit(OPERATOR, requests_per_day(), 0)
        await refused(ledger)
        assert kept(store) == [1]
        await refused(ledger)
        assert kept(store) == [2]
        await refused(ledger)
        await refused(ledger)
        assert kept(store) == [2]
        assert await rejected(ledger) == 4
        assert kept(store) == [4]
        assert kinds(store) == ["SetLimit", "Reserve", "Refuse", "Refuse"]


async def test_the_answer_looks_the_same_from_either_side(ledger: Ledger, store: AnyStore) -> None:
    async with ledger:
        await ledger.set_limit(OPERATOR, requests_per_day(), 3)
        await ledger.set_limit(OPERATOR, requests_per_day(None), 2)
        await ledger.set_limit(OPERATOR, requests_per_day("bot", "openai"), 1, action="warn")
        granted = await ledger.reserve(OPERATOR, report())
        await ledger.record(OPERATOR, report())
        written, read = await refused(ledger), await refused(ledger)
        assert kinds(store)[-2:] == ["Reserve", "Refuse"]
        assert granted.reservation is not None
        assert [reason.code for reason in written.decision.reasons] == ["limit", "soft_limit"]
        assert written.decision.reasons[0].holders[0].reservation_id == granted.reservation.reservation_id
        assert written.decision.retry_after_us is not None
        assert read.decision.retry_after_us is not None
        assert 0 <= written.decision.retry_after_us - read.decision.retry_after_us <= 10
        assert gist(written) == gist(read)


def gist(answer: Reserved) -> tuple[object, ...]:
    """Without the moment of the answer, which is a little later for the one that came second."""
    decided = answer.decision
    return (
        answer.status,
        answer.reservation,
        decided.allowed,
        decided.affordable,
        [state.replace(at_us=0) for state in decided.limits],
        [
            (one.code, one.asked, one.retry_at_us, one.holders, one.state and one.state.replace(at_us=0))
            for one in decided.reasons
        ],
    )


async def test_what_fits_again_is_granted_at_once(ledger: Ledger) -> None:
    async with ledger:
        await ledger.set_limit(OPERATOR, requests_per_day(), 0)
        await refused(ledger)
        await refused(ledger)
        await ledger.set_limit(OPERATOR, requests_per_day(), 1)
        assert (await ledger.reserve(OPERATOR, report())).status == "reserved"
        await refused(ledger)


async def test_a_replay_of_what_was_granted_is_not_refused(ledger: Ledger, store: AnyStore) -> None:
    async with ledger:
        await ledger.set_limit(OPERATOR, requests_per_day(), 1)
        first = await ledger.reserve(OPERATOR, report(id="mine"))
        await refused(ledger)
        await refused(ledger)
        replay = await ledger.reserve(OPERATOR, report(id="mine"))
        assert (replay.status, replay.reservation) == ("duplicate", first.reservation)


async def test_a_bad_request_is_an_error_for_the_refused_too(ledger: Ledger) -> None:
    async with ledger:
        await ledger.set_limit(OPERATOR, requests_per_day(), 0)
        await refused(ledger)
        for _ in range(2):
            with pytest.raises(InvalidInput, match="ttl"):
                await ledger.reserve(OPERATOR, report(), ttl_us=1)
            with pytest.raises(InvalidInput, match="operation"):
                await ledger.reserve(OPERATOR, report(operation=""))


async def test_after_a_second_the_writer_is_asked_again(
    ledger: Ledger, store: AnyStore, clock: ManualClock
) -> None:
    async with ledger:
        await ledger.set_limit(OPERATOR, requests_per_day(), 0)
        await refused(ledger)
        clock.advance(1.0)
        await refused(ledger)
        assert kinds(store) == ["SetLimit", "Reserve", "Reserve"]


async def test_folds_are_per_second_agent_service_and_limit(
    ledger: Ledger, store: AnyStore, clock: ManualClock
) -> None:
    async with ledger:
        await ledger.set_limit(OPERATOR, requests_per_day(), 0)
        for _ in range(3):
            for agent in ("bot", "child"):
                for _ in range(3):
                    await refused(ledger, agent)
            clock.advance(0.5)
        await ledger.set_switch(OPERATOR, "everything", None, True, "a test")
        for _ in range(3):
            await refused(ledger)
        assert await rejected(ledger) == 21
        page = store.events(EventsQuery(UsageFilter(outcome="rejected"), 500)).events
        folds = {
            (
                event.booked_at_us // SECOND_US - NOON_US // SECOND_US,
                event.event.who.agent,
                event.limit_id is None,
            )
            for event in page
        }
        assert folds == {
            (0, "bot", False),
            (0, "child", False),
            (1, "bot", False),
            (1, "child", False),
            (1, "bot", True),
        }
        assert sorted(event.count for event in page) == [3, 3, 3, 6, 6]


async def test_a_gate_keeps_its_refusals_and_a_check_keeps_none(ledger: Ledger, store: AnyStore) -> None:
    async with ledger:
        await ledger.set_limit(OPERATOR, requests_per_day(), 0)
        for service in ("openai", None):
            for _ in range(2):
                assert not (await ledger.check(OPERATOR, Who("bot", service), Usage())).allowed
        assert await rejected(ledger) == 0
        for service in ("openai", None):
            for _ in range(2):
                assert not (await ledger.gate(OPERATOR, Who("bot", service), Usage())).allowed
        assert await rejected(ledger) == 4
        assert kept(store) == [2, 2]
        assert (await ledger.gate(OPERATOR, Who("bot"), Usage(requests=0))).allowed
        assert kinds(store) == ["SetLimit", *["Refuse"] * 3]


async def test_a_no_stays_a_no_when_the_store_fails(ledger: Ledger, store: AnyStore) -> None:
    async with ledger:
        await ledger.set_limit(OPERATOR, requests_per_day(), 0)
        await refused(ledger)
        store.seen.failure = StoreFull("the disk is full")
        for _ in range(3):
            await refused(ledger)
        assert await rejected(ledger) == 1
        store.seen.failure = None
        assert await rejected(ledger) == 4


async def test_a_no_and_a_report_do_not_wait_for_a_writer_that_is_stuck(
    ledger: Ledger, store: AnyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ledger:
        await ledger.set_limit(OPERATOR, requests_per_day(), 0)
        await refused(ledger)
        monkeypatch.setattr(engine, "FOLD_S", 0.01)
        monkeypatch.setattr(engine, "COUNTS_WAIT_S", 0.01)
        store.seen.hold()
        with fail_after(30):
            await refused(ledger)
            await refused(ledger)
            assert await rejected(ledger) == 1
        store.seen.let_go()
        monkeypatch.setattr(engine, "COUNTS_WAIT_S", 3600.0)
        with fail_after(30):
            assert await rejected(ledger) == 3


async def test_counts_are_written_by_themselves(
    ledger: Ledger, store: AnyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "FOLD_S", 0.001)
    async with ledger, ledger.subscribe() as items:
        await ledger.set_limit(OPERATOR, requests_per_day(), 0)
        store.seen.failure = None
        for _ in range(5):
            await refused(ledger)
        counts = 0
        with fail_after(30):
            while counts < 5:
                item = await anext(items)
                counts += item.count if isinstance(item, StoredEvent) else 0
        assert kept(store) == [5]


async def test_counts_that_could_not_be_written_are_tried_again_by_themselves(
    ledger: Ledger, store: AnyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "FOLD_S", 0.001)
    async with ledger, ledger.subscribe() as items:
        await ledger.set_limit(OPERATOR, requests_per_day(), 0)
        await refused(ledger)
        store.seen.failure = StoreFull("the disk is full")
        await refused(ledger)
        store.seen.failure = None
        counts = 0
        with fail_after(30):
            while counts < 2:
                item = await anext(items)
                counts += item.count if isinstance(item, StoredEvent) else 0
        assert kept(store) == [2]


async def test_counts_are_written_when_the_ledger_closes(store: AnyStore, clock: ManualClock) -> None:
    async with ledger_on(store, clock) as ledger:
        await ledger.set_limit(OPERATOR, requests_per_day(), 0)
        for _ in range(10):
            await refused(ledger)
    last = store.seen.batches[-1][0]
    assert isinstance(last, Refuse)
    assert [one.count for one in last.refusals] == [8]


async def test_a_no_that_is_said_while_the_ledger_closes_is_kept_too(
    store: AnyStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with ledger_on(store, clock) as ledger:
        await ledger.set_limit(OPERATOR, requests_per_day(), 0)
        await refused(ledger)
        clock.advance(0.5)
        asked = [asyncio.create_task(refused(ledger)) for _ in range(3)]
        await asyncio.sleep(0)
    with fail_after(30):
        await asyncio.gather(*asked)
    applied = [command for batch in store.seen.batches for command in batch]
    assert sum(one.count for last in applied if isinstance(last, Refuse) for one in last.refusals) == 3
    assert caplog.messages == []


async def test_what_is_lost_at_the_end_is_said(
    store: AnyStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with ledger_on(store, clock) as ledger:
        await ledger.set_limit(OPERATOR, requests_per_day(), 0)
        await refused(ledger)
        store.seen.failure = StoreFull("the disk is full")
        await refused(ledger)
        await refused(ledger)
    assert caplog.messages == ["2 refusals could not be written"]


async def test_a_child_is_refused_in_a_snapshot_only_as_its_parent_named_it(
    ledger: Ledger, store: AnyStore
) -> None:
    async with ledger:
        await ledger.set_limit(OPERATOR, requests_per_day("bot"), 0)
        child = report("child").replace(who=Who("child", "openai", parent="bot"))
        for _ in range(3):
            assert (await ledger.reserve(OPERATOR, child)).status == "denied"
        await refused(ledger, "child")
        assert kinds(store) == ["SetLimit", "Reserve", "Refuse", "Reserve"]
        assert isinstance(store.seen.batches[-1][0], Reserve)


def refusal(number: int, second: int = 0, count: int = 1) -> Refusal:
    return Refusal(Who(f"agent{number}"), None, "self", Usage(), None, second * SECOND_US, count)


def test_more_folds_than_are_remembered_are_written_one_by_one() -> None:
    refusals = Refusals()
    for number in range(FOLDS_MAX):
        assert not refusals.add(refusal(number))
    assert not refusals.add(refusal(FOLDS_MAX))
    assert not refusals.add(refusal(FOLDS_MAX))
    assert refusals.add(refusal(0))
    assert [one.count for one in refusals.take(0)] == [1]
    assert refusals.unwritten == 0


def test_old_folds_are_forgotten_and_their_counts_are_not() -> None:
    refusals = Refusals()
    refusals.add(refusal(1))
    refusals.add(refusal(1))
    refusals.add(refusal(1, count=5))
    (taken,) = refusals.take(9 * SECOND_US)
    assert (taken.count, taken.first_at_us) == (6, 0)
    refusals.put_back([taken, refusal(2, second=3, count=2)])
    assert refusals.unwritten == 8
    assert {(one.who.agent, one.count) for one in refusals.take(9 * SECOND_US)} == {
        ("agent1", 6),
        ("agent2", 2),
    }
    assert not refusals.add(refusal(1))


def test_what_has_no_room_is_counted_as_lost() -> None:
    refusals = Refusals()
    for number in range(FOLDS_MAX):
        refusals.add(refusal(number))
    refusals.put_back([refusal(FOLDS_MAX, count=7)])
    assert (refusals.lost, refusals.unwritten) == (7, 7)


def test_who_was_refused_is_remembered_for_a_second() -> None:
    refusals = Refusals()
    refusals.note(Who("bot", "openai", project="x"), NOON_US)
    assert refusals.refused_lately(Who("bot", "openai"), NOON_US + SECOND_US - 1)
    assert not refusals.refused_lately(Who("bot", "openai"), NOON_US + SECOND_US)
    assert not refusals.refused_lately(Who("bot", "openai"), NOON_US - SECOND_US)
    assert not refusals.refused_lately(Who("bot", "other"), NOON_US)
    for number in range(FOLDS_MAX):
        refusals.note(Who(f"agent{number}"), NOON_US)
    assert refusals.refused_lately(Who(f"agent{FOLDS_MAX - 1}"), NOON_US)
    assert not refusals.refused_lately(Who("bot", "openai"), NOON_US)
