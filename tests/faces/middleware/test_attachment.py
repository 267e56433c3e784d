"""A meter in a thread of its own: what was left to it is done before the process ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent_meter_mcp import Meter, SyncMeter
from agent_meter_mcp.faces.middleware.attachment import Apart


def test_what_is_under_way_is_done_before_it_closes(tmp_path: Path) -> None:
    db = tmp_path / "meter.db"
    apart = Apart(Meter(db=db))
    apart.opening.result()

    async def settle() -> None:
        for _ in range(20):  # as often as a settlement may wait before it reaches the writer
            await asyncio.to_thread(lambda: None)
        await apart.meter.record(agent="a", service="s", id="last")

    apart.later(settle())
    apart.close()
    with SyncMeter(db=db) as meter:
        assert meter.record(agent="a", service="s", id="last").status == "duplicate"
