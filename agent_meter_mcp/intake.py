"""From a caller's words to a store's command: rights, bounds, prices, ids.

Everything that a face wants of the ledger passes here, so that every face has the same rules.
"""

from __future__ import annotations

from .core import check
from .core.booking import check_occurred
from .core.commands import (
    Ask,
    CreateKey,
    Extend,
    Record,
    Release,
    RemoveLimit,
    Reserve,
    RevokeKey,
    SetAgent,
    SetLimit,
    SetSwitch,
    Settle,
)
from .core.errors import Forbidden, InvalidInput, PricesUnusable
from .core.models import ACTIONS, EACH, Usage, UsageEvent, Who
from .core.roles import Caller, allow, allow_agent, allow_service
from .core.text import ID_MAX, REASON_MAX, name, optional_name
from .core.value import Value
from .core.windows import check_zone, parse_window

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from .core.models import Action, LimitKey, Reservation, Source, SwitchKind
    from .core.roles import Role

    class Prices(Protocol):
        def price(self, usage: Usage, at_us: int, service: str) -> Usage: ...

    from .store.base import Reads

    Lineage = Callable[[str], tuple[str, ...]]

AGENT_FIELDS = ("name", "tier", "owner", "parent")


def known_lineage(reads: Reads, agent: str) -> tuple[str, ...]:
    """The agent and its ancestors; nothing for one that the ledger has not heard of. Reads the store.

    A budget, or a stop, is for somebody: that one is known before it uses anything.
    """
    policy = reads.policy()
    heard_of = reads.names("agent", agent, 1) == [agent] or policy.is_about(agent)
    return policy.lineage(agent) if heard_of else ()


class Report(Value):
    """One piece of usage in its caller's words. `metadata` is JSON text; `id` None: the ledger makes one.
    `source` None: the caller did not say who measured it, and where it came in that is `usual_source`."""

    who: Who
    usage: Usage
    id: str | None = None
    operation: str | None = None
    source: Source | None = None
    occurred_at_us: int | None = None
    status_code: int | None = None
    duration_ms: int | None = None
    metadata: str | None = None
    usual_source: Source = "self"

    @property
    def measured_by(self) -> Source:
        return self.usual_source if self.source is None else self.source


