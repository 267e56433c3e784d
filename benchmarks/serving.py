"""(f) and (g): what the meter adds to a call of a tool, and to the start of a server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal
from mcp import Client, StdioServerParameters

from . import plain
from .measure import Options, Row, Side, at_most, interleave, middle, quotients
from .worker import ROOT
from .workload import binding_limits

CALLS = 100
ARGUMENTS: dict[str, Any] = {
    "service": "openai",
    "agent": "agent-01",
    "input_tokens": 1000,
    "output_tokens": 200,
    "cost_usd": 0.004,
    "operation": "chat",
}
BARE = [sys.executable, "-m", "benchmarks.bare"]
HELLO = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "benchmark", "version": "1"},
}


def run_calls(options: Options) -> Iterator[Row]:
    """`record_usage`, with 3 binding limits, against a tool that does nothing: synchronous=FULL, and over
    stdio also NORMAL, which does not wait for the disk."""
    path = options.folder / "calls.db"
    store = plain.new_store(path)
    store.apply(binding_limits(3), time.time_ns() // 1000)
    store.close()
    with ExitStack() as opened:
        portal = opened.enter_context(start_blocking_portal())
        for way, (ours, floor) in {
            "stdio": (_ours(path, "FULL"), _module("benchmarks.bare")),
            "stdio, NORMAL": (_ours(path, "NORMAL"), _module("benchmarks.bare")),
            "HTTP": _over_http(opened, path),
        }.items():
            sides = {
                "floor": _calls(opened, portal, floor, "noop"),
                "ours": _calls(opened, portal, ours, "record_usage"),
            }
            took = interleave(sides, options.number_of_rounds(15, 7))
            yield Row(
                "f",
                f"record_usage over {way} / a tool that does nothing",
                middle([seconds / CALLS for seconds in took["ours"]]),
                middle([seconds / CALLS for seconds in took["floor"]]),
                quotients(took["ours"], took["floor"]),
                None if "NORMAL" in way else at_most(1.15),
            )


def run_start(options: Options) -> Iterator[Row]:
    """From the start of the process to its answer to the first `tools/list`."""
    path = options.folder / "start.db"
    plain.new_store(path).close()
    ours = [sys.executable, "-m", "agent_meter_mcp.faces.stdio", "--db", str(path)]
    sides: dict[str, Side] = {"floor": lambda: _first_list(BARE), "ours": lambda: _first_list(ours)}
    took = interleave(sides, options.number_of_rounds(15, 7))
    yield Row(
        "g",
        "start of the stdio server to its first tools/list / a bare server's",
        middle(took["ours"]),
        middle(took["floor"]),
        quotients(took["ours"], took["floor"]),
        at_most(1.2),
    )


def _calls(opened: ExitStack, portal: BlockingPortal, target: Any, tool: str) -> Side:
    """So many calls of a tool, one after the other, by a client that stays connected."""
    client = opened.enter_context(portal.wrap_async_context_manager(Client(target, mode="legacy")))

    async def calls() -> float:
        began = time.perf_counter()
        for _ in range(CALLS):
            answer = await client.call_tool(tool, ARGUMENTS)
            if answer.is_error:
                raise RuntimeError(f"{tool} failed: {answer.content}")
        return time.perf_counter() - began

    return lambda: portal.call(calls)


def _ours(path: Path, synchronous: str) -> StdioServerParameters:
    started = _module("agent_meter_mcp.faces.stdio", "--db", str(path))
    return started.model_copy(update={"env": {"AGENT_METER_SYNCHRONOUS": synchronous}})


def _module(name: str, *arguments: str) -> StdioServerParameters:
    return StdioServerParameters(command=sys.executable, args=["-m", name, *arguments], cwd=ROOT)


def _over_http(opened: ExitStack, path: Path) -> tuple[str, str]:
    serve = [sys.executable, "-m", "agent_meter_mcp", "--db", str(path), "serve", "--port", "0"]
    return opened.enter_context(_listening(serve)), opened.enter_context(_listening([*BARE, "http"]))


@contextmanager
def _listening(command: list[str]) -> Generator[str]:
    """The URL of a server, whose first line names its port."""
    process = subprocess.Popen(command, cwd=ROOT, text=True, env=_environment(), stderr=subprocess.PIPE)
    try:
        first = "" if process.stderr is None else process.stderr.readline()
        port = re.search(r"(?:127\.0\.0\.1:|^)(\d+)", first)
        if port is None:
            raise RuntimeError(f"a server did not start: {first}")
        yield f"http://127.0.0.1:{port[1]}/mcp"
    finally:
        process.terminate()
        process.communicate(timeout=20)


def _first_list(command: list[str]) -> float:
    asked = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
    ]
    began = time.perf_counter()
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment()
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("a pipe is missing")
        process.stdin.write("".join(json.dumps(message) + "\n" for message in asked))
        process.stdin.flush()
        while json.loads(process.stdout.readline()).get("id") != 2:
            pass
        seconds = time.perf_counter() - began
        process.stdin.close()
        process.wait(20)
    return seconds


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("AGENT_METER_")}
