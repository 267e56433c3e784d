"""Whose a hold is and what it is of never changes: for one that was made here lately, nothing is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_meter_mcp.core.errors import NotFound

if TYPE_CHECKING:
    from agent_meter_mcp.core.models import Reservation
    from agent_meter_mcp.store.base import Store

KEPT_MAX = 1024


class Holds:
    """The holds in a store, and the newest of those that were made through this ledger."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._made: dict[str, Reservation] = {}

    def made(self, held: Reservation | None) -> None:
        """It is in the store (None: there was no room for it). For one thread."""
        if held is None:
            return
        self._made[held.reservation_id] = held
        if len(self._made) > KEPT_MAX:
            del self._made[next(iter(self._made))]

    def find(self, reservation_id: str, now_us: int) -> Reservation:
        """Its state may be an older one: the store judges by its own. Blocks; for any thread.

        Raises:
            NotFound: there is none.
        """
        held = self._made.get(reservation_id) or self._store.reservation(reservation_id, now_us)
        if held is None:
            raise NotFound(f"no reservation is {reservation_id!r}; its id is in the answer of reserve_budget")
        return held
