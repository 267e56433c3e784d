"""What every tool and every route begins with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.ledger import Ledger


@dataclass(frozen=True)
class Call:
    """Who asks, and whom. `timezone` is where a report's day begins if it does not say."""

    ledger: Ledger
    caller: Caller
    timezone: str
