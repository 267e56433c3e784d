"""How a hold ends, or goes on: one tool and one route whose `action` says which."""

from typing import TYPE_CHECKING

from .results import ReservationSettled

if TYPE_CHECKING:
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.ledger import Ledger

    from .arguments import SettleReservation


async def settled(ledger: "Ledger", caller: "Caller", asked: "SettleReservation") -> ReservationSettled:
    """Raises MeterError."""
    if asked.action == "settle":
        recorded = await ledger.settle(caller, asked.settle())
        return ReservationSettled.of_usage(asked.reservation_id, recorded)
    if asked.action == "release":
        held = await ledger.release(caller, asked.release())
    else:
        held = await ledger.extend(caller, asked.reservation_id, asked.extend_us())
    return ReservationSettled.of_hold(held)
