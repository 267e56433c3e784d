"""What is on disk, and whose it is: it is sent with the key under which it was kept, and holds up nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from agent_meter_mcp.client import Meter
from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.runtime import open_ledger
from agent_meter_mcp.settings import Settings

from .conftest import OPERATOR, Server, events, until


async def key_of(settings: Settings, agent: str) -> str:
    async with open_ledger(settings) as ledger:
        return (await ledger.create_key(OPERATOR, "agent", agent))[1]


def put_before(folder: Path, line: str) -> None:
    """As if an older version had kept that first."""
    (kept,) = folder.rglob("*.jsonl")
    kept.write_text(f"{line}\n{kept.read_text()}")


async def test_what_was_kept_under_one_key_is_not_sent_under_another(
    down: Server, settings: Settings, tmp_path: Path
) -> None:
    """Two programs of one user and two agents: whoever is up first must not report for the other."""
    alice: dict[str, Any] = {"url": down.url, "spool": tmp_path, "key": await key_of(settings, "alice")}
    bob: dict[str, Any] = {**alice, "key": await key_of(settings, "bob")}
    async with Meter(**alice) as meter:
        assert (await meter.record(service="s", id="unnamed")).status == "spooled"
        assert (await meter.record(service="s", id="named", agent="alice")).status == "spooled"
    async with Meter(**bob) as meter:
        await meter.record(service="s", id="of bob")
        await anyio.to_thread.run_sync(down.start)
        await until(lambda: meter.counters["drained"] + meter.counters["rejected"] > 0)
    async with Meter(**alice) as meter:
        await until(lambda: meter.counters["drained"] == 2)
    stored = {one.event.id: one.event.who.agent for one in await events(settings)}
    assert stored == {"of bob": "bob", "unnamed": "alice", "named": "alice"}


async def test_an_end_of_a_hold_that_can_never_be_accepted_holds_up_nothing(
    server: Server, settings: Settings, tmp_path: Path
) -> None:
    async with Meter(url=server.url, spool=tmp_path) as meter:
        hold = await meter.reserve(service="s", agent="bot").ask()
        await anyio.to_thread.run_sync(server.kill)
        await meter.record(service="s", agent="bot", id="after")
    end = {"reservation_id": hold.reservation_id, "metadata": {"text": "x" * 9000}}
    put_before(tmp_path, json.dumps(end))
    await anyio.to_thread.run_sync(server.start)
    async with Meter(url=server.url, spool=tmp_path) as meter:
        await until(lambda: meter.counters["drained"] == 1)
        assert meter.counters["rejected"] == 1
    assert [one.event.id for one in await events(settings)] == ["after"]


@pytest.mark.parametrize(
    "ended", [{"metadata": {"text": "x" * 9000}}, {"status_code": -1}, {"requests": 2**62}]
)
async def test_what_can_never_be_accepted_is_said_at_once_and_not_kept(
    ended: dict[str, Any], server: Server, settings: Settings, tmp_path: Path
) -> None:
    """Also while the meter is down: else it would be refused when nobody can mend it any more."""
    async with Meter(url=server.url, spool=tmp_path) as meter:
        hold = await meter.reserve(service="s", agent="bot").ask()
        await anyio.to_thread.run_sync(server.kill)
        with pytest.raises(InvalidInput, match=next(iter(ended))):
            await hold.settle(**ended)
        assert (await hold.settle(requests=3)).status == "spooled"
        await anyio.to_thread.run_sync(server.start)
        await until(lambda: meter.counters["drained"] == 1)
    assert [one.event.usage.requests for one in await events(settings)] == [3]
