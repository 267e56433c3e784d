"""What may be asked of the ledger, and by whom. Every face uses this and nothing below it.

All methods belong to the event loop that entered the ledger (asyncio). Besides what they name, all may raise
InvalidInput, Forbidden, StoreError and Overloaded; nothing was written then.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from functools import partial
from os import urandom
from typing import TYPE_CHECKING, TypeVar

from anyio import to_thread

from agent_meter_mcp.core.check import TTL_DEFAULT_US
from agent_meter_mcp.core.commands import (
    Ask,
    Extend,
    LimitSet,
    Record,
    Recorded,
    Release,
    Reserve,
    Reserved,
    SetLimit,
    Settle,
    Switched,
)
from agent_meter_mcp.core.errors import InvalidInput, MeterError, StoreError
from agent_meter_mcp.core.models import (
    Agent,
    AuditEntry,
    Correction,
    Limit,
    Reservation,
    StoredEvent,
    Usage,
    Who,
)
from agent_meter_mcp.core.queries import SummaryQuery
from agent_meter_mcp.core.roles import allow
from agent_meter_mcp.intake import Intake, known_lineage

from . import sight
from .engine import Engine
from .feed import BACKLOG_MAX, Subscription
from .holds import Holds
from .keyring import Keyring
from .looking import Looking

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from agent_meter_mcp.core.decide import Decision, LimitState
    from agent_meter_mcp.core.limits import Policy
    from agent_meter_mcp.core.models import Action, KillSwitch, LimitKey, SwitchKind
    from agent_meter_mcp.core.queries import (
        AgentsPage,
        AgentsQuery,
        AlertView,
        EventsPage,
        EventsQuery,
        LimitView,
        Summary,
    )
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.intake import Prices, Report
    from agent_meter_mcp.store.base import Store

    from .feed import FeedItem
    from .looking import Shut

T = TypeVar("T")


class Ledger(Keyring):
    """`async with Ledger(store, prices, clock, new_id) as ledger`. Closes the store when it is left.

    `clock` answers microseconds since 1970, `new_id` makes an id from such a moment, `entropy` gives so many
    random bytes. At most `queue_max` commands wait; at most `batch_max` are applied in one transaction. While
    there are subscribers, the store is looked at every `poll_s` seconds for what other processes have
    committed.
    """

    def __init__(
        self,
        store: Store,
        prices: Prices,
        clock: Callable[[], int],
        new_id: Callable[[int], str],
        *,
        queue_max: int = 10_000,
        batch_max: int = 1024,
        poll_s: float = 1.0,
        entropy: Callable[[int], bytes] = urandom,
    ) -> None:
        engine = Engine(store, clock, queue_max=queue_max, batch_max=batch_max, poll_s=poll_s)
        super().__init__(store, engine, Intake(prices, new_id, partial(known_lineage, store)), clock, entropy)
        self._prices = prices
        self._batch_max = batch_max
        self._prices_loaded = False
        self._holds = Holds(store)

    async def __aenter__(self) -> Self:
        self._engine.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Writes what was accepted, answers everybody, ends the threads, closes the store."""
        await self._engine.close()

    # What agents do

    async def record(self, caller: Caller, report: Report) -> Recorded:
        """Usage that happened. It counts in any case. Raises Conflict when its id came with other content."""
        await self._load_prices(report.usage)
        return await self._engine.write(partial(self._record, caller, report, True), Recorded)

    async def record_many(self, caller: Caller, reports: Sequence[Report]) -> list[Recorded | MeterError]:
        """Each as `record`, in one transaction; at most `batch_max`. One that is wrong spoils no other.

        The answers have no states of limits: a batch has no use for them.
        """
        if len(reports) > self._batch_max:
            raise InvalidInput(
                "records", f"has {len(reports)} entries; at most {self._batch_max} are allowed"
            )
        if not reports:
            return []
        await self._load_prices(*[report.usage for report in reports])
        makes = [partial(self._record, caller, report, False) for report in reports]
        return await self._engine.write_all(makes, Recorded)

    async def check(self, caller: Caller, who: Who, usage: Usage) -> Decision:
        """Would this be allowed now? Changes nothing."""
        return (await self._peek(caller, who, usage))[1]

    async def gate(self, caller: Caller, who: Who, usage: Usage) -> Decision:
        """As `check`, for somebody whom a no will stop: so that is kept as a refusal."""
        ask, decision = await self._peek(caller, who, usage)
        if not decision.allowed:
            await self._engine.refuse(ask, decision, None, "self")
            await self._engine.pause(ask.who)
        return decision

    async def reserve(self, caller: Caller, report: Report, ttl_us: int = TTL_DEFAULT_US) -> Reserved:
        """A hold of the estimate in `report`. Raises Conflict when its id came with other content.

        Where the caller is cancelled it is let go of, unless the report has an id: it can be asked for again.
        """
        await self._load_prices(report.usage)
        # With an id of the caller's own it may be a replay of one that was granted: only the writer knows.
        if report.id is None and self._engine.refused_lately(report.who):

            def ask(now_us: int) -> Ask:
                command = self._intake.reserve(caller, report, ttl_us, now_us)
                return Ask(command.who, command.usage)

            asked, decision = await self._engine.peek(ask)
            if not decision.allowed:
                await self._engine.refuse(asked, decision, report.operation, report.measured_by)
                await self._engine.pause(asked.who)
                return Reserved("denied", decision, None)
        made: list[str] = []

        def make(now_us: int) -> Reserve:
            command = self._intake.reserve(caller, report, ttl_us, now_us)
            made.append(command.reservation_id)
            return command

        try:
            reserved = await self._engine.write(make, Reserved)
        except CancelledError:
            if report.id is None:
                # Behind the other one in the queue: by then there is a hold, if there will be one.
                self._engine.write_unawaited(lambda _: self._intake.release(made[0]), urgent=True)
            raise
        if reserved.reservation is None:
            await self._engine.pause(report.who)
        self._holds.made(reserved.reservation)
        return reserved

    async def settle(self, caller: Caller, settle: Settle) -> Recorded:
        """The actual usage of a reservation. Raises NotFound, Conflict."""
        if settle.usage is not None:
            await self._load_prices(settle.usage)

        def make(now_us: int) -> Settle:
            held = self._find_hold(caller, settle.reservation_id, now_us)
            return self._intake.settle(caller, held, settle, now_us)

        return await self._engine.write(make, Recorded)

    async def release(self, caller: Caller, reservation_id: str) -> Reservation:
        """Nothing was used. Raises NotFound, Conflict."""

        def make(now_us: int) -> Release:
            self._find_hold(caller, reservation_id, now_us)
            return self._intake.release(reservation_id)

        return await self._engine.write(make, Reservation)

    async def extend(self, caller: Caller, reservation_id: str, ttl_us: int) -> Reservation:
        """The hold lasts `ttl_us` from now. Raises NotFound, Conflict."""

        def make(now_us: int) -> Extend:
            self._find_hold(caller, reservation_id, now_us)
            return self._intake.extend(reservation_id, ttl_us)

        return await self._engine.write(make, Reservation)

    # What operators do

    async def set_agent(self, caller: Caller, agent_id: str, changes: dict[str, str | None]) -> Agent:
        """`changes` names of name, tier, owner and parent those that change; None clears."""
        return await self._engine.write(lambda _: self._intake.set_agent(caller, agent_id, changes), Agent)

    async def set_limit(
        self,
        caller: Caller,
        key: LimitKey,
        maximum: int,
        *,
        action: Action | None = None,
        zone: str | None = None,
        thresholds: tuple[int, ...] | None = None,
    ) -> tuple[LimitSet, LimitState | None]:
        """`maximum` is in the metric's integer unit. With the limit, its state now, if it can be told."""

        def make(now_us: int) -> SetLimit:
            return self._intake.set_limit(
                caller, key, maximum, now_us, action=action, zone=zone, thresholds=thresholds
            )

        done = await self._engine.write(make, LimitSet)
        try:
            views = await self._engine.read_long(partial(self._store.limits, None, self._clock()))
        except StoreError:  # the limit is set all the same
            return done, None
        states = (view.state for view in views if view.limit.limit_id == done.limit.limit_id)
        return done, next(states, None)

    async def remove_limit(
        self, caller: Caller, limit_id: str | None = None, key: LimitKey | None = None
    ) -> Limit:
        """By exactly one of the two. Raises NotFound."""
        return await self._engine.write(lambda _: self._intake.remove_limit(caller, limit_id, key), Limit)

    async def set_switch(
        self, caller: Caller, kind: SwitchKind, name: str | None, engaged: bool, reason: str | None
    ) -> Switched:
        """`name` is None for everything; `reason` is needed to engage. Agents may stop themselves."""
        return await self._engine.write(
            lambda _: self._intake.set_switch(caller, kind, name, engaged, reason), Switched
        )

    # Reading: `Looking` says who sees what.

    async def look(self, caller: Caller, read: Callable[[Looking], T], *, refusals: bool = True) -> T:
        """What `read`, which may block, finds: all of it at one moment, and what the caller may see.

        `refusals`: whether the last of them are wanted too, which may have to be written first.
        """
        allow(caller, "read")
        if refusals:
            await self._engine.write_refusals()

        def found() -> T:
            with self._store.snapshot() as reads:
                return read(Looking(reads, caller, self._clock()))

        return await self._engine.read_long(found)

    async def summary(self, caller: Caller, query: SummaryQuery) -> Summary:
        return await self.look(caller, lambda looking: looking.summary(query))

    async def events(self, caller: Caller, query: EventsQuery) -> EventsPage:
        return await self.look(caller, lambda looking: looking.events(query))

    async def event_pages(self, caller: Caller, query: EventsQuery) -> AsyncIterator[EventsPage]:
        """This page and all that are older. What is recorded meanwhile comes before the first."""
        while True:
            page = await self.events(caller, query)
            yield page
            if page.next_seq is None:
                return
            query = query.replace(before_seq=page.next_seq)

    async def agents(self, caller: Caller, query: AgentsQuery) -> AgentsPage:
        return await self.look(caller, lambda looking: looking.agents(query))

    async def limits(self, caller: Caller, who: Who | None = None) -> list[LimitView]:
        """All limits; for somebody, those that match, at every service if `who` names none."""
        return await self.look(caller, lambda looking: looking.limits(who), refusals=False)

    async def shut(self, caller: Caller, who: Who) -> Shut:
        """Where a `check` that names no service would be refused: it asks no limit of a single one."""
        if who.service is not None:
            return ()
        return await self.look(caller, lambda looking: looking.shut(who), refusals=False)

    async def switches(self, caller: Caller) -> list[KillSwitch]:
        """What is stopped now; for an agent, what stops it or its tree, and stopped services."""
        return await self.look(caller, Looking.switches, refusals=False)

    async def alerts(self, caller: Caller, after: int = 0, limit: int = 100) -> list[AlertView]:
        """The newest alerts with a number above `after`, newest first."""
        return await self.look(caller, lambda looking: looking.alerts(after, limit), refusals=False)

    async def corrections(self, caller: Caller, after: int, limit: int) -> list[Correction]:
        """The events that were corrected last, each once, with a number above `after`; newest first."""
        return await self.look(caller, lambda looking: looking.corrections(after, limit), refusals=False)

    async def audit(
        self, caller: Caller, before_seq: int | None = None, limit: int = 100
    ) -> list[AuditEntry]:
        """Control actions, newest first. Not for agents."""
        return await self.look(caller, lambda looking: looking.audit(before_seq, limit), refusals=False)

    async def reservations(self, caller: Caller) -> list[Reservation]:
        """The holds that are open now, oldest first."""
        return await self.look(caller, Looking.reservations, refusals=False)

    async def names(self, caller: Caller, kind: str, prefix: str = "", limit: int = 100) -> list[str]:
        """Known names of `kind` (agent, service, operation, model, project, session), for completion."""
        return await self.look(caller, lambda looking: looking.names(kind, prefix, limit), refusals=False)

    async def knows(self, caller: Caller, kind: str, name: str) -> bool:
        """Whether anybody has heard of an agent or a service (of any of `names`) by this name, or has it."""
        return name == caller.bound_to or name in await self.names(caller, kind, name, 1)

    def subscribe(self, caller: Caller | None = None, *, maximum: int = BACKLOG_MAX) -> Subscription:
        """What happens from now on: `async with ledger.subscribe() as items: async for item in items: ...`.

        Without a caller: everything. An agent gets what is about its own tree. At most `maximum` items wait
        for the subscriber; beyond that the oldest are lost, and counted.
        """
        if caller is not None:
            allow(caller, "read")
        concerns = partial(self._concerns, caller) if caller is not None and caller.role == "agent" else None
        return Subscription(self._engine.feed, concerns, maximum)

    async def changed(self, caller: Caller) -> int:
        """A number that is another one whenever something was committed, here or by another process."""
        allow(caller, "read")
        return await self._engine.read(self._store.changed)

    def now_us(self) -> int:
        """The ledger's clock: microseconds since 1970."""
        return self._clock()

    # How a caller's words get in

    async def _load_prices(self, *usages: Usage) -> None:
        """Before the first price is needed: loading the list takes a while, and others want to write."""
        if self._prices_loaded or all(
            usage.cost_nano_usd is not None or not usage.tokens for usage in usages
        ):
            return
        with suppress(MeterError):  # what is wrong with the operator's prices is told where one is needed
            await to_thread.run_sync(self._prices.price, Usage(model="-", input_tokens=0), self._clock(), "-")
        self._prices_loaded = True

    def _record(self, caller: Caller, report: Report, want_limits: bool, now_us: int) -> Record:
        return self._intake.record(caller, report, now_us, want_limits=want_limits)

    async def _peek(self, caller: Caller, who: Who, usage: Usage) -> tuple[Ask, Decision]:
        await self._load_prices(usage)
        return await self._engine.peek(partial(self._intake.ask, caller, who, usage))

    def _find_hold(self, caller: Caller, reservation_id: str, now_us: int) -> Reservation:
        """The reservation, if the caller may finish it. Blocks."""
        allow(caller, "use")
        held = self._holds.find(self._intake.release(reservation_id).reservation_id, now_us)
        self._intake.may_hold(caller, held.who)
        return held

    async def _policy(self, caller: Caller) -> Policy:
        allow(caller, "read")
        return await self._engine.read(self._store.policy)

    async def _concerns(self, caller: Caller, item: FeedItem) -> bool:
        if isinstance(item, StoredEvent) and item.event.who.agent == caller.bound_to:
            return True
        return sight.sees_item(caller, await self._policy(caller), item)
