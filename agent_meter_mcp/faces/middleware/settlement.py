"""What one request has used, until it is settled or lost."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from agent_meter_mcp.client.errors import UNAVAILABLE
from agent_meter_mcp.core.errors import InvalidInput, MeterError

if TYPE_CHECKING:
    from collections import Counter

    from agent_meter_mcp.client import Hold, Meter
    from agent_meter_mcp.client.fields import SettleFields

    from .metering import Number

_log = logging.getLogger(__name__)


class Settlement:
    """Of the hold of a request to `service`. `units` None: as estimated."""

    def __init__(
        self, hold: Hold, service: str, units: Number | None, ended: SettleFields, counters: Counter[str]
    ) -> None:
        self._hold = hold
        self._service = service
        self._units = units
        self._ended: SettleFields = ended
        self._counters = counters

    async def attempt(self, meter: Meter) -> None:
        """Raises UNAVAILABLE where nothing has been written, and it can be tried again."""
        meter.adopt(self._hold)  # the app may have ended meanwhile, and begun again
        try:
            await self._end()
        except UNAVAILABLE as error:
            if meter.is_local:
                raise
            self.lost(error)  # the disk, on which it would have waited, has not taken it either

    def lost(self, error: BaseException) -> None:
        self._counters["unsettled"] += 1
        hold = self._hold
        _log.error(
            "usage of %s at %s could not be settled (%s): %s",
            *(hold.agent, self._service, hold.reservation_id, error),
            exc_info=None if isinstance(error, MeterError) else error,
        )

    async def _end(self) -> None:
        if self._units is not None:
            try:
                await self._hold.end(**{**self._ended, "units": self._units})
                return
            except InvalidInput as error:
                self._counters["units_failed"] += 1
                _log.error("units of a request to %s: %s", self._service, error)
                self._units = None
        await self._hold.end(**self._ended)