class Intake:
    """Makes commands. `lineage` answers an agent's line of ancestors, as `known_lineage`; it may block."""

    def __init__(self, prices: Prices, new_id: Callable[[int], str], lineage: Lineage) -> None:
        self._prices = prices
        self._new_id = new_id
        self._lineage = lineage
        self._told = ""

    def record(self, caller: Caller, report: Report, now_us: int, *, want_limits: bool = True) -> Record:
        """Raises InvalidInput, Forbidden."""
        who, usage, source, occurred_us = report.who, report.usage, report.measured_by, report.occurred_at_us
        self._may_use(caller, who, usage, report.operation)
        optional_name(report.id, "id", maximum=ID_MAX)
        check.details(report.status_code, report.duration_ms, report.metadata, source)
        check_occurred(occurred_us, now_us)
        self._source(caller, source)
        at_us = now_us if occurred_us is None else occurred_us
        return Record(
            UsageEvent(
                report.id or self._new_id(now_us),
                who,
                self._happened(usage, at_us, who.service or ""),
                report.operation,
                source,
                occurred_us,
                report.status_code,
                report.duration_ms,
                report.metadata,
            ),
            caller.role != "agent",
            want_limits,
            report.source is not None,
        )

    def ask(self, caller: Caller, who: Who, usage: Usage, now_us: int) -> Ask:
        """Raises InvalidInput, Forbidden."""
        self._may_use(caller, who, usage, service_needed=False)
        return Ask(who, self._estimated(usage, now_us, who.service or ""))

    def reserve(self, caller: Caller, report: Report, ttl_us: int, now_us: int) -> Reserve:
        """Raises InvalidInput, Forbidden."""
        who = report.who
        self._may_use(caller, who, report.usage, report.operation)
        optional_name(report.id, "id", maximum=ID_MAX)
        self._source(caller, report.measured_by)
        reservation_id = self._new_id(now_us)
        return Reserve(
            reservation_id,
            report.id or reservation_id,
            who,
            self._estimated(report.usage, now_us, who.service or ""),
            check.ttl(ttl_us),
            report.operation,
            report.measured_by,
            report.id is None,
            report.source is not None,
        )

    def settle(self, caller: Caller, held: Reservation, report: Settle, now_us: int) -> Settle:
        """`held` is the reservation that `report` settles. Raises InvalidInput, Forbidden."""
        self.may_hold(caller, held.who)
        check.details(report.status_code, report.duration_ms, report.metadata, "self")
        if report.usage is None:
            return report
        usage = report.usage.instead_of(held.usage)
        check.texts(held.who, usage)
        return report.replace(usage=self._happened(usage, now_us, held.who.service or ""))

    def may_hold(self, caller: Caller, who: Who) -> None:
        """Raises Forbidden unless the caller may finish a reservation that `who` made."""
        allow(caller, "use")
        self._may_act_for(caller, who)
        allow_service(caller, who.service)

    def release(self, reservation_id: str) -> Release:
        return Release(name(reservation_id, "reservation_id", maximum=ID_MAX))

    def extend(self, reservation_id: str, ttl_us: int) -> Extend:
        return Extend(name(reservation_id, "reservation_id", maximum=ID_MAX), check.ttl(ttl_us))

    def set_agent(self, caller: Caller, agent_id: str, changes: dict[str, str | None]) -> SetAgent:
        """Raises InvalidInput, Forbidden."""
        allow(caller, "control")
        check.who(Who(agent_id, parent=changes.get("parent")))
        for field, value in changes.items():
            if field not in AGENT_FIELDS:
                raise InvalidInput(field, f"is not one of {', '.join(AGENT_FIELDS)}")
            optional_name(value, field)
        return SetAgent(agent_id, tuple(changes.items()), caller.name)

    def set_limit(
        self,
        caller: Caller,
        key: LimitKey,
        maximum: int,
        now_us: int,
        *,
        action: Action | None = None,
        zone: str | None = None,
        thresholds: tuple[int, ...] | None = None,
    ) -> SetLimit:
        """`maximum` is in the metric's integer unit. Raises InvalidInput, Forbidden."""
        allow(caller, "control")
        key = check.limit_key(key)
        if action is not None and action not in ACTIONS:
            raise InvalidInput("action", "must be reject or warn")
        if zone is not None:
            check_zone(zone)
            if zone != "UTC" and parse_window(key.window).kind != "calendar":
                raise InvalidInput("timezone", f"window {key.window!r} has no calendar: leave timezone out")
        return SetLimit(
            self._new_id(now_us),
            key,
            check.limit_max(maximum),
            caller.name,
            action,
            zone,
            check.thresholds(thresholds),
        )

    def remove_limit(self, caller: Caller, limit_id: str | None, key: LimitKey | None) -> RemoveLimit:
        """By exactly one of the two. Raises InvalidInput, Forbidden."""
        allow(caller, "control")
        if (limit_id is None) == (key is None):
            raise InvalidInput(
                "limit_id", "give either limit_id or the limit's metric and window (with its subject)"
            )
        if limit_id is not None:
            return RemoveLimit(caller.name, name(limit_id, "limit_id", maximum=ID_MAX))
        return RemoveLimit(caller.name, key=None if key is None else check.limit_key(key))

    def set_switch(
        self, caller: Caller, kind: SwitchKind, target: str | None, engaged: bool, reason: str | None
    ) -> SetSwitch:
        """Raises InvalidInput, Forbidden."""
        if kind != "everything":
            name(target or "", kind)
            if engaged and target == EACH:
                raise InvalidInput(kind, '"*" is nobody\'s name: to stop everybody, stop everything')
        optional_name(reason, "reason", maximum=REASON_MAX)
        if engaged and reason is None:
            raise InvalidInput("reason", "say why: it is shown to everybody who is stopped")
        if caller.role == "agent":
            if not engaged:
                raise Forbidden("only an operator releases a kill switch. Nothing was changed.")
            if kind != "agent" or target != caller.bound_to:
                raise Forbidden(
                    f"you may stop yourself (agent {caller.bound_to!r}) only. Nothing was changed."
                )
        else:
            allow(caller, "control")
        return SetSwitch(kind, target, engaged, reason, caller.name)

    def create_key(
        self,
        caller: Caller,
        role: Role,
        bound_to: str | None,
        title: str | None,
        expires_at_us: int | None,
        token: str,
        now_us: int,
    ) -> CreateKey:
        """Raises InvalidInput, Forbidden."""
        from .core import keys  # which a one-shot record does not need

        allow(caller, "control")
        keys.check(role, bound_to, title, expires_at_us, now_us)
        return CreateKey(
            self._new_id(now_us),
            keys.prefix_of(token),
            keys.digest_of(token),
            role,
            bound_to,
            title,
            expires_at_us,
            caller.name,
        )

    def revoke_key(self, caller: Caller, key: str) -> RevokeKey:
        """By its id or its prefix. Raises InvalidInput, Forbidden."""
        allow(caller, "control")
        return RevokeKey(name(key, "key"), caller.name)

    def _may_use(
        self,
        caller: Caller,
        who: Who,
        usage: Usage,
        operation: str | None = None,
        *,
        service_needed: bool = True,
    ) -> None:
        allow(caller, "use")
        check.texts(who, usage, operation)
        if service_needed and who.service is None:
            raise InvalidInput(
                "service", "is required: name the API, tool server or LLM provider that is used"
            )
        self._may_act_for(caller, who)
        allow_service(caller, who.service)

    def _may_act_for(self, caller: Caller, who: Who) -> None:
        """Ancestors are looked up only for an agent that acts for another one, or names a parent."""
        if caller.role == "agent" and (who.agent != caller.bound_to or who.parent is not None):
            above = () if who.parent is None else (who.parent, *self._lineage(who.parent))
            allow_agent(caller, who.agent, self._lineage(who.agent), above)

    def _source(self, caller: Caller, source: Source) -> None:
        if caller.role == "agent" and source != "self":
            raise InvalidInput("source", "an agent reports about itself: leave source out")

    def _estimated(self, usage: Usage, at_us: int, service: str) -> Usage:
        """Only what names a model must have its price; the rest is left to other limits and the switches."""
        return (self._priced if usage.model is not None else self._happened)(usage, at_us, service)

    def _happened(self, usage: Usage, at_us: int, service: str) -> Usage:
        """As `_priced`, but a mistake in the price file loses nothing: the cost is unknown then."""
        try:
            return self._priced(usage, at_us, service)
        except PricesUnusable as error:
            if str(error) != self._told:
                import logging  # which a process that records once need not pay for

                self._told = str(error)
                told = "%s. Until that is put right, usage is recorded without a cost."
                logging.getLogger(__name__).warning(told, error)
            return usage.replace(cost_source="unpriced", price_version=None)

    def _priced(self, usage: Usage, at_us: int, service: str) -> Usage:
        return self._prices.price(check.amounts(usage), at_us, service)
