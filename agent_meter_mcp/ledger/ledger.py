"""What may be asked of the ledger, and by whom. Every face uses this and nothing below it.

All methods belong to the event loop that entered the ledger (asyncio). Besides what they name, all may raise
InvalidInput, Forbidden, StoreError and Overloaded; nothing was written then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

from anyio import to_thread

from agent_meter_mcp.core import check as bounds
from agent_meter_mcp.core.check import TTL_DEFAULT_US
from agent_meter_mcp.core.commands import Ask, LimitSet, Record, Recorded, Reserved, Settle, Switched
from agent_meter_mcp.core.errors import Forbidden, InvalidInput, MeterError, StoreError
from agent_meter_mcp.core.models import Agent, Alert, AuditEntry, Limit, Reservation, StoredEvent, Who
from agent_meter_mcp.core.queries import SummaryQuery, UsageFilter
from agent_meter_mcp.core.roles import allow
from agent_meter_mcp.intake import Intake

from . import sight
from .engine import Engine
from .feed import BACKLOG_MAX, Subscription

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from agent_meter_mcp.core.decide import Decision, LimitState
    from agent_meter_mcp.core.limits import Policy
    from agent_meter_mcp.core.models import Action, KillSwitch, LimitKey, SwitchKind, Usage
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

T = TypeVar("T")

NAMED = ("agent", "service", "operation", "model", "project", "session")
NAMES_MAX = 1000
ALERTS_MAX = 1000
AUDIT_MAX = 1000

INLINE_REPORTS_MAX = 32
"""More reports than this are examined in a thread: they would keep the event loop busy for too long."""


class Ledger:
    """`async with Ledger(store, prices, clock, new_id) as ledger`. Closes the store when it is left.

    `clock` answers microseconds since 1970, `new_id` makes an id from such a moment. At most `queue_max`
    commands wait; at most `batch_max` are applied in one transaction. While there are subscribers, the store is
    looked at every `poll_s` seconds for what other processes have committed.
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
    ) -> None:
        self._store = store
        self._prices = prices
        self._clock = clock
        self._new_id = new_id
        self._batch_max = batch_max
        self._intake = Intake(prices, new_id, _alone)
        self._prices_loaded = False
        self._engine = Engine(store, clock, queue_max=queue_max, batch_max=batch_max, poll_s=poll_s)

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
        intake = await self._intake_for(caller, report.who.agent)
        command = await self._admit(partial(intake.record, caller, report, self._clock()), report.usage)
        return await self._engine.write(command, Recorded)

    async def record_many(
        self, caller: Caller, reports: Sequence[Report], *, want_limits: bool = False
    ) -> list[Recorded | MeterError]:
        """Each as `record`, in one transaction; at most `batch_max`. One that is wrong spoils no other."""
        if len(reports) > self._batch_max:
            raise InvalidInput(
                "records", f"has {len(reports)} entries; at most {self._batch_max} are allowed"
            )
        intake = await self._intake_for(caller, *(report.who.agent for report in reports))
        admit = partial(_admit_all, intake, caller, reports, self._clock(), want_limits)
        if len(reports) > INLINE_REPORTS_MAX or not self._prices_loaded:
            admitted = await to_thread.run_sync(admit)
        else:
            admitted = admit()
        commands = [entry for entry in admitted if isinstance(entry, Record)]
        answers = iter(await self._engine.write_all(commands) if commands else ())
        return [
            entry if isinstance(entry, MeterError) else cast("Recorded | MeterError", next(answers))
            for entry in admitted
        ]

    async def check(self, caller: Caller, who: Who, usage: Usage) -> Decision:
        """Would this be allowed now? Changes nothing."""
        return await self._engine.peek(await self._ask(caller, who, usage))

    async def gate(self, caller: Caller, who: Who, usage: Usage) -> Decision:
        """As `check`, for somebody whom a no will stop: so that is kept as a refusal."""
        ask = await self._ask(caller, who, usage)
        decision = await self._engine.peek(ask)
        if not decision.allowed:
            await self._engine.refuse(ask, decision, None, "self")
        return decision

    async def reserve(self, caller: Caller, report: Report, ttl_us: int = TTL_DEFAULT_US) -> Reserved:
        """A hold of the estimate in `report`. Raises Conflict when its id came with other content."""
        intake = await self._intake_for(caller, report.who.agent)
        command = await self._admit(
            partial(intake.reserve, caller, report, ttl_us, self._clock()), report.usage
        )
        # With an id of the caller's own it may be a replay of one that was granted: only the writer knows.
        if report.id is None and self._engine.refused_lately(command.who):
            ask = Ask(command.who, command.usage)
            decision = await self._engine.peek(ask)
            if not decision.allowed:
                await self._engine.refuse(ask, decision, command.operation, command.source)
                return Reserved("denied", decision, None)
        return await self._engine.write(command, Reserved)

    async def settle(self, caller: Caller, settle: Settle) -> Recorded:
        """The actual usage of a reservation. Raises NotFound, Conflict."""
        held, intake = await self._find_hold(caller, settle.reservation_id)
        command = await self._admit(
            partial(intake.settle, caller, held, settle, self._clock()), settle.usage or held.usage
        )
        return await self._engine.write(command, Recorded, note=held)

    async def release(self, caller: Caller, reservation_id: str) -> Reservation:
        """Nothing was used. Raises NotFound, Conflict."""
        _, intake = await self._find_hold(caller, reservation_id)
        return await self._engine.write(intake.release(reservation_id), Reservation)

    async def extend(self, caller: Caller, reservation_id: str, ttl_us: int) -> Reservation:
        """The hold lasts `ttl_us` from now. Raises NotFound, Conflict."""
        _, intake = await self._find_hold(caller, reservation_id)
        return await self._engine.write(intake.extend(reservation_id, ttl_us), Reservation)

    # What operators do

    async def set_agent(self, caller: Caller, agent_id: str, changes: dict[str, str | None]) -> Agent:
        return await self._engine.write(self._intake.set_agent(caller, agent_id, changes), Agent)

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
        command = self._intake.set_limit(
            caller, key, maximum, self._clock(), action=action, zone=zone, thresholds=thresholds
        )
        done = await self._engine.write(command, LimitSet)
        try:
            views = await self._engine.read_long(partial(self._store.limits, None, self._clock()))
        except StoreError:  # the limit is set all the same
            return done, None
        return done, next((view.state for view in views if view.limit.limit_id == done.limit.limit_id), None)

    async def remove_limit(
        self, caller: Caller, limit_id: str | None = None, key: LimitKey | None = None
    ) -> Limit:
        """By exactly one of the two. Raises NotFound."""
        return await self._engine.write(self._intake.remove_limit(caller, limit_id, key), Limit)

    async def set_switch(
        self, caller: Caller, kind: SwitchKind, name: str | None, engaged: bool, reason: str | None
    ) -> Switched:
        return await self._engine.write(
            self._intake.set_switch(caller, kind, name, engaged, reason), Switched
        )

    # Reading. A caller in the agent role sees its own tree.

    async def summary(self, caller: Caller, query: SummaryQuery) -> Summary:
        await self._may_read(caller, query.filter.agent)
        await self._engine.write_refusals()
        query = query.replace(filter=_narrowed(caller, query.filter))
        return await self._engine.read_long(partial(self._store.summary, query, self._clock()))

    async def events(self, caller: Caller, query: EventsQuery) -> EventsPage:
        await self._may_read(caller, query.filter.agent)
        await self._engine.write_refusals()
        query = query.replace(filter=_narrowed(caller, query.filter))
        return await self._engine.read_long(partial(self._store.events, query))

    async def agents(self, caller: Caller, query: AgentsQuery) -> AgentsPage:
        await self._may_read(caller, query.agent)
        await self._engine.write_refusals()
        query = query.replace(within=_within(caller) or query.within)
        return await self._engine.read_long(partial(self._store.agents, query, self._clock()))

    async def limits(self, caller: Caller, who: Who | None = None) -> list[LimitView]:
        """All limits; for somebody, those that match, at every service if `who` names none."""
        if who is None and caller.role == "agent":
            who = Who(caller.bound_to or "", project=caller.default_project, session=caller.default_session)
        if who is not None:
            bounds.who(who)
        await self._may_read(caller, None if who is None else who.agent)
        return await self._engine.read_long(partial(_limits, self._store, who, self._clock()))

    async def switches(self, caller: Caller) -> list[KillSwitch]:
        """What is stopped now; for an agent, what stops it or its tree, and stopped services."""
        policy = await self._policy(caller)
        return [switch for switch in policy.switches if sight.sees_switch(caller, policy, switch)]

    async def alerts(self, caller: Caller, after: int = 0, limit: int = 100) -> list[Alert]:
        """The newest alerts with a number above `after`, newest first."""
        policy = await self._policy(caller)
        bounds.integer(limit, "limit", ALERTS_MAX)
        found = await self._engine.read_long(
            lambda: self._store.alerts(after=after, limit=limit if caller.role != "agent" else ALERTS_MAX)
        )
        return [alert for alert in found if sight.sees_alert(caller, policy, alert)][:limit]

    async def audit(
        self, caller: Caller, before_seq: int | None = None, limit: int = 100
    ) -> list[AuditEntry]:
        """Control actions, newest first. Not for agents."""
        allow(caller, "read")
        if caller.role == "agent":
            raise Forbidden("the audit log is for viewers and operators; you have the role agent.")
        bounds.integer(limit, "limit", AUDIT_MAX)
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

    def now_us(self) -> int:
        """The ledger's clock: microseconds since 1970."""
        return self._clock()

    # How a caller's words get in

    async def _intake_for(self, caller: Caller, *agents: str) -> Intake:
        """Lines of ancestors matter only to an agent that acts for another one."""
        if caller.role != "agent" or all(agent == caller.bound_to for agent in agents):
            return self._intake
        policy = await self._engine.read(self._store.policy)
        return Intake(self._prices, self._new_id, policy.lineage)

    async def _admit(self, make: Callable[[], T], usage: Usage) -> T:
        """Runs `make`; in a thread for the first price that is looked up, which loads the price list."""
        if usage.model is None or self._prices_loaded:
            return make()
        made = await to_thread.run_sync(make)
        self._prices_loaded = True
        return made

    async def _ask(self, caller: Caller, who: Who, usage: Usage) -> Ask:
        intake = await self._intake_for(caller, who.agent)
        return await self._admit(partial(intake.ask, caller, who, usage, self._clock()), usage)

    async def _find_hold(self, caller: Caller, reservation_id: str) -> tuple[Reservation, Intake]:
        allow(caller, "use")
        held = await self._engine.reservation(self._intake.release(reservation_id).reservation_id)
        intake = await self._intake_for(caller, held.who.agent)
        intake.may_hold(caller, held.who)
        return held, intake

    async def _may_read(self, caller: Caller, agent: str | None) -> None:
        intake = self._intake if agent is None else await self._intake_for(caller, agent)
        intake.may_read(caller, agent)

    async def _policy(self, caller: Caller) -> Policy:
        allow(caller, "read")
        return await self._engine.read(self._store.policy)

    async def _concerns(self, caller: Caller, item: FeedItem) -> bool:
        if isinstance(item, AuditEntry):
            return False
        if isinstance(item, StoredEvent) and item.event.who.agent == caller.bound_to:
            return True
        policy = await self._policy(caller)
        if isinstance(item, Alert):
            return sight.sees_alert(caller, policy, item)
        who = item.event.who if isinstance(item, StoredEvent) else item.who
        return sight.sees_agent(caller, policy, who.agent)


def _alone(agent: str) -> tuple[str, ...]:
    return (agent,)


def _within(caller: Caller) -> str | None:
    return caller.bound_to if caller.role == "agent" else None


def _narrowed(caller: Caller, wanted: UsageFilter) -> UsageFilter:
    return wanted.replace(within=_within(caller) or wanted.within)


def _admit_all(
    intake: Intake, caller: Caller, reports: Sequence[Report], now_us: int, want_limits: bool
) -> list[Record | MeterError]:
    admitted: list[Record | MeterError] = []
    for report in reports:
        try:
            admitted.append(intake.record(caller, report, now_us, want_limits=want_limits))
        except MeterError as error:
            admitted.append(error)
    return admitted


def _limits(store: Store, who: Who | None, now_us: int) -> list[LimitView]:
    if who is None or who.service is not None:
        return store.limits(who, now_us)
    views = store.limits(who, now_us)
    for service in {limit.key.service for limit in store.policy().limits.values()} - {None}:
        there = store.limits(who.replace(service=service), now_us)
        views += [view for view in there if view.limit.key.service is not None]
    return sorted(views, key=lambda view: (view.limit.created_at_us, view.limit.limit_id))
