"""`alerts`: the thresholds that were reached."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agent_meter_mcp.core import check
from agent_meter_mcp.core.decide import percent_of
from agent_meter_mcp.core.figures import UNKNOWN, number, per, percent
from agent_meter_mcp.core.text import shown
from agent_meter_mcp.core.windows import zone_of

from . import options
from .figures import place
from .table import Cell, Column, fullness, table
from .times import moments, zone_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_meter_mcp.core.queries import AlertView
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.ledger import Ledger

    from .session import Session

PAGE_MAX = 500


@options.command("alerts", "agent-meter alerts", "agent-meter alerts --after 12 --json")
@click.option("--after", type=int, metavar="N", default=0, help="Only later ones than number N (see --json).")
@options.page_limit(50, PAGE_MAX)
@options.timezone
@options.as_json
@options.pass_session
def alerts(session: Session, /, as_json: bool, after: int, limit: int, timezone: str | None) -> None:
    """The thresholds of limits that were reached, newest first: each once in a window."""
    zone = timezone or session.settings.timezone
    local_zone = zone_of(zone)
    size = check.page_size(limit, PAGE_MAX)

    async def ask(ledger: Ledger, caller: Caller) -> tuple[list[AlertView], int]:
        return await ledger.alerts(caller, after, size + 1), ledger.now_us()

    found, now_us = session.ask(ask)
    views = found[:size]
    if as_json:
        from agent_meter_mcp.faces.wire.records import Alerts

        from .document import print_document

        print_document(Alerts.of(views))
        return
    if not views:
        click.echo("No threshold was reached. How full the limits are: agent-meter limit list")
        return
    when = moments([view.alert.raised_at_us for view in views], local_zone, now_us)
    columns = [
        Column(f"Time ({zone_name(zone)})", last=1),
        Column("For", shrinks=16),
        Column("Limit"),
        Column("Reached", right=True),
        Column("Used", right=True, last=2),
        Column("Max", right=True, last=3),
    ]
    click.echo(table(columns, [_row(view, when) for view in views]))
    if len(found) > size:
        click.echo("Older ones are left out: raise --limit.")


def _row(view: AlertView, when: Callable[[int | None], str]) -> list[str | Cell]:
    """Of a limit that is gone, nobody knows any more of what its amounts are: they are a percentage."""
    alert, key = view.alert, view.key
    whose = f" ({shown(alert.scope)})" if alert.scope else ""
    told = [when(alert.raised_at_us), (UNKNOWN if key is None else place(key)) + whose]
    reached = fullness(alert.threshold)
    if key is None:
        used = percent(percent_of(alert.used, alert.max))
        return [*told, "is gone", reached, used, UNKNOWN]
    amounts = number(key.metric, alert.used), number(key.metric, alert.max)
    return [*told, f"{key.metric} {per(key.window)}", reached, *amounts]
