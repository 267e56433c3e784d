"""How far a watcher has come, and what it has missed since.

A position is the id of each message of the stream, and what a watcher sends back as `Last-Event-ID`. Events,
corrections, alerts and control actions are numbered each by themselves, so it is made of four numbers.
Refusals have none while they happen: they share a row per second, so two more numbers are the last second and
how many of it were sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from agent_meter_mcp.core.commands import Refusal
from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.models import SECOND_US, Alert, AuditEntry, Correction, StoredEvent
from agent_meter_mcp.core.queries import EVENTS_PAGE_MAX, EventsQuery, UsageFilter

if TYPE_CHECKING:
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.ledger import FeedItem, Ledger

    Row = tuple[int, str, str | None, str | None]

REPLAYED_MAX = 1000
"""The most events, alerts and control actions each that are sent again; of more, the newest."""
COUNTED_MAX = 10_000
"""How many that are not sent again are counted at most."""
_DIGITS_MAX = 19


class Position(NamedTuple):
    """The last of each kind that was sent, and the second and the count of refusals."""

    event: int = 0
    alert: int = 0
    action: int = 0
    refused_s: int = 0
    refused: int = 0
    correction: int = 0

    def __str__(self) -> str:
        return "-".join(str(part) for part in self)

    def after(self, item: FeedItem) -> Position:
        """Where whoever has got `item` is."""
        if isinstance(item, Correction):
            return self._replace(correction=max(self.correction, item.number))
        if isinstance(item, StoredEvent):
            return self._replace(event=max(self.event, item.seq))
        if isinstance(item, Alert):
            return self._replace(alert=max(self.alert, item.number))
        if isinstance(item, AuditEntry):
            return self._replace(action=max(self.action, item.seq))
        second = item.first_at_us // SECOND_US
        if second < self.refused_s:
            return self
        before = self.refused if second == self.refused_s else 0
        return self._replace(refused_s=second, refused=before + item.count)

    @classmethod
    def parse(cls, text: str) -> Position:
        """Raises InvalidInput."""
        parts = text.split("-")
        if len(parts) != len(cls._fields) or not all(
            part.isascii() and part.isdigit() and len(part) <= _DIGITS_MAX for part in parts
        ):
            raise InvalidInput(
                "Last-Event-ID", "is not one that this stream sent: leave it out to begin with what is new"
            )
        return cls(*map(int, parts))


class Missed:
    """What came after a position, oldest first, then what was corrected. `lost` more were too many to be sent
    again."""

    def __init__(self, items: list[FeedItem], lost: int, read_at_us: int) -> None:
        self.items = items
        self.lost = lost
        self._read_at_us = read_at_us
        events = (item for item in items if isinstance(item, StoredEvent))
        self._refused = {_row_of(event) for event in events if event.outcome == "rejected"}

    def has(self, item: FeedItem, upto: Position) -> bool:
        """Whether a piece of news was among them: it came while they were being read."""
        if isinstance(item, Correction):
            return item.number <= upto.correction
        if isinstance(item, StoredEvent):
            return item.seq <= upto.event
        if isinstance(item, Alert):
            return item.number <= upto.alert
        if isinstance(item, AuditEntry):
            return item.seq <= upto.action
        return item.first_at_us <= self._read_at_us and _row_of(item) in self._refused


def _row_of(refused: StoredEvent | Refusal) -> Row:
    """By what refusals are folded."""
    if isinstance(refused, Refusal):
        return (refused.first_at_us // SECOND_US, refused.who.agent, refused.who.service, refused.limit_id)
    who = refused.event.who
    return (refused.seq // SECOND_US, who.agent, who.service, refused.limit_id)


async def current(ledger: Ledger, caller: Caller) -> Position:
    """Where a watcher is that has seen all there is. Raises Forbidden, StoreError."""
    events = (await ledger.events(caller, EventsQuery(UsageFilter(), limit=1))).events
    alerts = await ledger.alerts(caller, limit=1)
    actions = [] if caller.role == "agent" else await ledger.audit(caller, limit=1)
    corrections = await ledger.corrections(caller, 0, REPLAYED_MAX)
    return Position(
        max((event.seq for event in events), default=0),
        max((alert.number for alert in alerts), default=0),
        max((action.seq for action in actions), default=0),
        correction=max((correction.number for correction in corrections), default=0),
    )


async def missed_since(ledger: Ledger, caller: Caller, position: Position) -> Missed:
    """Raises Forbidden, StoreError."""
    events, lost = await _events_since(ledger, caller, position)
    alerts = await ledger.alerts(caller, position.alert, REPLAYED_MAX)
    actions = [] if caller.role == "agent" else await ledger.audit(caller, limit=REPLAYED_MAX)
    found = await ledger.corrections(caller, position.correction, REPLAYED_MAX)
    # What is newer has just been read as it is now.
    corrections = [one for one in reversed(found) if one.seq <= position.event]
    # Alerts of one moment stay in their order: whoever leaves between them has those of lower numbers.
    items: list[FeedItem] = [
        *events,
        *reversed(alerts),
        *(entry for entry in actions if entry.seq > position.action),
    ]
    return Missed([*sorted(items, key=_at_us), *corrections], lost, ledger.now_us())


async def _events_since(ledger: Ledger, caller: Caller, position: Position) -> tuple[list[StoredEvent], int]:
    """The newest of them, and how many older ones there are."""
    found: list[StoredEvent] = []
    lost = 0
    before: int | None = None
    while lost < COUNTED_MAX:
        page = await ledger.events(caller, EventsQuery(UsageFilter(), EVENTS_PAGE_MAX, before))
        newer = [event for event in page.events if event.seq > position.event]
        room = REPLAYED_MAX - len(found)
        found += newer[:room]
        lost += len(newer[room:])
        before = page.next_seq
        if before is None or len(newer) < len(page.events):
            break
    return _unsent(found, position), lost


def _unsent(events: list[StoredEvent], position: Position) -> list[StoredEvent]:
    """Without the refusals that were sent as they happened; of a row that grew since, the rest is left."""
    left: list[StoredEvent] = []
    sent = position.refused
    for event in reversed(events):
        second = event.seq // SECOND_US
        if event.outcome != "rejected" or second > position.refused_s:
            left.append(event)
        elif second == position.refused_s:
            if event.count > sent:
                left.append(event.replace(count=event.count - sent))
            sent = max(sent - event.count, 0)
    return left


def _at_us(item: FeedItem) -> int:
    if isinstance(item, Alert):
        return item.raised_at_us
    return item.first_at_us if isinstance(item, Refusal) else item.seq
