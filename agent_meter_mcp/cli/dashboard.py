"""`dashboard`: the terminal over a local ledger, or over a meter elsewhere."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.settings import FOLDER

from . import options
from .times import zone_of

if TYPE_CHECKING:
    from typing import Any

    from agent_meter_mcp.sources.local import LocalSource
    from agent_meter_mcp.sources.remote import RemoteSource
    from agent_meter_mcp.sources.remote_link import Key

    from .session import Session

KEY_VARIABLE = "AGENT_METER_KEY"
KEY_BYTES_MAX = 4096


@options.command(
    "dashboard",
    "agent-meter dashboard",
    "agent-meter dashboard --read-only --timezone Europe/Berlin",
    "agent-meter dashboard --url https://meter.example --key-file ~/.agent-meter/key",
)
@click.option("--read-only", is_flag=True, help="Only show: nobody can be stopped from it.")
@click.option("--url", metavar="URL", help="Look at the meter there (agent-meter serve), not at a file.")
@click.option(
    "--key",
    metavar="KEY",
    help=f"For --url. Others on this machine can read it here: rather set the variable. [{KEY_VARIABLE}]",
)
@click.option("--key-file", metavar="PATH", help="For --url: a file with the key.")
@click.option("--theme", metavar="NAME", default="", help="The colours; auto: as the terminal's background.")
@click.option("--export-to", metavar="FOLDER", default="", help="Where w saves tables; by default here.")
@options.timezone
@options.pass_session
def dashboard(
    session: Session,
    read_only: bool,
    url: str | None,
    key: str | None,
    key_file: str | None,
    theme: str,
    export_to: str,
    timezone: str | None,
) -> None:
    """Watch all agents in the terminal, live, and stop one with two keys (x, y).

    It needs no server: it looks at the file. With --url it looks at a server. ? shows all keys.
    """
    chosen = timezone or session.settings.timezone
    if url is None:
        for field, given in (("key", key), ("key_file", key_file)):
            if given is not None:
                raise InvalidInput(field, "is for a meter elsewhere: name it with --url")
        source, may_act = _local(session, chosen), session.caller.role == "operator"
    else:
        source, may_act = _remote(url, _key_text(key, key_file), chosen), True
    _show(source, chosen, may_act=may_act and not read_only, theme=theme, export_to=export_to)


def _local(session: Session, timezone: str) -> LocalSource:
    from agent_meter_mcp.sources.local import LocalSource

    return LocalSource(session.settings, session.caller, timezone)


def _remote(url: str, key: str, timezone: str) -> RemoteSource:
    from agent_meter_mcp.sources.remote import RemoteSource
    from agent_meter_mcp.sources.remote_link import Key

    held: Key | None = Key(key) if key else None
    return RemoteSource(url, held, timezone)


def _key_text(key: str | None, key_file: str | None) -> str:
    """The key, wherever it is; "" without one. Raises InvalidInput, which does not repeat it."""
    if key is not None and key_file is not None:
        raise InvalidInput("key_file", "give either a key or a file with one")
    if key is not None:
        return key.strip()
    if key_file is None:
        return os.environ.get(KEY_VARIABLE, "").strip()
    try:
        with open(os.path.expanduser(key_file), encoding="ascii") as file:
            return file.read(KEY_BYTES_MAX).strip()
    except OSError as error:
        raise InvalidInput("key_file", f"{key_file} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError:
        raise InvalidInput("key_file", f"{key_file} holds no key") from None


def _show(
    source: LocalSource | RemoteSource, timezone: str, *, may_act: bool, theme: str, export_to: str
) -> None:
    """Until it is left."""
    import anyio

    zone = zone_of(timezone)

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
