"""The floor of writing: the same rows into the same table, with the one index that makes an id count once."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from agent_meter_mcp.store.sqlite import driver, open_store
from agent_meter_mcp.store.sqlite.rows import EVENT_COLUMNS

from .workload import RawRow

if TYPE_CHECKING:
    from agent_meter_mcp.store.sqlite import SqliteStore

_MARKS = ", ".join("?" * len(EVENT_COLUMNS.split(",")))
INSERT = f"INSERT INTO event ({EVENT_COLUMNS}) VALUES ({_MARKS})"


def new_store(path: Path, *, synchronous: str = "FULL") -> SqliteStore:
    """A ledger in a file of its own."""
    return open_store(str(path), synchronous=synchronous)


def connect(path: Path, *, synchronous: str = "FULL") -> driver.Connection:
    """A connection such as the store's own."""
    return driver.connect(str(path), synchronous=synchronous, busy_timeout_s=10)


def new_table(path: Path, *, synchronous: str = "FULL", unique: bool = True) -> driver.Connection:
    """A file with the event table alone, as the ledger declares it, and (`unique`) the index of its ids."""
    path.touch(0o600)
    plain = connect(path, synchronous=synchronous)
    plain.execute("PRAGMA journal_mode=WAL")
    declared = _schema(path.with_name(f"{path.name}-pattern"))
    plain.execute(declared["event"])
    if unique:
        plain.execute(declared["event_key"])
    return plain


def copy_events(plain: driver.Connection, ledger: Path) -> None:
    """All events of a ledger, in their order."""
    plain.execute("ATTACH ? AS ledger", (str(ledger),))
    plain.execute(
        f"INSERT INTO main.event ({EVENT_COLUMNS}) SELECT {EVENT_COLUMNS} FROM ledger.event ORDER BY id"
    )
    plain.execute("DETACH ledger")


def schema_text(path: Path) -> str:
    """The whole schema of a ledger; one is made at `path` to read it."""
    return "\n".join(_schema(path).values())


def _schema(path: Path) -> dict[str, str]:
    """The statements that make the tables and indexes of a ledger, by name."""
    new_store(path).close()
    pattern = connect(path)
    try:
        return dict(pattern.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall())
    finally:
        pattern.close()


def insert(plain: driver.Connection, rows: Iterable[RawRow]) -> None:
    """In one transaction."""
    plain.execute("BEGIN IMMEDIATE")
    plain.executemany(INSERT, rows)
    plain.execute("COMMIT")


def insert_each(plain: driver.Connection, rows: Iterable[RawRow]) -> float:
    """One transaction a row; the seconds it took."""
    began = time.perf_counter()
    for row in rows:
        plain.execute("BEGIN IMMEDIATE")
        plain.execute(INSERT, row)
        plain.execute("COMMIT")
    return time.perf_counter() - began
