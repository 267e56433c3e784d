"""What the monkey's dashboard looks at: the ledger's file, or a meter on it that is killed now and then."""

from __future__ import annotations

import random
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import anyio
from anyio import to_thread

from agent_meter_mcp import Caller, Settings, open_ledger
from agent_meter_mcp.sources.local import LocalSource
from agent_meter_mcp.sources.remote import RemoteSource
from agent_meter_mcp.sources.remote_link import Key
from agent_meter_mcp.store.sqlite import driver
from tests.sources.serving import Meter

OLGA = Caller("operator", "olga")
CLOSING_S = 5.0


class Here:
    """The file, which another process locks, or takes away."""

    is_served = False

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @asynccontextmanager
    async def source(self) -> AsyncGenerator[LocalSource | RemoteSource]:
        found = self._new()
        try:
            yield found
        finally:
            with anyio.fail_after(CLOSING_S, shield=True):
                await found.close()

    def _new(self) -> LocalSource | RemoteSource:
        return LocalSource(self._settings, OLGA, "UTC")

    async def trouble(self, rng: random.Random) -> str:
        """What went wrong."""
        if rng.random() < 0.25:
            for file in Path(self._settings.db).parent.glob("meter.db*"):
                file.unlink(missing_ok=True)
            return "anew"
        await self.lock(rng.random())
        return "locked"

    async def lock(self, seconds: float) -> None:
        with (
            suppress(Exception),
            closing(driver.connect(self._settings.db, synchronous="NORMAL", busy_timeout_s=0.1)) as one,
        ):
            one.execute("BEGIN IMMEDIATE")
            await anyio.sleep(seconds)
            one.execute("ROLLBACK")

    async def mend(self) -> None:
        """Nothing is wrong any more."""


class There(Here):
    """A meter over HTTP, that is killed, and hangs for a while."""

    is_served = True

    def __init__(self, settings: Settings, meter: Meter, key: Key) -> None:
        super().__init__(settings)
        self._meter, self._key = meter, key
        self._is_up = True

    def _new(self) -> LocalSource | RemoteSource:
        return RemoteSource(self._meter.url, self._key, "UTC")

    async def trouble(self, rng: random.Random) -> str:
        if not self._is_up:
            await self.mend()
            return "started"
        assert self._meter.process is not None
        what = rng.random()
        if what < 0.6:
            await to_thread.run_sync(self._meter.kill)
            self._is_up = False
            return "killed"
        if what < 0.8:
            self._meter.process.send_signal(signal.SIGSTOP)
            await anyio.sleep(rng.random() * 2)
            self._meter.process.send_signal(signal.SIGCONT)
            return "hung"
        await self.lock(rng.random())
        return "locked"

    async def mend(self) -> None:
        if not self._is_up:
            await to_thread.run_sync(self._meter.start)
            self._is_up = True


@asynccontextmanager
async def place(settings: Settings, rng: random.Random, *, served: bool) -> AsyncGenerator[Here]:
    """Served, it is looked at with the key of an operator, or of a viewer."""
    if not served:
        yield Here(settings)
        return
    async with open_ledger(settings) as ledger:
        _, secret = await ledger.create_key(OLGA, rng.choice(("operator", "operator", "viewer")), None)
    meter = Meter(Path(settings.db).parent)
    await to_thread.run_sync(meter.start)
    try:
        yield There(settings, meter, Key(secret))
    finally:
        meter.kill()
