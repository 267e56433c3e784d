"""Limits and kill switches in words for people. Amounts are those of `core.figures`; --json is exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_meter_mcp.core.figures import amount, during, number, per, percent
from agent_meter_mcp.core.models import EACH
from agent_meter_mcp.core.text import NAME_WIDTH, REASON_WIDTH, shown

if TYPE_CHECKING:
    from agent_meter_mcp.core.decide import LimitState
    from agent_meter_mcp.core.models import KillSwitch, Limit, LimitKey


def subject(key: LimitKey) -> str:
    """Whom a limit is for."""
    kind, name = key.subject.kind, key.subject.name
    if kind == "pool":
        return "everyone"
    if kind == "tier":
        return f"each agent of tier {shown(name or '', width=NAME_WIDTH)}"
    return f"each {kind}" if name == EACH else f"{kind} {shown(name or '', width=NAME_WIDTH)}"


def place(key: LimitKey) -> str:
    """Whom a limit is for, and where."""
    at = "" if key.service is None else f" at {shown(key.service, width=NAME_WIDTH)}"
    return subject(key) + at


def standing(state: LimitState) -> str:
    """ "agent a: $4.20 of $5.00 used today (84 %)"."""
    limit, metric = state.limit, state.limit.key.metric
    whose = f" ({shown(state.scope, width=NAME_WIDTH)})" if state.scope else ""
    held = f" and {amount(metric, state.held)} held" if state.held else ""
    used = f"{number(metric, state.used)} of {amount(metric, limit.max)} used"
    return f"{place(limit.key)}{whose}: {used}{held} {during(limit.key.window)} ({percent(state.percent)})"


def maximum(limit: Limit) -> str:
    """ "at most $5.00 per day for agent a"."""
    zone = "" if limit.zone == "UTC" else f" ({shown(limit.zone)})"
    most = amount(limit.key.metric, limit.max)
    return f"at most {most} {per(limit.key.window)}{zone} for {place(limit.key)}"


def target(kind: str, name: str | None) -> str:
    """What a kill switch stops."""
    return "everything" if kind == "everything" else f"{kind} {shown(name or '', width=NAME_WIDTH)}"


def stopped(switch: KillSwitch) -> str:
    """What was stopped, by whom and why."""
    by, why = shown(switch.engaged_by, width=NAME_WIDTH), shown(switch.reason, width=REASON_WIDTH)
    return f"{target(switch.kind, switch.name)} was stopped by {by}: {why}"
