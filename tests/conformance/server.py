"""The server under test as a process of its own: `python -m tests.conformance.server --port N --db FILE`.

It is served as users get it, on a new ledger in the file, with one difference that a run with fixtures needs:
`event_store` and `retry_interval`; without them server-sse-polling cannot pass.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import uvicorn
from mcp.server import MCPServer
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.types import JSONRPCMessage
from starlette.types import ASGIApp

from agent_meter_mcp.faces.auth import KnownHosts
from agent_meter_mcp.faces.mcp import build_server, local_caller
from agent_meter_mcp.faces.serve import LOOPBACK, mcp_app
from agent_meter_mcp.ledger import Ledger
from agent_meter_mcp.runtime import open_ledger, process_caller
from agent_meter_mcp.settings import Settings, load_settings
from tests.conformance.everything import add_conformance_fixtures

HOST = "127.0.0.1"
RETRY_MS = 100


def build_app(ledger: Ledger, settings: Settings, *, plain: bool, bare: bool) -> ASGIApp:
    """Our application: as it is if `plain`, else with the suite's fixtures. `bare`: the SDK's own server."""
    server: MCPServer[Any] = MCPServer("bare", version="0.1.0")
    if not bare:
        server = build_server(ledger, local_caller(process_caller(settings), {}))
    if plain:
        return KnownHosts(mcp_app(server), LOOPBACK)
    add_conformance_fixtures(server)
    return KnownHosts(mcp_app(server, event_store=Events(), retry_interval=RETRY_MS), LOOPBACK)


async def serve(settings: Settings, port: int, *, plain: bool, bare: bool) -> None:
    """Until a signal comes."""
    async with open_ledger(settings) as ledger:
        app = build_app(ledger, settings, plain=plain, bare=bare)
        config = uvicorn.Config(app, host=HOST, port=port, log_level="warning", timeout_graceful_shutdown=1)
        await uvicorn.Server(config).serve()


class Events(EventStore):
    """Keeps every event of the run, so that a client can resume a stream that was closed under it."""

    def __init__(self) -> None:
        self._events: list[tuple[str, JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        self._events.append((stream_id, message))
        return str(len(self._events))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        if not last_event_id.isdecimal() or not 0 < int(last_event_id) <= len(self._events):
            return None
        first = int(last_event_id)
        stream = self._events[first - 1][0]
        for number, (stream_id, message) in enumerate(self._events[first:], start=first + 1):
            if stream_id == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


def _end_with_parent() -> None:
    """Stop when the runner closes our stdin, which also happens when it is killed."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.server")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--db", type=Path, required=True)
    parser.add_argument("--plain", action="store_true", help="without the fixtures")
    parser.add_argument("--bare", action="store_true", help="with the SDK's own server in place of ours")
    options = parser.parse_args()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    settings = load_settings({"AGENT_METER_DB": str(options.db)})
    with suppress(KeyboardInterrupt):
        anyio.run(partial(serve, settings, options.port, plain=options.plain, bare=options.bare))


if __name__ == "__main__":
    main()
