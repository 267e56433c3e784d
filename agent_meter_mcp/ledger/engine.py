"""Between the event loop and the store.

Writes gather for one thread, which applies what is there in one transaction; each is answered after its COMMIT.
Peeks and short reads gather the same way for a second thread. Long reads have threads of their own. What has to be
read to examine a request (prices, ancestors, a reservation) is read by the same thread, just before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from anyio import CancelScope, CapacityLimiter, to_thread

from agent_meter_mcp.core.commands import Ask, Record, Recorded, Refusal, Refuse, Reserve, Reserved, Settle
from agent_meter_mcp.core.errors import MeterError, Overloaded, StoreError
from agent_meter_mcp.core.models import Reservation, StoredEvent, UsageEvent, Who

from .feed import Feed
from .refusals import Refusals
from .worker import CLOSED, Job, Worker

if TYPE_CHECKING:
    from typing import TypeAlias

    from agent_meter_mcp.core.commands import Command, Result
    from agent_meter_mcp.core.decide import Decision
    from agent_meter_mcp.core.models import Source
    from agent_meter_mcp.store.base import Store

    Make: TypeAlias = Callable[[int], Command]
    """Makes a command, in the writer's thread, at that moment. What it raises is raised to its caller alone."""
    Written: TypeAlias = tuple[Command | None, Result | Exception]

T = TypeVar("T")

LONG_READS_MAX = 4
FOLD_S = 1.0

_log = logging.getLogger(__name__)


class Peek:
    """A question to the store; `make` makes it, in the reader's thread."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[[int], Ask]) -> None:
        self.make = make


class Engine:
    """Everything here belongs to the event loop that started it, except `_apply` and `_answer`."""

    def __init__(
        self, store: Store, clock: Callable[[], int], *, queue_max: int, batch_max: int, poll_s: float
    ) -> None:
        self._store = store
        self._clock = clock
        self._writer: Worker[Make, Written] = Worker(
            "agent-meter-writer", self._apply, queue_max=queue_max, batch_max=batch_max, done=self._committed
        )
        self._reader: Worker[Peek | Callable[[], object], object] = Worker(
            "agent-meter-reader", self._answer, queue_max=queue_max, batch_max=batch_max
        )
        self._long_reads = CapacityLimiter(LONG_READS_MAX)
        self.feed = Feed(store, self.read, poll_s=poll_s)
        self._alerted = False
        self._closed = False
        self._refusals = Refusals()
        self._refusals_due: asyncio.TimerHandle | None = None
        self._refusals_written: asyncio.Future[Sequence[Written]] | None = None

    def start(self) -> None:
        self._writer.start()
        self._reader.start()

    async def close(self) -> None:
        """Writes what was accepted, answers everybody, ends the threads, closes the store."""
        if self._closed:
            return
        self._closed = True
        with CancelScope(shield=True):
            self.feed.close()
            self._submit_refusals(())
            if self._refusals_due is not None:
                self._refusals_due.cancel()
            await self._writer.close()
            await self._reader.close()
            for _ in range(LONG_READS_MAX):  # until the last long read is over
                await self._long_reads.acquire_on_behalf_of(object())
            await to_thread.run_sync(self._store.close)
        if self._refusals.unwritten:
            _log.warning("%d refusals could not be written", self._refusals.unwritten)

    # Writing

    async def write(self, make: Make, kind: type[T], *, note: object = None) -> T:
        """The answer, which is a `kind`, to the command that `make` makes.

        Raises what `make` raises, the MeterError that is the answer, StoreError, Overloaded.
        """
        ((_, answer),) = await self._writer.submit((make,), note=note)
        return _expected(answer, kind)

    async def write_all(self, makes: Sequence[Make], kind: type[T]) -> list[T | MeterError]:
        """As `write`, for commands that are applied together; what is wrong with one of them is its answer."""
        answers: list[T | MeterError] = []
        for _, answer in await self._writer.submit(makes):
            if isinstance(answer, MeterError) and not isinstance(answer, StoreError):
                answers.append(answer)
            else:
                answers.append(_expected(answer, kind))
        return answers

    def _apply(self, makes: list[Make]) -> list[Written]:
        now_us = self._clock()
        written: list[Written] = []
        commands: list[Command] = []
        for make in makes:
            try:
                command = make(now_us)
            except Exception as error:  # it concerns this caller alone, and is raised to it
                written.append((None, error))
            else:
                written.append((command, _UNANSWERED))
                commands.append(command)
        answers = iter(self._results(commands, now_us) if commands else ())
        return [pair if pair[0] is None else (pair[0], next(answers)) for pair in written]

    def _results(self, commands: list[Command], now_us: int) -> Sequence[Result | Exception]:
        try:
            applied = self._store.apply(commands, now_us)
        except Exception as error:  # it concerns them all, and is raised to each
            return [error] * len(commands)
        if applied.alerts:
            self._alerted = True
        return applied.results

    def _committed(self, job: Job[Make, Written], written: Sequence[Written]) -> None:
        watched = self.feed.watched
        for command, answer in written:
            if isinstance(command, Reserve):
                self._reserved(command, answer)
            elif watched and command is not None and not isinstance(answer, Exception):
                self._tell(command, answer, job.note)
        if watched and self._alerted:
            self._alerted = False
            self.feed.poke()

    def _reserved(self, command: Reserve, answer: Result | Exception) -> None:
        if isinstance(answer, Reserved) and answer.status == "denied":
            now_us = self._clock()
            self._refusals.note(command.who, now_us)
            ask = Ask(command.who, command.usage)
            self.feed.publish(_refusal(ask, answer.decision, command.operation, command.source, now_us))

    def _tell(self, command: Command, answer: Result, note: object) -> None:
        if isinstance(answer, Recorded):
            event = command.event if isinstance(command, Record) else note
            if isinstance(event, UsageEvent) and answer.status != "duplicate":
                self.feed.publish(StoredEvent(answer.seq, event, answer.outcome, answer.booked_at_us))
        elif isinstance(command, Refuse):
            for refused in command.refusals:
                self.feed.publish(refused)
        elif not isinstance(answer, Reservation):
            self.feed.poke()

    # Reading

    async def peek(self, make: Callable[[int], Ask]) -> tuple[Ask, Decision]:
        """The question that `make` makes, and the answer. Raises what `make` raises, StoreError, Overloaded."""
        (answer,) = await self._reader.submit((Peek(make),))
        return _expected(answer, tuple)

    async def read(self, work: Callable[[], T]) -> T:
        """What `work`, a short read of the store, answers or raises."""
        (answer,) = await self._reader.submit((work,))
        return _expected(answer, object)

    async def read_long(self, work: Callable[[], T]) -> T:
        """As `read`, beside at most three other long ones."""
        if self._closed:
            raise Overloaded(CLOSED)
        return await to_thread.run_sync(work, limiter=self._long_reads)
