"""A hold lasts as long as the work that it was made for: a long stream is not let out of its limit."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from agent_meter_mcp.core.check import TTL_DEFAULT
from agent_meter_mcp.core.errors import Conflict, NotFound

if TYPE_CHECKING:
    from agent_meter_mcp.client import Hold, Meter

    from .attachment import Attachment

EXTEND_EVERY_S = 20.0
"""A third of what a hold lasts: one that fails is tried again in time."""
_log = logging.getLogger(__name__)


class Kept:
    """`hold`, extended again and again until `stop`. Whoever dies extends nothing, and it expires."""

    def __init__(self, hold: Hold, attachment: Attachment) -> None:
        self.hold = hold
        self._attachment = attachment
        self._loop = asyncio.get_running_loop()
        self._stopped = hold.reservation_id is None
        self._task: asyncio.Task[None] | None = None
        self._due: asyncio.TimerHandle | None = None
        attachment.holds.add(self)
        self._wait()

    def stop(self) -> None:
        self._stopped = True
        self._attachment.holds.discard(self)
        if self._due is not None:
            self._due.cancel()

    def _wait(self) -> None:
        if not self._stopped:
            self._due = self._loop.call_later(EXTEND_EVERY_S, self._start)

    def _start(self) -> None:
        self._task = self._loop.create_task(self._extend())

    async def _extend(self) -> None:
        try:
            await self._attachment.run(self._extend_at)
        except Exception as error:  # whatever it is, it is ours, and not to be the app's
            if self._stopped:  # it has been settled meanwhile
                return
            _log.warning("budget held for a request could not be extended: %s", error)
            if isinstance(error, Conflict | NotFound):  # it is over: what was used counts when it is settled
                return
        self._wait()

    async def _extend_at(self, meter: Meter) -> None:
        meter.adopt(self.hold)
        await self.hold.extend(TTL_DEFAULT)
