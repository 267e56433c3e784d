"""Between the event loop and the store.

Writes gather for one thread, which applies what is there in one transaction; each is answered after its
COMMIT. Peeks and short reads gather the same way for a second thread. Long reads have threads of their own.
What has to be read to examine a request (prices, ancestors, a reservation) is read by the same thread, just
before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar, cast

from anyio import CancelScope, CapacityLimiter, to_thread

from agent_meter_mcp.core.commands import Ask, Refusal, Refuse, Reserve, Reserved
from agent_meter_mcp.core.errors import MeterError, Overloaded
from agent_meter_mcp.core.models import Reservation, Who

from .feed import Feed
from .refusals import Refusals
from .worker import CLOSED, Worker

if TYPE_CHECKING:
    from typing import TypeAlias

    from agent_meter_mcp.core.commands import Command, Result
    from agent_meter_mcp.core.decide import Decision
    from agent_meter_mcp.core.models import Source
    from agent_meter_mcp.store.base import Store

    Make: TypeAlias = Callable[[int], Command]
    """Makes a command in the writer's thread, at that moment. What it raises goes to its caller alone."""
    Answer: TypeAlias = Result | Exception | "Failure"
    Written: TypeAlias = tuple[Command | None, Answer]

T = TypeVar("T")

LONG_READS_MAX = 4
"""Enough that a slow report does not hold up the others, few enough to leave the processor to the writer."""
FOLD_S = 1.0
"""How long folded refusals may wait to be written, and how long a no waits for that at most."""
COUNTS_WAIT_S = 0.2
"""How long a report waits for the last refusals at most: reading never depends on a lock."""

_log = logging.getLogger(__name__)


