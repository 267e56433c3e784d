"""Who watches a resource hears, once a threshold was crossed, that it changed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio import create_memory_object_stream, fail_after
from anyio.streams.memory import MemoryObjectReceiveStream
from mcp import Client, MCPError
from mcp.types import INVALID_PARAMS, ResourceUpdatedNotification

from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.faces.mcp import build_server, changes, local_caller

from .conftest import BOT, OPERATOR, Meter

pytestmark = [
    # `resources/subscribe` is for clients of the handshake protocol, and theirs is what is tested here.
    pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning"),
]
SECONDS = 30


class Watcher:
    """A client of either era and the resources that it hears have changed."""

    def __init__(self, client: Client, heard: MemoryObjectReceiveStream[str]) -> None:
        self.client = client
        self._heard = heard

    async def next(self) -> str:
        with fail_after(SECONDS):
            return await self._heard.receive()

    def so_far(self) -> list[str]:
        found: list[str] = []
        while self._heard.statistics().current_buffer_used:
            found.append(self._heard.receive_nowait())
        return found


@asynccontextmanager
async def watching(
    meter: Meter, mode: str, *uris: str, caller: Caller = OPERATOR, server: Any = None
) -> AsyncGenerator[Watcher]:
    send, receive = create_memory_object_stream[str](100)

    async def handle(message: Any) -> None:
        if mode == "legacy" and isinstance(message, ResourceUpdatedNotification):
            await send.send(str(message.params.uri))

    server = server or build_server(meter.ledger, local_caller(caller, {}))
    with send, receive:
        async with Client(server, mode=mode, message_handler=handle) as client:
            if mode == "legacy":
                for uri in uris:
                    await client.session.subscribe_resource(uri)  # pyright: ignore[reportDeprecated]  see above
                yield Watcher(client, receive)
                return
            async with (
                client.listen(resource_subscriptions=list(uris)) as events,
                anyio.create_task_group() as tasks,
            ):

                async def pass_on() -> None:
                    async for event in events:
                        await send.send(getattr(event, "uri"))  # noqa: B009  only such events were asked for

                tasks.start_soon(pass_on)
                yield Watcher(client, receive)
                tasks.cancel_scope.cancel()


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_crossed_threshold_is_told_to_those_who_watch(meter: Meter, mode: str) -> None:
    uris = ("meter://alerts", "meter://limits", "meter://summary/day", "meter://agents/a%2Fb")
    async with meter.tools() as tools, watching(meter, mode, *uris) as watcher:
        await tools("set_limit", agent="*", max=10, metric="cost_usd", window="day")
        await tools("record_usage", service="openai", agent="a/b", cost_usd=4)
        await tools("record_usage", service="openai", agent="a/b", cost_usd=1)
        assert {await watcher.next() for _ in uris} == set(uris)
        assert watcher.so_far() == []


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_resource_may_be_watched_by_any_uri_by_which_it_can_be_read(meter: Meter, mode: str) -> None:
    """JavaScript's encodeURIComponent, for one, leaves !'()* as they are."""
    uris = ("meter://agents/bot%40x%20(1)", "meter://agents/bot@x (1)", "meter://summary/%64ay")
    async with meter.tools() as tools, watching(meter, mode, *uris) as watcher:
        await tools("set_limit", agent="*", max=10, metric="cost_usd", window="day", thresholds=[100])
        await tools("record_usage", service="openai", agent="bot@x (1)", cost_usd=10)
        for uri in uris:
            assert (await watcher.client.read_resource(uri)).contents
        assert {await watcher.next() for _ in uris} == set(uris)
        assert watcher.so_far() == []


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_who_watches_an_agent_hears_of_every_limit_that_binds_it(meter: Meter, mode: str) -> None:
    """A child's card shows what its parent may use, and everybody's what all may use together."""
    uris = ("meter://agents/kid", "meter://agents/lead")
    async with meter.tools() as tools, watching(meter, mode, *uris) as watcher:
        await tools("record_usage", service="openai", agent="kid", parent="lead")
        await tools("set_limit", agent="lead", max=10, metric="cost_usd", window="day", thresholds=[50])
        await tools("set_limit", max=10, metric="cost_usd", window="day", thresholds=[80])
        await tools("set_limit", project="p", max=10, metric="cost_usd", window="day", thresholds=[10])
        await tools("record_usage", service="openai", agent="kid", project="p", cost_usd=5)
        assert {await watcher.next() for _ in uris} == set(uris)
        await tools("record_usage", service="openai", agent="ann", cost_usd=4)
        assert {await watcher.next() for _ in uris} == set(uris)
        assert watcher.so_far() == []


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_what_nobody_watches_is_told_to_nobody(meter: Meter, mode: str) -> None:
    async with meter.tools() as tools, watching(meter, mode, "meter://agents/ann") as watcher:
        await tools("set_limit", agent="*", max=10, metric="cost_usd", window="day")
        await tools("record_usage", service="openai", agent="bot", cost_usd=10)
        await tools("record_usage", service="openai", agent="ann", cost_usd=10)
        assert await watcher.next() == "meter://agents/ann"


async def test_a_client_can_stop_watching(meter: Meter) -> None:
    uris = ("meter://alerts", "meter://limits")
    async with meter.tools() as tools, watching(meter, "legacy", *uris) as watcher:
        await watcher.client.session.unsubscribe_resource("meter://alerts")  # pyright: ignore[reportDeprecated]  see above
        await tools("set_limit", max=1, metric="requests", window="day", thresholds=[100])
        await tools("record_usage", service="openai", agent="bot")
        assert await watcher.next() == "meter://limits"
        assert watcher.so_far() == []


async def test_when_one_connection_ends_another_goes_on_hearing(meter: Meter) -> None:
    """In one process, one connection at a time follows the ledger, for all."""
    server = build_server(meter.ledger, local_caller(OPERATOR, {}))
    async with meter.tools() as tools:
        await tools("set_limit", max=2, metric="requests", window="day", thresholds=[50, 100])
        async with watching(meter, "auto", "meter://alerts", server=server) as second:
            async with watching(meter, "legacy", "meter://alerts", server=server) as first:
                await tools("record_usage", service="openai", agent="bot")
                assert {await first.next(), await second.next()} == {"meter://alerts"}
            await tools("record_usage", service="openai", agent="bot")
            assert await second.next() == "meter://alerts"


@pytest.mark.parametrize("uri", ["meter://secrets", "file:///etc/passwd", "meter://"])
async def test_what_is_not_there_cannot_be_watched(meter: Meter, uri: str) -> None:
    async with watching(meter, "legacy") as watcher:
        with pytest.raises(MCPError) as caught:
            await watcher.client.session.subscribe_resource(uri)  # pyright: ignore[reportDeprecated]  see above
    assert caught.value.error.code == INVALID_PARAMS


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("meter://summary/fortnight", "window: must be a rolling window"),
        ("meter://summary/1h" + "0" * 1_000_000, "window: must be a rolling window"),
        ("meter://agents/", "agent_id: must not be empty"),
        (
            "meter://agents/" + "a" * 1_000_000,
            "agent_id: is 1000000 characters long; at most 128 are allowed",
        ),
    ],
)
async def test_what_cannot_be_read_cannot_be_watched(meter: Meter, mode: str, uri: str, why: str) -> None:
    """It would be kept for as long as its client stays, a thousand of four megabytes."""
    async with meter.tools(mode=mode) as tools:
        with pytest.raises(MCPError, match=why) as caught:
            if mode == "legacy":
                await tools.client.session.subscribe_resource(uri)  # pyright: ignore[reportDeprecated]  see above
            else:
                async with tools.client.listen(resource_subscriptions=[uri]):
                    pass
    assert caught.value.error.code == INVALID_PARAMS


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_an_agent_does_not_watch_others(meter: Meter, mode: str) -> None:
    async with meter.tools() as tools:
        await tools("record_usage", service="openai", agent="ann")
    async with meter.tools(BOT, mode=mode) as tools:
        with pytest.raises(MCPError, match="bound to agent 'bot'"):
            if mode == "legacy":
                await tools.client.session.subscribe_resource("meter://agents/ann")  # pyright: ignore[reportDeprecated]  see above
            else:
                async with tools.client.listen(resource_subscriptions=["meter://agents/ann"]):
                    pass


async def test_watching_is_offered_in_both_eras(meter: Meter) -> None:
    for mode in ("legacy", "auto"):
        async with meter.tools(mode=mode) as tools:
            resources = tools.client.server_capabilities.resources
            assert resources is not None
            assert resources.subscribe is True


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_nobody_watches_more_than_so_many(
    meter: Meter, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "WATCHED_MAX", 3)
    uris = [f"meter://agents/{number}" for number in range(4)]
    async with meter.tools(mode=mode) as tools:
        with pytest.raises(MCPError, match="at most 3 resources can be watched at once") as caught:
            if mode == "legacy":
                for uri in uris:
                    await tools.client.session.subscribe_resource(uri)  # pyright: ignore[reportDeprecated]  see above
            else:
                async with tools.client.listen(resource_subscriptions=uris):
                    pass
    assert caught.value.error.code == INVALID_PARAMS
