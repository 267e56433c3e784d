"""The protocol of a store. Synchronous: the ledger decides on which thread it runs.

A store keeps events, and everything else that it answers is a view of them. All times come in as arguments; a
store assigns each event its `seq`: the caller's `now_us`, or one more than the last one when that clock is
behind."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from typing import Protocol

    from agent_meter_mcp.core.commands import Applied, Ask, Command
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

    class Reads(Protocol):
        """What can be read. Every method may raise StoreError."""

        def summary(self, query: SummaryQuery, now_us: int) -> Summary: ...

        def events(self, query: EventsQuery) -> EventsPage: ...

        def event(self, service: str, event_id: str) -> StoredEvent | None: ...

        def agents(self, query: AgentsQuery, now_us: int) -> AgentsPage: ...

        def limits(self, who: Who | None, now_us: int, *, kind: SubjectKind | None = None) -> list[LimitView]:
            """All limits with their states; for somebody, those that match, with whether they bind.

            `kind`: of these only those on such subjects.
            """
            ...

        def peek(self, asks: Sequence[Ask], now_us: int) -> list[Decision]:
            """Would each be allowed, if it came now? From a snapshot, without a lock, changing nothing."""
            ...

        def policy(self) -> Policy:
            """The configuration as it is now."""
            ...

        def reservation(self, reservation_id: str, now_us: int) -> Reservation | None: ...

        def reservations(self, now_us: int) -> list[Reservation]:
            """The holds that are open now, oldest first."""
            ...

        def alerts(self, *, after: int = 0, limit: int = 100) -> list[Alert]:
            """The newest alerts with a number above `after`, newest first."""
            ...

        def corrections(self, *, after: int = 0, limit: int = 100) -> list[Correction]:
            """The events that were corrected last, each once, with a number above `after`; newest first."""
            ...

        def audit(self, *, before_seq: int | None = None, limit: int = 100) -> list[AuditEntry]:
            """Control actions, newest first."""
            ...

        def names(self, kind: str, prefix: str, limit: int = 100) -> list[str]:
            """Known names of `kind` (agent, service, operation, model, project, session) for completion."""
            ...

    class Store(Reads, Protocol):
        """Safe to call from several threads; `apply` calls take turns, reads run beside them.

        Every method may raise StoreError. `apply` then has changed nothing.
        """

        def apply(self, commands: Sequence[Command], now_us: int) -> Applied:
            """All commands in order, each seeing the ones before, in one transaction, durable on return."""
            ...

        def snapshot(self) -> AbstractContextManager[Reads]:
            """Reads that all see the same moment, whatever is written meanwhile. For one thread."""
            ...

        def keys(self) -> list[Key]:
            """The keys that are not revoked, then the others, each newest first; at most `LISTED_MAX`."""
            ...

        def key_of(self, digest: bytes) -> Key | None:
            """The key whose token has this digest, whether it is in force or not."""
            ...

        def has_keys(self) -> bool:
            """Whether any key has been made, ever."""
            ...

        def changed(self) -> int:
            """A number that differs from the last call's whenever another process or thread has committed."""
            ...

        def verify(self, progress: Callable[[str, int, int], None] | None = None) -> Iterator[Difference]:
            """Rebuilds every view from the events and yields where the live one disagrees.

            `progress(what, done, total)` is called now and then.
            """
            ...

        def close(self) -> None: ...
