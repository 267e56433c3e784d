"""What callers do, through the async ledger."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from agent_meter_mcp.core.commands import Recorded, Reserved, Settle
from agent_meter_mcp.core.errors import Conflict, MeterError
from agent_meter_mcp.core.models import Usage, UsageEvent, Who
from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.intake import Report
from agent_meter_mcp.ledger import Ledger
from agent_meter_mcp.store.sqlite import SqliteStore

from .processes import now_us

OPERATOR = Caller("operator", "crowd")
TTL_US = 1_000_000


class AsReported:
    """Prices of a crowd that reports its costs itself."""

    def price(self, usage: Usage, at_us: int, service: str) -> Usage:
        return usage


class LedgerActions:
    """As `callers.Actions`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def record(self, events: list[UsageEvent]) -> list[Recorded | MeterError]:
        reports = [
            Report(event.who, event.usage, event.id, source=event.source, occurred_at_us=event.occurred_at_us)
            for event in events
        ]
        if len(reports) == 1:
            return [await self._ledger.record(OPERATOR, reports[0])]
        return await self._ledger.record_many(OPERATOR, reports)

    async def reserve(self, event_id: str | None, who: Who, usage: Usage, number: str) -> Reserved:
        """Without an id of its own the ledger may answer from a snapshot; then it makes the id."""
        return await self._ledger.reserve(OPERATOR, Report(who, usage, event_id), TTL_US)

    async def settle(self, reservation_id: str, usage: Usage | None) -> Recorded:
        return await self._ledger.settle(OPERATOR, Settle(reservation_id, usage))

    async def release(self, reservation_id: str) -> bool:
        try:
            await self._ledger.release(OPERATOR, reservation_id)
        except Conflict:
            return False
        return True


async def with_ledger(store: SqliteStore, work: Callable[[Any], Awaitable[Any]]) -> Any:
    """What `work` answers, given the actions of a ledger on this store."""
    async with Ledger(store, AsReported(), now_us, lambda _: str(uuid.uuid4())) as ledger:
        return await work(LedgerActions(ledger))
