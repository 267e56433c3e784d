"""The dashboard as a person has it: the real process in a terminal of 120x36, on a file that others write to.

`python -m benchmarks.dashboard PATH SEED AGENTS RATE` is the process that writes.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import shutil
import statistics
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread

from agent_meter_mcp.demo.filling import go_on, make
from agent_meter_mcp.demo.month import Month
from agent_meter_mcp.runtime import system_clock_us
from agent_meter_mcp.sources.base import RANGES

from .measure import Goal, Options, Row, at_least, at_most, duration, middle, percentile

SEED = 7
FEW, MANY = 50, 5000
EVENTS = 25_000
RATE = 200
"""Events a second."""
COLUMNS, LINES = 120, 36
QUIET_S = 0.04
"""Output with less than this between is one update of the screen."""
PATIENCE_S = 20.0
SETTLE_S = 4.0
PAGES = "12345"
"""Their keys."""
LOOKED_AT_S = 1.2
EMPTY_APP = """
from textual.app import App
from textual.widgets import Static
class Empty(App):
    def compose(self):
        yield Static("ready")
Empty().run()
"""
_CONTROL = re.compile(rb"\x1b(?:\[[0-9;?]*[a-zA-Z]|\].*?\x07|[=>])")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Terminal:
    """A process in a terminal. `chunks` are (when, what) came from it."""

    def __init__(self, *command: str) -> None:
        self._home = TemporaryDirectory()  # what somebody chose at a dashboard is not to be measured
        self.began = time.perf_counter()
        self.chunks: list[tuple[float, bytes]] = []
        self._came = Event()
        ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self._process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={
                **_plain_environment(),
                "HOME": self._home.name,
                "TERM": "xterm-256color",
                "COLORTERM": "truecolor",
            },
            start_new_session=True,
            preexec_fn=partial(os.login_tty, theirs),
        )
        os.close(theirs)
        self._ours = ours
        self._reading = Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        while True:
            try:
                if not select.select([self._ours], [], [], 0.5)[0]:
                    continue
                part = os.read(self._ours, 65_536)
            except OSError:  # how Linux says that the other side is closed
                return
            if not part:
                return
            self.chunks.append((time.perf_counter(), part))
            self._came.set()

    def press(self, key: str) -> float:
        """When it was pressed."""
        at = time.perf_counter()
        os.write(self._ours, key.encode())
        return at

    def painted(self, since: float, text: bytes | None = None) -> float:
        """When, after `since`, the text (or anything at all) was painted: seconds from `since`."""
        deadline = time.perf_counter() + PATIENCE_S
        while True:
            self._came.clear()
            seen = b""
            for at, part in list(self.chunks):
                if at > since:
                    seen += part
                    if text is None or text in _CONTROL.sub(b"", seen):
                        return at - since
            if time.perf_counter() > deadline or self._process.poll() is not None:
                tail = _CONTROL.sub(b"", b"".join(part for _, part in self.chunks[-20:]))[-400:]
                raise SystemExit(f"the dashboard did not paint {text!r}; it ended with {tail.decode()!r}")
            self._came.wait(0.5)

    def updates(self, since: float) -> int:
        """How often the screen has changed since then."""
        moments = [at for at, _ in list(self.chunks) if at > since]
        return sum(one - other > QUIET_S for one, other in zip(moments, [0.0, *moments], strict=False))

    def cpu_s(self) -> float:
        """Processor time that the process has used, all its threads together."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def rss_mb(self) -> float:
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * _PAGE / 1e6

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        os.close(self._ours)
        self._reading.join(5)
        self._home.cleanup()


def _command(path: Path) -> tuple[str, ...]:
    return sys.executable, "-m", "agent_meter_mcp", "dashboard", "--db", str(path)


def _tally(agents: int) -> bytes:
    """What is painted together with the table of the agents."""
    return f"{agents:,} agents".encode()


def _plain_environment() -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("AGENT_METER", "TEXTUAL"))
    }
    kept.pop("NO_COLOR", None)
    return kept


@contextmanager
def dashboard(path: Path, agents: int) -> Generator[Terminal]:
    """The real command, when it has shown the agents."""
    terminal = Terminal(*_command(path))
    try:
        terminal.painted(terminal.began, _tally(agents))
        yield terminal
    finally:
        terminal.close()


@contextmanager
def writing(path: Path, agents: int) -> Generator[None]:
    """Somebody writes, in another process."""
    command = [sys.executable, "-m", "benchmarks.dashboard", str(path), str(SEED), str(agents), str(RATE)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent)
    assert writer.stdout is not None
    try:
        writer.stdout.readline()
        yield
    finally:
        writer.terminate()
        writer.wait()
        writer.stdout.close()


def ledger(options: Options, agents: int) -> Path:
    """A month of so many agents that ends now, for this run alone."""
    kept = options.folder / f"kept-{agents}.db"
    if not kept.exists():
        month = Month(SEED, agents, EVENTS, system_clock_us())
        make(str(kept), month, SEED, lambda done: None)
    path = options.folder / f"used-{agents}.db"
    for ending in ("-wal", "-shm"):  # of whoever was ended while he wrote
        path.with_name(path.name + ending).unlink(missing_ok=True)
    shutil.copyfile(kept, path)
    return path


