"""What has just happened, for whoever watches: events, refusals, alerts, control actions, after their COMMIT.

Watching never slows recording: a subscriber that does not keep up loses the oldest items, and knows how many.
All of it is read from the store, so what other processes on the same file do is among it: each thing once,
and events in the order of their numbers, whoever recorded them. A refusal is told when its row is new, and
again for what the row has grown by since: `count` is how many are told.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

from agent_meter_mcp.core.errors import MeterError
from agent_meter_mcp.core.models import SECOND_US, Alert, AuditEntry, Correction, Refused, StoredEvent
from agent_meter_mcp.core.queries import EVENTS_PAGE_MAX, EventsQuery, UsageFilter

FeedItem: TypeAlias = StoredEvent | Alert | AuditEntry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType
    from typing import Protocol, Self, TypeVar

    from agent_meter_mcp.store.base import Store

    T = TypeVar("T")
    Numbered = TypeVar("Numbered", Alert, Correction)
    Concerns = Callable[[FeedItem], Awaitable[bool]]

    class Read(Protocol):
        """Runs something blocking off the event loop."""

        async def __call__(self, work: Callable[[], T], /) -> T: ...


BACKLOG_MAX = 1000
CAUGHT_UP_MAX = 1000
"""The most events, corrections, alerts and control actions each that are told of at one look, or to somebody
who comes back; of more, the newest."""
COUNTED_MAX = 10_000
"""The most events that are read for it: those above CAUGHT_UP_MAX are counted as lost."""
FEW = 16
"""How many events are read at first: mostly only some are new."""
GROWS_US = 5 * SECOND_US
"""For how long a row of refusals is looked at again. Whoever counts some for it writes them within about a
second; what is written later is in every list, and told nobody."""


class Subscription:
    """`async with ledger.subscribe() as items: async for item in items: ...`. Ends when the ledger closes."""

    def __init__(self, feed: Feed, concerns: Concerns | None, maximum: int) -> None:
        self._feed = feed
        self._concerns = concerns
        self._items: deque[FeedItem] = deque(maxlen=maximum)
        self._news = asyncio.Event()
        self._ended = False
        self._failure: BaseException | None = None
        self.dropped = 0
        """How many items were lost because they were not taken in time."""

    async def __aenter__(self) -> Self:
        await self._feed.join(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._feed.leave(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FeedItem:
        while True:
            while not self._items:
                if self._failure is not None:
                    raise self._failure
                if self._ended:
                    raise StopAsyncIteration
                self._news.clear()
                await self._news.wait()
            item = self._items.popleft()
            if self._concerns is None or await self._concerns(item):
                return item

    @property
    def is_ready(self) -> bool:
        """Whether the next item is here already, and need not be waited for."""
        return bool(self._items) and self._concerns is None

    def put(self, item: FeedItem) -> None:
        if len(self._items) == self._items.maxlen:
            self.dropped += 1
        self._items.append(item)
        self._news.set()

    def end(self, failure: BaseException | None = None) -> None:
        self._ended, self._failure = True, failure
        self._news.set()


class Watch:
    """Finds events, corrections, alerts and control actions that it has not seen yet. Blocking; one call at a
    time. `lost` is how many events the last look passed over."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.lost = 0
        self._version = 0
        self._event = 0
        self._correction = 0
        self._alert = 0
        self._action = 0
        self._refused: dict[int, int] = {}
        """Of the rows of refusals that may grow, the count that was told."""

    def start(self) -> None:
        """From now on. Raises StoreError."""
        self._version = self._store.changed()
        newest = self._store.events(EventsQuery(UsageFilter(), limit=1)).events
        self._event = max((event.seq for event in newest), default=0)
        self._refused = {self._event - GROWS_US: 0}
        self._new_refusals([])
        self._correction = max((one.number for one in self._store.corrections(limit=1)), default=0)
        self._alert = max((alert.number for alert in self._store.alerts(limit=1)), default=0)
        self._action = max((entry.seq for entry in self._store.audit(limit=1)), default=0)

    def look(self, *, sure: bool) -> list[FeedItem]:
        """What is new: events and control actions in their order, then corrections, then alerts. Reads only
        if somebody has committed, or `sure`. Raises StoreError."""
        self.lost = 0
        version = self._store.changed()
        if version == self._version and not sure:
            return []
        read = self._new_events()
        corrections, correction = _above(self._store.corrections, self._correction)
        alerts, alert = _above(self._store.alerts, self._alert)
        actions = self._new_actions()
        self._version = version
        self._alert = alert
        self._action = max((entry.seq for entry in actions), default=self._action)
        # What is newer than these events is read later, as it is then.
        self._event = max((event.seq for event in read), default=self._event)
        self._correction = correction
        usage = [event for event in reversed(read) if event.outcome != "rejected"]
        refusals = self._new_refusals([event for event in read if event.outcome == "rejected"])
        self.lost = max(len(usage) - CAUGHT_UP_MAX, 0)
        told = {event.seq: event.event for event in usage}
        changed = [
            one for one in reversed(corrections) if one.seq <= self._event and told.get(one.seq) != one.event
        ]
        in_order = sorted([*usage[self.lost :], *refusals, *actions], key=_seq)
        return [*in_order, *changed, *reversed(alerts)]

    def _new_events(self) -> list[StoredEvent]:
        """Newest first; refusals are among them."""
        found: list[StoredEvent] = []
        page = self._store.events(EventsQuery(UsageFilter(), FEW))
        while True:
            newer = [event for event in page.events if event.seq > self._event]
            found += newer
            if len(newer) < len(page.events) or page.next_seq is None or len(found) >= COUNTED_MAX:
                return found
            page = self._store.events(EventsQuery(UsageFilter(), EVENTS_PAGE_MAX, page.next_seq))

    def _new_refusals(self, new: list[StoredEvent]) -> list[Refused]:
        """These, and what others have grown by."""
        rows, told = {row.seq: row for row in new}, self._refused
        if told:
            may_grow = EventsQuery(UsageFilter(min(told), outcome="rejected"), EVENTS_PAGE_MAX)
            rows.update((row.seq, row) for row in self._store.events(may_grow).events)
        self._refused = {seq: row.count for seq, row in rows.items() if seq > self._event - GROWS_US}
        return [
            Refused(**row.replace(count=row.count - told.get(seq, 0)).as_dict(), total=row.count)
            for seq, row in rows.items()
            if row.count > told.get(seq, 0)
        ]

    def _new_actions(self) -> list[AuditEntry]:
        found: list[AuditEntry] = []
        before: int | None = None
        while len(found) < CAUGHT_UP_MAX:
            page = self._store.audit(before_seq=before)
            found += [entry for entry in page if entry.seq > self._action]
            if not page or page[-1].seq <= self._action:
                break
            before = page[-1].seq
        return found[::-1]


