"""The routes as a server in a thread, on a free loopback port, over a ledger of its own. Every caller is the
operator."""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import anyio
import uvicorn
from anyio import to_thread

from agent_meter_mcp.faces.http.app import build_api
from agent_meter_mcp.ledger import Ledger
from agent_meter_mcp.prices import PriceBook
from agent_meter_mcp.runtime import new_id, system_clock_us
from agent_meter_mcp.store.sqlite import open_store
from tests.faces.conftest import OPERATOR

from .conftest import As

SECONDS = 20


@contextmanager
def served_site(folder: Path) -> Generator[str]:
    """Its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    servers: list[uvicorn.Server] = []

    async def serve() -> None:
        store = await to_thread.run_sync(open_store, str(folder / "usage.db"))
        async with Ledger(store, PriceBook(folder / "prices.toml"), system_clock_us, new_id) as ledger:
            app = As(build_api(ledger), OPERATOR)
            config = uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
            servers.append(uvicorn.Server(config))
            await servers[0].serve([listener])

    thread = threading.Thread(target=anyio.run, args=(serve,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        for server in servers:
            server.should_exit = True
        thread.join(SECONDS)
        listener.close()
