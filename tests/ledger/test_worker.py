"""The thread behind the ledger: what it does when its work goes wrong."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest
from anyio import fail_after

from agent_meter_mcp.core.errors import Overloaded
from agent_meter_mcp.ledger.worker import Worker


def worker(run: Callable[[list[int]], Sequence[int]]) -> Worker[int, int]:
    return Worker("a test", run, queue_max=100, batch_max=10)


async def test_answers_come_in_the_order_of_the_items() -> None:
    doubling = worker(lambda items: [2 * item for item in items])
    doubling.start()
    with fail_after(30):
        answers = await asyncio.gather(*(doubling.submit((n, n + 1)) for n in range(20)))
        assert answers == [[2 * n, 2 * n + 2] for n in range(20)]
        await doubling.close()
        await doubling.close()
    with pytest.raises(Overloaded):
        doubling.submit((1,))


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (ValueError("a bug"), ValueError),
        (StopIteration("early"), RuntimeError),
        (SystemExit(3), RuntimeError),
    ],
)
async def test_what_the_work_raises_is_told_and_the_thread_goes_on(
    raised: BaseException, told: type[Exception]
) -> None:
    def run(items: list[int]) -> list[int]:
        if 0 in items:
            raise raised
        return items

    failing = worker(run)
    failing.start()
    with fail_after(30):
        with pytest.raises(told):
            await failing.submit((0,))
        assert await failing.submit((1,)) == [1]
        await failing.close()


async def test_work_that_loses_answers_is_an_error_and_not_a_mix_up() -> None:
    losing = worker(lambda items: items[:-1])
    losing.start()
    with fail_after(30):
        with pytest.raises(RuntimeError, match="1 items got 0 answers"):
            await losing.submit((1,))
        await losing.close()


async def test_a_failure_that_nobody_waits_for_any_more_is_nobodys() -> None:
    go = threading.Event()

    def run(items: list[int]) -> list[int]:
        assert go.wait(5)
        raise ValueError("a bug")

    failing = worker(run)
    failing.start()
    gone, there = failing.submit((1,)), failing.submit((2,))
    gone.cancel()
    go.set()
    with fail_after(30):
        with pytest.raises(ValueError, match="a bug"):
            await there
        await failing.close()


async def test_a_batch_is_told_to_who_keeps_the_books_even_if_its_waiter_left() -> None:
    go, told = threading.Event(), list[Sequence[int]]()

    def run(items: list[int]) -> list[int]:
        assert go.wait(5)
        return items

    kept: Worker[int, int] = Worker(
        "a test",
        run,
        queue_max=100,
        batch_max=10,
        done=told.append,
    )
    kept.start()
    gone, there = kept.submit((1, 2)), kept.submit((3,))
    gone.cancel()
    go.set()
    with fail_after(30):
        assert await there == [3]
        await kept.close()
    assert told == [[1, 2], [3]]


def test_a_loop_that_ended_first_ends_the_thread() -> None:
    go, entered = threading.Event(), threading.Event()

    def run(items: list[int]) -> list[int]:
        entered.set()
        assert go.wait(5)
        return items

    left = worker(run)

    async def leave() -> None:
        left.start()
        left.submit((1,))

    asyncio.run(leave())
    assert entered.wait(5)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "a test"]
    go.set()
    thread.join(5)
    assert not thread.is_alive()
