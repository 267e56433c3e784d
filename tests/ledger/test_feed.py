"""What subscribers get: after the COMMIT, each thing once, and nobody waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from anyio import fail_after, to_thread

from agent_meter_mcp.core.commands import Record, SetAgent, SetLimit, Settle
from agent_meter_mcp.core.errors import Forbidden, Overloaded, StoreBusy
from agent_meter_mcp.core.models import (
    Alert,
    AuditEntry,
    Correction,
    Refused,
    StoredEvent,
    Usage,
    UsageEvent,
    Who,
)
from agent_meter_mcp.core.queries import AgentsQuery, EventsQuery, UsageFilter
from agent_meter_mcp.intake import Report
from agent_meter_mcp.ledger import FeedItem, Ledger, Subscription
from agent_meter_mcp.ledger.feed import CAUGHT_UP_MAX, Watch
from agent_meter_mcp.store.sqlite import open_store

from ..store.sqlite.test_restored import copy
from .conftest import (
    AGENT,
    OPERATOR,
    SERVICE,
    VIEWER,
    AnyStore,
    ManualClock,
    ledger_on,
    report,
    requests_per_day,
)

if TYPE_CHECKING:
    from agent_meter_mcp.store.base import Store

FOREVER = 3600.0


async def take(items: Subscription, count: int) -> list[FeedItem]:
    """The next items, which have to come."""
    with fail_after(30):
        return [await anext(items) for _ in range(count)]


def brief(item: FeedItem) -> str:
    match item:
        case StoredEvent(outcome="rejected"):
            return f"refused {item.event.who.agent} {item.count}"
        case StoredEvent():
            return f"{item.event.id} {item.outcome}"
        case Alert():
            return f"alert {item.number} {item.threshold}"
        case AuditEntry():
            return f"{item.action} {item.target}"


async def briefs(items: Subscription, count: int) -> list[str]:
    return [brief(item) for item in await take(items, count)]


@asynccontextmanager
async def two_processes(tmp_path: Path, clock: ManualClock) -> AsyncGenerator[tuple[Ledger, Ledger]]:
    """Ledgers on one file, as two processes have it; the first looks often for what the other does."""
    path = str(tmp_path / "meter.db")
    here, there = AnyStore(open_store(path)), AnyStore(open_store(path))
    async with ledger_on(here, clock, poll_s=0.001) as mine, ledger_on(there, clock) as theirs:
        yield mine, theirs


async def test_events_come_after_their_commit(ledger: Ledger, store: AnyStore, clock: ManualClock) -> None:
    async with ledger, ledger.subscribe() as items:
        store.seen.hold()
        recording = asyncio.create_task(ledger.record(OPERATOR, report(id="one", operation="chat")))
        with fail_after(30):
            assert await to_thread.run_sync(store.seen.entered.wait, 5)
        getting = asyncio.create_task(take(items, 1))
        await asyncio.sleep(0)
        assert not getting.done()
        store.seen.let_go()
        (item,) = await getting
        recorded = await recording
        assert isinstance(item, StoredEvent)
        assert (item.seq, item.event.id, item.event.operation) == (recorded.seq, "one", "chat")
        assert item == store.event("openai", "one")


async def test_replays_are_no_news_and_corrections_are(ledger: Ledger) -> None:
    async with ledger, ledger.subscribe() as items:
        await ledger.record(OPERATOR, report(id="one"))
        (first,) = await take(items, 1)
        await ledger.record(OPERATOR, report(id="one"))
        await ledger.record(OPERATOR, Report(Who("bot", "openai"), Usage(requests=3), id="one"))
        (corrected,) = await take(items, 1)
        await ledger.record(OPERATOR, report(id="two"))
        (second,) = await take(items, 1)
        assert [brief(one) for one in (first, corrected, second)] == [
            "one accepted",
            "one accepted",
            "two accepted",
        ]
        assert isinstance(first, StoredEvent)
        assert isinstance(corrected, StoredEvent)
        assert (corrected.seq, corrected.event.usage.requests) == (first.seq, 3)


async def test_a_settled_reservation_is_an_event(ledger: Ledger, store: AnyStore) -> None:
    async with ledger, ledger.subscribe() as items:
        held = (await ledger.reserve(OPERATOR, report(operation="chat"))).reservation
        assert held is not None
        await ledger.settle(OPERATOR, Settle(held.reservation_id, Usage(units_micro=5), status_code=200))
        estimated = (await ledger.reserve(OPERATOR, report(id="two"))).reservation
        assert estimated is not None
        await ledger.settle(OPERATOR, Settle(estimated.reservation_id, None))
        unused = (await ledger.reserve(OPERATOR, report())).reservation
        assert unused is not None
        await ledger.release(OPERATOR, unused.reservation_id)
        await ledger.record(OPERATOR, report(id="last"))
        first, second, last = await take(items, 3)
        assert first == store.event("openai", held.reservation_id)
        assert second == store.event("openai", "two")
        assert brief(last) == "last accepted"


async def test_refusals_alerts_and_control_actions_are_news_at_once(
    store: AnyStore, clock: ManualClock
) -> None:
    async with ledger_on(store, clock, poll_s=FOREVER) as ledger, ledger.subscribe() as items:
        await ledger.set_limit(OPERATOR, requests_per_day(), 2)
        assert (await briefs(items, 1))[0].startswith("set_limit")
        await ledger.record(OPERATOR, report(id="one"))
        assert await briefs(items, 2) == ["one accepted", "alert 1 50"]
        await ledger.record(OPERATOR, report(id="two"))
        assert await briefs(items, 3) == ["two accepted", "alert 2 80", "alert 3 100"]
        await ledger.reserve(OPERATOR, report())
        await ledger.reserve(OPERATOR, report())
        assert await briefs(items, 2) == ["refused bot 1"] * 2
        await ledger.set_switch(OPERATOR, "agent", "bot", True, "it loops")
        (entry,) = await take(items, 1)
        assert isinstance(entry, AuditEntry)
        assert (entry.actor, entry.reason) == ("olga", "it loops")


async def test_what_other_processes_do_is_news_once(tmp_path: Path, clock: ManualClock) -> None:
    async with two_processes(tmp_path, clock) as (mine, theirs), mine.subscribe() as items:
        await theirs.set_limit(OPERATOR, requests_per_day(), 10, thresholds=(10, 20, 30, 40, 50))
        assert (await briefs(items, 1))[0].startswith("set_limit")
        for ledger in (theirs, mine, theirs, mine, theirs):
            await ledger.record(OPERATOR, report())
        alerts: list[int] = []
        with fail_after(30):
            while len(alerts) < 5:
                item = await anext(items)
                alerts += [item.number] if isinstance(item, Alert) else []
        assert alerts == [1, 2, 3, 4, 5]
        await mine.set_agent(OPERATOR, "bot", {"tier": "free"})
        await theirs.set_agent(OPERATOR, "bot", {"tier": "paid"})
        actions: list[str] = []
        with fail_after(30):
            while len(actions) < 2:
                item = await anext(items)
                assert not isinstance(item, Alert)
                actions += [item.action] if isinstance(item, AuditEntry) else []


async def test_refusals_of_other_processes_are_news_and_what_they_grow_by(
    tmp_path: Path, clock: ManualClock
) -> None:
    async with two_processes(tmp_path, clock) as (mine, theirs), mine.subscribe() as items:
        await theirs.set_limit(OPERATOR, requests_per_day(), 0)
        await take(items, 1)
        assert not (await theirs.check(OPERATOR, Who("bot", "openai"), Usage())).allowed
        assert not (await theirs.gate(OPERATOR, Who("bot", "openai"), Usage())).allowed
        (first,) = await take(items, 1)
        assert isinstance(first, StoredEvent)
        assert (first.outcome, first.count, first.event.who.agent) == ("rejected", 1, "bot")
        for ledger in (theirs, mine, theirs, theirs, mine):
            assert not (await ledger.gate(OPERATOR, Who("bot", "openai"), Usage())).allowed
        await theirs.agents(OPERATOR, AgentsQuery())  # has what is folded written
        await mine.agents(OPERATOR, AgentsQuery())
        grown, more = 0, first
        while grown < 5:
            (more,) = await take(items, 1)
            assert isinstance(more, Refused)
            assert (more.seq, more.event) == (first.seq, first.event)
            grown += more.count
        clock.advance(10)
        assert not (await theirs.gate(OPERATOR, Who("bot", "openai"), Usage())).allowed
        (later,) = await take(items, 1)
        assert isinstance(later, StoredEvent)
        assert (grown, later.count, later.seq > first.seq) == (5, 1, True)
        assert isinstance(more, Refused) and more.total == 6
        (page,) = (await mine.events(OPERATOR, EventsQuery(UsageFilter(until_us=later.seq)))).events
        assert (page.seq, page.event, page.count) == (first.seq, first.event, 6)


async def test_usage_of_several_processes_is_news_once_and_in_its_order(
    tmp_path: Path, clock: ManualClock
) -> None:
    async with two_processes(tmp_path, clock) as (mine, theirs), mine.subscribe() as items:

        async def write(ledger: Ledger, who: str) -> None:
            for number in range(100):
                await ledger.record(OPERATOR, report(id=f"{who} {number}"))

        await asyncio.gather(write(mine, "mine"), write(theirs, "theirs"))
        heard = await take(items, 200)
        seqs = [item.seq for item in heard if isinstance(item, StoredEvent)]
        assert (len(seqs), seqs) == (200, sorted(set(seqs)))
        await theirs.record(OPERATOR, Report(Who("bot", "openai"), Usage(requests=3), id="mine 7"))
        (corrected,) = await take(items, 1)
        assert isinstance(corrected, Correction)
        assert (corrected.event.id, corrected.event.usage.requests, corrected.number) == ("mine 7", 3, 1)
        assert (await theirs.corrections(OPERATOR, 0, 10)) == [corrected]
        assert (await theirs.corrections(OPERATOR, 1, 10)) == []
        assert (await theirs.corrections(AGENT, 0, 10)) == [corrected]


def test_more_usage_than_can_be_told_of_is_counted(store: AnyStore, clock: ManualClock) -> None:
    watch = Watch(as_store(store))
    watch.start()
    for part in range(3):
        store.apply(
            [
                Record(UsageEvent(f"{part}-{number}", Who("bot", "s"), Usage()))
                for number in range(CAUGHT_UP_MAX // 2)
            ],
            clock(),
        )
    heard = [item.event.id for item in watch.look(sure=False) if isinstance(item, StoredEvent)]
    assert (len(heard), heard[0], watch.lost) == (CAUGHT_UP_MAX, "1-0", CAUGHT_UP_MAX // 2)
    assert watch.look(sure=True) == []
    assert watch.lost == 0


def test_what_comes_after_a_backup_was_restored_is_news(tmp_path: Path, clock: ManualClock) -> None:
    """Alerts and corrections number on from where the backup was, below what was told of before."""
    file, backup = tmp_path / "meter.db", tmp_path / "copy.db"
    with closing(open_store(str(file))) as store:

        def use(event_id: str, requests: int = 1) -> None:
            clock.advance(1)
            store.apply([Record(UsageEvent(event_id, Who("bot", "s"), Usage(requests)))], clock())

        store.apply([SetLimit("one", requests_per_day(), 10, "op", thresholds=(10, 20, 30, 40, 50))], clock())
        use("first")
        copy(file, backup)
        for number in range(3):
            use(f"{number}")
            use(f"{number}", 2)
        watch = Watch(store)
        watch.start()
        copy(backup, file)
        assert watch.look(sure=False) == []
        use("second")
        assert [brief(item) for item in watch.look(sure=False)] == ["second accepted", "alert 2 20"]
        use("second", 2)
        (corrected, alert) = watch.look(sure=False)
        assert isinstance(corrected, Correction)
        assert (corrected.number, brief(alert)) == (1, "alert 3 30")
        assert watch.look(sure=True) == []


async def test_nothing_from_before_is_news(ledger: Ledger) -> None:
    async with ledger:
        await ledger.set_limit(OPERATOR, requests_per_day(), 2)
        await ledger.record(OPERATOR, report())
        async with ledger.subscribe() as items:
            await ledger.record(OPERATOR, report(id="new"))
            assert await briefs(items, 3) == ["new accepted", "alert 2 80", "alert 3 100"]
        async with ledger.subscribe() as items:
            await ledger.record(OPERATOR, report(id="newer"))
            await ledger.set_agent(OPERATOR, "bot", {"tier": "free"})
            assert [type(item) for item in await take(items, 2)] == [StoredEvent, AuditEntry]


async def test_the_store_is_looked_at_only_for_subscribers(store: AnyStore, clock: ManualClock) -> None:
    async with ledger_on(store, clock, poll_s=0.001) as ledger:
        await ledger.record(OPERATOR, report())
        assert store.seen.looks == 0
        async with ledger.subscribe(), ledger.subscribe():
            with fail_after(30):
                assert await to_thread.run_sync(store.seen.looked_five_times.wait, 5)
        await ledger.switches(OPERATOR)  # the reader is past any look that was under way
        looks = store.seen.looks
        for _ in range(20):
            await ledger.switches(OPERATOR)
        assert store.seen.looks == looks


async def test_who_does_not_keep_up_loses_the_oldest_and_knows(ledger: Ledger) -> None:
    async with ledger, ledger.subscribe(maximum=3) as slow, ledger.subscribe() as fast:
        for number in range(10):
            await ledger.record(OPERATOR, report(id=f"{number}"))
        assert await briefs(fast, 10) == [f"{number} accepted" for number in range(10)]
        assert await briefs(slow, 3) == [f"{number} accepted" for number in (7, 8, 9)]
        assert (slow.dropped, fast.dropped) == (7, 0)


async def test_a_subscription_ends_with_the_ledger_after_what_is_left(
    store: AnyStore, clock: ManualClock
) -> None:
    async with ledger_on(store, clock) as ledger:
        items = ledger.subscribe()
        await items.__aenter__()
        waiting = ledger.subscribe()
        await waiting.__aenter__()
        await ledger.record(OPERATOR, report(id="one"))
        assert await briefs(waiting, 1) == ["one accepted"]
        ended = asyncio.create_task(take(waiting, 1))
        await asyncio.sleep(0)
    with fail_after(30):
        assert [brief(item) async for item in items] == ["one accepted"]
        with pytest.raises(StopAsyncIteration):
            await ended
        with pytest.raises(Overloaded, match="shutting down"):
            await ledger.subscribe().__aenter__()


async def test_a_busy_store_is_looked_at_again(
    store: AnyStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, outcomes = Watch.look, list[str]()

    def busy_at_first(watch: Watch, *, sure: bool) -> list[FeedItem]:
        if outcomes.count("busy, sure") < 2:
            outcomes.append("busy, sure" if sure else "busy")
            raise StoreBusy("locked")
        outcomes.append("sure" if sure else "unsure")
        return look(watch, sure=sure)

    monkeypatch.setattr(Watch, "look", busy_at_first)
    async with ledger_on(store, clock, poll_s=0.001) as ledger, ledger.subscribe() as items:
        await ledger.set_agent(OPERATOR, "bot", {"tier": "free"})
        assert (await briefs(items, 1))[0].startswith("set_agent")
    assert outcomes[outcomes.index("busy, sure") :][:3] == ["busy, sure", "busy, sure", "sure"]


async def test_a_bug_while_looking_reaches_the_subscribers(
    store: AnyStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> list[FeedItem]:
        raise ZeroDivisionError

    monkeypatch.setattr(Watch, "look", broken)
    async with ledger_on(store, clock, poll_s=0.001) as ledger:
        async with ledger.subscribe() as items:
            with pytest.raises(ZeroDivisionError):
                await take(items, 1)
        assert (await ledger.record(OPERATOR, report())).status == "recorded"
        monkeypatch.undo()
        async with ledger.subscribe() as items:
            await ledger.record(OPERATOR, report(id="again"))
            assert await briefs(items, 1) == ["again accepted"]


async def test_an_agent_is_told_about_its_tree(ledger: Ledger) -> None:
    async with ledger:
        await ledger.record(OPERATOR, Report(Who("child", "openai", "bot"), Usage()))
        async with ledger.subscribe(AGENT) as mine, ledger.subscribe(VIEWER) as all_of_it:
            await ledger.set_limit(OPERATOR, requests_per_day("other"), 1, thresholds=(100,))
            await ledger.set_limit(OPERATOR, requests_per_day("child"), 3, thresholds=(100,))
            for agent in ("other", "bot", "child", "other", "child"):
                await ledger.record(OPERATOR, report(agent, id=agent + "'s"))
            await ledger.reserve(OPERATOR, report("other"))
            await ledger.record(OPERATOR, report("child", id="second"))
            await ledger.reserve(OPERATOR, report("child"))
            everything = await up_to_the_childs_refusal(all_of_it)
            own = await up_to_the_childs_refusal(mine)
            # "refused child" comes from the third event of the child, which also raised the second alert.
            assert set(own) - {"alert 2 100"} == {
                "bot's accepted",
                "child's accepted",
                "second accepted",
                "refused child 1",
            }
            assert {"other's accepted", "refused other 1"} <= set(everything) - set(own)


async def up_to_the_childs_refusal(items: Subscription) -> list[str]:
    seen: list[str] = []
    with fail_after(30):
        while not seen or seen[-1] != "refused child 1":
            seen.append(brief(await anext(items)))
    return seen


async def test_a_service_credential_hears_nothing(ledger: Ledger) -> None:
    async with ledger:
        with pytest.raises(Forbidden):
            ledger.subscribe(SERVICE)


async def test_many_come_and_go(ledger: Ledger) -> None:
    async with ledger:
        there: list[int] = []
        all_are_there = asyncio.Event()

        async def visit(number: int) -> str:
            async with ledger.subscribe() as items:
                there.append(number)
                if len(there) == 20:
                    all_are_there.set()
                while True:
                    (item,) = await take(items, 1)
                    if isinstance(item, StoredEvent) and item.event.who.agent == f"agent{number}":
                        return item.event.id

        visits = [asyncio.create_task(visit(number)) for number in range(20)]
        with fail_after(30):
            await all_are_there.wait()
            for number in range(20):
                await ledger.record(OPERATOR, report(f"agent{number}", id=f"{number}"))
            assert await asyncio.gather(*visits) == [f"{number}" for number in range(20)]


def test_more_actions_than_a_page_are_all_found(store: AnyStore, clock: ManualClock) -> None:
    watch = Watch(as_store(store))
    watch.start()
    store.apply([SetAgent(f"agent{number}", (("tier", "free"),), "olga") for number in range(250)], clock())
    found = watch.look(sure=False)
    assert [item.target for item in found if isinstance(item, AuditEntry)] == [
        f"agent agent{number}" for number in range(250)
    ]
    assert watch.look(sure=True) == []


def as_store(store: AnyStore) -> Store:
    return store  # pyright: ignore[reportReturnType]  it hands on what it does not have itself
