"""`dashboard`: all agents, of a local ledger or of a meter elsewhere, in a terminal or in a browser."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.value import Value
from agent_meter_mcp.core.windows import zone_of
from agent_meter_mcp.settings import FOLDER

from . import options

if TYPE_CHECKING:
    from agent_meter_mcp.sources.local import LocalSource
    from agent_meter_mcp.sources.remote import RemoteSource
    from agent_meter_mcp.sources.remote_link import Key

    from .session import Session

KEY_VARIABLE = "AGENT_METER_KEY"
KEY_BYTES_MAX = 4096
WEB_PORT = 8788
PLAIN_TERMINALS = ("dumb", "unknown")
LOOK_AT_SERVER_S = 1.0
COLLECT_AFTER_S = 1.0
"""By then there is something on the screen, and what that took stays as long as the dashboard does."""


@options.command(
    "dashboard",
    "agent-meter dashboard",
    "agent-meter dashboard --read-only --timezone Europe/Berlin",
    "agent-meter dashboard --url https://meter.example --key-file ~/meter.key",
    "agent-meter dashboard --web",
)
@click.option("--read-only", is_flag=True, help="Only show: nobody can be stopped from it.")
@click.option("--url", metavar="URL", help="Look at the meter there (agent-meter serve), not at a file.")
@click.option(
    "--key",
    metavar="KEY",
    help=f"For --url. Others on this machine can read it here: rather set the variable. [{KEY_VARIABLE}]",
)
@click.option("--key-file", type=options.FILE, metavar="PATH", help="For --url: a file with the key.")
@click.option("--web", is_flag=True, help="Show it in a browser on this machine; it only shows.")
@click.option("--port", type=int, metavar="PORT", help="For --web; 0 takes a free one. [default 8788]")
@click.option("--allow-actions", is_flag=True, help="For --web: agents can be stopped from it.")
@click.option("--theme", metavar="NAME", default="", help="The colours; auto: as the terminal's background.")
@click.option("--export-to", metavar="FOLDER", default="", help="Where w saves tables; by default here.")
@options.timezone
@options.pass_session
def dashboard(session: Session, **given: Any) -> None:
    """Watch all agents in the terminal, live, and stop one with two keys (x, y).

    It needs no server: it looks at the file. With --url it looks at a server. ? shows all keys.
    """
    wanted = _checked(Wanted(**given))
    zone = wanted.timezone or session.settings.timezone
    zone_of(zone)
    may_act = not wanted.read_only
    if wanted.url is not None:
        key = _key_text(wanted.key, wanted.key_file)
        source = _remote(wanted.url, key, zone)
        if wanted.web:
            return _serve(wanted, key, "--url", source.where, "--timezone", zone)
    else:
        if wanted.web:
            return _serve(wanted, "", "--db", session.settings.db, "--timezone", zone)
        source = _local(session, zone)
        may_act = may_act and session.caller.role == "operator"
    _show(source, zone, wanted, may_act=may_act)


class Wanted(Value):
    """What the command line says."""

    read_only: bool
    url: str | None
    key: str | None
    key_file: str | None
    web: bool
    port: int | None
    allow_actions: bool
    theme: str
    export_to: str
    timezone: str | None


def _checked(wanted: Wanted) -> Wanted:
    """Raises InvalidInput for options that do not go together."""
    if wanted.url is None:
        for field in ("key", "key_file"):
            if getattr(wanted, field) is not None:
                raise InvalidInput(field, "is for a meter elsewhere: name it with --url")
    if not wanted.web:
        for field in ("port", "allow_actions"):
            if getattr(wanted, field) not in (None, False):
                raise InvalidInput(field, "is for a browser: it goes with --web")
    if wanted.read_only and wanted.allow_actions:
        raise InvalidInput("allow_actions", "give either this or --read-only")
    return wanted


def _serve(wanted: Wanted, key: str, *arguments: str) -> None:
    """In a browser. The key goes to the tabs by their environment, which others cannot read."""
    try:
        from . import web
    except ImportError as error:
        raise InvalidInput("web", "needs more: pip install 'agent-meter-mcp[web]'") from error
    if wanted.theme:
        tui("themes").check(wanted.theme)
    os.environ[KEY_VARIABLE] = key
    more = () if wanted.allow_actions else ("--read-only",)
    more += ("--theme", wanted.theme) if wanted.theme else ()
    web.serve(web.child_command(*arguments, *more), WEB_PORT if wanted.port is None else wanted.port)


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


def _show(source: LocalSource | RemoteSource, timezone: str, wanted: Wanted, *, may_act: bool) -> None:
    """Until it is left."""
    folder, is_tab = os.path.expanduser(FOLDER), "TEXTUAL_DRIVER" in os.environ
    # Textual reads keys from the one and draws on the other; without them it would turn for ever.
    for name, stream in (("standard input", sys.stdin), ("standard error", sys.stderr)):
        if not is_tab and (stream is None or not stream.isatty()):
            raise InvalidInput(
                name, "must be a terminal; --web shows it in a browser, and summary prints totals"
            )
    # In these Rich takes 80x25 for the size, whatever it is: the page would be laid out anew without end.
    if not is_tab and os.environ.get("TERM", "").lower() in PLAIN_TERMINALS:
        raise InvalidInput(
            "TERM", f"is {os.environ['TERM']}: such a terminal cannot show it; --web does, in a browser"
        )
    # Whoever looks in a browser need not be who looks in the terminal.
    choices = tui("settings").Choices(None if is_tab else os.path.join(folder, "dashboard.json"))
    source.look_ahead(choices.range)
    import asyncio

    from agent_meter_mcp.runtime import collect_seldom

    zone = zone_of(timezone)
    operator = source if may_act else None

    async def run() -> int | None:
        app = tui("app").Dashboard(
            source, operator, zone=zone, theme=wanted.theme, choices=choices, export_to=wanted.export_to
        )
        ends = partial(tui("running").run, app, os.path.join(folder, "dashboard.log"))
        asyncio.get_running_loop().call_later(COLLECT_AFTER_S, collect_seldom)
        try:
            if not is_tab:
                return await ends()
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(_leave_with(os.getppid(), app))
                await ends()
                watching.cancel()
            return None
        finally:
            await source.close()

    told = asyncio.run(run())
    if told is not None:
        tui("running").end_by(told)


async def _leave_with(server: int, app: Any) -> None:
    """In the process of a browser's tab: ends it when the server is gone, and could not say so."""
    import asyncio

    while os.getppid() == server:  # noqa: ASYNC110 - nobody tells a process that its parent has died
        await asyncio.sleep(LOOK_AT_SERVER_S)
    app.exit()


def tui(module: str) -> Any:
    """Of the dashboard: as installed it is within this package, in a checkout a folder beside it."""
    from importlib import import_module
    from importlib.util import find_spec

    package = "tui" if find_spec("agent_meter_mcp.tui") is None else "agent_meter_mcp.tui"
    return import_module(f"{package}.{module}")
