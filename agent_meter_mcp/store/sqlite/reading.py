"""Reads: each in one snapshot, without a lock, on a connection of its own from a small pool."""

from __future__ import annotations

from _thread import allocate_lock

from agent_meter_mcp.core.errors import StoreError
from agent_meter_mcp.core.models import Alert, AuditEntry, Correction

from . import driver, keyring, listing, summarising
from .book import Book
from .remembered import Remembered
from .rows import (
    EVENT_SELECT,
    RESERVATION_COLUMNS,
    event_of,
    key_of,
    reservation_of,
    stored_event,
    stored_reservation,
)
from .told import Told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from agent_meter_mcp.core.commands import Ask
    from agent_meter_mcp.core.decide import Decision
    from agent_meter_mcp.core.keys import Key
    from agent_meter_mcp.core.limits import Policy
    from agent_meter_mcp.core.models import Reservation, StoredEvent, SubjectKind, Who
    from agent_meter_mcp.core.queries import (
        AgentsPage,
        AgentsQuery,
        EventsPage,
        EventsQuery,
        LimitView,
        Summary,
        SummaryQuery,
    )

    Row = tuple[Any, ...]

_NAMED = {
    "agent": ("agent", "agent_id"),
    "service": ("dim", "service"),
    "operation": ("dim", "operation"),
    "model": ("dim", "model"),
    "project": ("dim", "project"),
    "session": ("dim", "session"),
}
_AFTER_ALL = "\U0010ffff"
"""It is in no name, and sorts after all that may be."""


class Readers:
    """Connections for reading: as many as there are reads at once, kept for the next ones until it is closed
    (as it is at once without `keeps`)."""

    def __init__(self, connect: Callable[[], driver.Connection], *, keeps: bool) -> None:
        self._connect = connect
        self._idle: list[Reader] = []
        self._lock = allocate_lock()
        self._watch: driver.Connection | None = None
        self._closed = not keeps

    def take(self) -> Reader:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return Reader(self._connect())

    def give(self, reader: Reader) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(reader)
                return
        reader.connection.close()

    def changed(self) -> int:
        """`PRAGMA data_version` of a connection that never writes.

        Raises StoreError when closed: nobody would close that connection.
        """
        with self._lock:
            if self._closed:
                raise StoreError("the ledger was closed here; open it again")
            if self._watch is None:
                self._watch = self._connect()
            (version,) = self._watch.execute("PRAGMA data_version").fetchone()
            return version

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for reader in self._idle:
                reader.connection.close()
            self._idle.clear()
            if self._watch is not None:
                self._watch.close()
                self._watch = None


class Snapshot:
    """`with Snapshot(...) as reader`: a reader inside one read transaction."""

    def __init__(self, readers: Readers, path: str) -> None:
        self._readers = readers
        self._path = path

    def __enter__(self) -> Reader:
        try:
            self._reader = self._readers.take()
            self._reader.book.cursor.execute("BEGIN")
        except driver.Error as error:
            raise driver.meter_error(error, self._path) from error
        return self._reader

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        reader = self._reader
        try:
            if isinstance(error, driver.Error):
                raise error
            if reader.connection.in_transaction:
                reader.book.cursor.execute("COMMIT")
        except driver.Error as failure:  # of a damaged file, even the end of a read can fail
            reader.connection.close()
            raise driver.meter_error(failure, self._path) from failure
        self._readers.give(reader)


