"""The first look, taken by a process of its own while this one imports what it needs to show it."""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

CAN_FORK = sys.platform == "linux"
"""Elsewhere a process that was only forked may not do everything, or there is none."""
ROOM_BYTES = 1 << 20
"""An answer of that size waits in the pipe until it is wanted, and with it no child."""


class Ahead(Generic[T]):
    """What `look` answers, in a child that was forked to ask it. To be made before there are threads."""

    def __init__(self, look: Callable[[], T]) -> None:
        from fcntl import F_SETPIPE_SZ, fcntl  # which not every system has

        self._reading, writing = os.pipe()
        with suppress(OSError):  # a user may have so much room in pipes, all together
            fcntl(writing, F_SETPIPE_SZ, ROOM_BYTES)
        self._child = os.fork()
        if self._child == 0:
            _answer(look, self._reading, writing)
        os.close(writing)

    async def take(self) -> T | None:
        """None where it failed: whoever looks then is told why. To be called once."""
        # Mostly it has been done for long, and what a thread brings would come after the first layout.
        if select.select([self._reading], [], [], 0)[0]:
            return self._read()
        from asyncio import to_thread

        return await to_thread(self._read)

    def _read(self) -> T | None:
        with open(self._reading, "rb") as pipe:
            told = pipe.read()
        _, ended = os.waitpid(self._child, 0)  # who was killed has perhaps told a half
        return pickle.loads(told) if told and ended == 0 else None  # it is our own

    def end(self) -> None:
        """Nobody wants to know any more."""
        with suppress(ProcessLookupError):
            os.kill(self._child, signal.SIGKILL)


def _answer(look: Callable[[], object], reading: int, writing: int) -> None:
    """Ends the process. It says nothing on the terminal, which belongs to the other one."""
    try:
        os.close(reading)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nowhere, standard)
        told = pickle.dumps(look(), protocol=pickle.HIGHEST_PROTOCOL)
        with open(writing, "wb") as pipe:
            pipe.write(told)
    finally:
        os._exit(0)
