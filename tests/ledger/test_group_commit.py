"""Writes gather, are answered after their COMMIT, and what goes wrong concerns nobody else."""

from __future__ import annotations

import asyncio
import gc
import threading
import traceback
import weakref

import anyio
import pytest
from anyio import fail_after, to_thread

from agent_meter_mcp.core.commands import Recorded, Release, Reserve, Settle
from agent_meter_mcp.core.errors import (
    Conflict,
    InvalidInput,
    MeterError,
    NotFound,
    Overloaded,
    StoreBusy,
    StoreFull,
)
from agent_meter_mcp.core.models import Usage, Who
from agent_meter_mcp.core.queries import EventsQuery, SummaryQuery, UsageFilter
from agent_meter_mcp.intake import Report
from agent_meter_mcp.ledger import Ledger

from .conftest import AGENT, OPERATOR, AnyStore, ManualClock, ledger_on, report


async def held_by_the_store(store: AnyStore) -> None:
    """Until the writer is inside `apply`."""
    with fail_after(30):
        assert await to_thread.run_sync(store.seen.entered.wait, 5)


async def count(ledger: Ledger) -> int:
    return (await ledger.summary(OPERATOR, SummaryQuery(UsageFilter()))).total.events


async def test_what_gathers_during_a_commit_is_one_transaction(ledger: Ledger, store: AnyStore) -> None:
    async with ledger:
        store.seen.hold()
        first = asyncio.create_task(ledger.record(OPERATOR, report()))
        await held_by_the_store(store)
        others = [asyncio.create_task(ledger.record(OPERATOR, report())) for _ in range(50)]
        await asyncio.sleep(0)
        store.seen.let_go()
        with fail_after(30):
            recorded = await asyncio.gather(first, *others)
        assert store.seen.sizes == [1, 50]
        assert len({one.event_id for one in recorded}) == 51
        assert await count(ledger) == 51


async def test_nobody_is_answered_before_the_commit(ledger: Ledger, store: AnyStore) -> None:
    async with ledger:
        store.seen.hold()
        task = asyncio.create_task(ledger.record(OPERATOR, report()))
        await held_by_the_store(store)
        assert not task.done()
        assert store.events(EventsQuery(UsageFilter())).events == ()
        store.seen.let_go()
        with fail_after(30):
            recorded = await task
        assert [event.seq for event in store.events(EventsQuery(UsageFilter())).events] == [recorded.seq]


async def test_writes_come_from_one_thread_and_not_the_loops(ledger: Ledger, store: AnyStore) -> None:
    async with ledger:
        await asyncio.gather(*(ledger.record(OPERATOR, report()) for _ in range(20)))
        await ledger.record(OPERATOR, report())
    assert len(store.seen.threads) == 1
    assert threading.get_ident() not in store.seen.threads


async def test_the_clock_says_when_it_was_recorded(ledger: Ledger, clock: ManualClock) -> None:
    async with ledger:
        clock.advance(1)
        assert (await ledger.record(OPERATOR, report())).seq == clock.now_us


async def test_a_transaction_has_a_largest_size(store: AnyStore, clock: ManualClock) -> None:
    async with ledger_on(store, clock, batch_max=8) as ledger:
        store.seen.hold()
        tasks = [asyncio.create_task(ledger.record(OPERATOR, report())) for _ in range(21)]
        await held_by_the_store(store)
        store.seen.let_go()
        with fail_after(30):
            await asyncio.gather(*tasks)
    assert sum(store.seen.sizes) == 21
    assert max(store.seen.sizes) == 8


async def test_reports_that_come_together_are_applied_together(store: AnyStore, clock: ManualClock) -> None:
    async with ledger_on(store, clock, batch_max=8) as ledger:
        store.seen.hold()
        first = asyncio.create_task(ledger.record(OPERATOR, report()))
        await held_by_the_store(store)
        groups = [
            asyncio.create_task(ledger.record_many(OPERATOR, [report(id=f"{name}{i}") for i in range(5)]))
            for name in "ab"
        ]
        await asyncio.sleep(0)
        store.seen.let_go()
        with fail_after(30):
            await first
            answers = await asyncio.gather(*groups)
        assert store.seen.sizes == [1, 5, 5]
        ids = [[one.event_id for one in answer if isinstance(one, Recorded)] for answer in answers]
        assert ids == [[f"{name}{i}" for i in range(5)] for name in "ab"]


