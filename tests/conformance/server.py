"""The server under test as a process of its own: `python -m tests.conformance.server --port N --db FILE`.

`build_server` and `build_app` are the seam, the only place that knows which server is tested. To put another
one there: `build_server` returns it, on a new ledger in `db`; `build_app` serves it as users get it, with one
difference that a run with fixtures needs: `event_store` and `retry_interval` in `streamable_http_app`;
without them server-sse-polling cannot pass.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server import MCPServer
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.types import JSONRPCMessage
from starlette.applications import Starlette

from tests.conformance.everything import add_conformance_fixtures

HOST = "127.0.0.1"
RETRY_MS = 100


def build_server(db: Path) -> MCPServer[Any]:
    """Our server on a new ledger in `db`; an empty one in its place until `faces.mcp` is there."""
    return MCPServer("agent-meter", version="0.1.0")


def build_app(db: Path, *, plain: bool, bare: bool) -> Starlette:
    """Our application on the ledger in `db`: as it is if `plain`, else with the suite's fixtures in it."""
    server = MCPServer("bare", version="0.1.0") if bare else build_server(db)
    if plain:
        return server.streamable_http_app(host=HOST)
    add_conformance_fixtures(server)
    return server.streamable_http_app(host=HOST, event_store=Events(), retry_interval=RETRY_MS)


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
    app = build_app(options.db, plain=options.plain, bare=options.bare)
    uvicorn.run(app, host=HOST, port=options.port, log_level="warning", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
