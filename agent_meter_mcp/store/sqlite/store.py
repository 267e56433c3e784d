"""The store on one SQLite file: many processes, one truth."""

from __future__ import annotations

import os
from _thread import allocate_lock  # `threading` costs 6 ms that a one-shot record does not have

from agent_meter_mcp.core.commands import (
    Applied,
    Record,
    RemoveLimit,
    SetAgent,
    SetLimit,
    SetSwitch,
    Settle,
)
from agent_meter_mcp.core.errors import MeterError, StoreBusy

from . import configuring, driver, recording, schema
from .standing import Standing, check_can_open, keep_open
from .turnstile import Turnstile
from .writer import Replayed, Writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from agent_meter_mcp.core.commands import Ask, Command, Result
    from agent_meter_mcp.core.decide import Decision
    from agent_meter_mcp.core.keys import Key
    from agent_meter_mcp.core.limits import Policy
    from agent_meter_mcp.core.models import (
        Alert,
        AuditEntry,
        Correction,
        Reservation,
        StoredEvent,
        SubjectKind,
        Who,
    )
    from agent_meter_mcp.core.queries import (
        AgentsPage,
        AgentsQuery,
        Difference,
        EventsPage,
        EventsQuery,
        LimitView,
        Summary,
        SummaryQuery,
    )

    from .info import Info
    from .reading import Readers, Snapshot

    Handler = Callable[[Writer, Any], Result]

_HANDLERS: dict[type, Handler] = {
    Record: recording.record,
    Settle: recording.settle,
    SetAgent: configuring.set_agent,
    SetLimit: configuring.set_limit,
    RemoveLimit: configuring.remove_limit,
    SetSwitch: configuring.set_switch,
}
"""Those of holds and of keys are in `holding.py` and `keyring.py`, imported for the first of them: a one-shot
record never comes to that."""


def open_store(path: str, *, synchronous: str = "FULL", busy_timeout_s: float = 10.0) -> SqliteStore:
    """Opens the ledger at `path`, making or migrating the file when that is needed.

    `synchronous`: FULL survives a power cut, NORMAL a crash of the process. `busy_timeout_s` is how long a
    write waits for other processes.

    Raises:
        StoreError: the folder is missing, the file is no ledger, is newer, or cannot be opened; it is as it
        was.
    """

    path = os.path.abspath(path)  # it means the same file when the process has moved
    check_can_open(path)

    def connect() -> driver.Connection:
        return driver.connect(path, synchronous=synchronous, busy_timeout_s=busy_timeout_s)

    return SqliteStore(path, connect, schema.opened(path, connect, busy_timeout_s), busy_timeout_s)


