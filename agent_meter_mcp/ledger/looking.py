"""What a caller reads: all of one moment, in the thread that reads it, and only what it may see.

A caller in the agent role sees its own tree and what binds it; any other role that may read sees everything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from agent_meter_mcp.core import check
from agent_meter_mcp.core.commands import Ask
from agent_meter_mcp.core.errors import Forbidden, InvalidInput
from agent_meter_mcp.core.models import LEDGER_MAX, Usage, Who
from agent_meter_mcp.core.queries import AlertView, SummaryQuery, UsageFilter
from agent_meter_mcp.core.roles import allow_agent
from agent_meter_mcp.intake import known_lineage

from . import sight

if TYPE_CHECKING:
    from agent_meter_mcp.core.decide import LimitState
    from agent_meter_mcp.core.limits import Coverage
    from agent_meter_mcp.core.models import (
        Alert,
        AuditEntry,
        Correction,
        KillSwitch,
        Limit,
        LimitKey,
        Reservation,
        SubjectKind,
    )
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
    from agent_meter_mcp.store.base import Reads

    Shut = tuple[tuple[str, LimitState | KillSwitch], ...]
    """Services, and why: a limit of theirs that is used up, or a switch."""

NAMED = ("agent", "service", "operation", "model", "project", "session")
NAMES_MAX = 1000
ALERTS_MAX = 1000
CORRECTIONS_MAX = 1000
AUDIT_MAX = 1000


class Looking:
    """What `Ledger.look` hands to its reader, for a caller who may read; `now_us` is the moment.

    All may raise InvalidInput, Forbidden and StoreError.
    """

    def __init__(self, reads: Reads, caller: Caller, now_us: int) -> None:
        self.now_us = now_us
        self._reads = reads
        self._caller = caller

    def summary(self, query: SummaryQuery) -> Summary:
        return self._reads.summary(query.replace(filter=self._narrowed(query.filter)), self.now_us)

    def events(self, query: EventsQuery) -> EventsPage:
        return self._reads.events(query.replace(filter=self._narrowed(query.filter)))

    def agents(self, query: AgentsQuery) -> AgentsPage:
        self._may_see(query.agent)
        within = sight.within(self._caller) or query.within
        return self._reads.agents(query.replace(within=within), self.now_us)

    def limits(self, who: Who | None = None, kind: SubjectKind | None = None) -> list[LimitView]:
        """All limits; for somebody, those that match, at every service if `who` names none.

        `kind`: of these only those on such subjects.
        """
        caller = self._caller
        if who is not None:
            self._may_see(check.who(who).agent)
        elif caller.role == "agent":
            who = Who(caller.bound_to or "", project=caller.default_project, session=caller.default_session)
        return sight.limits_of(self._reads, who, self.now_us, kind=kind)

    def shut(self, who: Who) -> Shut:
        """The services at which somebody, who names none, would be refused now whatever it asks for."""
        reads = self._reads
        above = () if who.parent is None else (who.parent, *known_lineage(reads, who.parent))
        allow_agent(self._caller, who.agent, known_lineage(reads, who.agent), above)
        found: dict[str, LimitState | KillSwitch] = {}
        limited = [limit.key.service for limit in reads.policy().limits.values()]
        services = sorted({service for service in limited if service is not None})
        asks = [Ask(who.replace(service=service), Usage()) for service in services]
        for service, told in zip(services, reads.peek(asks, self.now_us), strict=True):
            for why in told.reasons:  # what binds everywhere is told of anyway
                if why.code == "limit" and why.state is not None and why.state.limit.key.service is not None:
                    found.setdefault(service, why.state)
        for switch in self.switches():
            if switch.kind == "service" and switch.name is not None:
                found.setdefault(switch.name, switch)
        return tuple(found.items())

    def rules(self) -> list[Limit]:
        """All limits, whomever they bind, without how they stand. For an agent, those that match it."""
        if self._caller.role == "agent":
            return [view.limit for view in self.limits()]
        return list(self._reads.policy().limits.values())

    def switches(self) -> list[KillSwitch]:
        """What is stopped now; for an agent, what stops it or its tree, and stopped services."""
        policy = self._reads.policy()
        return [switch for switch in policy.switches if sight.sees_switch(self._caller, policy, switch)]

    def alerts(self, after: int = 0, limit: int = 100) -> list[AlertView]:
        """The newest alerts with a number above `after`, newest first."""
        check.integer(limit, "limit", ALERTS_MAX)
        check.integer(after, "after", LEDGER_MAX)
        policy = self._reads.policy()
        most = limit if self._caller.role != "agent" else ALERTS_MAX
        found = self._reads.alerts(after=after, limit=most)
        seen = [alert for alert in found if sight.sees_alert(self._caller, policy, alert)]
        return [self.alert_view(alert) for alert in seen[:limit]]

    def alert_view(self, alert: Alert) -> AlertView:
        """Who sees an alert may know of which limit it is, also where that one does not bind the caller."""
        limit = self._reads.policy().limits.get(alert.limit_id)
        return AlertView(alert, None if limit is None else limit.key)

    def counted(self, alert: Alert) -> tuple[LimitKey, Coverage] | None:
        """The limit of an alert, and whose usage is counted there; None when that limit is gone."""
        policy = self._reads.policy()
        limit = policy.limits.get(alert.limit_id)
        return None if limit is None else (limit.key, policy.coverage(limit, alert.scope))

    def corrections(self, after: int, limit: int) -> list[Correction]:
        """The events that were corrected last, each once, with a number above `after`; newest first."""
        check.integer(limit, "limit", CORRECTIONS_MAX)
        check.integer(after, "after", LEDGER_MAX)
        policy = self._reads.policy()
        found = self._reads.corrections(after=after, limit=limit)
        return [one for one in found if sight.sees_item(self._caller, policy, one)]

    def audit(self, before_seq: int | None = None, limit: int = 100) -> list[AuditEntry]:
        """Control actions, newest first. Not for agents."""
        if self._caller.role == "agent":
            raise Forbidden("the audit log is for viewers and operators; you have the role agent.")
        check.integer(limit, "limit", AUDIT_MAX)
        check.integer(before_seq or 0, "before_seq", LEDGER_MAX)
        return self._reads.audit(before_seq=before_seq, limit=limit)

    def reservations(self) -> list[Reservation]:
        """The holds that are open now, oldest first."""
        policy = self._reads.policy()
        found = self._reads.reservations(self.now_us)
        return [held for held in found if sight.sees_agent(self._caller, policy, held.who.agent)]

    def names(self, kind: str, prefix: str = "", limit: int = 100) -> list[str]:
        """Known names of `kind` (agent, service, operation, model, project, session), for completion."""
        if kind not in NAMED:
            raise InvalidInput("kind", f"must be one of {', '.join(NAMED)}")
        check.integer(limit, "limit", NAMES_MAX)
        if self._caller.role != "agent":
            return self._reads.names(kind, prefix, limit)
        query = SummaryQuery(UsageFilter(), (cast("Dimension", kind),), order_by="key", limit=NAMES_MAX)
        used = [group.key[0] for group in self.summary(query).groups]
        return [name for name in used if isinstance(name, str) and name.startswith(prefix)][:limit]

    def _narrowed(self, wanted: UsageFilter) -> UsageFilter:
        self._may_see(wanted.agent)
        return wanted.replace(within=sight.within(self._caller) or wanted.within)

    def _may_see(self, agent: str | None) -> None:
        """Raises Forbidden unless the caller may look at this agent's usage (None: at all it may see)."""
        caller = self._caller
        if agent is not None and caller.role == "agent" and agent != caller.bound_to:
            allow_agent(caller, agent, known_lineage(self._reads, agent))