def run_dashboard(options: Options) -> Iterator[Row]:
    """Live, idle, with many agents, and how soon it is there."""
    seconds = 10 if options.quick else 20
    rounds = options.number_of_rounds(3, 1)
    few = [_live(ledger(options, FEW), FEW, seconds) for _ in range(rounds)]
    yield from _rows(f"{FEW} agents, {RATE} events/s", few, cpu=at_most(5))
    idle = [_idle(ledger(options, FEW), seconds) for _ in range(rounds)]
    yield Row("7", "dashboard: nobody writes", "", "", tuple(idle), at_most(0.5), "% CPU")
    many = [_live(ledger(options, MANY), MANY, seconds) for _ in range(rounds)]
    yield from _rows(f"{MANY} agents, {RATE} events/s", many)
    ratios = tuple(one.cpu / other.cpu for one, other in zip(many, few, strict=True))
    yield Row("7", f"dashboard: CPU with {MANY} agents to that with {FEW}", "", "", ratios, at_most(2))
    yield _first_paint(ledger(options, FEW), 11 if not options.quick else 5)


class Live:
    """What one watch gave: processor time in % of a core, updates a second, keys' times to paint."""

    def __init__(self, cpu: float, updates: float, keys: dict[str, list[float]]) -> None:
        self.cpu = cpu
        self.updates = updates
        self.keys = keys


def _live(path: Path, agents: int, seconds: float) -> Live:
    with writing(path, agents), dashboard(path, agents) as terminal:
        time.sleep(SETTLE_S)
        began, used = time.perf_counter(), terminal.cpu_s()
        time.sleep(seconds)
        spent = time.perf_counter() - began
        cpu, updates = (terminal.cpu_s() - used) / spent * 100, terminal.updates(began) / spent
        return Live(cpu, updates, _keys(terminal))


def _keys(terminal: Terminal, presses: int = 20) -> dict[str, list[float]]:
    """Moves of the cursor, pages of it, a dialog; not in step with the looks."""
    times: dict[str, list[float]] = {"move": [], "page": [], "dialog": []}
    for number in range(presses):
        for kind, key, text in (
            ("move", "jk"[number // 3 % 2], None),
            ("page", "\x1b[6~" if number % 4 < 2 else "\x1b[5~", None),
            ("dialog", "?", "╭".encode()),
        ):
            times[kind].append(terminal.painted(terminal.press(key), text))
            time.sleep(0.217)
        terminal.painted(terminal.press("\x1b"))
        time.sleep(0.3)
    return times


def _rows(about: str, lives: list[Live], cpu: Goal | None = None) -> Iterator[Row]:
    yield Row("7", f"dashboard: {about}", "", "", tuple(live.cpu for live in lives), cpu, "% CPU")
    updates = tuple(live.updates for live in lives)
    yield Row("7", "    updates of the screen a second", "", "", updates, at_least(1.9), "/s")
    for kind in lives[0].keys:
        medians = tuple(statistics.median(live.keys[kind]) * 1e3 for live in lives)
        worst = tuple(percentile(live.keys[kind], 100) * 1e3 for live in lives)
        yield Row("7", f"    a key ({kind}) to its paint, median", "", "", medians, at_most(100), "ms")
        yield Row("7", f"    a key ({kind}) to its paint, worst", "", "", worst, at_most(150), "ms")


def _idle(path: Path, seconds: float) -> float:
    with dashboard(path, FEW) as terminal:
        time.sleep(SETTLE_S)
        began, used = time.perf_counter(), terminal.cpu_s()
        time.sleep(seconds * 2)  # ticks are 10 ms: 0.5 % of 20 s are ten of them
        return (terminal.cpu_s() - used) / (time.perf_counter() - began) * 100


def _first_paint(path: Path, rounds: int) -> Row:
    """From exec to the agents on the screen, against an app of Textual that shows one word."""
    sides = {_tally(FEW): _command(path), b"ready": (sys.executable, "-c", EMPTY_APP)}
    seconds: dict[bytes, list[float]] = {text: [] for text in sides}
    for number in range(-1, rounds):
        for text in list(sides)[:: 1 if number % 2 else -1]:
            terminal = Terminal(*sides[text])
            try:
                took = terminal.painted(terminal.began, text)
            finally:
                terminal.close()
            if number >= 0:
                seconds[text].append(took)
    ours, floor = seconds.values()
    ratios = tuple(one / other for one, other in zip(ours, floor, strict=True))
    what = "dashboard: from exec to the agents, to an empty Textual app"
    return Row("7", what, middle(ours), middle(floor), ratios, at_most(1.3))


def run_soak(options: Options) -> Iterator[Row]:
    """Looks, ranges and pages, much faster than a person: its memory stays what it is.

    First each page is looked at over each range, as a person does: what readers remember of it is bounded,
    and after how many keys in haste it would have come is chance.
    """
    path = ledger(options, FEW)
    with writing(path, FEW), dashboard(path, FEW) as terminal:
        for key in f"t{PAGES}" * len(RANGES):
            terminal.press(key)
            time.sleep(LOOKED_AT_S)
        began, parts = time.perf_counter(), 8 if options.quick else 24
        sizes: list[float] = []
        for _ in range(parts):
            for key in f"t{PAGES}" * 10:
                terminal.press(key)
                time.sleep(0.15)
            sizes.append(terminal.rss_mb())
    spent, warm = duration(time.perf_counter() - began), sizes[parts // 2 - 1]
    what = f"dashboard: memory after {spent} of pages and ranges, to that after half of it"
    yield Row("7", what, f"{sizes[-1]:.0f} MB", f"{warm:.0f} MB", (sizes[-1] / warm,), at_most(1.1))


def main() -> None:
    path, seed, agents, rate = sys.argv[1:]
    month = Month(int(seed), int(agents), 1, system_clock_us())
    for number, _ in enumerate(go_on(path, month, int(seed), float(rate))):
        if number == 0:
            print("writing", flush=True)


if __name__ == "__main__":
    main()