class Peek:
    """A question to the store; `make` makes it, in the reader's thread."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[[int], Ask]) -> None:
        self.make = make


class Failure:
    """What failed for several callers at once. Each raises it with the trace that it had at first."""

    __slots__ = ("error", "trace")

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.trace = error.__traceback__


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
            self._submit_refusals(())
            if self._refusals_due is not None:
                self._refusals_due.cancel()
            await self._writer.close()
            await self.feed.close()
            await self._reader.close()
            for _ in range(LONG_READS_MAX):  # until the last long read is over
                await self._long_reads.acquire_on_behalf_of(object())
            await to_thread.run_sync(self._write_last_refusals)
            await to_thread.run_sync(self._store.close)
        if self._refusals.unwritten:
            _log.warning("%d refusals could not be written", self._refusals.unwritten)

    # Writing

    async def write(self, make: Make, kind: type[T]) -> T:
        """The answer, which is a `kind`, to the command that `make` makes.

        Raises what `make` raises, the MeterError that is the answer, StoreError, Overloaded.
        """
        return _expected((await self._writer.submit((make,)))[0][1], kind)

    def write_unawaited(self, make: Make, *, urgent: bool = False) -> None:
        """As `write`, for what nobody waits for: if it cannot be written, it is not. `urgent`: also when the
        queue is full."""
        with suppress(Overloaded):
            self._writer.submit((make,), urgent=urgent)

    async def write_all(self, makes: Sequence[Make], kind: type[T]) -> list[T | MeterError]:
        """As `write`, for commands that are applied together; what is wrong with one is its answer."""
        return [
            answer if isinstance(answer, (kind, MeterError)) else _expected(answer, kind)
            for _, answer in await self._writer.submit(makes)
        ]

    def _apply(self, makes: list[Make]) -> list[Written]:
        now_us = self._clock()
        commands: list[Command] = []
        failed: list[tuple[int, Exception]] = []
        for at, make in enumerate(makes):
            try:
                commands.append(make(now_us))
            except Exception as error:  # it concerns this caller alone, and is raised to it
                failed.append((at, _kept(error)))
        answers = self._results(commands, now_us) if commands else ()
        written: list[Written] = list(zip(commands, answers, strict=True))
        for at, error in failed:
            written.insert(at, (None, error))
        return written

    def _results(self, commands: list[Command], now_us: int) -> Sequence[Answer]:
        try:
            applied = self._store.apply(commands, now_us)
        except Exception as error:  # it concerns them all, and is raised to each
            return [Failure(error)] * len(commands)
        return applied.results

    def _committed(self, written: Sequence[Written]) -> None:
        for command, answer in written:
            if isinstance(command, Reserve) and isinstance(answer, Reserved) and answer.status == "denied":
                self._refusals.note(command.who, self._clock())
        if self.feed.watched and any(_is_news(answer) for _, answer in written):
            self.feed.poke()

    # Reading

    async def peek(self, make: Callable[[int], Ask]) -> tuple[Ask, Decision]:
        """The question that `make` makes, and its answer. Raises as `make`, StoreError, Overloaded."""
        return cast("tuple[Ask, Decision]", _expected((await self._reader.submit((Peek(make),)))[0], tuple))

    async def read(self, work: Callable[[], T]) -> T:
        """What `work`, a short read of the store, answers or raises."""
        return cast("T", _expected((await self._reader.submit((work,)))[0], object))

    async def read_long(self, work: Callable[[], T]) -> T:
        """As `read`, beside at most three other long ones."""
        if self._closed:
            raise Overloaded(CLOSED)
        return await to_thread.run_sync(work, limiter=self._long_reads)

    def _answer(self, questions: list[Peek | Callable[[], object]]) -> list[object]:
        now_us = self._clock()
        answers: list[object] = []
        asked: list[tuple[int, Ask]] = []
        for question in questions:
            try:
                if isinstance(question, Peek):
                    asked.append((len(answers), question.make(now_us)))
                    answers.append(None)
                else:
                    answers.append(question())
            except Exception as error:  # it concerns this caller alone, and is raised to it
                answers.append(_kept(error))
        if asked:
            try:
                decisions = self._store.peek([ask for _, ask in asked], now_us)
            except Exception as error:  # it concerns them all, and is raised to each
                decisions = [Failure(error)] * len(asked)
            for (at, ask), decision in zip(asked, decisions, strict=True):
                answers[at] = decision if isinstance(decision, Failure) else (ask, decision)
        return answers

    # Refusals that are decided in a snapshot

    def refused_lately(self, who: Who) -> bool:
        """Whether it is worth asking a snapshot first."""
        return self._refusals.refused_lately(who, self._clock())

    async def refuse(self, ask: Ask, decision: Decision, operation: str | None, source: Source) -> None:
        """Keeps a refusal. The first of its fold is written on return, a later one within about a second.

        A no stays a no: when the store cannot write it now, it is counted here and written later, and it does
        not wait longer than that for others who write.
        """
        now_us = self._clock()
        self._refusals.note(ask.who, now_us)
        refused = _refusal(ask, decision, operation, source, now_us)
        if self._refusals.add(refused):
            self._write_refusals_soon()
            return
        written = self._submit_refusals((refused,))
        if written is not None:
            await asyncio.wait((written,), timeout=FOLD_S)

    async def pause(self, who: Who) -> None:
        """Before a no is answered: the more of them there were just now, the longer."""
        pause_s = self._refusals.pause_s(who)
        if pause_s:
            await asyncio.sleep(pause_s)

    async def write_refusals(self) -> None:
        """Waits until the refusals that were counted so far are written, unless that takes too long."""
        written = self._submit_refusals(()) or self._refusals_written
        if written is not None and not written.done():
            await asyncio.wait((written,), timeout=COUNTS_WAIT_S)

    def _write_refusals_soon(self) -> None:
        if self._refusals_due is None and not self._closed:
            loop = asyncio.get_running_loop()
            self._refusals_due = loop.call_later(FOLD_S, self._refusals_fall_due)

    def _refusals_fall_due(self) -> None:
        self._refusals_due = None
        if not self._closed:
            self._submit_refusals(())

    def _submit_refusals(self, first: tuple[Refusal, ...]) -> asyncio.Future[Sequence[Written]] | None:
        refusals = first + self._refusals.take(self._clock())
        if not refusals:
            return None

        def keep(written: asyncio.Future[Sequence[Written]]) -> None:
            ((_, answer),) = written.result()
            if isinstance(answer, Failure):
                self._refusals.put_back(refusals)
                self._write_refusals_soon()

        try:
            self._refusals_written = self._writer.submit((lambda _: Refuse(refusals),), urgent=True)
        except Overloaded:
            self._refusals.put_back(refusals)
            return None
        self._refusals_written.add_done_callback(keep)
        return self._refusals_written

    def _write_last_refusals(self) -> None:
        """Those that were decided while the writer was closed. Blocks, in its place."""
        refusals = self._refusals.take(self._clock())
        if refusals:
            ((_, answer),) = self._apply([lambda _: Refuse(refusals)])
            if isinstance(answer, Failure):
                self._refusals.put_back(refusals)


def _kept(error: Exception) -> Exception:
    """What nobody expected keeps its trace, which the log will show."""
    return error.alone() if isinstance(error, MeterError) else error


def _expected(answer: object, kind: type[T]) -> T:
    try:
        if isinstance(answer, Failure):
            raise answer.error.with_traceback(answer.trace)
        if isinstance(answer, Exception):
            raise answer
    except Exception:
        del answer  # its trace has this frame: they would keep each other, and all that was in reach
        raise
    if not isinstance(answer, kind):
        raise TypeError(f"the store answered {type(answer).__name__} where {kind.__name__} was due")
    return answer


def _is_news(answer: Answer) -> bool:
    """Whether watchers are told of what was done: not of holds, only of those that were denied."""
    if isinstance(answer, (Exception, Failure, Reservation)):
        return False
    return not isinstance(answer, Reserved) or answer.status == "denied"


def _refusal(ask: Ask, decision: Decision, operation: str | None, source: Source, at_us: int) -> Refusal:
    state = decision.reasons[0].state
    limit_id = None if state is None else state.limit.limit_id
    return Refusal(ask.who, operation, source, ask.usage, limit_id, at_us)
