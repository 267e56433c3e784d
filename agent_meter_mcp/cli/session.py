"""The ledger, for one command."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from agent_meter_mcp.runtime import open_ledger, process_caller
from agent_meter_mcp.settings import load_settings

if TYPE_CHECKING:
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.ledger import Ledger

T = TypeVar("T")


def with_ledger(work: Callable[[Ledger, Caller], Awaitable[T]]) -> T:
    """What `work` answers, on the ledger that the environment names, as the owner of this process."""
    import anyio

    settings = load_settings()
    caller = process_caller(settings)

    async def run() -> T:
        async with open_ledger(settings) as ledger:
            return await work(ledger, caller)

    return anyio.run(run)
