"""What a model reads before it calls anything."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from mcp import Client

from agent_meter_mcp import __version__
from agent_meter_mcp.faces.mcp.server import TOOLS

from .conftest import Meter, Tools
from .listing import FOLDER

NAMES = [definition.name for definition in TOOLS]
BYTES_MAX = 14_000
THIRTEEN = {
    "record_usage", "check_budget", "reserve_budget", "settle_reservation", "gate", "get_usage_summary",
    "list_usage_events", "list_agents", "set_agent", "set_limit", "list_limits", "remove_limit",
    "set_kill_switch",
}  # fmt: skip


async def listed(client: Client) -> list[dict[str, Any]]:
    answer = await client.list_tools()
    return [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in answer.tools]


async def test_there_are_the_thirteen_tools_of_the_contract(tools: Tools) -> None:
    assert {tool["name"] for tool in await listed(tools.client)} == THIRTEEN


async def test_all_tools_together_are_small(tools: Tools) -> None:
    compact = json.dumps(await listed(tools.client), separators=(",", ":"), ensure_ascii=False)
    assert len(compact.encode()) <= BYTES_MAX


async def test_each_tool_is_as_it_was_reviewed(tools: Tools) -> None:
    """`python -m tests.faces.listing` writes the files; their difference is to be reviewed."""
    now = {tool["name"]: tool for tool in await listed(tools.client)}
    reviewed = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.json")}
    assert now == reviewed


async def test_each_tool_says_what_a_client_needs_to_know(tools: Tools) -> None:
    for tool in await listed(tools.client):
        assert 4 <= len(tool["title"]) <= 30
        assert 60 <= len(tool["description"]) <= 300
        assert set(tool["annotations"]) == {
            "readOnlyHint",
            "destructiveHint",
            "idempotentHint",
            "openWorldHint",
        }
        assert tool["annotations"]["openWorldHint"] is False
        assert tool["inputSchema"]["additionalProperties"] is False
        for schema in (tool["inputSchema"], tool["outputSchema"]):
            Draft202012Validator.check_schema(schema)
            assert schema["type"] == "object"


async def test_reading_tools_are_marked_as_such(tools: Tools) -> None:
    reading = {tool["name"] for tool in await listed(tools.client) if tool["annotations"]["readOnlyHint"]}
    assert reading == {"check_budget", "get_usage_summary", "list_usage_events", "list_agents", "list_limits"}


@pytest.mark.parametrize("definition", TOOLS, ids=NAMES)
def test_a_description_mentions_only_tools_and_arguments_that_exist(definition: Any) -> None:
    mentioned = {word.strip('.,;:()"=') for word in definition.description.split()}
    invented = {
        word
        for word in mentioned
        if "_" in word and word not in THIRTEEN and word not in definition.arguments.model_fields
    }
    assert invented == set()


@pytest.mark.parametrize("definition", TOOLS, ids=NAMES)
def test_a_tool_only_parses_asks_the_ledger_and_answers(definition: Any) -> None:
    decorator, *function = inspect.getsource(definition.run).rstrip().splitlines()
    assert decorator.startswith("@tool(")
    assert len(function) <= 15


async def test_a_client_may_keep_the_list_for_a_while(meter: Meter) -> None:
    async with meter.tools(mode="2026-07-28") as tools:
        answer = await tools.client.list_tools()
    assert (answer.ttl_ms, answer.cache_scope) == (60_000, "public")


async def test_the_server_says_who_it_is_and_how_to_use_it(tools: Tools) -> None:
    client = tools.client
    assert client.server_info is not None
    assert (client.server_info.name, client.server_info.version) == ("agent-meter", __version__)
    assert client.instructions is not None
    for tool in ("reserve_budget", "settle_reservation", "record_usage"):
        assert tool in client.instructions
