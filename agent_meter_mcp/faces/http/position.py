"""How far a watcher has come, and what it has missed since.

A position is the id of each message of the stream, and what a watcher sends back as `Last-Event-ID`. Events,
corrections, alerts and control actions are numbered each by themselves, so it is made of four numbers.
Refusals share rows that grow, so two more numbers are the last second that has any and how many of it were
sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from agent_meter_mcp.core.check import CURSOR_MAX
from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.models import SECOND_US, Alert, AuditEntry, Correction, Refused, StoredEvent
from agent_meter_mcp.core.queries import EVENTS_PAGE_MAX, EventsQuery, UsageFilter
from agent_meter_mcp.ledger.feed import CAUGHT_UP_MAX, COUNTED_MAX, GROWS_US

if TYPE_CHECKING:
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.ledger import FeedItem, Ledger


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
        if isinstance(item, Alert):
            return self._replace(alert=max(self.alert, item.number))
        if isinstance(item, AuditEntry):
            return self._replace(action=max(self.action, item.seq))
        upto = self._replace(event=max(self.event, item.seq))
        second = item.seq // SECOND_US
        if item.outcome != "rejected" or second < self.refused_s:
            return upto
        before = self.refused if second == self.refused_s else 0
        return upto._replace(refused_s=second, refused=before + item.count)

    def of(self, last: Position) -> Position:
        """The same place in a ledger that has come to `last`. Times go on from one ledger to the next, but a
        new one numbers its alerts and corrections from 1, and an older copy from where it was: a number that
        the ledger has not come to is one of another ledger, and says of this one that nothing was sent. A
        time that is ahead of it is now, or all would be silent until then."""
        here = self if self.event <= last.event else self._replace(event=last.event, refused_s=0, refused=0)
        return here._replace(
            alert=self.alert if self.alert <= last.alert else 0,
            action=min(self.action, last.action),
            correction=self.correction if self.correction <= last.correction else 0,
        )

    @property
    def oldest_us(self) -> int:
        """Nothing that was recorded before is unsent: rows of refusals grow for some seconds only."""
        refused_us = self.refused_s * SECOND_US
        return refused_us if self.event - GROWS_US <= refused_us else self.event

    @classmethod
    def parse(cls, text: str) -> Position:
        """Raises InvalidInput."""
        parts = text.split("-")
        if len(parts) != len(cls._fields) or not all(
            part.isascii() and part.isdigit() and len(part) <= CURSOR_MAX for part in parts
        ):
            raise InvalidInput(
                "Last-Event-ID", "is not one that this stream sent: leave it out to begin with what is new"
            )
        return cls(*map(int, parts))


class Missed:
    """What came after a position, oldest first, then what was corrected. `lost` more were too many to be sent
    again."""

    def __init__(self, items: list[FeedItem], lost: int, refused: dict[int, int]) -> None:
        self.items = items
        self.lost = lost
        self._refused = refused
        """The rows of refusals that were read, and how many each had."""

    def beyond(self, item: FeedItem, upto: Position) -> FeedItem | None:
        """What of a piece of news was not among them: it may have come while they were being read."""
        if isinstance(item, Correction):
            is_new = item.number > upto.correction
        elif isinstance(item, Alert):
            is_new = item.number > upto.alert
        elif isinstance(item, Refused):
            count = min(item.count, item.total - self._refused.get(item.seq, 0))
            return item.replace(count=count) if count > 0 else None
        else:
            is_new = item.seq > (upto.action if isinstance(item, AuditEntry) else upto.event)
        return item if is_new else None


async def current(ledger: Ledger, caller: Caller) -> Position:
    """Where a watcher is that has seen all there is. Raises Forbidden, StoreError."""
    events = (await ledger.events(caller, EventsQuery(UsageFilter(), limit=1))).events
    alerts = await ledger.alerts(caller, limit=1)
    actions = [] if caller.role == "agent" else await ledger.audit(caller, limit=1)
    corrections = await ledger.corrections(caller, 0, CAUGHT_UP_MAX)
    return Position(
        max((event.seq for event in events), default=0),
        max((view.alert.number for view in alerts), default=0),
        max((action.seq for action in actions), default=0),
        correction=max((correction.number for correction in corrections), default=0),
    )


async def missed_since(ledger: Ledger, caller: Caller, position: Position) -> Missed:
    """Raises Forbidden, StoreError."""
    events, lost = await _events_since(ledger, caller, position)
    refused = {event.seq: event.count for event in events if event.outcome == "rejected"}
    alerts = await ledger.alerts(caller, position.alert, CAUGHT_UP_MAX)
    actions = [] if caller.role == "agent" else await ledger.audit(caller, limit=CAUGHT_UP_MAX)
    found = await ledger.corrections(caller, position.correction, CAUGHT_UP_MAX)
    # What is newer has just been read as it is now.
    corrections = [one for one in reversed(found) if one.seq <= position.event]
    # Alerts of one moment stay in their order: whoever leaves between them has those of lower numbers.
    items: list[FeedItem] = [
        *_unsent(events, position),
        *(view.alert for view in reversed(alerts)),
        *(entry for entry in actions if entry.seq > position.action),
    ]
    return Missed([*sorted(items, key=_at_us), *corrections], lost, refused)


async def _events_since(ledger: Ledger, caller: Caller, position: Position) -> tuple[list[StoredEvent], int]:
    """The newest of them, and how many older ones there are."""
    found: list[StoredEvent] = []
    lost = 0
    async for page in ledger.event_pages(caller, EventsQuery(UsageFilter(), EVENTS_PAGE_MAX)):
        newer = [event for event in page.events if _may_be_unsent(event, position)]
        room = CAUGHT_UP_MAX - len(found)
        found += newer[:room]
        lost += len(newer[room:])
        if lost >= COUNTED_MAX or (page.next_seq or 0) <= position.oldest_us:
            break
    return found, lost


def _may_be_unsent(event: StoredEvent, position: Position) -> bool:
    """It is newer, or a row of the refusals that were sent last, and may have grown."""
    return event.seq > position.event or _is_of_the_last(event, position)


def _is_of_the_last(event: StoredEvent, position: Position) -> bool:
    return event.outcome == "rejected" and event.seq // SECOND_US == position.refused_s


def _unsent(events: list[StoredEvent], position: Position) -> list[StoredEvent]:
    """Without the refusals that were sent; of a row that grew since, the rest is left."""
    left: list[StoredEvent] = []
    sent = position.refused
    for event in reversed(events):
        if not _is_of_the_last(event, position):
            left.append(event)
            continue
        if event.count > sent:
            left.append(event.replace(count=event.count - sent))
        sent = max(sent - event.count, 0)
    return left


def _at_us(item: FeedItem) -> int:
    if isinstance(item, Alert):
        return item.raised_at_us
    return item.seq
