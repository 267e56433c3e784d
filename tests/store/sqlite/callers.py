"""Callers that crowd one file: they record, replay, reserve, settle, release, let expire, and keep a log.

What an id stands for is derived from the id, so that a replay by any process has the same content. Every word
of the log has the time before the call and after the answer; `judge.py` compares the logs with the ledger.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from agent_meter_mcp.core.commands import Record, Recorded, Release, Reserve, Reserved, Settle
from agent_meter_mcp.core.errors import Conflict, MeterError
from agent_meter_mcp.core.models import LimitKey, Reservation, Subject, Usage, UsageEvent, Who
from agent_meter_mcp.store.sqlite import SqliteStore, open_store

from .processes import now_us

Log = list[dict[str, Any]]

ZONE = "Asia/Kathmandu"  # UTC+5:45: no boundary of its days or hours is one of UTC
TTL_US = 1_000_000
AGENTS = ("ada", "bob", "cyd", "dan")
CHILD_OF = {"bob": "ada"}

LIMITS: tuple[tuple[LimitKey, int, str], ...] = (
    (LimitKey(Subject(), "full", "requests", "total"), 250, "UTC"),
    (LimitKey(Subject(), "api", "tokens", "1s"), 600, "UTC"),
    (LimitKey(Subject(), "api", "cost_usd", "2s"), 1_200, "UTC"),
    (LimitKey(Subject("agent", "*"), "api", "requests", "3s"), 60, "UTC"),
    (LimitKey(Subject("agent", "ada"), "api", "tokens", "2s"), 400, "UTC"),
    (LimitKey(Subject(), "past", "tokens", "day"), 350, ZONE),
    (LimitKey(Subject(), "past", "requests", "hour"), 25, ZONE),
    (LimitKey(Subject("agent", "*"), "past", "cost_usd", "1h"), 18, "UTC"),
    (LimitKey(Subject(), None, "requests", "total"), 10_000_000, "UTC"),
)
"""Subject, service, metric and window; the maximum; the zone."""


class Actions(Protocol):
    """The store and the ledger, as callers use them."""

    async def record(self, events: list[UsageEvent]) -> list[Recorded | MeterError]: ...

    async def reserve(self, event_id: str | None, who: Who, usage: Usage, number: str) -> Reserved: ...

    async def settle(self, reservation_id: str, usage: Usage | None) -> Recorded: ...

    async def release(self, reservation_id: str) -> bool:
        """False: it was settled already."""
        ...


class StoreActions:
    """Straight to the store; the event loop is the caller's own, in a thread of its own."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def record(self, events: list[UsageEvent]) -> list[Recorded | MeterError]:
        results = self._store.apply([Record(event) for event in events], now_us()).results
        return [result for result in results if isinstance(result, Recorded | MeterError)]

    async def reserve(self, event_id: str | None, who: Who, usage: Usage, number: str) -> Reserved:
        return self._one(Reserve(number, event_id or number, who, usage, TTL_US), Reserved)

    async def settle(self, reservation_id: str, usage: Usage | None) -> Recorded:
        return self._one(Settle(reservation_id, usage), Recorded)

    async def release(self, reservation_id: str) -> bool:
        return not isinstance(self._one(Release(reservation_id), Reservation | Conflict), Conflict)

    def _one(self, command: Any, kind: Any) -> Any:
        (result,) = self._store.apply([command], now_us()).results
        assert isinstance(result, kind), result
        return result


DEEDS_MIN = 50


class Caller:
    """One caller: a sequence of deeds by chance, and the log of them."""

    def __init__(self, name: str, actions: Actions, until_us: int) -> None:
        self._name = name
        self._actions = actions
        self._until_us = until_us
        self._chance = random.Random(name)
        self._made = 0
        self._late: list[tuple[int, str]] = []
        self.log: Log = []

    async def act(self) -> None:
        """Until that moment; on a slow machine until something of every kind has happened."""
        done = 0
        while now_us() < self._until_us or done < DEEDS_MIN:
            done += 1
            deed = self._chance.random()
            if self._late and self._late[0][0] < now_us():
                await self._settle(self._late.pop(0)[1])
            elif deed < 0.15:
                await self._record([self._event_id(self._chance.choice(("api", "full", "past", "past")))])
            elif deed < 0.25:
                size = self._chance.randint(2, 12)
                await self._record(
                    [self._event_id(self._chance.choice(("full", "past"))) for _ in range(size)]
                )
            else:
                await self._reserve()

    def _event_id(self, service: str) -> str:
        """A new id, or one of the pool that all processes share."""
        if self._chance.random() < 0.4:
            return f"{service}.pool.{self._chance.randrange(600)}"
        self._made += 1
        return f"{service}.{self._name}.{self._made}"

    async def _record(self, ids: list[str]) -> None:
        call = now_us()
        results = await self._actions.record([event_of(event_id) for event_id in ids])
        ack = now_us()
        for event_id, result in zip(ids, results, strict=True):
            assert isinstance(result, Recorded), result
            self.log.append(
                {"did": "record", "id": event_id, "call": call, "ack": ack, **_seen(result)},
            )

    async def _reserve(self) -> None:
        pooled = self._chance.random() < 0.15
        self._made += 1
        number = f"hold.{self._name}.{self._made}"
        event_id = f"hold.pool.{self._chance.randrange(400)}" if pooled else None
        who, estimate = hold_of(event_id or number)
        call = now_us()
        answer = await self._actions.reserve(event_id, who, estimate, number)
        entry: dict[str, Any] = {"did": "reserve", "call": call, "ack": now_us(), "status": answer.status}
        held = answer.reservation
        if held is None:
            at_us = answer.decision.limits[0].at_us
            entry |= {"at": at_us, "agent": who.agent, "stated": estimate.stated}
        else:
            entry |= {"hold": held.reservation_id, "id": held.event_id}
        self.log.append(entry)
        if held is not None:
            await self._finish(held)

    async def _finish(self, held: Reservation) -> None:
        end = end_of(held.event_id)
        if end == "settle":
            await self._settle(held.reservation_id)
        elif end == "expire":
            self._late.append((held.expires_at_us + 1_000, held.reservation_id))
        else:
            call = now_us()
            if await self._actions.release(held.reservation_id):
                self.log.append(
                    {"did": "release", "call": call, "ack": now_us(), "hold": held.reservation_id}
                )
            if end == "use all the same":
                await self._settle(held.reservation_id)

    async def _settle(self, reservation_id: str) -> None:
        call = now_us()
        result = await self._actions.settle(reservation_id, actual_of(reservation_id))
        self.log.append(
            {
                "did": "settle",
                "call": call,
                "ack": now_us(),
                "hold": reservation_id,
                "id": result.event_id,
                "late": result.late,
                **_seen(result),
            }
        )


