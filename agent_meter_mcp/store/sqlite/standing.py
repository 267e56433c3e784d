"""Whether what was opened is still what its path names, in the process that opened it.

SQLite notices neither: it goes on writing to a file, or a log, that was deleted or replaced, and after a fork
it believes in locks that the new process does not have (new connections to the same file believe in them
too). Either way commits would be acknowledged that nobody ever sees.
"""

from __future__ import annotations

import os
import time
from _thread import allocate_lock, start_new_thread

from agent_meter_mcp.core.errors import StoreUnusable
from agent_meter_mcp.core.models import FILES_SETTLED_NS

_open: list[Standing] = []
"""Everything that this process has open; after a fork also what the process before it had."""

LOOK_AGAIN_S = 1.0
"""Not every file system says of a folder that it has changed."""


class Standing:
    """One open store's claim to its file, and to the log beside it. `path` is absolute.

    Make it when a connection has read the file: from then on no other process deletes the log.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.process = os.getpid()
        self._file = _identity(path, least=1)
        beside = os.path.realpath(path)
        self._folder = os.path.dirname(path) if beside == path and os.name == "posix" else None
        """Where all of them are by these very names, so that none goes or comes without changing it."""
        self._settled: tuple[int, int, int] | None = None
        """How the folder was when they were there, and it had not changed for a while."""
        self._look_again_s = 0.0
        found = [(log, _identity(log)) for log in (f"{beside}-wal", f"{beside}-shm")]
        self._log = [(log, identity) for log, identity in found if identity is not None]
        self.is_taken_over = False
        """Whether, at the end, another process has a log of its own beside the file. SQLite would put ours in
        the place of what is in that one when the last connection is closed."""
        _open.append(self)

    def check_process(self) -> None:
        """Raises StoreUnusable. Before any lock is taken: the thread that held it may not exist here."""
        if self.process != os.getpid():
            raise _forked(self.path)

    def check(self) -> None:
        """Raises StoreUnusable."""
        self.check_process()
        self.check_files()

    def check_files(self) -> None:
        """Raises StoreUnusable. In a folder where nothing comes or goes one look at that is all it takes."""
        folder = _changed(self._folder)
        if folder is None or folder != self._settled or time.monotonic() >= self._look_again_s:
            self._look_at_each()
            is_settled = folder is not None and time.time_ns() - folder[2] > FILES_SETTLED_NS
            self._settled = folder if is_settled else None
            self._look_again_s = time.monotonic() + LOOK_AGAIN_S

    def _look_at_each(self) -> None:
        if _identity(self.path, least=1) != self._file:
            raise StoreUnusable(
                f"{self.path} was moved, deleted, emptied or replaced while it was open. Nothing was written;"
                " put the file back, or start again whatever uses it."
            )
        self.check_log()

    def check_log(self) -> None:
        """Raises StoreUnusable."""
        for log, identity in self._log:
            if _identity(log) != identity:
                raise StoreUnusable(
                    f"{log} was deleted or replaced while the ledger was open: it belongs to it. Nothing was"
                    " written; stop everything that uses the ledger, and then start it again."
                )

    def is_of(self, path: str) -> bool:
        """Whether SQLite has that very file open in this process, by whatever name."""
        return self._file is not None and self._file == _identity(path, least=1)

    def end(self) -> bool:
        """The store closes. False when its connections belong to another process and must be left alone."""
        if self.process != os.getpid():
            return False
        self.is_taken_over = any(
            _identity(log) not in (None, identity) and os.path.getsize(log) for log, identity in self._log
        )
        if self in _open and not self.is_taken_over:
            _open.remove(self)
        return True


def check_can_open(path: str) -> None:
    """Raises StoreUnusable when this process was forked from one that had the file open, or has it open
    itself with a log that is there no longer: SQLite would go by that one."""
    for standing in _open:
        if standing.process != os.getpid():
            if standing.path == path:
                raise _forked(path)
        elif standing.is_of(path):
            standing.check_log()


def keep_open(connection: object) -> None:
    """It is never closed, not even as the interpreter ends: that spares only what a waiting thread holds."""
    forever = allocate_lock()
    forever.acquire()
    start_new_thread(lambda _held: forever.acquire(), (connection,))


def _identity(path: str, *, least: int = 0) -> tuple[int, int] | None:
    """Which file that is. None: there is none, or it has not even so many bytes."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if status.st_size >= least else None


def _changed(folder: str | None) -> tuple[int, int, int] | None:
    """Which folder that is, and when anything in it last came, went or was renamed: a time nobody can set."""
    try:
        status = os.stat(folder) if folder is not None else None
    except OSError:
        return None
    return status and (status.st_dev, status.st_ino, status.st_ctime_ns)


def _forked(path: str) -> StoreUnusable:
    return StoreUnusable(
        f"{path} was open when this process was forked, and SQLite cannot be used across a fork. Nothing was"
        " written; open the ledger in each worker, after the fork, or close it before."
    )
