"""How a hold ends, or goes on: one tool and one route whose `action` says which."""

from typing import TYPE_CHECKING

from .results import ReservationSettled

if TYPE_CHECKING:
    from .arguments import SettleReservation
    from .calls import Call


async def settled(call: "Call", asked: "SettleReservation") -> ReservationSettled:
    """Raises MeterError."""
    if asked.action == "settle":
        actual = asked.settle()
        recorded = await call.ledger.settle(call.caller, actual)
        return ReservationSettled.of_usage(asked.reservation_id, recorded, actual.usage)
    if asked.action == "release":
        held = await call.ledger.release(call.caller, asked.release())
    else:
        held = await call.ledger.extend(call.caller, asked.reservation_id, asked.extend_us())
    return ReservationSettled.of_hold(held)
