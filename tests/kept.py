"""What a ledger's file keeps, short enough to compare: nothing changed when it is the same."""

from __future__ import annotations

from pathlib import Path

from agent_meter_mcp.store.sqlite import driver

_KEPT = """
SELECT (SELECT group_concat(id || ' ' || dim || ' ' || requests) FROM event),
    (SELECT count(*) FROM correction), (SELECT count(*) FROM alert),
    (SELECT group_concat(reservation_id || ' ' || state || ' ' || expires) FROM reservation),
    (SELECT group_concat(limit_id || ' ' || max || action || zone || ' ' || thresholds) FROM quota),
    (SELECT group_concat(agent_id || ' ' || ifnull(tier, '-') || ' ' || ifnull(parent, '-')) FROM agent),
    (SELECT group_concat(kind || ' ' || name) FROM switch), (SELECT max(id) FROM audit)"""
"""All but refusals, which are kept, now or a little later, when nothing else is."""


def kept(path: Path) -> object:
    """None: there is no file."""
    if not path.exists():
        return None
    connection = driver.connect(str(path), synchronous="FULL", busy_timeout_s=5)
    try:
        return connection.execute(_KEPT).fetchone()
    finally:
        connection.close()
