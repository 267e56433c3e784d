"""A thread that does blocking work for the event loop, in batches.

Callers put work in; the thread takes all that has gathered since it last looked (it never waits for more) and
does it in one go; the answers of a batch come back to the loop in one wake-up. So a single caller pays one
hand-over, and many share the price of one commit.

What is put in during one turn of the loop is handed over at the beginning of the next, together. A thread
that is woken earlier finds the interpreter taken, and has to be woken again; and it would take the first
alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

from anyio import to_thread

from agent_meter_mcp.core.errors import Overloaded

CLOSED = "this process is shutting down; nothing was written. Try again."

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Job(Generic[Item, Answer]):
    """Items that are done in the same batch, and who waits for their answers."""

    __slots__ = ("future", "items")

    def __init__(self, items: Sequence[Item], future: asyncio.Future[Sequence[Answer]]) -> None:
        self.items = items
        self.future = future


class Worker(Generic[Item, Answer]):
    """Runs `run(items) -> answers` in a thread of its own; all other methods belong to the event loop.

    What `run` raises is raised to everybody who waits for that batch, and the thread goes on with the next.
    `done(answers)` is called on the loop for each job of a batch that succeeded, even if nobody waits
    for it any more.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[list[Item]], Sequence[Answer]],
        *,
        queue_max: int,
        batch_max: int,
        done: Callable[[Sequence[Answer]], None] | None = None,
    ) -> None:
        self._run = run
        self._done = done
        self._queue_max = queue_max
        self._batch_max = batch_max
        self._gathered: list[Job[Item, Answer]] = []
        """What was put in during this turn of the loop."""
        self._queue: SimpleQueue[list[Job[Item, Answer]] | None] = SimpleQueue()
        """None: there will be no more."""
        self._waiting = 0
        self._open = False
        self._is_over = False
        """In the thread: nothing more will come."""
        self._loop: asyncio.AbstractEventLoop
        # A daemon, so that a program that ends without closing does not hang. What it was told is committed.
        self._thread = Thread(target=self._main, name=name, daemon=True)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._open = True
        self._thread.start()

    def submit(self, items: Sequence[Item], *, urgent: bool = False) -> asyncio.Future[Sequence[Answer]]:
        """The answers, in the order of `items`. If the waiter is cancelled, it is done all the same.

        `urgent` work is taken beyond the bound of the queue.

        Raises:
            Overloaded: the queue is full, or the worker is closed; nothing was done.
        """
        if not self._open:
            raise Overloaded(CLOSED)
        if self._waiting + len(items) > self._queue_max and not urgent:
            raise Overloaded(f"{self._waiting} requests are waiting; nothing was written. Try again shortly.")
        self._waiting += len(items)
        future: asyncio.Future[Sequence[Answer]] = self._loop.create_future()
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        self._gathered.append(Job(items, future))
        return future

    def _hand_over(self) -> None:
        if self._gathered:
            self._queue.put(self._gathered)
            self._gathered = []

    async def close(self) -> None:
        """Does what was submitted, answers it, and ends the thread. May be called twice."""
        if self._open:
            self._open = False
            self._hand_over()
            self._queue.put(None)
        if self._thread.ident is not None:
            # The loop hears of the thread's end after it has heard all its answers.
            await to_thread.run_sync(self._thread.join)

    def _main(self) -> None:
        taken: deque[Job[Item, Answer]] = deque()
        while self._take(taken):
            batch = self._batch_of(taken)
            try:
                self._loop.call_soon_threadsafe(self._deliver, batch, self._outcome(batch))
            except RuntimeError:  # the loop ended without closing us: nobody is left to tell
                return

    def _take(self, taken: deque[Job[Item, Answer]]) -> bool:
        """Takes all that is there by now, and waits for the first of it. False: there is nothing any more."""
        with suppress(Empty):
            while not self._is_over:
                jobs = self._queue.get(block=not taken)
                if jobs is None:
                    self._is_over = True
                else:
                    taken.extend(jobs)
        return bool(taken)

    def _batch_of(self, taken: deque[Job[Item, Answer]]) -> list[Job[Item, Answer]]:
        """As many as fit into a batch, and one at least."""
        batch = [taken.popleft()]
        size = len(batch[0].items)
        while taken and size + len(taken[0].items) <= self._batch_max:
            size += len(taken[0].items)
            batch.append(taken.popleft())
        return batch

    def _outcome(self, batch: list[Job[Item, Answer]]) -> Sequence[Answer] | Exception:
        items = [item for job in batch for item in job.items]
        try:
            answers = self._run(items)
        except Exception as error:
            # A future refuses StopIteration.
            return RuntimeError("the work ended early") if isinstance(error, StopIteration) else error
        except BaseException as error:
            return RuntimeError(f"the work was interrupted: {error!r}")
        if len(answers) != len(items):
            return RuntimeError(f"{len(items)} items got {len(answers)} answers")
        return answers

    def _deliver(self, batch: list[Job[Item, Answer]], outcome: Sequence[Answer] | Exception) -> None:
        self._waiting -= sum(len(job.items) for job in batch)
        start = 0
        answered: list[Sequence[Answer]] = []
        for job in batch:
            if isinstance(outcome, Exception):
                if not job.future.done():
                    job.future.set_exception(outcome)
                continue
            answers = outcome[start : start + len(job.items)]
            start += len(job.items)
            answered.append(answers)
            if not job.future.done():
                job.future.set_result(answers)
        if self._done is not None:
            for answers in answered:
                self._done(answers)
