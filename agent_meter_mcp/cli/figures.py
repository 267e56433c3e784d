"""Limits in words for people. Amounts are those of `core.figures`; --json is exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_meter_mcp.core.figures import amount, during, number, per, percent, whom
from agent_meter_mcp.core.text import NAME_WIDTH, shown

if TYPE_CHECKING:
    from agent_meter_mcp.core.decide import LimitState
    from agent_meter_mcp.core.models import Limit, LimitKey


def named(name: str) -> str:
    """A name as it may stand in a line."""
    return shown(name, width=NAME_WIDTH)


def place(key: LimitKey) -> str:
    """Whom a limit is for, and where."""
    at = "" if key.service is None else f" at {named(key.service)}"
    return f"{whom(key.subject, named)}{at}"


def standing(state: LimitState) -> str:
    """ "agent a: $4.20 of $5.00 used today (84 %)"."""
    limit, metric = state.limit, state.limit.key.metric
    whose = f" ({named(state.scope)})" if state.scope else ""
    held = f" and {amount(metric, state.held)} held" if state.held else ""
    used = f"{number(metric, state.used)} of {amount(metric, limit.max)} used"
    return f"{place(limit.key)}{whose}: {used}{held} {during(limit.key.window)} ({percent(state.percent)})"


def maximum(limit: Limit) -> str:
    """ "at most $5.00 per day for agent a"."""
    zone = "" if limit.zone == "UTC" else f" ({shown(limit.zone)})"
    most = amount(limit.key.metric, limit.max)
    return f"at most {most} {per(limit.key.window)}{zone} for {place(limit.key)}"
