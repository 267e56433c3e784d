"""A filter as SQL over `dim d`, and the agents that it means."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

    from agent_meter_mcp.core.limits import Policy
    from agent_meter_mcp.core.queries import UsageFilter


FEW = 16


def is_among(column: str, names: Collection[str]) -> tuple[str, list[Any]]:
    """(SQL, parameters) that hold where the column is one of the names. A tree may have more of them than
    SQLite takes parameters (32,766, where nobody has built it for more)."""
    if len(names) <= FEW:
        return f"{column} IN ({', '.join('?' * len(names))})", sorted(names)
    from json import dumps  # slow, for a process that only records

    return f"{column} IN (SELECT value FROM json_each(?))", [dumps(sorted(names))]


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
        term, found = is_among("d.agent", names)
        terms.append(term)
        values += found
    if chosen.within is not None:
        term, found = is_among("d.agent", policy.tree(chosen.within))
        terms.append(term)
        values += found
    if chosen.tier is not None:
        terms.append("d.agent IN (SELECT agent_id FROM agent WHERE tier = ?)")
        values.append(chosen.tier)
    return " AND ".join(terms) or "1", values
