"""A terminal is as it was before, however the dashboard ends: in a real one, with the real process."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

WAIT_S = 30
START = "import sys; from agent_meter_mcp.cli import main; sys.exit(main(sys.argv[1:]))"
CRASHES = f"""
from tui.page import Page
def fails(self, looked):
    secret = "hunter2"
    raise RuntimeError("it broke\\x1b]0;owned\\x07")
Page._show_title = fails
{START}
"""
ENTERED, LEFT, SHOWS_CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


class Screen:
    """A terminal with a program in it, and all that came out so far."""

    def __init__(self, terminal: int, other_side: int, running: subprocess.Popen[bytes]) -> None:
        self._terminal = terminal
        self._open = [terminal, other_side]  # with the other side open, the modes can be read at any time
        self.running = running
        self.shown = b""

    def hang_up(self) -> None:
        """Closes it, once."""
        while self._open:
            os.close(self._open.pop())

    def type(self, keys: bytes) -> None:
        os.write(self._terminal, keys)

    def until(self, holds: Callable[[], object]) -> None:
        """Takes what comes until that is so."""
        end_s = time.monotonic() + WAIT_S
        while not holds():
            assert time.monotonic() < end_s, self.shown[-2000:]
            if select.select([self._terminal], [], [], 0.05)[0]:
                self.shown += os.read(self._terminal, 65_536)

    def ended(self) -> int:
        """The code it ended with, and all that it wrote until then."""
        self.until(lambda: self.running.poll() is not None)
        while select.select([self._terminal], [], [], 0)[0]:
            self.shown += os.read(self._terminal, 65_536)
        return self.running.returncode

    @property
    def after(self) -> str:
        """What stands in the terminal afterwards."""
        return self.shown.rpartition(LEFT)[2].decode()

    @property
    def modes(self) -> list[Any]:
        return [*termios.tcgetattr(self._terminal), termios.tcgetwinsize(self._terminal)]


@contextmanager
def in_terminal(
    folder: Path, program: str = START, *options: str, size: tuple[int, int] = (24, 80)
) -> Generator[Screen]:
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    db = str(folder / "meter.db")
    running = subprocess.Popen(
        [sys.executable, "-c", program, "--db", db, "dashboard", *options],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "xterm-256color", "LANG": "C.UTF-8",
             "PYTHONPATH": str(Path(__file__).parent.parent.parent)},
        start_new_session=True, preexec_fn=partial(os.login_tty, theirs),
    )  # fmt: skip
    screen = Screen(ours, theirs, running)
    try:
        yield screen
    finally:
        running.kill()
        running.wait(WAIT_S)
        screen.hang_up()


def is_left_as_it_was(screen: Screen, modes: list[Any]) -> bool:
    after = screen.shown.rpartition(ENTERED)[2]
    return screen.modes == modes and after.count(LEFT) == 1 and SHOWS_CURSOR in after


def test_a_terminal_that_does_not_know_its_size_shows_it_too(tmp_path: Path) -> None:
    with in_terminal(tmp_path, size=(0, 0)) as screen:
        modes = screen.modes
        screen.until(lambda: b"There is no ledger yet" in screen.shown)
        screen.running.send_signal(signal.SIGTERM)
        assert screen.ended() == -signal.SIGTERM
        assert is_left_as_it_was(screen, modes)


@pytest.mark.parametrize("key", [b"q", b"\x03", b"\x11"])
def test_a_key_leaves_it(tmp_path: Path, key: bytes) -> None:
    with in_terminal(tmp_path) as screen:
        modes = screen.modes
        screen.until(lambda: b"There is no ledger yet" in screen.shown)
        screen.type(key)
        assert screen.ended() == 0
        assert is_left_as_it_was(screen, modes)
        assert screen.after.count("\n") == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_it_and_is_what_it_ended_by(tmp_path: Path, number: signal.Signals) -> None:
    with in_terminal(tmp_path) as screen:
        modes = screen.modes
        screen.until(lambda: b"There is no ledger yet" in screen.shown)
        screen.running.send_signal(number)
        assert screen.ended() == -number
        assert is_left_as_it_was(screen, modes)


def test_a_failure_of_ours_is_a_sentence_and_a_file_without_values(tmp_path: Path) -> None:
    with in_terminal(tmp_path, CRASHES) as screen:
        modes = screen.modes
        assert screen.ended() not in (0, -signal.SIGKILL)
        assert is_left_as_it_was(screen, modes)
        (line,) = [line for line in screen.after.splitlines() if "agent-meter" in line]
        assert "internal error: RuntimeError: it broke\\x1b]0;owned\\x07" in line
        assert "Please report it. Details are in" in line
        assert "Traceback" not in screen.after
        assert b"\x1b]0;owned" not in screen.shown
    log = tmp_path / ".agent-meter" / "dashboard.log"
    assert "in fails" in log.read_text(encoding="utf-8")
    assert "hunter2" not in log.read_text(encoding="utf-8").replace('secret = "hunter2"', "")
    assert log.stat().st_mode & 0o077 == 0


def test_a_terminal_that_goes_away_takes_it_along(tmp_path: Path) -> None:
    with in_terminal(tmp_path) as screen:
        screen.until(lambda: b"There is no ledger yet" in screen.shown)
        screen.hang_up()
        assert screen.running.wait(WAIT_S) == -signal.SIGHUP


def test_a_theme_that_there_is_not_is_said_before_the_screen_changes(tmp_path: Path) -> None:
    with in_terminal(tmp_path, START, "--theme", "nonsense") as screen:
        assert screen.ended() == 2
        assert ENTERED not in screen.shown
        assert b"--theme: must be auto or one of ansi-dark," in screen.shown
