"""A command as a person runs it: in a terminal of a certain size."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from functools import partial

from .conftest import environment

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
    """Runs it to its end. The person types `typed` when it has shown `at`."""
    ours, theirs = os.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        running = subprocess.Popen(
            [sys.executable, "-m", "agent_meter_mcp", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment(TERM="xterm-256color", **variables),
            start_new_session=True,
            preexec_fn=partial(os.login_tty, theirs),  # so that Ctrl-C comes from the terminal
        )
    finally:
        os.close(theirs)
    with running:
        shown = b""
        try:
            while part := os.read(ours, 65_536):
                shown += part
                if typed and at.encode() in shown:
                    os.write(ours, typed.encode())
                    typed = ""
        except OSError:  # how Linux says that the other side is closed
            pass
        finally:
            os.close(ours)
        code = running.wait(60)
    return Shown(code, shown.decode())
