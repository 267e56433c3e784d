"""The demo keeps its promises, says so when it does not, and leaves nothing behind.

Its processes inherit its output: that it ends for the reader of the pipe means that the last of them is gone.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WAIT_S = 100
FAST = [sys.executable, "demo.py", "--fast"]
SHORTENED = "import demo, sys; demo.PAGES = 4; sys.argv[1:] = ['--fast']; sys.exit(demo.main())"

PROMISED = [
    "rogue-bot had its 20 requests, and was refused after",
    "research-bot and billing-agent go on, and were never refused",
    "the summary has all four agents, and the refusals of rogue-bot",
    "rogue-bot goes on: a limit holds from the moment it is set",
    "from that moment on, 403 for rogue-bot; the others go on",
    "rogue-bot goes on",
    "data-crawler was refused",
    "every total, worked out again from the events, is what it was",
    "each acknowledged event is there, once, at its cost; each refusal too",
    "data-crawler never had more than 8 pages in any 2 s",
    "nothing is left: no process, no file",
]

pytestmark = pytest.mark.slow


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Temporary files go to an empty folder; what a person may have set is in the way."""
    unusable = {"AGENT_METER_AGENT": "somebody-else", "AGENT_METER_DB": "/dev/null"}
    return {**os.environ, **unusable, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}


def played(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=WAIT_S, check=False
    )


def test_every_promise_is_kept(environment: dict[str, str], tmp_path: Path) -> None:
    done = played(FAST, environment)

    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    kept = [line.strip() for line in done.stdout.splitlines() if line.strip().startswith("✓")]
    assert len(kept) == len(PROMISED)
    assert [
        wanted for wanted, line in zip(PROMISED, kept, strict=True) if not line.startswith(f"✓ {wanted}")
    ] == []
    assert done.stdout.splitlines()[-1] == f"{len(PROMISED)} of {len(PROMISED)} promises kept"
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_without_its_characters_ends_nothing(environment: dict[str, str]) -> None:
    done = played(FAST, {**environment, "PYTHONIOENCODING": "ascii"})

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"{len(PROMISED)} of {len(PROMISED)} promises kept"


def test_the_rogue_is_refused_in_lines_of_its_own(environment: dict[str, str]) -> None:
    done = played(FAST, {**environment, "FORCE_COLOR": "1", "TERM": "xterm-256color", "COLORTERM": ""})

    refused = [line for line in done.stdout.splitlines() if "rogue-bot" in line and "429" in line]
    assert refused, done.stdout
    red = "\x1b[31m"
    assert all(red + "20 requests of 20" in line or red + "20 of 20" in line for line in refused), refused
    stopped = [line for line in done.stdout.splitlines() if "rogue-bot" in line and "403" in line]
    assert any("runaway loop" in line for line in stopped), stopped


def heard(terminal: int, pattern: bytes) -> re.Match[bytes]:
    """What matches it of what is said there, within the time that a test waits."""
    told, end = b"", time.monotonic() + WAIT_S
    while (found := re.search(pattern, told)) is None:
        assert select.select([terminal], [], [], max(end - time.monotonic(), 0))[0], told
        told += os.read(terminal, 65_536)
    return found


def test_a_person_is_told_how_to_watch_it(environment: dict[str, str]) -> None:
    """It is held meanwhile: on a busy machine it would be over before a dashboard has started."""
    first, second = os.openpty(), os.openpty()
    fcntl.ioctl(second[1], termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with subprocess.Popen(FAST, cwd=ROOT, env=environment, stdout=first[1], stderr=first[1]) as demo:
        command = shlex.split(heard(first[0], rb"Watch in a second terminal: (.*)\x1b\[0m\r\n")[1].decode())
        heard(first[0], b"rogue-bot.*429")
        demo.send_signal(signal.SIGSTOP)
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdin=second[1], stdout=second[1],
                              stderr=second[1]) as dashboard:  # fmt: skip
            try:
                heard(second[0], b"rogue-bot")
            finally:
                dashboard.kill()
                demo.send_signal(signal.SIGCONT)
                demo.terminate()
    for terminal in (*first, *second):
        os.close(terminal)


def test_a_broken_promise_is_told_and_fails(environment: dict[str, str], tmp_path: Path) -> None:
    done = played([sys.executable, "-c", SHORTENED], environment)

    assert done.returncode == 1, done.stdout + done.stderr
    assert "✗ FAILED: data-crawler never had more than 4 pages in any 2 s" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_when_it_is_interrupted(
    number: signal.Signals, environment: dict[str, str], tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-u", *FAST[1:]],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as demo:
        try:
            assert demo.stdout is not None
            before = next((line for line in demo.stdout if " 429 " in line), None)
            os.killpg(demo.pid, number)  # as Ctrl-C does: all that are in the terminal's group get it
            _, errors = demo.communicate(timeout=WAIT_S)
        finally:
            demo.kill()

    assert before is not None
    assert (demo.returncode, errors) == (130, "")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_goes_away_ends_it_without_a_trace(environment: dict[str, str], tmp_path: Path) -> None:
    with subprocess.Popen(
        FAST, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        try:
            assert demo.stdout is not None
            demo.stdout.readline()
            demo.stdout.close()
            assert demo.stderr is not None
            errors = demo.stderr.read()
            assert (demo.wait(WAIT_S), errors) == (141, "")
        finally:
            demo.kill()
    assert list(tmp_path.iterdir()) == []


def test_help_says_what_it_does(environment: dict[str, str]) -> None:
    done = played([sys.executable, "demo.py", "--help"], environment)
    assert done.returncode == 0
    assert "--fast" in done.stdout
