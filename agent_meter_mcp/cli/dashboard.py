"""`dashboard`: the terminal over a local ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import options
from .times import zone_of

if TYPE_CHECKING:
    from typing import Any

    from .session import Session


@options.command(
    "dashboard", "agent-meter dashboard", "agent-meter dashboard --read-only --timezone Europe/Berlin"
)
@click.option("--read-only", is_flag=True, help="Only show: nobody can be stopped from it.")
@options.timezone
@options.pass_session
def dashboard(session: Session, read_only: bool, timezone: str | None) -> None:
    """Watch all agents in the terminal, live, and stop one with two keys (x, y).

    It needs no server: it looks at the file. ? shows all keys.
    """
    import anyio

    from agent_meter_mcp.sources.local import LocalSource

    settings = session.settings
    chosen = timezone or settings.timezone
    zone = zone_of(chosen)
    source = LocalSource(settings, session.caller, chosen)
    may_act = not read_only and session.caller.role == "operator"

    async def run() -> None:
        try:
            await dashboard_app()(source, source if may_act else None, zone=zone).run_async()
        finally:
            await source.close()

    anyio.run(run)


def dashboard_app() -> Any:
    """Its class. As installed the dashboard is within this package, in a checkout a folder beside it."""
    from importlib import import_module
    from importlib.util import find_spec

    package = "tui" if find_spec("agent_meter_mcp.tui") is None else "agent_meter_mcp.tui"
    return import_module(f"{package}.app").Dashboard
