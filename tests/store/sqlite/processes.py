"""Processes of our own for tests: each plays one role (`roles.py`) and talks in lines of JSON.

`METER_PROOF=24` makes every proof of this folder 24 times as long.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[3]
PROOF = int(os.environ.get("METER_PROOF", "1"))
PATIENCE_S = 60.0
"""How long a test waits for what should take a moment: the machine may be busy."""


LIBRARIES = {"newest": "", "standard": "sys.modules['pysqlite3'] = None"}
"""What a process runs first to take the SQLite of its wheel (if there is one), or the interpreter's own."""


def now_us() -> int:
    return time.time_ns() // 1000


class Process:
    """A fresh interpreter in a role. As a context: it is killed when that is left."""

    def __init__(self, role: str, *arguments: object, first: str = "", **popen: Any) -> None:
        """`first` is what the process runs first; `popen` goes to subprocess.Popen."""
        path = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
        program = f"import sys\n{first}\nfrom tests.store.sqlite.roles import main\nmain()"
        self._child = subprocess.Popen(
            # Without `site`, whose .pth files load what no role needs.
            [sys.executable, "-S", "-c", program, role, json.dumps(arguments)],
            cwd=popen.pop("cwd", ROOT),
            env={**os.environ, "PYTHONPATH": path, **popen.pop("env", {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            **popen,
        )
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.finished = threading.Event()
        """Set when it has said its last word."""
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            self._lines.put(line)
        self.finished.set()
        self._lines.put(None)

    def hear(self, within_s: float = PATIENCE_S) -> Any:
        """The next thing it says."""
        try:
            line = self._lines.get(timeout=within_s)
        except queue.Empty:
            raise AssertionError(f"no word from {self._child.args} within {within_s:g} s") from None
        if line is None:
            raise AssertionError(f"{self._child.args} ended with {self._child.wait(PATIENCE_S)}")
        return json.loads(line)

    def heard(self) -> list[Any]:
        """Everything it said and nobody heard yet, when it has ended. A line cut short is no word."""
        assert self.finished.wait(PATIENCE_S)
        said: list[Any] = []
        while (line := self._lines.get(timeout=PATIENCE_S)) is not None:
            if line.endswith(b"\n"):
                said.append(json.loads(line))
        return said

    def tell(self, word: object = None) -> None:
        """Says something to it."""
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(word).encode() + b"\n")
        self._child.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        self._child.send_signal(number)

    def kill(self) -> None:
        """At once, and gone on return."""
        self._child.kill()
        self._child.wait(PATIENCE_S)

    def end(self) -> None:
        """Waits for it to end by itself, well."""
        assert self._child.wait(PATIENCE_S) == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._listener.join(PATIENCE_S)
        for pipe in (self._child.stdin, self._child.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:  # what was told to it last has no reader any more
                pass


def play(role: str, *arguments: object, **options: Any) -> Any:
    """The one thing that a process says in a role in which it ends by itself."""
    with Process(role, *arguments, **options) as process:
        said = process.hear()
        process.end()
        return said
