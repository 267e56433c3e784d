"""What an agent meets at each app, and what the ledger then says. Prints what failed; exit code 1."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, Implementation, TextContent

from agent_meter_mcp import Caller, Ledger, LimitKey, Subject, load_settings, open_ledger
from agent_meter_mcp.core.models import StoredEvent
from agent_meter_mcp.core.queries import EventsQuery, UsageFilter

OPERATOR = Caller("operator", "the checks")
SECONDS = 30


class Check:
    """Collects what is not as it should be."""

    def __init__(self) -> None:
        self.failures: list[str] = []

    def __call__(self, what: str, found: object, expected: object) -> None:
        if found != expected:
            self.failures.append(f"{what}: {found!r}, not {expected!r}")


@asynccontextmanager
async def served(name: str, database: Path) -> AsyncGenerator[tuple[str, Ledger]]:
    """The URL of an app in a process of its own, and the ledger behind its meter."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AGENT_METER_")}
    environment["AGENT_METER_DB"] = str(database)
    process = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs meanwhile
        [sys.executable, "-m", "tests.frameworks.apps", name],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url, f"{name} did not start"
        async with open_ledger(load_settings(environment)) as ledger:
            yield url, ledger
    finally:
        process.terminate()
        process.communicate(timeout=SECONDS)


async def settled(ledger: Ledger, count: int) -> list[StoredEvent]:
    """So many events, oldest first, once they are there: apps do not wait for them."""
    deadline = time.monotonic() + SECONDS
    query = EventsQuery(UsageFilter(outcome="accepted"), 100)
    while len(found := (await ledger.events(OPERATOR, query)).events) < count:
        assert time.monotonic() < deadline, found
        await anyio.sleep(0.02)
    return list(reversed(found))


async def an_api(name: str, operation: str, agents: list[str], check: Check, database: Path) -> None:
    async with served(name, database) as (url, ledger):
        await ledger.set_limit(OPERATOR, LimitKey(Subject("agent", "bot"), None, "requests", "day"), 2)
        await ledger.set_switch(OPERATOR, "agent", "rogue", True, "it ran wild")
        async with httpx2.AsyncClient(base_url=url, timeout=SECONDS) as client:
            as_bot, as_ann = {"x-agent-id": "bot"}, {"x-agent-id": "ann"}
            admitted = await client.get("/items/7", headers=as_bot)
            check("admitted", (admitted.status_code, admitted.json()), (200, {"number": 7}))
            async with client.stream("GET", "/stream", headers=as_bot) as stream:
                chunks = stream.aiter_raw()
                check("the first piece, before the second is made", await anext(chunks), b"one")
                await client.get("/go", headers=as_ann)
                check("the rest", b"".join([chunk async for chunk in chunks]), b"two")
            refused = await client.get("/items/7", headers=as_bot)
            check("over the limit", refused.status_code, 429)
            check("when to come back", int(refused.headers.get("retry-after", 0)) > 0, True)
            check("a problem", refused.headers["content-type"], "application/problem+json")
            stopped = await client.get("/items/7", headers={"x-agent-id": "rogue"})
            check("stopped", (stopped.status_code, stopped.json().get("code")), (403, "kill_switch"))
            missing = await client.get("/nothing", headers=as_ann)
            check("not there", missing.status_code, 404)
        events = await settled(ledger, len(agents))
        item = next(one.event for one in events if one.event.operation == operation)
        check("what it was", (item.who.agent, item.who.service), ("bot", "my-api"))
        check("how it went", (item.status_code, item.source), (200, "middleware"))
        check("who was metered", sorted(one.event.who.agent for one in events), agents)


async def called(client: Client, tool: str, **arguments: Any) -> tuple[bool, str]:
    """Whether it is an error, and its text."""
    result = await client.call_tool(tool, arguments)
    assert isinstance(result, CallToolResult)
    return bool(result.is_error), " ".join(one.text for one in result.content if isinstance(one, TextContent))


async def tools(mode: Any, check: Check, database: Path) -> None:
    async with served("fastmcp", database) as (url, ledger):

        async def steps(agent: str) -> None:
            info = Implementation(name=agent, version="1")
            async with Client(f"{url}/mcp", mode=mode, client_info=info) as client:
                await client.list_tools()
                if agent == "rogue":
                    error, text = await called(client, "route", start="Ulm")
                    check("stopped", (error, "it ran wild" in text), (True, True))
                    return
                check("admitted", (await called(client, "route", start="Ulm"))[0], False)
                check("a tool that fails", await called(client, "fail"), (True, "no road"))
                error, text = await called(client, "route", start="Ulm")
                begin = "route was not called. Not allowed: 2 of 2 requests used"
                check("over the limit", (error, text.startswith(begin)), (True, True))
                read = await client.read_resource("map://all")
                check("a resource", getattr(read.contents[0], "text", None), "a map")

        await ledger.set_limit(OPERATOR, LimitKey(Subject("agent", "bot"), None, "requests", "day"), 2)
        await ledger.set_switch(OPERATOR, "agent", "rogue", True, "it ran wild")
        for agent in ("bot", "rogue"):
            await steps(agent)
        events = [one.event for one in await settled(ledger, 2)]
        check("agents", [event.who.agent for event in events], ["bot", "bot"])
        check("operations", [event.operation for event in events], ["route", "fail"])
        check("statuses", [event.status_code for event in events], [200, 500])


async def bearers(check: Check, database: Path) -> None:
    async with served("fastmcp_with_tokens", database) as (url, ledger):
        headers = {"authorization": "Bearer token-of-ann"}
        async with httpx2.AsyncClient(headers=headers, timeout=SECONDS) as web:
            async with Client(streamable_http_client(f"{url}/mcp", http_client=web)) as client:
                check("admitted", (await called(client, "route", start="Ulm"))[0], False)
        (stored,) = await settled(ledger, 1)
        check("whose token it is", stored.event.who.agent, "ann")


CHECKS = {
    # Litestar answers for routes that there are not before its middleware is asked.
    "Litestar": partial(an_api, "litestar", "GET /items/{number}", ["ann", "bot", "bot"]),
    "Django": partial(an_api, "django", "GET /items/{}", ["ann", "ann", "bot", "bot"]),
    "FastMCP": partial(tools, "auto"),
    "FastMCP, clients of the first generation": partial(tools, "legacy"),
    "FastMCP with tokens": bearers,
}


def main() -> int:
    failed = False
    for name, steps in CHECKS.items():
        check = Check()
        with tempfile.TemporaryDirectory() as folder:
            anyio.run(steps, check, Path(folder) / "meter.db")
        sys.stdout.write(f"{name}: {'FAILED' if check.failures else 'ok'}\n")
        sys.stdout.write("".join(f"  {failure}\n" for failure in check.failures))
        failed = failed or bool(check.failures)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