class SqliteStore:
    """See `store.base.Store`. One connection writes, under a lock; reads take connections of their own."""

    def __init__(
        self,
        path: str,
        connect: Callable[[], driver.Connection],
        connection: driver.Connection,
        busy_timeout_s: float,
    ) -> None:
        self.path = path
        self._connect = connect
        self._standing = Standing(path)
        self._turnstile = Turnstile(path, busy_timeout_s)
        self._writing = allocate_lock()
        self._opening = allocate_lock()
        # Who writes waits at the turnstile, which is fair, and SQLite's own waiting is not.
        connection.execute("PRAGMA busy_timeout=0")
        self._writer = Writer(connection)
        self._readers: Readers | None = None
        self._closed = False

    def apply(self, commands: Sequence[Command], now_us: int) -> Applied:
        self._standing.check_process()
        with self._writing:
            try:
                try:
                    return self._transaction(commands, now_us, careful=False)
                except Replayed:  # rare, and half a transaction dearer than looking each id up every time
                    pass
                # Not while that is handled: it would be the context of every error that is answered now.
                # Their traces end in other threads, and with them what they keep of this connection.
                return self._transaction(commands, now_us, careful=True)
            except driver.Error as error:
                raise driver.meter_error(error, self.path) from error

    def _transaction(self, commands: Sequence[Command], now_us: int, *, careful: bool) -> Applied:
        writer, execute = self._writer, self._writer.cursor.execute
        try:
            self._turnstile.pass_with(self._begin)
            writer.begin(now_us, careful)
            results = _handle_all(writer, commands)
            writer.finish()
            execute("COMMIT")
        except StoreBusy:  # it has not begun, and what is remembered is as it was
            raise
        except BaseException:
            if writer.connection.in_transaction:
                execute("ROLLBACK")
            writer.forget()
            raise
        return Applied(results, tuple(writer.alerts))

    def _begin(self) -> bool:
        """Whether nobody else is writing: then this is. Whoever waited looks again at the files, too."""
        self._standing.check_files()
        try:
            self._writer.cursor.execute("BEGIN IMMEDIATE")
        except driver.Error as error:
            if driver.is_busy(error):
                return False
            raise
        return True

    def peek(self, asks: Sequence[Ask], now_us: int) -> list[Decision]:
        with self.snapshot() as reader:
            return reader.peek(asks, now_us)

    def snapshot(self) -> Snapshot:
        from .reading import Snapshot

        self._standing.check()
        return Snapshot(self._pool(), self.path)

    def summary(self, query: SummaryQuery, now_us: int) -> Summary:
        with self.snapshot() as reader:
            return reader.summary(query, now_us)

    def events(self, query: EventsQuery) -> EventsPage:
        with self.snapshot() as reader:
            return reader.events(query)

    def event(self, service: str, event_id: str) -> StoredEvent | None:
        with self.snapshot() as reader:
            return reader.event(service, event_id)

    def agents(self, query: AgentsQuery, now_us: int) -> AgentsPage:
        with self.snapshot() as reader:
            return reader.agents(query, now_us)

    def limits(self, who: Who | None, now_us: int, *, kind: SubjectKind | None = None) -> list[LimitView]:
        with self.snapshot() as reader:
            return reader.limits(who, now_us, kind=kind)

    def policy(self) -> Policy:
        with self.snapshot() as reader:
            return reader.policy()

    def reservation(self, reservation_id: str, now_us: int) -> Reservation | None:
        with self.snapshot() as reader:
            return reader.reservation(reservation_id, now_us)

    def reservations(self, now_us: int) -> list[Reservation]:
        with self.snapshot() as reader:
            return reader.reservations(now_us)

    def alerts(self, *, after: int = 0, limit: int = 100) -> list[Alert]:
        with self.snapshot() as reader:
            return reader.alerts(after=after, limit=limit)

    def corrections(self, *, after: int = 0, limit: int = 100) -> list[Correction]:
        with self.snapshot() as reader:
            return reader.corrections(after=after, limit=limit)

    def audit(self, *, before_seq: int | None = None, limit: int = 100) -> list[AuditEntry]:
        with self.snapshot() as reader:
            return reader.audit(before_seq=before_seq, limit=limit)

    def keys(self) -> list[Key]:
        with self.snapshot() as reader:
            return reader.keys()

    def key_of(self, digest: bytes) -> Key | None:
        with self.snapshot() as reader:
            return reader.key_of(digest)

    def has_keys(self) -> bool:
        with self.snapshot() as reader:
            return reader.has_keys()

    def names(self, kind: str, prefix: str, limit: int = 100) -> list[str]:
        with self.snapshot() as reader:
            return reader.names(kind, prefix, limit)

    def changed(self) -> int:
        self._standing.check()
        try:
            return self._pool().changed()
        except driver.Error as error:
            raise driver.meter_error(error, self.path) from error

    def verify(self, progress: Callable[[str, int, int], None] | None = None) -> Iterator[Difference]:
        from .verifying import verify

        with self.snapshot() as reader:
            yield from verify(reader, progress)

    def info(self) -> Info:
        """For `agent-meter doctor`; no other store has it."""
        from .info import info

        with self.snapshot() as reader:
            return info(reader)

    def close(self) -> None:
        if not self._standing.end():
            return  # after a fork: SQLite would clean up behind the process that is there still
        with self._writing:
            with self._opening:
                self._closed = True
            if self._readers is not None:
                self._readers.close()
            if self._standing.is_taken_over:
                keep_open(self._writer.connection)
            else:
                self._writer.connection.close()
            self._turnstile.close()

    def _pool(self) -> Readers:
        """Made, and its modules imported, when something is read: a one-shot record never does."""
        if self._readers is None:
            from .reading import Readers

            with self._opening:
                if self._readers is None:
                    self._readers = Readers(self._connect, keeps=not self._closed)
        return self._readers


def _handle_all(writer: Writer, commands: Sequence[Command]) -> list[Result]:
    if len(commands) > 1 and type(commands[0]) is Record:
        from .together import record_together

        try:
            recorded = record_together(writer, commands)
        except MeterError:  # it concerns some of them, which are told
            recorded = None
        if recorded is not None:
            return recorded
    return [_handle(writer, command) for command in commands]


def _handle(writer: Writer, command: Command) -> Result:
    try:
        writer.expire()
        kind = type(command)
        if kind not in _HANDLERS:
            from . import holding, keyring

            _HANDLERS.update(holding.HANDLERS)
            _HANDLERS.update(keyring.HANDLERS)
        return _HANDLERS[kind](writer, command)
    except MeterError as error:
        return error
