"""A ledger in a file, under a clock that stands still, and real MCP clients of both eras in front of it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread
from mcp import Client
from mcp.types import CallToolResult, Implementation, TextContent

from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.faces.mcp import build_server, local_caller
from agent_meter_mcp.ledger import Ledger
from agent_meter_mcp.prices import PriceBook
from agent_meter_mcp.runtime import new_id
from agent_meter_mcp.store.sqlite import open_store

NOON_US = 1_795_521_600_000_000
"""2026-11-24T12:00:00Z, a Tuesday."""
OPERATOR = Caller("operator", "olga")
VIEWER = Caller("viewer", "vera")
BOT = Caller("agent", "agent bot", "bot", "bot")
SERVICE = Caller("service", "the key of openai", bound_to="openai")
CLIENT = Implementation(name="test-client", version="1")


class ManualClock:
    def __init__(self) -> None:
        self.now_us = NOON_US

    def __call__(self) -> int:
        return self.now_us

    def advance(self, seconds: float) -> None:
        self.now_us += int(seconds * 1_000_000)


class Tools:
    """Calls tools of a server, and checks what holds for every answer."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def __call__(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        """The structured content of an answer that is no error."""
        result = await self.call(tool, arguments)
        assert not result.is_error, text_of(result)
        content = result.structured_content
        assert content is not None
        assert content["message"]
        if tool != "gate":
            assert text_of(result).split("\n")[0] == content["message"]
        return content

    async def refused(self, tool: str, /, **arguments: Any) -> str:
        """The text of an answer that is an error."""
        result = await self.call(tool, arguments)
        assert result.is_error, text_of(result)
        assert result.structured_content is None
        return text_of(result)

    async def hook(self, **arguments: Any) -> dict[str, Any]:
        """What a harness reads in the answer of `gate`."""
        return json.loads(text_of(await self.call("gate", arguments)))

    async def call(self, tool: str, arguments: dict[str, Any]) -> CallToolResult:
        result = await self.client.call_tool(tool, arguments)
        assert isinstance(result, CallToolResult)
        return result


def text_of(result: CallToolResult) -> str:
    (block,) = result.content
    assert isinstance(block, TextContent)
    return block.text


class Meter:
    """A ledger and the clients in front of it."""

    def __init__(self, ledger: Ledger, clock: ManualClock) -> None:
        self.ledger = ledger
        self.clock = clock

    @asynccontextmanager
    async def tools(
        self,
        caller: Caller = OPERATOR,
        *,
        mode: Any = "auto",
        environ: dict[str, str] | None = None,
        client: Implementation = CLIENT,
        timezone: str = "UTC",
    ) -> AsyncGenerator[Tools]:
        server = build_server(self.ledger, local_caller(caller, environ or {}), timezone=timezone)
        async with Client(server, mode=mode, client_info=client) as connected:
            yield Tools(connected)


@pytest.fixture
async def meter(tmp_path: Path) -> AsyncGenerator[Meter]:
    clock = ManualClock()
    store = await to_thread.run_sync(open_store, str(tmp_path / "usage.db"))
    async with Ledger(store, PriceBook(tmp_path / "prices.toml"), clock, new_id, poll_s=0.02) as ledger:
        yield Meter(ledger, clock)


@pytest.fixture(params=["auto", "legacy"])
async def tools(meter: Meter, request: pytest.FixtureRequest) -> AsyncGenerator[Tools]:
    """The operator's tools, in both eras of the protocol. Whoever blocks the event loop fails."""
    async with meter.tools(mode=request.param) as connected:
        request.getfixturevalue("nothing_blocks")  # now that all is imported and built
        yield connected
