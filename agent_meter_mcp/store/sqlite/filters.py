"""A filter as SQL over `dim d`, and the agents that it means."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

    from agent_meter_mcp.core.limits import Policy
    from agent_meter_mcp.core.queries import UsageFilter


FEW = 16
_BROAD_DIMS = """
WITH RECURSIVE at (agent, service) AS (
    SELECT agent_id, (SELECT min(d.service) FROM dim d WHERE d.agent = agent_id) FROM agent WHERE {}
    UNION ALL SELECT at.agent,
        (SELECT min(d.service) FROM dim d WHERE d.agent = at.agent AND d.service > at.service)
    FROM at WHERE at.service IS NOT NULL),
broad AS (
    SELECT d.id, d.agent, d.service, d.outcome FROM at CROSS JOIN dim d ON d.agent = at.agent
    AND d.service = at.service AND d.operation = '' AND d.model = '' AND d.project = '' AND d.session = ''
    AND d.source = '')"""


def is_among(column: str, names: Collection[str]) -> tuple[str, list[Any]]:
    """(SQL, parameters) that hold where the column is one of the names. A tree may have more of them than
    SQLite takes parameters (32,766, where nobody has built it for more)."""
    if len(names) <= FEW:
        return f"{column} IN ({', '.join('?' * len(names))})", sorted(names)
    from json import dumps  # slow, for a process that only records

    return f"{column} IN (SELECT value FROM json_each(?))", [dumps(sorted(names))]


def broad_dims(names: Collection[str]) -> tuple[str, list[Any]]:
    """(SQL, parameters) that begin a statement, which has their broad dims as `broad` then.

    From service to service by the index: of all the sessions that an agent had, not one is passed.
    """
    term, values = is_among("agent_id", names)
    return _BROAD_DIMS.format(term), values


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
