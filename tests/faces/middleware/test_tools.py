"""An MCP server with a budget for every client."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, Implementation
from pydantic import AnyHttpUrl

from agent_meter_mcp import meter_tools
from agent_meter_mcp.faces.middleware.tools import ToolMeter

from ..conftest import text_of
from ..door import listening
from .conftest import Books


def server_with(guard: ToolMeter, **options: Any) -> MCPServer[Any]:
    server = MCPServer[Any]("maps", middleware=[guard], **options)

    @server.tool()
    def route(start: str) -> dict[str, str]:
        """A route."""
        return {"start": start}

    @server.tool()
    def fail() -> str:
        """Fails."""
        raise ToolError("no")

    return server


@asynccontextmanager
async def connected(
    guard: ToolMeter, mode: Any = "auto", name: str = "bot", server: Any = None, **options: Any
) -> AsyncGenerator[Client]:
    client = Client(
        server or server_with(guard), mode=mode, client_info=Implementation(name=name, version="1"), **options
    )
    async with client:
        yield client


async def called(client: Client, tool: str, **arguments: Any) -> CallToolResult:
    result = await client.call_tool(tool, arguments)
    assert isinstance(result, CallToolResult)
    return result


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_each_call_of_a_tool_is_metered_for_its_client(books: Books, mode: Any) -> None:
    guard = meter_tools("maps", meter=books.meter, units={"route": 2})
    async with connected(guard, mode) as client:
        await client.list_tools()
        result = await called(client, "route", start="Ulm")
        assert result.structured_content == {"start": "Ulm"}
        assert (await called(client, "fail")).is_error
    route, failed = [stored.event for stored in await books.settled(2)]
    assert (route.who.agent, route.who.service, route.operation) == ("bot", "maps", "route")
    assert (route.status_code, route.usage.units_micro, route.source) == (200, 2_000_000, "middleware")
    assert route.duration_ms is not None
    assert (failed.operation, failed.status_code) == ("fail", 500)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_who_is_over_is_told_so_in_words_for_a_model(books: Books, mode: Any) -> None:
    await books.limit(1)
    async with connected(meter_tools("maps", meter=books.meter), mode) as client:
        assert not (await called(client, "route", start="Ulm")).is_error
        refused = await called(client, "route", start="Ulm")
        assert refused.is_error
        assert text_of(refused).startswith(
            "route was not called. Not allowed: 1 of 1 requests used (60s). Try again in "
        )
        assert text_of(refused).endswith("Do without this tool until then, or stop and say why.")
        assert (await client.list_tools()).tools
        books.clock.advance(62)
        assert not (await called(client, "route", start="Ulm")).is_error


async def test_a_kill_switch_stops_a_client(books: Books) -> None:
    await books.stop("bot")
    async with connected(meter_tools("maps", meter=books.meter)) as client:
        refused = await called(client, "route", start="Ulm")
    assert refused.is_error
    assert "it ran wild" in text_of(refused)
    assert text_of(refused).endswith("Stop this work and tell the person you work for.")


@pytest.mark.parametrize(("unidentified", "refused"), [("meter", False), ("refuse", True), ("pass", False)])
async def test_a_client_whose_name_is_none_is_unidentified(
    books: Books, unidentified: Any, refused: bool
) -> None:
    guard = meter_tools("maps", meter=books.meter, unidentified=unidentified)
    async with connected(guard, name="*") as client:
        assert (await called(client, "route", start="Ulm")).is_error is refused
    agents = [stored.event.who.agent for stored in await books.settled(unidentified == "meter")]
    assert agents == (["anonymous"] if unidentified == "meter" else [])


async def test_the_servers_own_function_says_who_it_is(books: Books) -> None:
    async def by_argument(ctx: Any) -> str | None:
        return ctx.params["arguments"]["start"]

    async with connected(meter_tools("maps", meter=books.meter, identify=by_argument)) as client:
        await called(client, "route", start="Ulm")
    assert (await books.settled())[0].event.who.agent == "Ulm"


async def test_a_tool_that_does_not_exist_is_settled_as_failed(books: Books) -> None:
    async with connected(meter_tools("maps", meter=books.meter)) as client:
        assert (await called(client, "nothing\n")).is_error
    (stored,) = await books.settled()
    assert (stored.event.operation, stored.event.status_code) == ("(no name)", 500)


async def test_a_meter_of_its_own_runs_beside_the_server(tmp_path: Path) -> None:
    guard = meter_tools("maps", db=tmp_path / "own.db")
    async with connected(guard) as client:
        for _ in range(3):
            assert not (await called(client, "route", start="Ulm")).is_error
    assert not guard.counters
    assert (tmp_path / "own.db").exists()


class Tokens:
    """Two tokens: of a person by an app, and of an app by itself."""

    async def verify_token(self, token: str) -> AccessToken | None:
        subject = {"of-ann": "ann", "of-the-app": None}
        if token not in subject:
            return None
        return AccessToken(token=token, client_id="the-app", scopes=[], subject=subject[token])


HERE = AnyHttpUrl("http://127.0.0.1")
VERIFIES: dict[str, Any] = {
    "token_verifier": Tokens(),
    "auth": AuthSettings(issuer_url=HERE, resource_server_url=None),
}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize(
    ("token", "agent"), [("of-ann", "ann"), ("of-the-app", "the-app"), (None, "what I call myself")]
)
async def test_over_http_it_is_whose_token_it_is_or_else_the_clients_name(
    books: Books, mode: Any, token: str | None, agent: str
) -> None:
    server = server_with(meter_tools("maps", meter=books.meter), **({} if token is None else VERIFIES))
    await books.limit(1, agent)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    info = Implementation(name="what I call myself", version="1")
    async with (
        listening(server.streamable_http_app()) as url,
        httpx2.AsyncClient(headers=headers) as web,
        Client(streamable_http_client(f"{url}/mcp", http_client=web), mode=mode, client_info=info) as client,
    ):
        assert not (await called(client, "route", start="Ulm")).is_error
        assert (await called(client, "route", start="Ulm")).is_error
    assert [stored.event.who.agent for stored in await books.settled()] == [agent]
    (refused,) = await books.events("rejected")
    assert refused.event.who.agent == agent


async def test_over_http_nobody_calls_a_tool_with_a_token_of_nobody(books: Books) -> None:
    server = server_with(meter_tools("maps", meter=books.meter), **VERIFIES)
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "route"}}
    async with listening(server.streamable_http_app()) as url, httpx2.AsyncClient() as web:
        answer = await web.post(f"{url}/mcp", json=call, headers={"Authorization": "Bearer of-nobody"})
    assert answer.status_code == 401
    assert not await books.events()