class Reader:
    """One reading connection and what it has read of the configuration and the counters.

    Its reads are those of `store.base.Reads`, within the transaction that was begun.
    """

    def __init__(self, connection: driver.Connection) -> None:
        self.connection = connection
        self.book = Book(connection)
        self.book.replaced = self._forget
        self.remembered = Remembered(connection)
        self.told = Told()
        self.listed: dict[Row, StoredEvent] = {}
        """The rows of the page of events that was read last, and what they are."""

    def look(self, now_us: int) -> int:
        """Brings the book up to date; answers the time at which this snapshot decides."""
        book = self.book
        book.refresh()
        at_us = max(now_us, book.last + 1)
        is_overdue = book.next_expiry_us is not None and book.next_expiry_us <= at_us
        expired = book.overdue(at_us) if is_overdue else []
        if expired != book.expired:
            book.take_off(expired)
        return at_us

    def _forget(self) -> None:
        self.remembered, self.told = Remembered(self.connection), Told()

    def peek(self, asks: Sequence[Ask], now_us: int) -> list[Decision]:
        at_us = self.look(now_us)
        return [self.book.decide(ask.who, ask.usage, at_us) for ask in asks]

    def policy(self) -> Policy:
        self.book.refresh()
        return self.book.policy

    def event(self, service: str, event_id: str) -> StoredEvent | None:
        return stored_event(self.connection, service, key_of(event_id))

    def reservation(self, reservation_id: str, now_us: int) -> Reservation | None:
        return stored_reservation(self.connection, reservation_id, self.look(now_us))

    def reservations(self, now_us: int) -> list[Reservation]:
        return self.open_holds(0, self.look(now_us))

    def open_holds(self, since_us: int, at_us: int) -> list[Reservation]:
        """Holds made since then that are open at `at_us`, oldest first."""
        rows = self.connection.execute(
            f"SELECT {RESERVATION_COLUMNS} FROM reservation"
            " WHERE state = 0 AND expires > ? AND +id >= ? ORDER BY +id",
            (at_us, since_us),
        ).fetchall()
        return [reservation_of(row, at_us) for row in rows]

    def alerts(self, *, after: int = 0, limit: int = 100) -> list[Alert]:
        rows = self.connection.execute(
            "SELECT number, raised_at, limit_id, scope, period_start, threshold, used, max FROM alert"
            " WHERE number > ? ORDER BY number DESC LIMIT ?",
            (after, limit),
        )
        return [Alert(*row) for row in rows]

    def corrections(self, *, after: int = 0, limit: int = 100) -> list[Correction]:
        latest = self.connection.execute(
            "SELECT event, max(id) FROM correction WHERE id > ? GROUP BY event ORDER BY max(id) DESC LIMIT ?",
            (after, limit),
        )
        numbers: dict[int, int] = dict(latest.fetchall())
        marks = ", ".join("?" * len(numbers))
        rows = self.connection.execute(f"{EVENT_SELECT} WHERE e.id IN ({marks})", tuple(numbers))
        found = [Correction(**event_of(row).as_dict(), number=numbers[row[0]]) for row in rows]
        return sorted(found, key=lambda correction: -correction.number)

    def audit(self, *, before_seq: int | None = None, limit: int = 100) -> list[AuditEntry]:
        rows = self.connection.execute(
            "SELECT id, actor, action, target, before, after, reason FROM audit WHERE ? IS NULL OR id < ?1"
            " ORDER BY id DESC LIMIT ?",
            (before_seq, limit),
        )
        return [AuditEntry(*row) for row in rows]

    def keys(self) -> list[Key]:
        return keyring.keys(self.connection)

    def key_of(self, digest: bytes) -> Key | None:
        return keyring.key_of(self.connection, digest)

    def has_keys(self) -> bool:
        return keyring.has_keys(self.connection)

    def names(self, kind: str, prefix: str, limit: int = 100) -> list[str]:
        table, column = _NAMED[kind]
        rows = self.connection.execute(
            f"SELECT DISTINCT {column} FROM {table} WHERE {column} != '' AND {column} BETWEEN ? AND ?"
            " ORDER BY 1 LIMIT ?",
            (prefix, prefix + _AFTER_ALL, limit),
        )
        return [name for (name,) in rows]

    def summary(self, query: SummaryQuery, now_us: int) -> Summary:
        self.look(now_us)
        return summarising.summary(self, query)

    def events(self, query: EventsQuery) -> EventsPage:
        self.book.refresh()
        return listing.events(self, query)

    def agents(self, query: AgentsQuery, now_us: int) -> AgentsPage:
        return listing.agents(self, query, self.look(now_us))

    def limits(self, who: Who | None, now_us: int, *, kind: SubjectKind | None = None) -> list[LimitView]:
        return listing.limits(self, who, self.look(now_us), kind)