def _seen(result: Recorded) -> dict[str, Any]:
    return {
        "status": result.status,
        "seq": result.seq,
        "outcome": result.outcome,
        "booked": result.booked_at_us,
    }


# -- what an id stands for -------------------------------------------------------------------------------


def event_of(event_id: str) -> UsageEvent:
    """The usage that an id of `_event_id` stands for; half of that of the service `past` is backdated."""
    service = event_id.partition(".")[0]
    chance = random.Random(event_id)
    usage = Usage(
        input_tokens=chance.randint(1, 12), cost_nano_usd=chance.randint(0, 9), cost_source="reported"
    )
    occurred_us = None
    if service == "past" and chance.random() < 0.5:
        back_s = chance.choice((0.5, 1, 2, 3_600, 90_000, 250_000)) * chance.random()
        occurred_us = start_us - int(back_s * 1_000_000)
    agent = chance.choice(AGENTS)
    return UsageEvent(event_id, Who(agent, service), usage, occurred_at_us=occurred_us)


def hold_of(event_id: str) -> tuple[Who, Usage]:
    """Who reserves, and the estimate; sometimes nothing is said about the cost."""
    chance = random.Random(event_id)
    cost = None if chance.random() < 0.2 else chance.randint(1, 40)
    usage = Usage(
        input_tokens=chance.randint(1, 40),
        cost_nano_usd=cost,
        cost_source="unpriced" if cost is None else "reported",
    )
    return Who(chance.choice(AGENTS), "api"), usage


def end_of(event_id: str) -> str:
    """How a reservation ends."""
    ends = ("settle", "settle", "settle", "release", "use all the same", "expire")
    return random.Random(f"end {event_id}").choice(ends)


def actual_of(reservation_id: str) -> Usage | None:
    """Below, at, or above what was held; the same for everybody who settles this reservation."""
    chance = random.Random(f"actual {reservation_id}")
    if chance.random() < 0.3:
        return None
    most = chance.choice((10, 60))
    return Usage(
        input_tokens=chance.randint(0, most), cost_nano_usd=chance.randint(0, most), cost_source="reported"
    )


start_us = 0
"""When the crowd was let in: the times in the past count back from here."""


# -- a process full of callers ---------------------------------------------------------------------------


def run(path: str, plan: dict[str, Any], *, ready: Callable[[], None], go: Callable[[], Any]) -> Log:
    """`plan`: name, callers, seconds, through (store or ledger)."""
    store = open_store(path)
    crowd = _through_ledger if plan["through"] == "ledger" else _through_store

    def start() -> int:
        global start_us
        ready()
        start_us = go()
        return start_us + int(plan["seconds"] * 1_000_000)

    return crowd(store, [f"{plan['name']}.{number}" for number in range(plan["callers"])], start)


def _through_store(store: SqliteStore, names: list[str], start: Callable[[], int]) -> Log:
    """Each caller in a thread of its own."""
    until_us = start()
    crowd = [Caller(name, StoreActions(store), until_us) for name in names]
    failures: list[BaseException] = []

    def work(caller: Caller) -> None:
        try:
            asyncio.run(caller.act())
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(caller,)) for caller in crowd]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    assert not failures
    return [entry for caller in crowd for entry in caller.log]


def _through_ledger(store: SqliteStore, names: list[str], start: Callable[[], int]) -> Log:
    """All callers on one event loop."""
    from .ledger_actions import with_ledger

    async def work(actions: Actions) -> Log:
        until_us = start()
        crowd = [Caller(name, actions, until_us) for name in names]
        await asyncio.gather(*(caller.act() for caller in crowd))
        return [entry for caller in crowd for entry in caller.log]

    done: Coroutine[Any, Any, Log] = with_ledger(store, work)
    return asyncio.run(done)


Work = Callable[[Actions], Awaitable[Log]]
