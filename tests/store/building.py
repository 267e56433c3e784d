"""Short words for what the contract tests do to a store.

Moments are seconds after `T0`; amounts are integers of the metric's own unit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from agent_meter_mcp.core.commands import (
    Ask,
    CreateKey,
    Extend,
    LimitSet,
    Record,
    Recorded,
    Refusal,
    Refuse,
    Release,
    RemoveLimit,
    Reserve,
    Reserved,
    RevokeKey,
    SetAgent,
    SetLimit,
    SetSwitch,
    Settle,
    Switched,
)
from agent_meter_mcp.core.errors import MeterError
from agent_meter_mcp.core.keys import Key, digest_of, prefix_of
from agent_meter_mcp.core.models import Agent, Limit, LimitKey, Reservation, Subject, Usage, UsageEvent, Who
from agent_meter_mcp.core.queries import (
    AgentsQuery,
    AgentView,
    EventsPage,
    EventsQuery,
    Summary,
    SummaryQuery,
    UsageFilter,
)

if TYPE_CHECKING:
    from agent_meter_mcp.core.commands import Command
    from agent_meter_mcp.core.decide import Decision, LimitState
    from agent_meter_mcp.core.models import Metric, SubjectKind
    from agent_meter_mcp.store.base import Store

T0 = 1_800_000_000_000_000
"""Friday, 2027-01-15, 08:00:00 UTC."""

Answer = TypeVar("Answer")


def at(seconds: float) -> int:
    """Microseconds since 1970 of that many seconds after `T0`."""
    return T0 + us(seconds)


def us(seconds: float) -> int:
    return round(seconds * 1_000_000)


def used(requests: int = 1, *, tokens: int | None = None, cost: int | None = None, **more: Any) -> Usage:
    """Usage with a reported cost, if any."""
    return Usage(
        requests,
        input_tokens=tokens,
        cost_nano_usd=cost,
        cost_source="unpriced" if cost is None else "reported",
        **more,
    )


def subject(kind: SubjectKind = "pool", name: str | None = None) -> Subject:
    return Subject(kind, name)


class Desk:
    """A store and a clock. `now` is the moment (in seconds after `T0`) at which everything is done."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now: float = 0
        self._ids = 0

    @property
    def now_us(self) -> int:
        return at(self.now)

    def new_id(self, kind: str) -> str:
        self._ids += 1
        return f"{kind}-{self._ids}"

    def apply(self, *commands: Command) -> list[Any]:
        return self.store.apply(commands, self.now_us).results

    def do(self, command: Command, kind: type[Answer]) -> Answer:
        """The answer to one command. Raises the MeterError that it was answered with."""
        (answer,) = self.apply(command)
        if isinstance(answer, MeterError):
            raise answer
        assert isinstance(answer, kind)
        return answer

    # Usage

    def record(self, usage: Usage | None = None, agent: str = "ann", **details: Any) -> Recorded:
        return self.do(self.recording(usage, agent, **details), Recorded)

    def recording(
        self,
        usage: Usage | None = None,
        agent: str = "ann",
        *,
        id: str | None = None,
        occurred: float | None = None,
        trusted: bool = True,
        want: bool = True,
        service: str = "llm",
        parent: str | None = None,
        project: str | None = None,
        session: str | None = None,
        stated: bool = True,
        **details: Any,
    ) -> Record:
        """`occurred` is a moment; the states of the limits are wanted."""
        return Record(
            UsageEvent(
                id or self.new_id("event"),
                Who(agent, service, parent, project, session),
                used() if usage is None else usage,
                occurred_at_us=None if occurred is None else at(occurred),
                **details,
            ),
            trusted,
            want,
            stated,
        )

    def reserve(self, usage: Usage | None = None, agent: str = "ann", **details: Any) -> Reserved:
        return self.do(self.reserving(usage, agent, **details), Reserved)

    def reserving(
        self,
        usage: Usage | None = None,
        agent: str = "ann",
        *,
        id: str | None = None,
        event: str | None = None,
        ttl: float = 60,
        service: str = "llm",
        parent: str | None = None,
        **details: Any,
    ) -> Reserve:
        """`id` is the reservation's, `event` its event's."""
        reservation_id = id or self.new_id("hold")
        return Reserve(
            reservation_id,
            event or f"{reservation_id}-event",
            Who(agent, service, parent),
            used() if usage is None else usage,
            us(ttl),
            **details,
        )

    def hold(self, usage: Usage | None = None, agent: str = "ann", **details: Any) -> Reservation:
        """A hold that is made, and does not fail to be."""
        reserved = self.reserve(usage, agent, **details).reservation
        assert reserved is not None
        return reserved

    def settle(self, reservation: str, usage: Usage | None = None, **details: Any) -> Recorded:
        return self.do(Settle(reservation, usage, want_limits=True, **details), Recorded)

    def release(self, reservation: str) -> Reservation:
        return self.do(Release(reservation), Reservation)

    def extend(self, reservation: str, ttl: float) -> Reservation:
        return self.do(Extend(reservation, us(ttl)), Reservation)

    def refuse(
        self,
        agent: str = "ann",
        *,
        first: float,
        count: int = 1,
        limit: str | None = None,
        service: str = "llm",
    ) -> int:
        """Refusals that were decided elsewhere, the first at the moment `first`."""
        refusal = Refusal(Who(agent, service), None, "self", used(), limit, at(first), count)
        return self.do(Refuse((refusal,)), int)

    def peek(
        self,
        usage: Usage | None = None,
        agent: str = "ann",
        *,
        service: str | None = "llm",
        parent: str | None = None,
    ) -> Decision:
        ask = Ask(Who(agent, service, parent), used() if usage is None else usage)
        (decision,) = self.store.peek([ask], self.now_us)
        return decision

    # Control

    def limit(
        self, maximum: int, window: str = "total", metric: Metric = "requests", **details: Any
    ) -> Limit:
        return self.set_limit(maximum, window, metric, **details).limit

    def set_limit(
        self, maximum: int, window: str = "total", metric: Metric = "requests", **details: Any
    ) -> LimitSet:
        return self.do(self.limiting(maximum, window, metric, **details), LimitSet)

    def limiting(
        self,
        maximum: int,
        window: str = "total",
        metric: Metric = "requests",
        *,
        subject: Subject | None = None,
        service: str | None = None,
        id: str | None = None,
        **details: Any,
    ) -> SetLimit:
        """For everybody together, unless `subject` is given."""
        key = LimitKey(Subject() if subject is None else subject, service, metric, window)
        return SetLimit(id or self.new_id("limit"), key, maximum, "op", **details)

    def remove_limit(self, limit_id: str | None = None, key: LimitKey | None = None) -> Limit:
        return self.do(RemoveLimit("op", limit_id, key), Limit)

    def set_agent(self, agent: str, **changes: str | None) -> Agent:
        return self.do(SetAgent(agent, tuple(changes.items()), "op"), Agent)

    def switch(self, engaged: bool, kind: Any = "everything", name: str | None = None) -> Switched:
        return self.do(SetSwitch(kind, name, engaged, "why", "op"), Switched)

    def key(self, token: str, role: Any = "viewer", bound_to: str | None = None, **details: Any) -> Key:
        """A key with that token."""
        return self.do(self.keying(token, role, bound_to, **details), Key)

    def keying(
        self,
        token: str,
        role: Any = "viewer",
        bound_to: str | None = None,
        *,
        id: str | None = None,
        name: str | None = None,
        expires: float | None = None,
    ) -> CreateKey:
        """`expires` is a moment."""
        expires_at_us = None if expires is None else at(expires)
        key_id = id or self.new_id("key")
        return CreateKey(
            key_id, prefix_of(token), digest_of(token), role, bound_to, name, expires_at_us, "op"
        )

    def revoke(self, key: str) -> Key:
        return self.do(RevokeKey(key, "op"), Key)

    # Reading

    def event(self, event_id: str, service: str = "llm") -> Any:
        return self.store.event(service, event_id)

    def events(self, limit: int = 50, before: int | None = None, **wanted: Any) -> EventsPage:
        return self.store.events(EventsQuery(UsageFilter(**wanted), limit, before))

    def ids(self, **wanted: Any) -> list[str]:
        """Of events and refusals, newest first."""
        return [stored.event.id for stored in self.events(**wanted).events]

    def outcome(self, event_id: str) -> str:
        return self.event(event_id).outcome

    def summary(
        self, *group_by: Any, zone: str = "UTC", order_by: str = "cost_usd", **wanted: Any
    ) -> Summary:
        query = SummaryQuery(UsageFilter(**wanted), group_by, zone, order_by)
        return self.store.summary(query, self.now_us)

    def grouped(self, *group_by: Any, figure: str = "requests", **details: Any) -> list[tuple[Any, ...]]:
        """Each group's key and one of its totals."""
        groups = self.summary(*group_by, **details).groups
        return [(*group.key, getattr(group.totals, figure)) for group in groups]

    def agents(self, **wanted: Any) -> list[AgentView]:
        return list(self.store.agents(AgentsQuery(**wanted), self.now_us).agents)

    def agent(self, agent_id: str) -> AgentView:
        (view,) = self.agents(agent=agent_id)
        return view

    def state(self, limit: Limit) -> LimitState:
        """Of a limit that has one counter."""
        for view in self.store.limits(None, self.now_us):
            if view.limit.limit_id == limit.limit_id:
                assert view.state is not None
                return view.state
        raise AssertionError(f"{limit.limit_id} is not listed")

    def reservation(self, reservation_id: str) -> Reservation | None:
        return self.store.reservation(reservation_id, self.now_us)

    def thresholds(self) -> list[tuple[int, int]]:
        """(threshold, used) of all alerts, oldest first."""
        return [(alert.threshold, alert.used) for alert in self.store.alerts()[::-1]]

    def actions(self) -> list[str]:
        """Of the audit log, oldest first."""
        return [entry.action for entry in self.store.audit()[::-1]]
