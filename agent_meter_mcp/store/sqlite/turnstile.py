"""Fair turns at one file, between processes.

SQLite's own busy handler lets whole processes starve. Here a writer takes lock A, then lock B, and gives A
up: who releases B cannot overtake the one that already holds A. Both are polled, so that a wait has an end.
This is fairness only: SQLite's lock stays the guard of the data, and where there is no flock (Windows) there
is no turnstile."""

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


class Turnstile:
    """Two lock files beside the database: `<path>-queue` and `<path>-turn`. For one thread at a time."""

    def __init__(self, path: str, wait_s: float) -> None:
        self._path = path
        self._wait_s = wait_s
        # Whoever comes by a symbolic link stands in the same queue.
        beside = os.path.realpath(path)
        self._queue = _open_lock(f"{beside}-queue")
        self._turn = _open_lock(f"{beside}-turn")

    def __enter__(self) -> None:
        if self._queue is None or self._turn is None:
            return
        end = 0.0
        if not _try_lock(self._queue):
            end = time.monotonic() + self._wait_s
            self._poll(self._queue, end)
        try:
            if not _try_lock(self._turn):
                self._poll(self._turn, end or time.monotonic() + self._wait_s)
        finally:
            fcntl.flock(self._queue, fcntl.LOCK_UN)

    def __exit__(self, *_: object) -> None:
        if self._turn is not None:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    def _poll(self, lock: int, end: float) -> None:
        patient_from = time.monotonic() + _LONG_WAIT_S
        while not _try_lock(lock):
            now = time.monotonic()
            if now >= end:
                raise StoreBusy(
                    f"other processes have been writing to {self._path} for {self._wait_s:g} s. "
                    "Nothing was written; try again in a moment."
                )
            time.sleep(_PAUSE_S if now < patient_from else _LONG_PAUSE_S)

    def close(self) -> None:
        for lock in (self._queue, self._turn):
            if lock is not None:
                os.close(lock)
        self._queue = self._turn = None


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
    turnstile = Turnstile(path, wait_s)
    try:
        with turnstile:
            work()
    finally:
        turnstile.close()
