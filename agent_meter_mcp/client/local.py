"""A meter in a local file."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from agent_meter_mcp.core.errors import MeterError, Overloaded
from agent_meter_mcp.core.told import (
    decided_fields,
    hold_fields,
    recorded_fields,
    reserved_fields,
    settled_fields,
)
from agent_meter_mcp.runtime import open_ledger, process_caller

from . import wording
from .place import Granted, check_loop
from .results import BudgetReserved, Decided, ReservationSettled, UsageRecorded, parsed

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from agent_meter_mcp.core.commands import Recorded, Reserved, Settle
    from agent_meter_mcp.core.models import Usage, Who
    from agent_meter_mcp.intake import Report
    from agent_meter_mcp.ledger import Ledger
    from agent_meter_mcp.settings import Settings


class LocalPlace:
    """The file that `settings` name, opened and closed here; or `ledger`, which somebody else has open."""

    def __init__(self, settings: Settings, ledger: Ledger | None = None) -> None:
        self._settings = settings
        self._caller = process_caller(settings)
        self._ledger = ledger
        self._opened: AbstractAsyncContextManager[Ledger] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failure: MeterError = Overloaded("this meter is not open: use it inside `async with Meter()`.")

    @property
    def default_agent(self) -> str | None:
        return self._caller.default_agent

    @property
    def ledger(self) -> Ledger:
        if self._ledger is None:
            raise self._failure.alone()
        check_loop(self._loop)
        return self._ledger

    async def open(self) -> None:
        if self._ledger is None:
            opened = open_ledger(self._settings)
            try:
                self._ledger = await opened.__aenter__()
            except MeterError as error:
                self._failure = error
                raise
            self._opened = opened
            self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        if self._opened is not None:
            self._ledger = None
            await self._opened.__aexit__(None, None, None)

    async def record(self, report: Report) -> UsageRecorded:
        recorded = await self.ledger.record(self._caller, report)
        return parsed(UsageRecorded, {"message": wording.recorded(recorded), **recorded_fields(recorded)})

    async def record_unheld(self, report: Report, asked: Report, ttl_us: int) -> UsageRecorded:
        return await self.record(report)  # a file that fails has written nothing

    async def check(self, who: Who, usage: Usage) -> Decided:
        decision = await self.ledger.check(self._caller, who, usage)
        told = decided_fields(decision, wording.reason)
        return parsed(Decided, {"message": wording.decision(decision), **told})

    async def reserve(self, report: Report, ttl_us: int) -> Granted:
        reserved = await self.ledger.reserve(self._caller, report, ttl_us)
        held = reserved.reservation
        reservation_id = None if held is None else held.reservation_id
        return Granted(held is not None, reservation_id, lambda: _told(reserved))

    async def settle(self, settle: Settle) -> Callable[[], ReservationSettled]:
        recorded = await self.ledger.settle(self._caller, settle)
        return lambda: _settled(settle.reservation_id, recorded)

    async def release(self, reservation_id: str) -> ReservationSettled:
        held = await self.ledger.release(self._caller, reservation_id)
        return ReservationSettled(wording.hold(held), **hold_fields(held))

    async def extend(self, reservation_id: str, ttl_us: int) -> ReservationSettled:
        held = await self.ledger.extend(self._caller, reservation_id, ttl_us)
        return ReservationSettled(wording.hold(held), **hold_fields(held))


def _settled(reservation_id: str, recorded: Recorded) -> ReservationSettled:
    told = settled_fields(reservation_id, recorded)
    return parsed(ReservationSettled, {"message": wording.recorded(recorded), **told})


def _told(reserved: Reserved) -> BudgetReserved:
    told = reserved_fields(reserved, wording.reason)
    return parsed(BudgetReserved, {"message": wording.decision(reserved.decision), **told})