async def test_more_reports_than_a_transaction_holds_are_refused(store: AnyStore, clock: ManualClock) -> None:
    async with ledger_on(store, clock, batch_max=8) as ledger:
        with pytest.raises(InvalidInput, match=r"records: has 9 entries; at most 8"):
            await ledger.record_many(OPERATOR, [report()] * 9)
        assert await ledger.record_many(OPERATOR, []) == []
    assert store.seen.batches == []


async def test_a_wrong_report_spoils_no_other(ledger: Ledger, store: AnyStore) -> None:
    async with ledger:
        await ledger.record(OPERATOR, report(id="known"))
        answers = await ledger.record_many(
            OPERATOR,
            [
                report(id="one"),
                Report(Who("bot"), Usage()),
                report(id="known", operation="another"),
                report(id="known"),
                report("no\nname"),
            ],
        )
        kinds = [type(answer) for answer in answers]
        assert kinds == [Recorded, InvalidInput, Conflict, Recorded, InvalidInput]
        assert [answer.status for answer in answers if isinstance(answer, Recorded)] == [
            "recorded",
            "duplicate",
        ]
        assert store.seen.sizes == [1, 3]
        assert await count(ledger) == 2


async def test_bad_input_is_its_callers_alone(ledger: Ledger, store: AnyStore) -> None:
    async with ledger:
        store.seen.hold()
        first = asyncio.create_task(ledger.record(OPERATOR, report()))
        await held_by_the_store(store)
        good = asyncio.create_task(ledger.record(OPERATOR, report()))
        bad = asyncio.create_task(ledger.record(OPERATOR, report(duration_ms=-1)))
        lost = asyncio.create_task(ledger.settle(OPERATOR, Settle("nobody", None)))
        await asyncio.sleep(0)
        store.seen.let_go()
        with fail_after(30):
            await first
            assert (await good).status == "recorded"
            with pytest.raises(InvalidInput, match="duration_ms"):
                await bad
            with pytest.raises(NotFound, match="nobody"):
                await lost
        assert store.seen.sizes == [1, 1]


class Text(str):
    """Which can be seen to go."""

    __slots__ = ("__weakref__",)


async def test_what_is_refused_is_dropped_at_once(ledger: Ledger) -> None:
    """Where nobody looks for garbage, too: an error's trace would keep all that the caller has sent."""

    async def refused(*, together: bool) -> weakref.ref[Text]:
        text = Text("x" * 10_000)
        wrong = report(metadata=text)
        if together:
            (answer,) = await ledger.record_many(OPERATOR, [wrong])
            assert isinstance(answer, InvalidInput)
        else:
            with pytest.raises(InvalidInput):
                await ledger.record(OPERATOR, wrong)
        return weakref.ref(text)

    gc.disable()
    try:
        async with ledger:
            sent = [await refused(together=together) for together in (True, False)]
            await ledger.record(OPERATOR, report())  # until then the writer has what it did last
            assert [text() for text in sent] == [None, None]
    finally:
        gc.enable()


async def test_nothing_is_applied_when_all_of_it_is_wrong(ledger: Ledger, store: AnyStore) -> None:
    async with ledger:
        with pytest.raises(InvalidInput, match="service"):
            await ledger.record(OPERATOR, Report(Who("bot"), Usage()))
    assert store.seen.batches == []


async def test_a_full_queue_refuses_and_then_takes_again(store: AnyStore, clock: ManualClock) -> None:
    async with ledger_on(store, clock, queue_max=4) as ledger:
        store.seen.hold()
        waiting = [asyncio.create_task(ledger.record(OPERATOR, report())) for _ in range(4)]
        await held_by_the_store(store)
        with pytest.raises(Overloaded, match=r"4 requests are waiting; nothing was written") as refused:
            await ledger.record(OPERATOR, report())
        assert refused.value.retryable
        with pytest.raises(Overloaded):
            await ledger.record_many(OPERATOR, [report()] * 4)
        store.seen.let_go()
        with fail_after(30):
            await asyncio.gather(*waiting)
            assert len(await ledger.record_many(OPERATOR, [report()] * 4)) == 4
        assert await count(ledger) == 8


