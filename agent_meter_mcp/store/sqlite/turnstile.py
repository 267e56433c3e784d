"""Fair turns at one file, between processes.

SQLite's own busy handler lets whole processes starve. Here a writer takes the lock of a queue, then SQLite's
write lock, and gives the queue up: who has just written cannot overtake the one that already waits for SQLite
with the queue in its hand. Both are polled, so that a wait has an end. This is fairness only: SQLite's lock
stays the guard of the data, and where there is no flock (Windows) there is no queue."""

from __future__ import annotations

import os
import time

from agent_meter_mcp.core.errors import StoreBusy

TYPE_CHECKING = False
if TYPE_CHECKING:
    import fcntl
    from collections.abc import Callable
else:
    try:
        import fcntl
    except ImportError:
        fcntl = None

_AT_ONCE = 0 if fcntl is None else fcntl.LOCK_EX | fcntl.LOCK_NB
_PAUSE_S = 0.000_2
"""Constant, or whoever has waited longest would look least often. A turn takes some hundreds of microseconds.
"""
_LONG_WAIT_S = 0.02
_LONG_PAUSE_S = 0.002
"""After so long somebody is holding the file, and looking often is of no use."""
_STUCK_S = 1.0
"""Who has waited in the queue for so long tries SQLite's lock, too: at the head may be a process that was
stopped (a debugger, a paused container), and SQLite's lock be free all the same."""


class Turnstile:
    """One lock file beside the database: `<path>-queue`. For one thread at a time.

    `wait_s` is how long somebody waits in all, in the queue and for SQLite. `is_strict`: nobody passes who
    has not come to the head, however long it waits.
    """

    def __init__(self, path: str, wait_s: float, *, is_strict: bool = False) -> None:
        self._path = path
        self._wait_s = wait_s
        self._stuck_s = wait_s if is_strict else min(_STUCK_S, wait_s / 2)
        # Whoever comes by a symbolic link stands in the same queue.
        self._queue = _open_lock(f"{os.path.realpath(path)}-queue")

    def pass_with(self, begin: Callable[[], bool]) -> None:
        """Calls `begin`, which tries to take SQLite's lock, in turn, until it has. Raises StoreBusy."""
        queue = self._queue
        if queue is None:
            if not begin():
                self._poll(begin, self._end())
            return
        end = 0.0
        if not _try_lock(queue):
            end = self._end()
            if self._passes_by(queue, begin, end):
                return
        try:
            if not begin():
                self._poll(begin, end or self._end())
        finally:
            fcntl.flock(queue, fcntl.LOCK_UN)

    def _passes_by(self, queue: int, begin: Callable[[], bool], end: float) -> bool:
        """Waits to be at the head of the queue. True: that took long, and `begin` has succeeded before."""
        stuck_from = end - self._wait_s + self._stuck_s
        has_begun = False

        def is_over() -> bool:
            nonlocal has_begun
            if _try_lock(queue):
                return True
            has_begun = stuck_from <= time.monotonic() < end and begin()
            return has_begun

        self._poll(is_over, end)
        return has_begun

    def _end(self) -> float:
        return time.monotonic() + self._wait_s

    def _poll(self, is_taken: Callable[[], bool], end: float) -> None:
        patient_from = time.monotonic() + _LONG_WAIT_S
        while True:
            now = time.monotonic()
            if now >= end:
                raise StoreBusy(
                    f"other processes have been writing to {self._path} for {self._wait_s:g} s. "
                    "Nothing was written; try again in a moment."
                )
            time.sleep(_PAUSE_S if now < patient_from else _LONG_PAUSE_S)
            if is_taken():
                return

    def close(self) -> None:
        if self._queue is not None:
            os.close(self._queue)
        self._queue = None


def _open_lock(path: str) -> int | None:
    if fcntl is None:
        return None
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:  # a folder that cannot be written: SQLite itself says so at the first write
        return None


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, _AT_ONCE)
    except BlockingIOError:
        return False
    return True


def alone(path: str, wait_s: float, work: Callable[[], None]) -> None:
    """Runs `work` (making or migrating the file) while no other process does. Raises StoreBusy."""

    def done() -> bool:
        work()
        return True

    turnstile = Turnstile(path, wait_s, is_strict=True)
    try:
        turnstile.pass_with(done)
    finally:
        turnstile.close()
