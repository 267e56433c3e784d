"""A meter beside an app: what was left to it is done before the process ends, however much comes at once."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from pathlib import Path

import anyio

from agent_meter_mcp import Meter, SyncMeter
from agent_meter_mcp.faces.middleware.attachment import PENDING_MAX, Apart, Attachment

MEGABYTE = 1_000_000


def writers() -> set[threading.Thread]:
    """Of the ledgers that are open in this process."""
    return {thread for thread in threading.enumerate() if thread.name == "agent-meter-writer"}


def lost(error: BaseException) -> None:
    raise AssertionError(error)


def test_what_is_under_way_is_done_before_it_closes(tmp_path: Path) -> None:
    db = tmp_path / "meter.db"
    apart = Apart(Meter(db=db))
    apart.opening.result()

    async def settle() -> None:
        for _ in range(20):  # as often as a settlement may wait before it reaches the writer
            await asyncio.to_thread(lambda: None)
        await apart.meter.record(agent="a", service="s", id="last")

    apart.later(lambda _: settle(), lost)
    apart.close()
    with SyncMeter(db=db) as meter:
        assert meter.record(agent="a", service="s", id="last").status == "duplicate"


async def test_many_that_wait_for_room_take_no_more_than_each_by_itself(tmp_path: Path) -> None:
    """Each waited for each that was under way: of 1500, half a million callbacks; of 5000, minutes."""
    attachment = Attachment(lambda: Meter(db=tmp_path / "meter.db"))
    await attachment.open()
    count = PENDING_MAX + 500
    may_end, all_wait, under_way = asyncio.Event(), asyncio.Event(), 0

    async def settle(_: Meter) -> None:
        nonlocal under_way
        under_way += 1
        if under_way == count:
            all_wait.set()
        await may_end.wait()

    tracemalloc.start()
    try:
        callers = [asyncio.create_task(attachment.later(settle, lost)) for _ in range(count)]
        async with asyncio.timeout(20):
            await all_wait.wait()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    may_end.set()
    await asyncio.gather(*callers)
    await attachment.close()
    assert kept < 15 * MEGABYTE


async def test_what_is_settled_behind_a_request_needs_no_other_one(tmp_path: Path) -> None:
    attachment = Attachment(lambda: Meter(db=tmp_path / "meter.db"))
    done: list[str] = []

    async def settle(name: str, there: asyncio.Event) -> None:
        done.append(name)
        there.set()

    async def nothing(_: Meter) -> None: ...

    await attachment.open()
    try:
        async with asyncio.timeout(30):
            for name in ("first", "second", "third"):
                there = asyncio.Event()
                await attachment.later(lambda _, name=name, there=there: settle(name, there), lost)
                if name == "first":
                    await attachment.run(nothing)  # takes it along, while its time has not come yet
                await there.wait()
    finally:
        await attachment.close()
    assert done == ["first", "second", "third"]


async def test_what_is_under_way_is_done_and_closed_also_in_a_scope_that_is_cancelled(tmp_path: Path) -> None:
    attachment = Attachment(lambda: Meter(db=tmp_path / "meter.db"))
    done: list[str] = []

    async def settle(meter: Meter) -> None:
        done.append((await meter.record(agent="a", service="s")).status)

    before = writers()
    await attachment.open()
    await attachment.later(settle, lost)
    with anyio.CancelScope() as app:
        app.cancel()
        await attachment.close()
    assert done == ["recorded"]
    assert writers() == before