async def test_who_stops_waiting_stops_nothing(ledger: Ledger, store: AnyStore) -> None:
    async with ledger:
        store.seen.hold()
        first = asyncio.create_task(ledger.record(OPERATOR, report()))
        await held_by_the_store(store)
        impatient = asyncio.create_task(ledger.record(OPERATOR, report(id="left")))
        patient = asyncio.create_task(ledger.record(OPERATOR, report(id="stayed")))
        await asyncio.sleep(0)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        store.seen.let_go()
        with fail_after(30):
            await first
            assert (await patient).event_id == "stayed"
            assert (await ledger.record(OPERATOR, report(id="left"))).status == "duplicate"


@pytest.mark.parametrize("taken", [True, False], ids=["taken", "waiting"])
async def test_a_hold_that_nobody_waits_for_any_more_is_let_go(
    ledger: Ledger, store: AnyStore, taken: bool
) -> None:
    """Nobody would end it: a request that is cancelled must not hold budget for a minute."""
    async with ledger:
        store.seen.hold()
        busy = None if taken else asyncio.create_task(ledger.record(OPERATOR, report()))
        if busy is not None:
            await held_by_the_store(store)
        gone = asyncio.create_task(ledger.reserve(OPERATOR, report()))
        named = asyncio.create_task(ledger.reserve(OPERATOR, report(id="named")))
        if taken:
            await held_by_the_store(store)
        else:
            await asyncio.sleep(0)
        for task in (gone, named):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        store.seen.let_go()
        with fail_after(30):
            if busy is not None:
                await busy
            await ledger.record(OPERATOR, report())  # behind them all
            assert [held.event_id for held in await ledger.reservations(OPERATOR)] == ["named"]
            assert (await ledger.reserve(OPERATOR, report(id="named"))).status == "duplicate"


async def test_a_hold_is_let_go_also_where_as_many_wait_as_may(store: AnyStore, clock: ManualClock) -> None:
    """Then it is that callers give up most."""
    async with ledger_on(store, clock, queue_max=1) as ledger:
        store.seen.hold()
        gone = asyncio.create_task(ledger.reserve(OPERATOR, report()))
        await held_by_the_store(store)
        with pytest.raises(Overloaded):
            await ledger.record(OPERATOR, report())
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        store.seen.let_go()
        await ledger.__aexit__(None, None, None)  # all that was accepted is written then
        written = [type(command) for batch in store.seen.batches for command in batch]
        assert written == [Reserve, Release]


@pytest.mark.parametrize(
    "failure", [StoreFull("the disk is full"), StoreBusy("locked"), ZeroDivisionError("a bug")]
)
async def test_a_failing_store_fails_the_whole_batch_and_no_later_one(
    ledger: Ledger, store: AnyStore, failure: Exception
) -> None:
    async with ledger:
        store.seen.hold()
        store.seen.failure = failure
        tasks = [asyncio.create_task(ledger.record(OPERATOR, report())) for _ in range(5)]
        group = asyncio.create_task(ledger.record_many(OPERATOR, [report()] * 3))
        await held_by_the_store(store)
        store.seen.let_go()
        with fail_after(30):
            assert await asyncio.gather(*tasks, return_exceptions=True) == [failure] * 5
            with pytest.raises(type(failure)):
                await group
            store.seen.failure = None
            assert (await ledger.record(OPERATOR, report())).status == "recorded"
        assert await count(ledger) == 1


async def test_a_failure_of_many_has_the_trace_of_one(ledger: Ledger, store: AnyStore) -> None:
    async with ledger:
        store.seen.hold()
        store.seen.failure = failure = StoreFull("the disk is full")
        many = [asyncio.create_task(ledger.record(OPERATOR, report())) for _ in range(100)]
        await held_by_the_store(store)
        store.seen.let_go()
        assert await asyncio.gather(*many, return_exceptions=True) == [failure] * 100
        # One batch, or two if the first was quick: each leaves its frames once, not once per caller.
        frames = traceback.extract_tb(failure.__traceback__)
        assert len(frames) < 20
        assert frames[-1].name == "before_apply"


async def test_a_report_that_cannot_be_examined_spoils_no_other(
    ledger: Ledger, store: AnyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object) -> list[str]:
        raise StoreBusy("locked")

    async with ledger:
        monkeypatch.setattr(store, "names", busy, raising=False)
        mine, childs = await ledger.record_many(AGENT, [report(), report("child")])
        assert isinstance(mine, Recorded)
        assert isinstance(childs, StoreBusy)


