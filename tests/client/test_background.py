"""An event loop in a thread of its own: whoever uses it as it is closed is told so, and does not wait."""

from __future__ import annotations

import asyncio
from concurrent.futures import CancelledError, Future
from threading import Event, Thread

import pytest

from agent_meter_mcp.client.background import Background

from .conftest import SECONDS


async def forever() -> None:
    await asyncio.Event().wait()


def test_what_is_closed_takes_nothing_any_more() -> None:
    background = Background()
    under_way = background.start(forever())
    background.close()
    with pytest.raises(CancelledError):
        under_way.result(SECONDS)
    with pytest.raises(RuntimeError, match="closed"):
        background.run(forever())
    background.close()


def test_who_comes_while_it_is_being_closed_does_not_wait_for_ever() -> None:
    background = Background()
    taken: list[Future[None]] = []
    came = Event()

    def come() -> None:
        try:
            taken.append(background.start(forever()))
        except RuntimeError:
            pass
        finally:
            came.set()

    async def end_slowly() -> None:
        began.set()
        try:
            await forever()
        finally:
            Thread(target=come).start()
            came.wait(SECONDS)

    began = Event()
    background.start(end_slowly())
    assert began.wait(SECONDS)
    background.close()
    for future in taken:
        with pytest.raises(CancelledError):
            future.result(SECONDS)
