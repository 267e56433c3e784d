"""An event loop in a thread of its own, for code that has none, or has one that may end at any time."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import Future
from threading import Lock, Thread
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


class Background:
    """Runs until it is closed. The thread is a daemon, so that a program that forgets to close it can end.

    A process that is forked has no such thread: there nothing can be run, and nothing is to be closed.
    """

    def __init__(self) -> None:
        """Raises OSError where no loop can be made, for want of files."""
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ending = Lock()
        self._ended = False
        """What is started now would be done by nobody."""
        self._thread = Thread(target=self._main, name="agent-meter-client", daemon=True)
        self._thread.start()

    @property
    def is_here(self) -> bool:
        """Whether it is a thread of this process."""
        return self._process == os.getpid()

    def start(self, work: Coroutine[object, object, T]) -> Future[T]:
        """What `work` will answer, from any thread. Raises RuntimeError when it is closed, and after a fork,
        where no answer comes."""
        if not self.is_here:
            work.close()
            raise RuntimeError(
                "this meter was opened before this process was forked: open one in each, after the fork"
            )
        with self._ending:
            if self._ended:
                work.close()
                raise RuntimeError("this meter is closed")
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[object, object, T]) -> T:
        """What `work` answers. Blocks; not for the thread itself."""
        return self.start(work).result()

    def close(self) -> None:
        """Ends the thread. What still runs there is cancelled."""
        if not self.is_here:
            return
        with self._ending:
            if not self._ended:
                self._ended = True
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._stop.wait())
