"""A ledger's file, on this machine: read whenever somebody wrote to it. No server is needed."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from agent_meter_mcp.core.errors import NotFound, StoreUnusable
from agent_meter_mcp.core.models import FILES_SETTLED_NS, Who
from agent_meter_mcp.core.queries import (
    AGENTS_PAGE_MAX,
    AgentsQuery,
    EventsQuery,
    SummaryQuery,
    UsageFilter,
)
from agent_meter_mcp.core.windows import parse_window, span
from agent_meter_mcp.settings import FOLDER

from .ahead import CAN_FORK, Ahead
from .base import (
    ACTIONS_SHOWN,
    ALERTS_SHOWN,
    AUDIT_SHOWN,
    EVENTS_SHOWN,
    GROUPS_SHOWN,
    Detail,
    Snapshot,
    bars_of,
)
from .crowd import Crowd, Used

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent_meter_mcp.core.models import Action, AuditEntry, LimitKey, StoredEvent, SwitchKind
    from agent_meter_mcp.core.queries import AgentView, Dimension, LimitView, Summary
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.ledger import Ledger, Looking
    from agent_meter_mcp.settings import Settings

    from .base import Range

    Mark = tuple[tuple[int, int, int], ...]

T = TypeVar("T")

AGENTS_MAX = 1_000_000
AT_ONCE = 50
"""So many agents are read at each look, or all where they are no more. Beyond that, of those that nothing new
is known of so many in turn: of five thousand, each is at most a minute old."""


class LocalSource:
    """A reader and an operator on a file, which is opened when it is there. `caller` is who looks and acts.

    Days and months are those of the zone `timezone`.
    """

    def __init__(self, settings: Settings, caller: Caller, timezone: str) -> None:
        home = os.path.expanduser("~/")
        self.where = f"~/{settings.db.removeprefix(home)}" if settings.db.startswith(home) else settings.db
        self._settings = settings
        self._caller = caller
        self._timezone = timezone
        self._ledger: Ledger | None = None
        self._was_there = False
        self._version: int | None = None
        self._mark: Mark | None = None
        self._crowd, self._used = Crowd(), Used()
        self._looking = asyncio.Lock()
        self._ahead: tuple[Range, Ahead[Snapshot | None]] | None = None

    async def close(self) -> None:
        """Ends what is open; a later look opens it again."""
        if self._ahead is not None:
            self._ahead[1].end()
            self._ahead = None
        ledger, self._ledger, self._version, self._mark = self._ledger, None, None, None
        self._crowd, self._used = Crowd(), Used()
        if ledger is not None:
            await ledger.__aexit__(None, None, None)

    async def _open(self) -> Ledger:
        if self._ledger is None:
            from anyio.to_thread import run_sync

            if await run_sync(self._has_not_begun):
                raise self._missing()
            from agent_meter_mcp.runtime import open_ledger

            ledger = await open_ledger(self._settings).__aenter__()
            if (other := self._ledger) is not None:  # another look has opened it meanwhile
                await ledger.__aexit__(None, None, None)
                return other
            self._ledger, self._was_there = ledger, True
        return self._ledger

    def _missing(self) -> NotFound:
        path = self._settings.db
        if self._was_there:
            return NotFound(
                f"The ledger {path} is gone: it was moved or deleted. Put it back; else whoever records next"
                " begins a new one there, without its usage, limits and keys."
            )
        return NotFound(f"There is no ledger at {path} yet. The first agent to use the server makes it.")

    def _has_not_begun(self) -> bool:
        """Whether whoever records something would make the file. Without its folder nobody would: then to
        open it fails, and says so."""
        path = os.path.abspath(self._settings.db)
        folder = os.path.dirname(path)
        return not os.path.exists(path) and (os.path.isdir(folder) or folder == os.path.expanduser(FOLDER))

    # Reading

    def look_ahead(self, wanted: Range) -> None:
        """Begins with the first look, which is likely to be at that range, before there are threads."""
        if CAN_FORK:
            self._ahead = wanted, Ahead(partial(self._first_snapshot, wanted))

    def _first_snapshot(self, wanted: Range) -> Snapshot | None:
        from agent_meter_mcp.ledger import Looking
        from agent_meter_mcp.runtime import open_store, system_clock_us

        if not os.path.exists(self._settings.db):
            return None
        with open_store(self._settings).snapshot() as reads:
            return self._snapshot(Looking(reads, self._caller, system_clock_us()), wanted)

    def now_us(self) -> int:
        from agent_meter_mcp.runtime import system_clock_us

        return system_clock_us()

    async def changed(self) -> bool:
        """Raises MeterError; a file that was replaced is opened anew at the next look."""
        if self._ahead is not None:
            return True
        ledger, mark = await self._open(), _mark(self._settings.db)
        if mark is not None and mark == self._mark:
            return False
        try:
            version = await ledger.changed(self._caller)
        except StoreUnusable:
            await self.close()
            raise
        is_new, self._version, self._mark = version != self._version, version, mark
        return is_new

    async def snapshot(self, wanted: Range) -> Snapshot:
        if self._ahead is not None:
            likely, ahead = self._ahead
            found = await ahead.take()
            self._ahead = None
            self._was_there |= found is not None
            if found is not None and likely == wanted:
                return found
        return await self._look(lambda looking: self._snapshot(looking, wanted))

    def _snapshot(self, looking: Looking, wanted: Range) -> Snapshot:
        query = self._query(looking, wanted.window, ("agent",)).replace(order_by="key", limit=AGENTS_MAX)
        used = looking.summary(query)
        changed = self._used.take(used.groups)
        limits = tuple(looking.rules())
        switches = tuple(looking.switches())
        actions = () if self._is_agent else tuple(looking.audit(limit=ACTIONS_SHOWN))
        events = looking.events(EventsQuery(UsageFilter(), EVENTS_SHOWN)).events
        rules = (switches, limits, actions[:1], wanted)
        return Snapshot(
            looking.now_us,
            self._agents(looking, events, changed, rules),
            self._used.totals,
            used.total,
            bars_of(looking.summary(self._query(looking, wanted.chart_window, (wanted.chart,)))),
            events,
            tuple(looking.limits(kind="pool")),
            switches,
            tuple(looking.alerts(limit=ALERTS_SHOWN)),
            limits,
            actions,
        )

    async def detail(self, agent_id: str, wanted: Range) -> Detail:
        return await self._look(lambda looking: self._detail(looking, agent_id, wanted))

    def _detail(self, looking: Looking, agent_id: str, wanted: Range) -> Detail:
        own = UsageFilter(agent=agent_id)

        def used(window: str, *group_by: Dimension) -> Summary:
            query = self._query(looking, window, group_by)
            return looking.summary(query.replace(filter=query.filter.replace(agent=agent_id)))

        def events(wanted: UsageFilter, most: int) -> tuple[StoredEvent, ...]:
            return looking.events(EventsQuery(wanted, most)).events

        return Detail(
            tuple(looking.limits(Who(agent_id))),
            tuple(held for held in looking.reservations() if held.who.agent == agent_id),
            used(wanted.window, "service", "operation", "model"),
            events(own, EVENTS_SHOWN),
            used(wanted.window, "project", "session"),
            used(wanted.window, "source"),
            bars_of(used(wanted.chart_window, wanted.chart)),
            next(iter(events(own.replace(outcome="rejected"), 1)), None),
        )

    async def limits(self) -> tuple[LimitView, ...]:
        return tuple(await self._look(lambda looking: looking.limits()))

    async def usage(
        self, window: str, *group_by: Dimension, service: str | None = None, zone: str | None = None
    ) -> Summary:
        def used(looking: Looking) -> Summary:
            query = self._query(looking, window, group_by, zone)
            return looking.summary(query.replace(filter=query.filter.replace(service=service)))

        return await self._look(used)

    async def audit(self) -> tuple[AuditEntry, ...]:
        return tuple(await self._look(lambda looking: looking.audit(limit=AUDIT_SHOWN)))

    async def _look(self, read: Callable[[Looking], T]) -> T:
        """One after the other: as many as read at once, so many remember what they have read. Who is
        cancelled does not wait for the thread that reads; the next one does."""
        ledger = await self._open()
        await self._looking.acquire()
        reading = asyncio.create_task(ledger.look(self._caller, read))
        reading.add_done_callback(self._has_looked)
        return await asyncio.shield(reading)

    def _has_looked(self, reading: asyncio.Task[Any]) -> None:
        self._looking.release()
        if not reading.cancelled():
            reading.exception()  # perhaps nobody waits for it any more

    @property
    def _is_agent(self) -> bool:
        return self._caller.role == "agent"

    def _query(
        self, looking: Looking, window: str, group_by: tuple[Dimension, ...], zone: str | None = None
    ) -> SummaryQuery:
        chosen = zone or self._timezone
        counted = span(parse_window(window), chosen, looking.now_us)
        return SummaryQuery(UsageFilter(*counted), group_by, chosen, limit=GROUPS_SHOWN)

    def _agents(
        self, looking: Looking, events: Sequence[StoredEvent], changed: set[str], rules: object
    ) -> tuple[AgentView, ...]:
        """All of them; where they are many, some as they stood a little while ago."""
        crowd = self._crowd
        named = crowd.named_by(events, changed)
        if crowd.rules != rules:
            crowd.take_all(_all_agents(looking), rules)
            return crowd.views
        page = looking.agents(AgentsQuery(after_agent=crowd.turn, limit=AT_ONCE))
        named.difference_update(view.agent.agent_id for view in page.agents)
        found = list(page.agents)
        names = tuple(sorted(named))
        for first in range(0, len(names), AGENTS_PAGE_MAX):
            some = names[first : first + AGENTS_PAGE_MAX]
            found += looking.agents(AgentsQuery(limit=AGENTS_PAGE_MAX, agents=some)).agents
        crowd.take(found)
        crowd.turn = page.next_agent
        return crowd.views

    # Acting

    refusal = ""

    async def stop(self, kind: SwitchKind, name: str | None, reason: str) -> bool:
        return (await (await self._open()).set_switch(self._caller, kind, name, True, reason)).changed

    async def resume(self, kind: SwitchKind, name: str | None) -> bool:
        return (await (await self._open()).set_switch(self._caller, kind, name, False, None)).changed

    async def set_limit(
        self,
        key: LimitKey,
        maximum: int,
        *,
        action: Action | None = None,
        zone: str | None = None,
        thresholds: tuple[int, ...] | None = None,
    ) -> None:
        await (await self._open()).set_limit(
            self._caller, key, maximum, action=action, zone=zone, thresholds=thresholds
        )

    async def remove_limit(self, limit_id: str) -> None:
        await (await self._open()).remove_limit(self._caller, limit_id=limit_id)

    async def release(self, reservation_id: str) -> None:
        await (await self._open()).release(self._caller, reservation_id)

    async def set_agent(self, agent_id: str, changes: dict[str, str | None]) -> None:
        await (await self._open()).set_agent(self._caller, agent_id, changes)


def _mark(path: str) -> Mark | None:
    """What whoever writes to a ledger changes. None: somebody may have written in the same tick of the clock.

    Two `stat` take some microseconds, and spare two changes of threads at each look while nobody writes.
    """
    try:
        files = os.stat(path), os.stat(f"{path}-wal")
    except OSError:
        return None
    if time.time_ns() - max(one.st_mtime_ns for one in files) < FILES_SETTLED_NS:
        return None
    return tuple((one.st_ino, one.st_size, one.st_mtime_ns) for one in files)


def _all_agents(looking: Looking) -> list[AgentView]:
    found: list[AgentView] = []
    query = AgentsQuery(limit=AGENTS_PAGE_MAX)
    while True:
        page = looking.agents(query)
        found += page.agents
        if page.next_agent is None:
            return found
        query = query.replace(after_agent=page.next_agent)
