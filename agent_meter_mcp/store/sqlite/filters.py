"""A filter as SQL over `dim d`, and the agents that it means."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from agent_meter_mcp.core.limits import Policy
    from agent_meter_mcp.core.queries import UsageFilter


def filter_condition(chosen: UsageFilter, policy: Policy) -> tuple[str, list[Any]]:
    """(SQL, parameters) that hold for the dims that the filter lets through."""
    terms: list[str] = []
    values: list[Any] = []
    for column in ("service", "operation", "model", "project", "session", "source", "outcome"):
        value = getattr(chosen, column)
        if value is not None:
            terms.append(f"d.{column} = ?")
            values.append(value)
    if chosen.agent is not None:
        names = policy.tree(chosen.agent) if chosen.include_children else {chosen.agent}
        terms.append(f"d.agent IN ({', '.join('?' * len(names))})")
        values.extend(sorted(names))
    if chosen.within is not None:
        allowed = policy.tree(chosen.within)
        terms.append(f"d.agent IN ({', '.join('?' * len(allowed))})")
        values.extend(sorted(allowed))
    if chosen.tier is not None:
        terms.append("d.agent IN (SELECT agent_id FROM agent WHERE tier = ?)")
        values.append(chosen.tier)
    return " AND ".join(terms) or "1", values
