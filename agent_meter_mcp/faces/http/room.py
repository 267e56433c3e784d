"""How much of all bodies may be in memory at once. Who finds no room waits, first come first served."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class Place:
    """So many bytes that somebody has."""

    def __init__(self, room: Room, size: int) -> None:
        self._room = room
        self.size = size

    def shrink(self, size: int) -> None:
        """No more than that is needed any longer."""
        if size < self.size:
            given, self.size = self.size - size, size
            self._room.give(given)


class Room:
    """Of `total` bytes. Nobody may need more than that."""

    def __init__(self, total: int) -> None:
        self._free = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def held(self, size: int, within_s: float) -> AsyncGenerator[Place]:
        """Raises TimeoutError when there was no room for so long."""
        async with asyncio.timeout(within_s):
            await self._take(size)
        place = Place(self, size)
        try:
            yield place
        finally:
            place.shrink(0)

    def give(self, size: int) -> None:
        self._free += size
        self._let_in()

    async def _take(self, size: int) -> None:
        if not self._waiting and size <= self._free:
            self._free -= size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._let_in()  # whoever stood behind may need less
            else:  # it was let in, and given up on, in the same moment
                self.give(size)
            raise

    def _let_in(self) -> None:
        while self._waiting:
            size, turn = self._waiting[0]
            if not turn.cancelled():  # else it was given up on, and may not know that yet
                if size > self._free:
                    return
                self._free -= size
                turn.set_result(None)
            self._waiting.popleft()
