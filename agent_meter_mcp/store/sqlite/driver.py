"""The SQLite library, its connections and its errors.

The library is the one that sqlite-utils uses: pysqlite3 where its wheel is installed (it brings a SQLite
without the WAL-reset bug), else the interpreter's own. The two must never be mixed on one file in one process
(POSIX locks are per process), so everything here takes `sqlite3` from this module."""

from __future__ import annotations

import os

from agent_meter_mcp.core.errors import (
    MeterError,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnusable,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
else:
    try:
        import pysqlite3.dbapi2 as sqlite3
    except ImportError:
        import sqlite3

Error = sqlite3.Error
IntegrityError = sqlite3.IntegrityError
Connection = sqlite3.Connection
Cursor = sqlite3.Cursor

SQLITE_VERSION: str = sqlite3.sqlite_version
LIBRARY: str = sqlite3.__name__.split(".")[0]

_PRIMARY = 0xFF
_BUSY, _LOCKED, _READONLY, _IOERR, _CORRUPT, _FULL, _CANTOPEN, _NOTADB = 5, 6, 8, 10, 11, 13, 14, 26

WAL_RESET_FIXED = ((3, 44, 6), (3, 50, 7), (3, 51, 3))
"""First sound releases per branch; 3.7.0 up to these can lose a commit that meets a checkpoint.

Source: https://sqlite.org/wal.html#walresetbug
"""


def wal_reset_is_sound(version: str = SQLITE_VERSION) -> bool:
    """Whether this SQLite cannot lose commits when a checkpoint meets a commit."""
    numbers = tuple(int(part) for part in version.split("."))
    return numbers >= WAL_RESET_FIXED[-1] or any(
        numbers[:2] == fixed[:2] and numbers >= fixed for fixed in WAL_RESET_FIXED
    )


def connect(path: str, *, synchronous: str, busy_timeout_s: float) -> Connection:
    """A connection in explicit transaction mode; it does not create the file.

    Raises:
        StoreError: as `meter_error`.
    """
    try:
        connection = sqlite3.connect(
            f"file:{_uri_path(path)}?mode=rw",
            uri=True,
            timeout=busy_timeout_s,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        connection.execute(f"PRAGMA synchronous={synchronous}")
        if synchronous == "FULL":
            connection.execute("PRAGMA fullfsync=1")
        connection.execute("PRAGMA journal_size_limit=67108864")
    except Error as error:
        raise meter_error(error, path) from error
    return connection


def _uri_path(path: str) -> str:
    absolute = os.path.abspath(path)
    if os.name == "nt":
        absolute = "/" + absolute.replace("\\", "/")
    return absolute.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def is_busy(error: Exception) -> bool:
    """Whether another connection was in the way, which passes."""
    return _code(error) == _BUSY


def meter_error(error: Exception, path: str) -> MeterError:
    """What a failure of SQLite means for the person who reads it."""
    if isinstance(error, MeterError):
        return error
    code = _code(error)
    if code in (_BUSY, _LOCKED):
        return StoreBusy(f"{path} is locked by another process. Nothing was written; try again in a moment.")
    if code == _FULL:
        return StoreFull(
            f"the disk that holds {path} is full. Nothing was written; free some space and try again."
        )
    if code == _READONLY:
        return StoreReadOnly(
            f"{path} cannot be written. Check the rights of the file and its folder, or name another file "
            f"with AGENT_METER_DB."
        )
    if code in (_NOTADB, _CORRUPT):
        return StoreUnusable(
            f"{path} is not a usable database ({error}). Restore a copy, or name another file with"
            f" AGENT_METER_DB."
        )
    if code == _CANTOPEN:
        return StoreUnusable(
            f"{path} cannot be opened. Check that its folder exists, and that both may be read and written."
        )
    if code == _IOERR:
        return StoreError(
            f"reading or writing {path} failed ({error}). Nothing was written; check the disk, and that"
            " nobody has deleted the -wal or the -shm beside the file (then stop everything that uses it)."
        )
    return StoreError(f"SQLite failed on {path}: {error}")


def _code(error: Exception) -> int:
    """SQLite's primary result code; 0: it is none of SQLite's."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & _PRIMARY
