"""What a caller in the agent role may see of things that are not usage: its own tree's, and what binds it.

Every other role that may read sees everything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_meter_mcp.core.models import Alert, AuditEntry

if TYPE_CHECKING:
    from agent_meter_mcp.core.limits import Policy
    from agent_meter_mcp.core.models import KillSwitch, SubjectKind, Who
    from agent_meter_mcp.core.queries import LimitView
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.store.base import Reads

    from .feed import FeedItem


def within(caller: Caller) -> str | None:
    """The agent to whose tree the caller's sight is bounded; None: it sees everybody's usage."""
    return caller.bound_to if caller.role == "agent" else None


def sees_agent(caller: Caller, policy: Policy, agent: str) -> bool:
    """Whether it is the caller's own agent or one that it spawned. Any other role sees everybody."""
    return caller.role != "agent" or agent == caller.bound_to or caller.bound_to in policy.lineage(agent)


def sees_switch(caller: Caller, policy: Policy, switch: KillSwitch) -> bool:
    """Whether it stops somebody whom the caller sees, or the caller itself."""
    if caller.role != "agent" or switch.kind != "agent":
        return True
    stopped = switch.name or ""
    return sees_agent(caller, policy, stopped) or stopped in policy.lineage(caller.bound_to or "")


def sees_alert(caller: Caller, policy: Policy, alert: Alert) -> bool:
    """Whether it is about a counter that counts somebody whom the caller sees, or its project or session."""
    if caller.role != "agent":
        return True
    limit = policy.limits.get(alert.limit_id)
    if limit is None:
        return False
    counted = policy.coverage(limit, alert.scope)
    if limit.key.subject.kind == "project":
        return counted.project == caller.default_project
    if limit.key.subject.kind == "session":
        return counted.session == caller.default_session
    return counted.agents is None or not counted.agents.isdisjoint(policy.tree(caller.bound_to or ""))


def sees_item(caller: Caller, policy: Policy, item: FeedItem) -> bool:
    """Whether a piece of news is about somebody whom the caller sees. Control actions are not for agents."""
    if isinstance(item, AuditEntry):
        return caller.role != "agent"
    if isinstance(item, Alert):
        return sees_alert(caller, policy, item)
    return sees_agent(caller, policy, item.event.who.agent)


def limits_of(
    reads: Reads, who: Who | None, now_us: int, *, kind: SubjectKind | None = None
) -> list[LimitView]:
    """As `reads.limits`, but for somebody without a service: those at every service."""
    views = reads.limits(who, now_us, kind=kind)
    if who is None or who.service is not None:
        return views
    for service in {limit.key.service for limit in reads.policy().limits.values()} - {None}:
        there = reads.limits(who.replace(service=service), now_us, kind=kind)
        views += [view for view in there if view.limit.key.service is not None]
    return sorted(views, key=lambda view: (view.limit.created_at_us, view.limit.limit_id))
