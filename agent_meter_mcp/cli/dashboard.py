"""`dashboard`: the terminal over a local ledger."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from agent_meter_mcp.settings import FOLDER

from . import options
from .times import zone_of

if TYPE_CHECKING:
    from typing import Any

    from .session import Session


@options.command(
    "dashboard", "agent-meter dashboard", "agent-meter dashboard --read-only --timezone Europe/Berlin"
)
@click.option("--read-only", is_flag=True, help="Only show: nobody can be stopped from it.")
@click.option("--theme", metavar="NAME", default="", help="The colours; auto: as the terminal's background.")
@click.option("--export-to", metavar="FOLDER", default="", help="Where w saves tables; by default here.")
@options.timezone
@options.pass_session
def dashboard(session: Session, read_only: bool, theme: str, export_to: str, timezone: str | None) -> None:
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

    folder = os.path.expanduser(FOLDER)

    async def run() -> int | None:
        choices = tui("settings").Choices(os.path.join(folder, "dashboard.json"))
        operator = source if may_act else None
        try:
            app = tui("app").Dashboard(
                source, operator, zone=zone, theme=theme, choices=choices, export_to=export_to
            )
            return await tui("running").run(app, os.path.join(folder, "dashboard.log"))
        finally:
            await source.close()

    told = anyio.run(run)
    if told is not None:
        tui("running").end_by(told)


def tui(module: str) -> Any:
    """Of the dashboard: as installed it is within this package, in a checkout a folder beside it."""
    from importlib import import_module
    from importlib.util import find_spec

    package = "tui" if find_spec("agent_meter_mcp.tui") is None else "agent_meter_mcp.tui"
    return import_module(f"{package}.{module}")
