"""What is on disk, and whose it is: it is sent with the key under which it was kept, and holds up nothing."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from agent_meter_mcp.client import Meter
from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.runtime import open_ledger
from agent_meter_mcp.settings import Settings

from .conftest import OPERATOR, SECONDS, Server, events, holds, until


async def key_of(settings: Settings, agent: str) -> str:
    async with open_ledger(settings) as ledger:
        return (await ledger.create_key(OPERATOR, "agent", agent))[1]


def put_before(folder: Path, line: str) -> None:
    """As if an older version had kept that first."""
    (kept,) = folder.rglob("*.jsonl")
    kept.write_text(f"{line}\n{kept.read_text()}")


class Deaf:
    """Passes everything on to a server, and while `deaf` none of its answers."""

    def __init__(self, url: str) -> None:
        self.deaf = False
        self._port = int(url.rpartition(":")[2])
        self._serving: list[asyncio.Task[None] | None] = []

    async def __aenter__(self) -> str:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        await asyncio.gather(*(task for task in self._serving if task is not None))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.append(asyncio.current_task())
        answers, requests = await asyncio.open_connection("127.0.0.1", self._port)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._pass_on, answers, writer, True)
            await self._pass_on(reader, requests, False)
            tasks.cancel_scope.cancel()
        for one in (writer, requests):
            one.close()
            with suppress(ConnectionError):
                await one.wait_closed()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_answer: bool
    ) -> None:
        while data := await reader.read(65536):
            if not (is_answer and self.deaf):
                writer.write(data)
        writer.close()


async def until_asked(meter: Meter) -> None:
    """Waits until the meter answers again."""
    with anyio.fail_after(SECONDS):
        while (await meter.check(service="s", agent="bot")).reasons:
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("down_until", ["settled", "kept"])
async def test_a_hold_whose_answer_got_lost_is_settled_with_what_was_used(
    down_until: str, url: str, settings: Settings, tmp_path: Path
) -> None:
    """The work was done because nobody answered, and under its id there is a hold all the same."""
    deaf = Deaf(url)
    async with deaf as through, Meter(url=through, spool=tmp_path, timeout_s=1) as meter:
        assert (await meter.check(service="s", agent="bot")).allowed
        deaf.deaf = True
        hold = await meter.reserve(service="s", agent="bot", id="job", requests=3, units=9).ask()
        assert (hold.allowed, hold.reservation_id) == (True, None)
        if down_until == "settled":
            deaf.deaf = False
            await until_asked(meter)
        settled = await hold.settle(units=2, status_code=200)
        assert settled.status == ("recorded" if down_until == "settled" else "spooled")
        deaf.deaf = False
        await until(lambda: meter.counters["recorded"] + meter.counters["drained"] == 1)
        assert meter.counters["rejected"] == meter.counters["lost"] == 0
    (stored,) = await events(settings)
    usage = stored.event.usage
    assert (stored.event.id, usage.units_micro, usage.requests) == ("job", 2_000_000, 3)
    assert stored.event.status_code == 200
    assert await holds(settings) == 0


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


async def test_what_can_never_be_accepted_is_said_at_once_and_not_kept(
    server: Server, settings: Settings, tmp_path: Path
) -> None:
    """Also while the meter is down: else it would be refused when nobody can mend it any more."""
    async with Meter(url=server.url, spool=tmp_path) as meter:
        hold = await meter.reserve(service="s", agent="bot").ask()
        await anyio.to_thread.run_sync(server.kill)
        with pytest.raises(InvalidInput, match="metadata"):
            await hold.settle(metadata={"text": "x" * 9000})
        with pytest.raises(InvalidInput, match="status_code"):
            await hold.settle(status_code=-1)
        with pytest.raises(InvalidInput, match="requests"):
            await hold.settle(requests=2**62)
        assert (await hold.settle(requests=3)).status == "spooled"
        await anyio.to_thread.run_sync(server.start)
        await until(lambda: meter.counters["drained"] == 1)
    assert [one.event.usage.requests for one in await events(settings)] == [3]
