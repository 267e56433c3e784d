"""A command as a person runs it: in a terminal of a certain size."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import termios
import time
from functools import partial

from .conftest import environment

PATIENCE_S = 5
CTRL_C = b"\x03"
CONTROL = re.compile(r"\x1b\[[0-9;]*[a-zA-Z]")


class Shown:
    """What came on the screen. `lines` are without colours."""

    def __init__(self, code: int, raw: str) -> None:
        self.code = code
        self.raw = raw.replace("\r\n", "\n")
        self.lines = CONTROL.sub("", self.raw).splitlines()

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def in_terminal(*arguments: str, columns: int = 80, at: str = "", typed: str = "", **variables: str) -> Shown:
    """Runs it to its end. The person types `typed` when it has shown what `at` matches."""
    ours, theirs = os.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        running = subprocess.Popen(
            [sys.executable, "-m", "agent_meter_mcp", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment(**{"TERM": "xterm-256color", **variables}),
            start_new_session=True,
            preexec_fn=partial(os.login_tty, theirs),  # so that Ctrl-C comes from the terminal
        )
    finally:
        os.close(theirs)
    with running:
        try:
            shown = _seen(ours, at.encode(), typed.encode())
            code = running.wait(60)
        except BaseException:
            running.kill()
            raise
    return Shown(code, shown.decode())


def _seen(terminal: int, at: bytes, typed: bytes) -> bytes:
    """What comes until the other side is closed. A Ctrl-C that the interpreter has missed is pressed again: one
    between its look for signals and its wait for a line does not end that wait."""
    shown, typed_s = b"", 0.0
    try:
        while True:
            if select.select([terminal], [], [], PATIENCE_S)[0]:
                part = os.read(terminal, 65_536)
                if not part:
                    return shown
                shown += part
            is_due = typed_s == 0.0 or (typed == CTRL_C and time.monotonic() - typed_s > PATIENCE_S)
            if typed and is_due and re.search(at, shown):
                os.write(terminal, typed)
                typed_s = time.monotonic()
    except OSError:  # how Linux says that the other side is closed
        return shown
    finally:
        os.close(terminal)
