"""`audit`: who changed what."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from agent_meter_mcp.core import check
from agent_meter_mcp.core.figures import UNKNOWN, number
from agent_meter_mcp.core.text import NAME_WIDTH, REASON_WIDTH, shown
from agent_meter_mcp.core.windows import zone_of

from . import options
from .table import Column, table
from .times import moments, zone_name

if TYPE_CHECKING:
    from agent_meter_mcp.core.models import AuditEntry
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.ledger import Ledger

    from .session import Session

PAGE_MAX = 500
_ACTIONS = {"engage_kill_switch": "stop", "release_kill_switch": "resume"}


@options.command("audit", "agent-meter audit", "agent-meter audit --limit 200 --json")
@options.page_limit(50, PAGE_MAX)
@options.cursor
@options.timezone
@options.as_json
@options.pass_session
def audit(session: Session, /, as_json: bool, limit: int, cursor: str | None, timezone: str | None) -> None:
    """Who changed what: limits, agents, kill switches and keys, newest first."""
    zone = timezone or session.settings.timezone
    local_zone = zone_of(zone)
    size, before = check.page_size(limit, PAGE_MAX), check.before_seq(cursor)

    async def ask(ledger: Ledger, caller: Caller) -> tuple[list[AuditEntry], int]:
        return await ledger.audit(caller, before, size + 1), ledger.now_us()

    found, now_us = session.ask(ask)
    if as_json:
        from agent_meter_mcp.faces.wire.records import Audit

        from .document import print_document

        print_document(Audit.of(found, size))
        return
    entries = found[:size]
    if not entries:
        click.echo("Nothing was changed.")
        return
    when = moments([entry.seq for entry in entries], local_zone, now_us)
    columns = [
        Column(f"Time ({zone_name(zone)})"),
        Column("Actor", shrinks=6),
        Column("Action", shrinks=8),
        Column("Target", shrinks=12),
        Column("Details", shrinks=12),
    ]
    rows = [
        [
            when(entry.seq),
            shown(entry.actor, width=NAME_WIDTH),
            _ACTIONS.get(entry.action, entry.action.replace("_", " ")),
            shown(entry.target),
            shown(_details(entry), width=REASON_WIDTH),
        ]
        for entry in entries
    ]
    click.echo(table(columns, rows))
    if len(found) > size:
        click.echo(f"Older ones: --cursor {entries[-1].seq}")


_TOLD = ("max", "action", "zone", "thresholds", "name", "tier", "owner", "parent")


def _details(entry: AuditEntry) -> str:
    """The reason that was given, or what is not as it was: "max $5.00 → $10.00"."""
    if entry.reason is not None:
        return entry.reason
    if entry.action == "create_key":
        made: dict[str, Any] = json.loads(entry.after or "{}")
        return " ".join(made[field] for field in ("role", "bound_to") if made.get(field))
    before, after = _fields(entry.before), _fields(entry.after)
    if "max" in before | after and not (before and after):
        only = before | after
        return f"max {only['max']}" + (", warns only" if only["action"] == "warn" else "")
    return ", ".join(
        f"{field} {before.get(field, UNKNOWN)} → {after.get(field, UNKNOWN)}"
        for field in _TOLD
        if before.get(field, UNKNOWN) != after.get(field, UNKNOWN)
    )


def _fields(text: str | None) -> dict[str, str]:
    """What is told of a limit or an agent, as text."""
    value: dict[str, Any] = {} if text is None else json.loads(text)
    if "engaged_at_us" in value:
        return {}
    if "key" in value:
        value["max"] = number(value["key"]["metric"], value["max"])
        value["thresholds"] = " ".join(f"{threshold} %" for threshold in value["thresholds"])
    return {
        field: UNKNOWN if value[field] is None else str(value[field]) for field in _TOLD if field in value
    }
