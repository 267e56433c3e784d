"""What may be asked of the ledger, and by whom. Every face uses this and nothing below it.

All methods belong to the event loop that entered the ledger (asyncio). Besides what they name, all may raise
InvalidInput, Forbidden, StoreError and Overloaded; nothing was written then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from os import urandom
from typing import TYPE_CHECKING, cast

from anyio import to_thread

from agent_meter_mcp.core import check as bounds
from agent_meter_mcp.core.check import TTL_DEFAULT_US
from agent_meter_mcp.core.commands import (
    Ask,
    Extend,
    LimitSet,
    Record,
    Recorded,
    Release,
    Reserved,
    SetLimit,
    Settle,
    Switched,
)
from agent_meter_mcp.core.errors import Forbidden, InvalidInput, MeterError, StoreError
from agent_meter_mcp.core.models import (
    LEDGER_MAX,
    Agent,
    Alert,
    AuditEntry,
    Correction,
    Limit,
    Reservation,
    StoredEvent,
    Usage,
    Who,
)
from agent_meter_mcp.core.queries import SummaryQuery, UsageFilter
from agent_meter_mcp.core.roles import allow
from agent_meter_mcp.intake import Intake, known_lineage

from . import sight
from .engine import Engine
from .feed import BACKLOG_MAX, Subscription
from .holds import Holds
from .keyring import Keyring

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from agent_meter_mcp.core.decide import Decision, LimitState
    from agent_meter_mcp.core.limits import Policy
    from agent_meter_mcp.core.models import Action, KillSwitch, LimitKey, SwitchKind
    from agent_meter_mcp.core.queries import (
        AgentsPage,
        AgentsQuery,
        Dimension,
        EventsPage,
        EventsQuery,
        LimitView,
        Summary,
    )
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.intake import Prices, Report
    from agent_meter_mcp.store.base import Store

    from .feed import FeedItem

NAMED = ("agent", "service", "operation", "model", "project", "session")
NAMES_MAX = 1000
ALERTS_MAX = 1000
AUDIT_MAX = 1000


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
        super().__init__(store, engine, Intake(prices, new_id, lambda agent: (agent,)), clock, entropy)
        self._prices = prices
        self._batch_max = batch_max
        self._kin_intake = Intake(prices, new_id, partial(known_lineage, store))
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

    async def record_many(
        self, caller: Caller, reports: Sequence[Report], *, want_limits: bool = False
    ) -> list[Recorded | MeterError]:
        """Each as `record`, in one transaction; at most `batch_max`. One that is wrong spoils no other."""
        if len(reports) > self._batch_max:
            raise InvalidInput(
                "records", f"has {len(reports)} entries; at most {self._batch_max} are allowed"
            )
        if not reports:
            return []
        await self._load_prices(*[report.usage for report in reports])
        makes = [partial(self._record, caller, report, want_limits) for report in reports]
        return await self._engine.write_all(makes, Recorded)

    async def check(self, caller: Caller, who: Who, usage: Usage) -> Decision:
        """Would this be allowed now? Changes nothing."""
        return (await self._peek(caller, who, usage))[1]

    async def gate(self, caller: Caller, who: Who, usage: Usage) -> Decision:
        """As `check`, for somebody whom a no will stop: so that is kept as a refusal."""
        ask, decision = await self._peek(caller, who, usage)
        if not decision.allowed:
            await self._engine.refuse(ask, decision, None, "self")
        return decision

    async def reserve(self, caller: Caller, report: Report, ttl_us: int = TTL_DEFAULT_US) -> Reserved:
        """A hold of the estimate in `report`. Raises Conflict when its id came with other content."""
        await self._load_prices(report.usage)
        intake = self._intake_for(caller, report.who.agent)
        # With an id of the caller's own it may be a replay of one that was granted: only the writer knows.
        if report.id is None and self._engine.refused_lately(report.who):

            def ask(now_us: int) -> Ask:
                command = intake.reserve(caller, report, ttl_us, now_us)
                return Ask(command.who, command.usage)

            asked, decision = await self._engine.peek(ask)
            if not decision.allowed:
                await self._engine.refuse(asked, decision, report.operation, report.source)
                return Reserved("denied", decision, None)
        reserved = await self._engine.write(partial(intake.reserve, caller, report, ttl_us), Reserved)
        self._holds.made(reserved.reservation)
        return reserved

    async def settle(self, caller: Caller, settle: Settle) -> Recorded:
        """The actual usage of a reservation. Raises NotFound, Conflict."""
        if settle.usage is not None:
            await self._load_prices(settle.usage)

        def make(now_us: int) -> Settle:
            held, intake = self._find_hold(caller, settle.reservation_id, now_us)
            return intake.settle(caller, held, settle, now_us)

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

    # Reading. A caller in the agent role sees its own tree.

    async def summary(self, caller: Caller, query: SummaryQuery) -> Summary:
        def read() -> Summary:
            wanted = self._narrowed(caller, query.filter)
            return self._store.summary(query.replace(filter=wanted), self._clock())

        await self._engine.write_refusals()
        return await self._engine.read_long(read)

    async def events(self, caller: Caller, query: EventsQuery) -> EventsPage:
        def read() -> EventsPage:
            return self._store.events(query.replace(filter=self._narrowed(caller, query.filter)))

        await self._engine.write_refusals()
        return await self._engine.read_long(read)

    async def agents(self, caller: Caller, query: AgentsQuery) -> AgentsPage:
        def read() -> AgentsPage:
            self._may_read(caller, query.agent)
            within = sight.within(caller) or query.within
            return self._store.agents(query.replace(within=within), self._clock())

        await self._engine.write_refusals()
        return await self._engine.read_long(read)

    async def limits(self, caller: Caller, who: Who | None = None) -> list[LimitView]:
        """All limits; for somebody, those that match, at every service if `who` names none."""
        if who is None and caller.role == "agent":
            who = Who(caller.bound_to or "", project=caller.default_project, session=caller.default_session)

        def read() -> list[LimitView]:
            self._may_read(caller, None if who is None else bounds.who(who).agent)
            return sight.limits_of(self._store, who, self._clock())

        return await self._engine.read_long(read)

    async def switches(self, caller: Caller) -> list[KillSwitch]:
        """What is stopped now; for an agent, what stops it or its tree, and stopped services."""
        policy = await self._policy(caller)
        return [switch for switch in policy.switches if sight.sees_switch(caller, policy, switch)]

    async def alerts(self, caller: Caller, after: int = 0, limit: int = 100) -> list[Alert]:
        """The newest alerts with a number above `after`, newest first."""
        policy = await self._policy(caller)
        bounds.integer(limit, "limit", ALERTS_MAX)
        bounds.integer(after, "after", LEDGER_MAX)
        found = await self._engine.read_long(
            lambda: self._store.alerts(after=after, limit=limit if caller.role != "agent" else ALERTS_MAX)
        )
        return [alert for alert in found if sight.sees_alert(caller, policy, alert)][:limit]

    async def corrections(self, caller: Caller, after: int, limit: int) -> list[Correction]:
        """The events that were corrected last, each once, with a number above `after`; newest first."""
        policy = await self._policy(caller)
        found = await self._engine.read_long(partial(self._store.corrections, after=after, limit=limit))
        return [one for one in found if sight.sees_item(caller, policy, one)]

    async def audit(
        self, caller: Caller, before_seq: int | None = None, limit: int = 100
    ) -> list[AuditEntry]:
        """Control actions, newest first. Not for agents."""
        allow(caller, "read")
        if caller.role == "agent":
            raise Forbidden("the audit log is for viewers and operators; you have the role agent.")
        bounds.integer(limit, "limit", AUDIT_MAX)
        bounds.integer(before_seq or 0, "before_seq", LEDGER_MAX)
        return await self._engine.read_long(lambda: self._store.audit(before_seq=before_seq, limit=limit))

    async def reservations(self, caller: Caller) -> list[Reservation]:
        """The holds that are open now, oldest first."""
        policy = await self._policy(caller)
        found = await self._engine.read_long(partial(self._store.reservations, self._clock()))
        return [held for held in found if sight.sees_agent(caller, policy, held.who.agent)]

    async def names(self, caller: Caller, kind: str, prefix: str = "", limit: int = 100) -> list[str]:
        """Known names of `kind` (agent, service, operation, model, project, session), for completion."""
        allow(caller, "read")
        if kind not in NAMED:
            raise InvalidInput("kind", f"must be one of {', '.join(NAMED)}")
        bounds.integer(limit, "limit", NAMES_MAX)
        if caller.role != "agent":
            return await self._engine.read_long(partial(self._store.names, kind, prefix, limit))
        query = SummaryQuery(UsageFilter(), (cast("Dimension", kind),), order_by="key", limit=NAMES_MAX)
        used = [group.key[0] for group in (await self.summary(caller, query)).groups]
        return [name for name in used if isinstance(name, str) and name.startswith(prefix)][:limit]

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

    def _intake_for(self, caller: Caller, agent: str) -> Intake:
        """For an agent that acts for another one, it looks up ancestors (which blocks); others need none."""
        return self._intake if caller.role != "agent" or agent == caller.bound_to else self._kin_intake

    def _record(self, caller: Caller, report: Report, want_limits: bool, now_us: int) -> Record:
        intake = self._intake_for(caller, report.who.agent)
        return intake.record(caller, report, now_us, want_limits=want_limits)

    async def _peek(self, caller: Caller, who: Who, usage: Usage) -> tuple[Ask, Decision]:
        await self._load_prices(usage)
        return await self._engine.peek(partial(self._intake_for(caller, who.agent).ask, caller, who, usage))

    def _find_hold(self, caller: Caller, reservation_id: str, now_us: int) -> tuple[Reservation, Intake]:
        """The reservation, if the caller may finish it. Blocks."""
        allow(caller, "use")
        held = self._holds.find(self._intake.release(reservation_id).reservation_id, now_us)
        intake = self._intake_for(caller, held.who.agent)
        intake.may_hold(caller, held.who)
        return held, intake

    def _may_read(self, caller: Caller, agent: str | None) -> None:
        self._intake_for(caller, agent or caller.bound_to or "").may_read(caller, agent)

    def _narrowed(self, caller: Caller, wanted: UsageFilter) -> UsageFilter:
        """What the caller may see of it. Blocks."""
        self._may_read(caller, wanted.agent)
        return wanted.replace(within=sight.within(caller) or wanted.within)

    async def _policy(self, caller: Caller) -> Policy:
        allow(caller, "read")
        return await self._engine.read(self._store.policy)

    async def _concerns(self, caller: Caller, item: FeedItem) -> bool:
        if isinstance(item, StoredEvent) and item.event.who.agent == caller.bound_to:
            return True
        return sight.sees_item(caller, await self._policy(caller), item)
