"""What is served over HTTP, with its door: in this process, or on a loopback port where streams matter."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import anyio
import httpx2
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from agent_meter_mcp.faces.serve import build_site
from agent_meter_mcp.settings import load_settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message

    from agent_meter_mcp.ledger import Ledger

HERE = "http://127.0.0.1:8787"
SECONDS = 30


def site_of(ledger: Ledger, host: str = "127.0.0.1", **variables: str) -> ASGIApp:
    """The site, as a process with these variables would serve it at that address."""
    return build_site(ledger, load_settings({"USER": "olga", **variables}), host)


@asynccontextmanager
async def living(site: ASGIApp) -> AsyncGenerator[None]:
    """The site between its start and its end."""
    started, ending = anyio.Event(), anyio.Event()

    async def receive() -> Message:
        if not started.is_set():
            return {"type": "lifespan.startup"}
        await ending.wait()
        return {"type": "lifespan.shutdown"}

    async def send(message: Message) -> None:
        assert message["type"].endswith(".complete"), message
        started.set()

    async def live() -> None:
        await site({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(live)
        with anyio.fail_after(SECONDS):
            await started.wait()
        yield
        ending.set()


def browser(site: ASGIApp, token: str | None = None) -> httpx2.AsyncClient:
    """Requests to the site in this process, with a key if one is given."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(site), base_url=HERE, headers=headers)


def tools_client(web: httpx2.AsyncClient, url: str = HERE, mode: Any = "auto") -> Client:
    """An MCP client that asks by `web`."""
    return Client(streamable_http_client(f"{url}/mcp", http_client=web), mode=mode)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@asynccontextmanager
async def listening(site: ASGIApp) -> AsyncGenerator[str]:
    """The URL of the site on a free port of this machine."""
    config = uvicorn.Config(site, log_config=None, access_log=False, timeout_graceful_shutdown=1)
    server = _Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listener])
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                server.should_exit = server.force_exit = True
