"""Usage on its way to a remote meter: in batches, at our own pace, by way of the disk if there is no other.

The sender takes all that has gathered since it last looked and never waits for more: one record goes out at
once, and many share a request. Who records is answered when the meter has committed it, or when it is on our
own disk; what is there is sent by and by, by whichever process gets to it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from anyio import CapacityLimiter, to_thread

from agent_meter_mcp.core.errors import Conflict, MeterError, Overloaded
from agent_meter_mcp.core.figures import counted
from agent_meter_mcp.core.text import shown
from agent_meter_mcp.core.times import time_text

from .connection import NOT_OPEN
from .draining import Drain
from .errors import UNAVAILABLE
from .results import UsageRecorded, members_of
from .sending import BYTES_MAX, RECORDS_MAX, answer_in, record_all, settle_asked

if TYPE_CHECKING:
    from collections import Counter

    from .connection import Connection
    from .spool import Spool

QUEUE_MAX = 10_000
KEPT = "Kept on disk until the meter can be reached."
_log = logging.getLogger(__name__)


class Waiting:
    """A record, as JSON, and who waits for its answer. `asked`: the reservation that may have been made for
    it, as it was asked for."""

    __slots__ = ("answer", "asked", "at_us", "id", "line")

    def __init__(
        self,
        line: str,
        event_id: str,
        at_us: int,
        answer: asyncio.Future[UsageRecorded],
        asked: dict[str, Any] | None,
    ) -> None:
        self.line = line
        self.id = event_id
        self.at_us = at_us
        self.answer = answer
        self.asked = asked

    def dated(self) -> str:
        """The record as it is kept on disk: it may get there much later."""
        record = {"occurred_at": time_text(self.at_us), **json.loads(self.line)}
        kept = record if self.asked is None else {"record": record, "asked": self.asked}
        return json.dumps(kept, ensure_ascii=False)


class Recorder:
    """Belongs to the event loop that started it."""

    def __init__(self, connection: Connection, spool: Spool, counters: Counter[str]) -> None:
        self._connection = connection
        self._spool = spool
        self._counters = counters
        self._waiting: deque[Waiting] = deque()
        self._disk = CapacityLimiter(1)
        """One thread at a time, and none of the app's: many that wait for our disk would be all it has."""
        self._wake: asyncio.Event
        self._drain: Drain
        self._closing = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._wake = asyncio.Event()
        self._drain = Drain(self._connection, self._spool, self._counters)
        self._closing = False
        self._drain.wake()  # for what an earlier process has left
        self._tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._drain.run())]

    async def close(self) -> None:
        """Sends or keeps what is waiting. What is on the disk stays there for the next process."""
        if not self._tasks:
            return
        self._closing = True
        tasks, self._tasks = self._tasks, []
        self._wake.set()
        self._drain.stop()
        await asyncio.wait(tasks)  # if that is given up, they go on: others wait for what is sent
        await to_thread.run_sync(self._spool.close)

    async def record(
        self, members: dict[str, Any], at_us: int, asked: dict[str, Any] | None = None
    ) -> UsageRecorded:
        """Usage of now, `at_us`, unless it says when it occurred. `asked` as in Waiting.

        Raises MeterError; Overloaded when neither the meter nor the disk takes it."""
        self._connection.check_loop()
        if not self._tasks or len(self._waiting) >= QUEUE_MAX:
            self._counters["lost"] += 1
            waiting = f"{len(self._waiting)} records are waiting; nothing was kept."
            raise Overloaded(waiting if self._tasks else NOT_OPEN)
        answer: asyncio.Future[UsageRecorded] = asyncio.get_running_loop().create_future()
        line = json.dumps(members, ensure_ascii=False)
        self._waiting.append(Waiting(line, members["id"], at_us, answer, asked))
        self._wake.set()
        return await answer

    async def keep(self, line: dict[str, Any]) -> None:
        """On the disk until it can be sent. Raises Overloaded, StoreError: said aloud, and counted."""
        await self._append([json.dumps(line, ensure_ascii=False)])

    # Sending

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._send_batch(self._gather())
            if self._closing:
                return

    def _gather(self) -> list[Waiting]:
        batch: list[Waiting] = []
        size = 0
        while self._waiting and len(batch) < RECORDS_MAX:
            size += _bytes(self._waiting[0].line)
            if batch and size > BYTES_MAX:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _send_batch(self, batch: list[Waiting]) -> None:
        try:
            answers = await record_all(self._connection, [one.line for one in batch])
        except UNAVAILABLE as error:
            await self._keep_batch(batch, error)
        except Exception as error:  # it concerns this batch, and is raised to each who waits for it
            for one in batch:
                self._fail(one, error)
        else:
            for one, answer in zip(batch, answers, strict=True):
                if isinstance(answer, Conflict) and one.asked is not None:
                    await self._settle_asked(one, one.asked)
                else:
                    self._end(one, answer)

    async def _settle_asked(self, one: Waiting, asked: dict[str, Any]) -> None:
        try:
            document = await settle_asked(self._connection, asked, json.loads(one.line))
            answer = answer_in({**members_of(document), "id": one.id})
        except UNAVAILABLE as error:
            await self._keep_batch([one], error)
        except Exception as error:  # it concerns this one
            self._fail(one, error)
        else:
            self._end(one, answer)

    async def _keep_batch(self, batch: list[Waiting], why: MeterError) -> None:
        try:
            await self._append([one.dated() for one in batch])
        except Exception as error:  # such as that no thread can be started: it concerns this batch, too
            for one in batch:
                if not one.answer.done():
                    one.answer.set_exception(error)
            return
        _log.warning("%s put on disk for the meter: %s", counted(len(batch), "record"), why)
        for one in batch:
            if not one.answer.done():
                one.answer.set_result(UsageRecorded(KEPT, one.id, "spooled"))

    def _end(self, one: Waiting, answer: UsageRecorded | MeterError) -> None:
        if isinstance(answer, MeterError):
            self._fail(one, answer)
        elif not one.answer.done():
            self._counters["recorded"] += 1
            one.answer.set_result(answer)

    def _fail(self, one: Waiting, error: Exception) -> None:
        if not one.answer.done():
            one.answer.set_exception(error)
        else:  # who recorded has been cancelled, and would have heard it
            self._counters["lost"] += 1
            _log.warning("usage %s is lost to the meter: %s", shown(one.id), error)

    async def _append(self, lines: list[str]) -> None:
        try:
            await to_thread.run_sync(self._spool.append, lines, limiter=self._disk)
        except Exception as error:
            self._counters["lost"] += len(lines)
            _log.warning("usage is lost to the meter: %s", error)
            raise
        self._counters["spooled"] += len(lines)
        self._drain.wake()


def _bytes(line: str) -> int:
    """As UTF-8, at most."""
    return len(line) * 4
