"""The dashboard in a terminal, which is as it was before, however it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from textual.worker import WorkerFailed

from agent_meter_mcp.core.text import shown

if TYPE_CHECKING:
    from .app import Dashboard

SIGNALS = ("SIGTERM", "SIGHUP", "SIGINT")
"""What ends a process without unwinding it. In the terminal's raw mode Ctrl-C is a key, not a signal."""
USUAL_SIZE = (24, 80)


async def run(app: Dashboard, log: str | None = None) -> int | None:
    """Until a person leaves it, or the process is told to end: then it answers the signal that told it.

    A failure of ours is raised when the terminal is back; its details are in the file `log`.
    """
    told: list[signal.Signals] = []

    def end(number: signal.Signals) -> None:
        told.append(number)
        app.exit()

    loop = asyncio.get_running_loop()
    # On Windows a loop has no handlers.
    numbers = [getattr(signal, name) for name in SIGNALS] if os.name == "posix" else []
    for number in numbers:
        loop.add_signal_handler(number, end, number)
    try:
        with _sized():
            await app.run_async()
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
    failure = app.failure.error if isinstance(app.failure, WorkerFailed) else app.failure
    if failure is not None and not isinstance(failure, BrokenPipeError):  # else there is nobody to tell
        if log is not None:
            _note_details(failure, log)
        raise failure
    return told[0] if told else None


@contextmanager
def _sized() -> Generator[None]:
    """Gives a size to a terminal that knows none, meanwhile: a serial line, a container's.

    Textual and Rich guess differently then, and the page is laid out anew without end, deaf to all keys."""
    if os.name != "posix" or not sys.stderr.isatty():
        yield
        return
    import termios

    terminal = sys.stderr.fileno()
    size = termios.tcgetwinsize(terminal)
    if 0 in size:
        termios.tcsetwinsize(terminal, USUAL_SIZE)
    try:
        yield
    finally:
        if 0 in size and termios.tcgetwinsize(terminal) == USUAL_SIZE:
            termios.tcsetwinsize(terminal, size)


def end_by(number: int) -> None:
    """As if nobody had caught the signal: whoever started the process sees why it has ended."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def _note_details(failure: BaseException, log: str) -> None:
    """Where it happened, without the values that it happened with."""
    try:
        os.makedirs(os.path.dirname(log), mode=0o700, exist_ok=True)
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write("".join(traceback.format_exception(failure)))
    except OSError:
        return
    failure.add_note(f"Details are in {shown(log)}.")
