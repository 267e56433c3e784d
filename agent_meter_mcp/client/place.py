"""Where a meter is: what `Meter` needs of a ledger in a local file, or of one behind a URL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from agent_meter_mcp.core.commands import Settle
    from agent_meter_mcp.core.models import Usage, Who
    from agent_meter_mcp.intake import Report

    from .results import BudgetReserved, Decided, ReservationSettled, UsageRecorded


def check_loop(home: asyncio.AbstractEventLoop | None) -> None:
    """Raises RuntimeError in another event loop than `home`: there nothing would ever be answered."""
    if home is not None and asyncio.get_running_loop() is not home:
        raise RuntimeError(
            "this meter was opened in another event loop: open one in each, or a SyncMeter for any thread"
        )


class Granted:
    """The answer to a reservation. `tell` spells it out: most who are allowed never look."""

    __slots__ = ("allowed", "reservation_id", "tell")

    def __init__(self, allowed: bool, reservation_id: str | None, tell: Callable[[], BudgetReserved]) -> None:
        self.allowed = allowed
        self.reservation_id = reservation_id
        self.tell = tell


class Place(Protocol):
    """All methods belong to the event loop that opened it, and raise MeterErrors."""

    @property
    def default_agent(self) -> str | None:
        """Who it is for if nobody is named; "": the place knows. None: somebody must be."""
        ...

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def record(self, report: Report) -> UsageRecorded: ...

    async def record_unheld(self, report: Report, asked: Report, ttl_us: int) -> UsageRecorded:
        """Usage for which `asked` was to be reserved, and nobody knows whether it was."""
        ...

    async def check(self, who: Who, usage: Usage) -> Decided: ...

    async def reserve(self, report: Report, ttl_us: int) -> Granted: ...

    async def settle(self, settle: Settle) -> Callable[[], ReservationSettled]:
        """What spells the answer out: most never look."""
        ...

    async def release(self, reservation_id: str) -> ReservationSettled: ...

    async def extend(self, reservation_id: str, ttl_us: int) -> ReservationSettled: ...
