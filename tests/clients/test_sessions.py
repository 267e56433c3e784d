"""A client of the 2.x line, in both protocol generations, over both transports."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters

from .serving import command, http_server
from .session import STEPS, TOOLS, failures, filled


async def run_session(target: Any, mode: Any) -> list[str]:
    found: list[str] = []
    with anyio.fail_after(60):
        async with Client(target, mode=mode) as client:
            tools = {tool.name for tool in (await client.list_tools()).tools}
            assert tools == TOOLS
            reservation_id = None
            for number, (tool, arguments, _) in enumerate(STEPS):
                answer = await client.call_tool(tool, filled(arguments, reservation_id))
                result: dict[str, Any] = answer.structured_content or {}
                reservation_id = result.get("reservation_id") or reservation_id
                text = " ".join(getattr(block, "text", "") for block in answer.content)
                found += failures(number, result, bool(answer.is_error), text)
    return found


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_whole_session_works_over_stdio(tmp_path: Path, mode: str) -> None:
    program, *arguments = command(tmp_path / "meter.db")
    parameters = StdioServerParameters(command=program, args=arguments, env={"PYTHONPATH": str(Path.cwd())})
    assert await run_session(parameters, mode) == []


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_whole_session_works_over_http(tmp_path: Path, mode: str) -> None:
    with http_server(tmp_path / "meter.db") as url:
        assert await run_session(url, mode) == []


def test_the_session_of_the_older_sdk_needs_nothing_of_ours() -> None:
    source = Path(__file__).with_name("legacy.py").read_text(encoding="utf-8")
    assert "agent_meter_mcp" not in source
    assert sys.version_info >= (3, 11)