async def test_closing_does_what_was_asked_before(ledger: Ledger, store: AnyStore) -> None:
    async with ledger:
        store.seen.hold()
        first = asyncio.create_task(ledger.record(OPERATOR, report()))
        await held_by_the_store(store)
        queued = [asyncio.create_task(ledger.record(OPERATOR, report())) for _ in range(10)]
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(store.seen.let_go)
    assert first.done()
    assert [task.result().status for task in queued] == ["recorded"] * 10
    assert store.seen.closed
    assert sum(store.seen.sizes) == 11


async def test_cancelling_the_owner_closes_all_the_same(ledger: Ledger, store: AnyStore) -> None:
    late: list[asyncio.Task[Recorded]] = []
    with fail_after(30), anyio.CancelScope() as owner:
        async with ledger:
            store.seen.hold()
            late.append(asyncio.create_task(ledger.record(OPERATOR, report())))
            await held_by_the_store(store)
            asyncio.get_running_loop().call_soon(store.seen.let_go)
            owner.cancel()
            await anyio.sleep_forever()
    assert owner.cancelled_caught
    assert [task.result().status for task in late] == ["recorded"]
    assert store.seen.closed


async def test_a_closed_ledger_takes_nothing(ledger: Ledger) -> None:
    async with ledger:
        pass
    for call in (
        ledger.record(OPERATOR, report()),
        ledger.check(OPERATOR, Who("bot"), Usage()),
        ledger.summary(OPERATOR, SummaryQuery(UsageFilter())),
        ledger.switches(OPERATOR),
    ):
        with pytest.raises(Overloaded, match="shutting down"):
            await call


async def test_no_threads_are_left(ledger: Ledger) -> None:
    before = set(threading.enumerate())
    async with ledger:
        await ledger.record(OPERATOR, report())
        await ledger.check(OPERATOR, Who("bot"), Usage())
        assert {thread.name for thread in set(threading.enumerate()) - before} >= {
            "agent-meter-writer",
            "agent-meter-reader",
        }
    left = set(threading.enumerate()) - before
    assert [thread.name for thread in left if thread.name.startswith("agent-meter-")] == []


async def test_a_reservation_goes_its_ways(ledger: Ledger, store: AnyStore, clock: ManualClock) -> None:
    async with ledger:
        granted = await ledger.reserve(OPERATOR, report(operation="chat"), ttl_us=5_000_000)
        assert granted.status == "reserved"
        assert granted.reservation is not None
        number = granted.reservation.reservation_id
        assert granted.reservation.expires_at_us == clock.now_us + 5_000_000
        clock.advance(4)
        assert (await ledger.extend(OPERATOR, number, 9_000_000)).expires_at_us == clock.now_us + 9_000_000
        settled = await ledger.settle(OPERATOR, Settle(number, Usage(units_micro=7), status_code=200))
        assert (settled.status, settled.event_id, settled.late) == ("recorded", number, False)
        with pytest.raises(Conflict, match="settled"):
            await ledger.release(OPERATOR, number)
        again = await ledger.reserve(OPERATOR, report())
        assert again.reservation is not None
        assert (await ledger.release(OPERATOR, again.reservation.reservation_id)).state == "released"
        assert await ledger.reservations(OPERATOR) == []


async def test_no_call_of_the_ledger_blocks_the_event_loop(ledger: Ledger, nothing_blocks: None) -> None:
    async with ledger, ledger.subscribe():
        await ledger.set_agent(OPERATOR, "bot", {"tier": "free"})
        await ledger.record(OPERATOR, report())
        answers: list[Recorded | MeterError] = await ledger.record_many(OPERATOR, [report()] * 100)
        assert all(isinstance(answer, Recorded) for answer in answers)
        held = (await ledger.reserve(OPERATOR, report())).reservation
        assert held is not None
        await ledger.settle(OPERATOR, Settle(held.reservation_id, None))
        await ledger.set_switch(OPERATOR, "service", "openai", True, "a test")
        assert not (await ledger.gate(OPERATOR, Who("bot", "openai"), Usage())).allowed
        assert [switch.name for switch in await ledger.switches(OPERATOR)] == ["openai"]
        assert len(await ledger.limits(OPERATOR)) == 0
        assert (await ledger.events(OPERATOR, EventsQuery(UsageFilter(), 500))).events[
            0
        ].outcome == "rejected"
        assert await count(ledger) == 102