def _above(read: Callable[..., Sequence[Numbered]], known: int) -> tuple[list[Numbered], int]:
    """What has a number above the one that is known, newest first, and the newest number there is. That is a
    lower one where a backup was restored, which numbers on from where it was: then not even `known` is there.
    """
    found = read(after=max(known - 1, 0), limit=CAUGHT_UP_MAX + 1) or read(limit=1)
    new = [one for one in found if one.number > known]
    return new[:CAUGHT_UP_MAX], max((one.number for one in found), default=0)


def _seq(item: StoredEvent | AuditEntry) -> int:
    return item.seq


class Feed:
    """Hands items to the subscribers. Lives on the event loop; `read` runs a look at the store off it."""

    def __init__(self, store: Store, read: Read, *, poll_s: float) -> None:
        self._watch = Watch(store)
        self._read = read
        self._poll_s = poll_s
        self._subscribers: set[Subscription] = set()
        self._starting = asyncio.Lock()
        self._poked = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def watched(self) -> bool:
        return bool(self._subscribers)

    def poke(self) -> None:
        """Something was just committed here: do not wait for the next look."""
        self._poked.set()

    async def join(self, subscriber: Subscription) -> None:
        """The first things it hears of may have happened just before. Raises StoreError, Overloaded."""
        async with self._starting:
            if self._watcher is None:
                await self._read(self._watch.start)
                if not self._closed:
                    self._watcher = asyncio.create_task(self._look_now_and_then())
            if self._closed:
                subscriber.end()
            else:
                self._subscribers.add(subscriber)

    def leave(self, subscriber: Subscription) -> None:
        self._subscribers.discard(subscriber)
        if not self._subscribers:
            self._stop()

    async def close(self) -> None:
        """Ends all subscriptions, after what they have not taken yet."""
        self._closed = True
        if self._watcher is not None:
            with suppress(Exception):  # it ends in any case
                await self._look(sure=True)
        self._end(None)

    def _end(self, failure: Exception | None) -> None:
        for subscriber in self._subscribers:
            subscriber.end(failure)
        self._subscribers.clear()
        self._stop()

    def _stop(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    async def _look_now_and_then(self) -> None:
        sure = False
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await self._poked.wait()
            sure = sure or self._poked.is_set()
            self._poked.clear()
            try:
                await self._look(sure=sure)
            except MeterError:  # the store is busy or away: what is new stays new
                continue
            except Exception as error:  # nobody awaits this task: those who watch are told
                self._end(error)
                return
            sure = False

    async def _look(self, *, sure: bool) -> None:
        items, lost = await self._read(lambda: (self._watch.look(sure=sure), self._watch.lost))
        for subscriber in self._subscribers:
            subscriber.dropped += lost
            for item in items:
                subscriber.put(item)
