"""The process that an MCP client starts: `agent-meter-mcp`, or `agent-meter mcp`.

It speaks the protocol on stdin and stdout; all else goes to stderr. A client may start it only to ask what it
is, and kill it at once, so it does nothing but open the ledger's file, and imports the SDK after it knows
that it can start.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import TYPE_CHECKING

from agent_meter_mcp import __version__
from agent_meter_mcp.core.errors import InvalidInput, MeterError
from agent_meter_mcp.settings import load_settings

from .errors import shape_of, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AsyncExitStack

    from agent_meter_mcp.settings import Settings

PROGRAM = "agent-meter-mcp"
FOR_A_PERSON = (
    f"{PROGRAM} is for an MCP client to start, such as: claude mcp add agent-meter -- {{program}}\n"
    "It waits for JSON on stdin. Ctrl-C ends it; `agent-meter summary` is for people.\n"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until stdin closes or a signal comes. Returns the exit code of a start that failed."""
    gc.disable()  # until all is imported: there is no garbage in that
    try:
        serve_stdio(load_settings(options=_options(sys.argv[1:] if arguments is None else arguments)))
    except MeterError as error:
        sys.stderr.write(f"{PROGRAM}: {text_of(error)}\n")
        return shape_of(error).exit_code
    return 0


def _options(arguments: Sequence[str]) -> dict[str, str]:
    """The variables that the arguments set."""
    options: dict[str, str] = {}
    if arguments:
        import argparse

        parser = argparse.ArgumentParser(
            PROGRAM,
            description="Budgets, usage metering and a kill switch for AI agents: an MCP server on stdio.",
        )
        parser.add_argument("--db", metavar="PATH", help="the ledger's file (AGENT_METER_DB)")
        parser.add_argument("--agent", metavar="NAME", help="act for this one agent only (AGENT_METER_AGENT)")
        parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
        given = parser.parse_args(arguments)
        options |= {} if given.db is None else {"AGENT_METER_DB": given.db}
        options |= {} if given.agent is None else {"AGENT_METER_AGENT": given.agent}
    return options


def serve_stdio(settings: Settings) -> None:
    """Serves the ledger of `settings` on stdin and stdout until stdin closes; a signal ends the process.

    Raises:
        MeterError: one of the two is closed, or the ledger cannot be opened.
    """
    for name in ("stdin", "stdout"):
        if getattr(sys, name) is None:
            raise InvalidInput(name, "is closed: an MCP client speaks on it")
    if sys.platform != "win32":
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # while there is nothing to close: no traceback
    if sys.stdin.isatty():
        sys.stderr.write(FOR_A_PERSON.format(program=_in_full()))
    import logging

    # Before the SDK does it, whose handler, where `rich` is installed, blocks while it draws tracebacks.
    logging.basicConfig(
        level=logging.WARNING, format=f"{PROGRAM}: %(levelname)s: %(message)s", stream=sys.stderr
    )
    import anyio

    try:
        anyio.run(_serve, settings)
    except* (BrokenPipeError, ConnectionResetError):
        pass  # the client is gone, and nobody else is to be told


def _in_full() -> str:
    """The program as others can start it, who know neither this shell's PATH nor what was activated."""
    from shlex import quote

    program = os.path.join(os.path.dirname(sys.executable), PROGRAM)
    return quote(program) if os.path.exists(program) else PROGRAM


async def _serve(settings: Settings) -> None:
    from contextlib import AsyncExitStack

    from anyio import create_task_group

    from agent_meter_mcp.runtime import collect_seldom, open_ledger, process_caller

    async with AsyncExitStack() as opened:
        ledger = await opened.enter_async_context(open_ledger(settings))
        from .mcp import build_server, local_caller, run_stdio

        caller_of = local_caller(process_caller(settings), os.environ)
        server = build_server(ledger, caller_of, timezone=settings.timezone)
        async with create_task_group() as tasks:
            if sys.platform != "win32":
                tasks.start_soon(_end_on_signal, opened)
            collect_seldom()
            await run_stdio(server)
            tasks.cancel_scope.cancel()


async def _end_on_signal(opened: AsyncExitStack) -> None:
    """Closes what is open and lets the signal do what it does. Cancelling would not end us: a thread waits
    for stdin."""
    from anyio import open_signal_receiver

    with open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            await opened.aclose()
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


if __name__ == "__main__":
    sys.exit(main())
