"""The session by a client of the 1.x line, a program: `legacy.py stdio COMMAND...`, `legacy.py http URL`.

It runs in an environment of its own, which has that SDK and not our package. Prints what failed; exit code 1.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio


@asynccontextmanager
async def streams(way: str, target: list[str]) -> AsyncGenerator[tuple[Any, Any]]:
    """The read and the write stream of a connection."""
    if way == "http":
        client = importlib.import_module("mcp.client.streamable_http")
        async with client.streamable_http_client(target[0]) as (read, write, _):
            yield read, write
    else:
        client = importlib.import_module("mcp.client.stdio")
        parameters = client.StdioServerParameters(command=target[0], args=target[1:])
        async with client.stdio_client(parameters) as (read, write):
            yield read, write


async def main(way: str, target: list[str]) -> list[str]:
    """Runs all steps; answers what failed."""
    session_class: Any = importlib.import_module("mcp").ClientSession
    steps = importlib.import_module("session")
    found: list[str] = []
    async with streams(way, target) as (read, write), session_class(read, write) as session:
        await session.initialize()
        tools = {tool.name for tool in (await session.list_tools()).tools}
        if tools != steps.TOOLS:
            found.append(f"tools: {sorted(tools ^ steps.TOOLS)}")
        reservation_id: str | None = None
        for number, (tool, arguments, _) in enumerate(steps.STEPS):
            answer = await session.call_tool(tool, steps.filled(arguments, reservation_id))
            result: dict[str, Any] = answer.structuredContent or {}
            reservation_id = result.get("reservation_id") or reservation_id
            text = " ".join(getattr(block, "text", "") for block in answer.content)
            found += steps.failures(number, result, answer.isError, text)
    return found


if __name__ == "__main__":
    problems = anyio.run(main, sys.argv[1], sys.argv[2:])
    sys.stdout.write("".join(f"{problem}\n" for problem in problems))
    sys.exit(bool(problems))
