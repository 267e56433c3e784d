"""A meter beside an app: in the app's event loop while its lifespan lasts, in a thread of its own otherwise.

During a lifespan, what is settled waits a moment for the next request and shares its transaction: that nearly
halves what metering costs.

Some servers never say that an app begins or ends, and some test clients run each request in a new event loop:
a meter that lived in one of those would end with it.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from anyio import CancelScope, to_thread

from agent_meter_mcp.client.background import Background
from agent_meter_mcp.core.errors import MeterError

from .owed import Debt, Owed

if TYPE_CHECKING:
    from typing import TypeAlias

    from agent_meter_mcp.client import Meter

    from .owed import Lost

    Work: TypeAlias = Callable[[Meter], Coroutine[Any, Any, "T"]]

T = TypeVar("T")
GATHER_S = 0.005
"""How long a settlement waits for a request that it can share a transaction with."""
PENDING_MAX = 1000
"""Settlements under way at most; who brings one more waits for it."""
ENDS_WITHIN_S = 10.0
"""How long an app that ends waits for what is under way, at most: who takes much longer is killed."""
STRAGGLE_S = 1.0
"""How long it waits for requests that its server has cancelled just before."""
OPEN_AGAIN_S = 1.0
"""How long a meter that could not be opened is not tried again."""


class Attachment:
    """`make` makes a meter; or `meter`, which the app opens and closes itself."""

    def __init__(self, make: Callable[[], Meter], meter: Meter | None = None) -> None:
        self._make = make
        self._given = meter
        self.holds: set[object] = set()
        """Of requests that have not ended."""
        self._here: tuple[asyncio.AbstractEventLoop, Meter] | None = None
        self._apart: Apart | None = None
        self._lock = threading.Lock()
        self._living = False
        self._deferred: list[Coroutine[Any, Any, None]] = []
        self._due: asyncio.TimerHandle | None = None
        self._pending: set[asyncio.Task[None]] = set()
        self._owed: tuple[asyncio.AbstractEventLoop, Owed] | None = None

    async def open(self) -> None:
        """In this event loop, until `close`. Raises StoreError."""
        self._living = True
        if self._given is None:
            meter = self._make()
            await meter.__aenter__()
            self._here = asyncio.get_running_loop(), meter

    async def close(self) -> None:
        """Finishes what is under way, also in a scope that is cancelled."""
        with CancelScope(shield=True):
            if self._living:
                await self._wait_for_stragglers()
            self._living = False
            if self._due is not None:
                self._due.cancel()
                self._due = None
            self._start_deferred()
            owed, here, apart = self._owed, self._here, self._apart
            self._owed = self._here = self._apart = None
            if apart is not None:
                await to_thread.run_sync(apart.close)
            await finish(self._pending, None if owed is None else owed[1], None if here is None else here[1])

    async def _wait_for_stragglers(self) -> None:
        """Servers cancel what lasts too long, and do not wait for it before they say that the app ends."""
        loop = asyncio.get_running_loop()
        until = loop.time() + STRAGGLE_S
        while self.holds:
            if loop.time() > until:
                return
            await asyncio.sleep(STRAGGLE_S / 100)

    async def run(self, work: Work[T]) -> T:
        """What `work` answers. Raises what it raises. A meter that cannot be opened is one that fails."""
        meter = self._in_this_loop()
        if meter is not None:
            if self._deferred:
                self._start_deferred()
                await asyncio.sleep(0)  # they are handed to the writer now, and `work` goes along
            return await work(meter)
        apart = self._elsewhere()
        with suppress(MeterError):
            await asyncio.shield(asyncio.wrap_future(apart.opening))
        return await asyncio.wrap_future(apart.background.start(work(apart.meter)))

    async def later(self, work: Work[None], lost: Lost) -> None:
        """Has `work` done without waiting for it, unless too much is under way. While the meter cannot be
        asked it is tried again and again; `lost` is told where it could not be done in the end, and why."""
        meter = self._in_this_loop()
        if meter is None:
            self._elsewhere().later(work, lost)
            return
        if self._living and self._due is None:
            self._due = asyncio.get_running_loop().call_later(GATHER_S, self._fall_due)
        self._deferred.append(self._owing().settle(Debt(lambda: work(meter), lost)))
        if not self._living:
            self._start_deferred()
        if len(self._pending) + len(self._deferred) > PENDING_MAX:
            self._start_deferred()
            # For one of them: thousands that wait for each of thousands are millions of callbacks.
            await asyncio.wait((next(iter(self._pending)),))

    def _fall_due(self) -> None:
        """Of what has been started meanwhile nothing is left; and what came after it waits less long."""
        self._due = None
        self._start_deferred()

    def _start_deferred(self) -> None:
        deferred, self._deferred = self._deferred, []
        for work in deferred:
            task = asyncio.get_running_loop().create_task(work)
            self._pending.add(task)
            task.add_done_callback(self._pending.discard)

    def _owing(self) -> Owed:
        """A meter that is given may be used in one event loop after the other."""
        loop = asyncio.get_running_loop()
        if self._owed is None or self._owed[0] is not loop:
            self._owed = loop, Owed()
        return self._owed[1]

    def _in_this_loop(self) -> Meter | None:
        if self._given is not None:
            return self._given
        here = self._here
        return here[1] if here is not None and here[0] is asyncio.get_running_loop() else None

    def _elsewhere(self) -> Apart:
        with self._lock:
            if self._apart is None or not self._apart.background.is_here:
                self._apart = Apart(self._make())
            self._apart.open_again()
            return self._apart


class Apart:
    """A meter in a thread of its own, from its first use until the process ends."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.background = Background()
        self._since = time.monotonic()
        self._pending: set[Future[None]] = set()
        self._owed = Owed()
        self.opening: Future[object] = self.background.start(meter.__aenter__())
        atexit.register(self.close)

    def later(self, work: Work[None], lost: Lost) -> None:
        """Has it done, at the latest before the process ends."""
        pending = self.background.start(self._owed.settle(Debt(lambda: work(self.meter), lost)))
        self._pending.add(pending)
        pending.add_done_callback(self._pending.discard)

    def open_again(self) -> None:
        """If it could not be opened, and that was a while ago."""
        if not self.opening.done() or self.opening.exception() is None:
            return
        if time.monotonic() - self._since >= OPEN_AGAIN_S:
            self._since = time.monotonic()
            self.opening = self.background.start(self.meter.__aenter__())

    def close(self) -> None:
        """Writes what is under way, or keeps it on disk. After a fork it is that of the process before."""
        atexit.unregister(self.close)
        if not self.background.is_here:
            return
        if self.opening.done():
            self.background.run(self._end())
        self.background.close()

    async def _end(self) -> None:
        await finish([asyncio.wrap_future(each) for each in tuple(self._pending)], self._owed, self.meter)


async def finish(pending: Collection[asyncio.Future[None]], owed: Owed | None, meter: Meter | None) -> None:
    """What is under way, and then closes. What is not done in time is given up, and said to be lost: somebody
    has the ledger locked for longer than a server may take to end."""
    loop = asyncio.get_running_loop()
    until = loop.time() + ENDS_WITHIN_S
    if pending:
        _, late = await asyncio.wait(pending, timeout=ENDS_WITHIN_S)
        for each in late:
            each.cancel()
    if owed is not None:
        await owed.close(until - loop.time())
    if meter is not None:
        closing = loop.create_task(meter.__aexit__(None, None, None))
        await asyncio.wait((closing,), timeout=max(until - loop.time(), 0))
        if closing.done():
            closing.result()
