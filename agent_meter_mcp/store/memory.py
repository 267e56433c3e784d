"""The reference store: lists and dicts, and every sum computed by walking the events.

It is written for reading, next to docs/semantics.md, and is what the SQLite store is compared with. It has no
counters and no caches, so each command takes time in proportion to the whole ledger.
"""

from __future__ import annotations

from contextlib import contextmanager
from threading import Lock

from agent_meter_mcp.core.commands import (
    Applied,
    CreateKey,
    Extend,
    Record,
    Refuse,
    Release,
    RemoveLimit,
    Reserve,
    RevokeKey,
    SetAgent,
    SetLimit,
    SetSwitch,
    Settle,
    TouchKeys,
)
from agent_meter_mcp.core.errors import MeterError, NotFound
from agent_meter_mcp.core.models import Correction

from . import memory_keyring as keyring
from . import memory_reading as reading
from . import memory_ruling as ruling
from . import memory_using as using
from .memory_book import Book, as_of
from .memory_counting import decide

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from typing import Any

    from agent_meter_mcp.core.commands import Ask, Command, Result
    from agent_meter_mcp.core.decide import Decision
    from agent_meter_mcp.core.keys import Key
    from agent_meter_mcp.core.limits import Policy
    from agent_meter_mcp.core.models import Alert, AuditEntry, Reservation, StoredEvent, SubjectKind, Who
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

_HANDLERS: dict[type, Callable[[Book, Any], Result]] = {
    Record: using.record,
    Settle: using.settle,
    Reserve: using.reserve,
    Release: using.release,
    Extend: using.extend,
    Refuse: using.refuse,
    SetAgent: ruling.set_agent,
    SetLimit: ruling.set_limit,
    RemoveLimit: ruling.remove_limit,
    SetSwitch: ruling.set_switch,
    CreateKey: keyring.create,
    RevokeKey: keyring.revoke,
    TouchKeys: keyring.touch,
}


class MemoryStore:
    """See `store.base.Store`. One lock around everything; commands work on a copy, kept when they succeed."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._book = Book()
        self._commits = 0

    def apply(self, commands: Sequence[Command], now_us: int) -> Applied:
        with self._lock:
            book = self._book.copy()
            book.now_us = now_us
            results: list[Result] = []
            for command in commands:
                book.expire()
                attempt = book.copy()
                try:
                    results.append(_HANDLERS[type(command)](attempt, command))
                except MeterError as error:
                    results.append(error)
                else:
                    book = attempt
            raised = book.alerts[len(self._book.alerts) :]
            self._book = book
            self._commits += 1
            return Applied(results, tuple(raised))

    def peek(self, asks: Sequence[Ask], now_us: int) -> list[Decision]:
        with self._lock:
            at_us = self._at(now_us)
            return [decide(self._book, ask.who, ask.usage, at_us) for ask in asks]

    @contextmanager
    def snapshot(self) -> Generator[MemoryStore]:
        """A store with the book of this moment, in which nobody writes any more."""
        frozen = MemoryStore()
        frozen._book = self._book
        yield frozen

    def summary(self, query: SummaryQuery, now_us: int) -> Summary:
        with self._lock:
            return reading.summary(self._book, query)

    def events(self, query: EventsQuery) -> EventsPage:
        with self._lock:
            return reading.events(self._book, query)

    def event(self, service: str, event_id: str) -> StoredEvent | None:
        with self._lock:
            return self._book.event(service, event_id)

    def agents(self, query: AgentsQuery, now_us: int) -> AgentsPage:
        with self._lock:
            return reading.agents(self._book, query, self._at(now_us))

    def limits(self, who: Who | None, now_us: int, *, kind: SubjectKind | None = None) -> list[LimitView]:
        with self._lock:
            views = reading.limits(self._book, who, self._at(now_us))
            return [view for view in views if kind in (None, view.limit.key.subject.kind)]

    def policy(self) -> Policy:
        with self._lock:
            return self._book.policy()

    def reservation(self, reservation_id: str, now_us: int) -> Reservation | None:
        with self._lock:
            try:
                return self._book.reservation(reservation_id, self._at(now_us))
            except NotFound:
                return None

    def reservations(self, now_us: int) -> list[Reservation]:
        with self._lock:
            at_us = self._at(now_us)
            return [as_of(held, at_us) for held in self._book.open_holds(at_us)]

    def alerts(self, *, after: int = 0, limit: int = 100) -> list[Alert]:
        with self._lock:
            return [alert for alert in self._book.alerts if alert.number > after][::-1][:limit]

    def corrections(self, *, after: int = 0, limit: int = 100) -> list[Correction]:
        with self._lock:
            book = self._book
            numbered = enumerate(book.corrections, 1)
            numbers = {seq: number for number, (seq, _, _) in numbered if number > after}
            found = [
                Correction(**stored.as_dict(), number=numbers[stored.seq])
                for stored in book.events
                if stored.seq in numbers
            ]
            return sorted(found, key=lambda correction: -correction.number)[:limit]

    def audit(self, *, before_seq: int | None = None, limit: int = 100) -> list[AuditEntry]:
        with self._lock:
            entries = [entry for entry in self._book.audit if before_seq is None or entry.seq < before_seq]
            return entries[::-1][:limit]

    def keys(self) -> list[Key]:
        with self._lock:
            return keyring.keys(self._book)

    def key_of(self, digest: bytes) -> Key | None:
        with self._lock:
            return keyring.key_of(self._book, digest)

    def has_keys(self) -> bool:
        with self._lock:
            return bool(self._book.keys)

    def names(self, kind: str, prefix: str, limit: int = 100) -> list[str]:
        with self._lock:
            return reading.names(self._book, kind, prefix, limit)

    def changed(self) -> int:
        with self._lock:
            return self._commits

    def verify(self, progress: Callable[[str, int, int], None] | None = None) -> Iterator[Difference]:
        """There is no view that could be wrong."""
        return iter(())

    def close(self) -> None:
        """There is nothing to close."""

    def _at(self, now_us: int) -> int:
        """The moment at which a read decides (rule 20)."""
        return max(now_us, self._book.last + 1)
