"""What the meter could not take yet: it is tried again until the meter can, or until all ends."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from agent_meter_mcp.client.errors import UNAVAILABLE
from agent_meter_mcp.core.errors import Overloaded

if TYPE_CHECKING:
    from typing import TypeAlias

    Attempt: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
    Lost: TypeAlias = Callable[[BaseException], None]

OWED_MAX = 10_000
TOGETHER = 500
"""So many share a transaction, once one has been taken."""
PAUSE_S, PAUSE_MAX_S = 0.25, 5.0
"""Before the first attempt; before each of the next ones, twice as long."""
ENDED = "the app ended before the meter could take it."
_log = logging.getLogger(__name__)


class Debt(NamedTuple):
    """Usage that happened. `lost` is told why, once, where it could not be settled in the end."""

    attempt: Attempt
    lost: Lost


class Owed:
    """What one meter is owed, in one event loop. An attempt that failed has written nothing."""

    def __init__(self) -> None:
        self._waiting: deque[Debt] = deque()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def settle(self, debt: Debt) -> None:
        """Now if the meter takes it, and later otherwise. Raises nothing."""
        try:
            await debt.attempt()
        except UNAVAILABLE as error:
            self._add(debt, error)
        except asyncio.CancelledError:
            debt.lost(Overloaded(ENDED))
            raise
        except Exception as error:
            debt.lost(error)

    async def close(self, within_s: float) -> None:
        """Tries once more, and gives up what is not taken then, or in time."""
        self._closing.set()
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=max(within_s, 0))
            if self._task.cancel():
                await asyncio.wait((self._task,))

    def _add(self, debt: Debt, error: Exception) -> None:
        if len(self._waiting) >= OWED_MAX or self._closing.is_set():
            debt.lost(error)
            return
        if not self._waiting:
            _log.warning("what was used waits until the meter can take it: %s", error)
        self._waiting.append(debt)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        pause_s, why = PAUSE_S, None
        try:
            while self._waiting:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), pause_s)
                is_last = self._closing.is_set()
                why = await self._try_all()
                if why is not None and is_last:
                    return
                pause_s = min(pause_s * 2, PAUSE_MAX_S)
        finally:
            while self._waiting:
                self._waiting.popleft().lost(why or Overloaded(ENDED))

    async def _try_all(self) -> Exception | None:
        """One, and if it is taken all others. Why one was not."""
        count = 1
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
            try:
                answers = await asyncio.gather(*(debt.attempt() for debt in batch), return_exceptions=True)
            except BaseException:
                self._waiting.extendleft(reversed(batch))
                raise
            failures = [answer for answer in answers if isinstance(answer, UNAVAILABLE)]
            for debt, answer in zip(reversed(batch), reversed(answers), strict=True):
                if isinstance(answer, UNAVAILABLE):
                    self._waiting.appendleft(debt)
                elif answer is not None:
                    debt.lost(answer)
            if failures:
                return failures[0]
            count = TOGETHER
        return None
