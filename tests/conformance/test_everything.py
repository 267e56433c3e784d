"""The fixtures stand beside what a server has: its own tools and its own completions go on working."""

from __future__ import annotations

import pytest
from mcp import Client, MCPError
from mcp.server import MCPServer
from mcp.types import (
    Completion,
    CompletionArgument,
    CompletionContext,
    PromptReference,
    ResourceTemplateReference,
    TextContent,
)

from tests.conformance.everything import COMPLETED_PROMPT, add_conformance_fixtures


async def own_tool() -> str:
    """Ours."""
    return "ours"


async def own_completion(
    ref: PromptReference | ResourceTemplateReference,
    argument: CompletionArgument,
    context: CompletionContext | None,
) -> Completion:
    return Completion(values=[f"ours-{argument.value}"])


def server_with_fixtures(*, completing: bool) -> MCPServer[None]:
    server: MCPServer[None] = MCPServer("ours", version="1")
    server.add_tool(own_tool)
    if completing:
        server.completion()(own_completion)
    add_conformance_fixtures(server)
    return server


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_servers_own_tools_come_first_and_still_run(mode: str) -> None:
    async with Client(server_with_fixtures(completing=True), mode=mode) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        called = await client.call_tool("own_tool", {})
    assert names[0] == "own_tool"
    assert "json_schema_2020_12_tool" in names
    assert called.content == [TextContent(text="ours")]


async def test_completion_answers_for_the_fixture_and_leaves_the_rest_to_the_server() -> None:
    argument = {"name": "arg1", "value": "test"}
    async with Client(server_with_fixtures(completing=True)) as client:
        fixture = await client.complete(PromptReference(name=COMPLETED_PROMPT), argument)
        own = await client.complete(PromptReference(name="report"), argument)
    assert fixture.completion.values == ["test", "tested", "testing"]
    assert own.completion.values == ["ours-test"]


async def test_without_a_handler_of_the_server_an_unknown_completion_is_refused() -> None:
    async with Client(server_with_fixtures(completing=False)) as client:
        with pytest.raises(MCPError, match="no fixture answers this completion/complete"):
            await client.complete(PromptReference(name="report"), {"name": "a", "value": ""})
