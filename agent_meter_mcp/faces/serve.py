"""The process that serves HTTP: `agent-meter serve`. MCP (streamable HTTP) is at `/mcp`.

While no tokens exist, whoever can reach the port is the operator. So it listens on a loopback address only,
and refuses requests that a web page made a browser send there (Host and Origin are checked).
"""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio
import uvicorn
from mcp.server.transport_security import TransportSecuritySettings

from agent_meter_mcp.core.errors import Forbidden, InvalidInput
from agent_meter_mcp.runtime import open_ledger, process_caller

from .mcp import build_server, local_caller

if TYPE_CHECKING:
    from mcp.server import MCPServer
    from starlette.applications import Starlette

    from agent_meter_mcp.ledger import Ledger
    from agent_meter_mcp.settings import Settings

GRACE_S = 2
"""How long streams may stay open once it was told to stop."""
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def serve(settings: Settings, host: str, port: int) -> None:
    """Serves until SIGINT or SIGTERM. Port 0 takes a free one.

    Raises:
        MeterError: another address than loopback, a port in use, a ledger that cannot be opened.
    """
    _check_loopback(host)
    with _listening(host, port) as listener:
        # Before the SDK does it, whose handler, where `rich` is installed, blocks while it draws tracebacks.
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
        anyio.run(_serve, settings, host, listener)


def local_server(ledger: Ledger, settings: Settings) -> MCPServer[None]:
    """The MCP server of this process. The ledger is open as long as it serves."""
    return build_server(ledger, local_caller(process_caller(settings), {}), timezone=settings.timezone)


def http_app(server: MCPServer[Any], host: str, **options: Any) -> Starlette:
    """`server` at `/mcp`, for requests to a loopback address. `options` are `streamable_http_app`'s."""
    names = {*_LOOPBACK, _place(host)}
    security = TransportSecuritySettings(
        allowed_hosts=[place for name in names for place in (name, f"{name}:*")],
        allowed_origins=[f"http://{place}" for name in names for place in (name, f"{name}:*")],
    )
    return server.streamable_http_app(host=host, transport_security=security, **options)


async def _serve(settings: Settings, host: str, listener: socket.socket) -> None:
    async with open_ledger(settings) as ledger:
        app = http_app(local_server(ledger, settings), host)
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=GRACE_S)
        http = _Server(config)
        async with anyio.create_task_group() as tasks:
            if sys.platform != "win32":
                tasks.start_soon(_stop_on_signal, http)
            _announce(settings, host, listener.getsockname()[1])
            await http.serve([listener])
            tasks.cancel_scope.cancel()


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn raises them again at its end, and the ledger would still be open."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


async def _stop_on_signal(server: _Server) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            server.force_exit = server.should_exit
            server.should_exit = True


def _announce(settings: Settings, host: str, port: int) -> None:
    who = (
        "every caller is the operator"
        if settings.agent is None
        else f"every caller is agent {settings.agent!r}"
    )
    sys.stderr.write(
        f"agent-meter serves MCP at http://{_place(host)}:{port}/mcp from {settings.db}\n"
        f"On this machine only, and without tokens: {who}. Stop with Ctrl-C.\n"
    )
    sys.stderr.flush()


def _place(host: str) -> str:
    """A host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def _check_loopback(host: str) -> None:
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise Forbidden(
            f"{host} can be reached from other machines, and without tokens whoever does so would be the "
            "operator. Listen on 127.0.0.1."
        )


@contextmanager
def _listening(host: str, port: int) -> Generator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise InvalidInput(
            "port",
            f"{port} on {host} cannot be listened on ({error.strerror}): choose another, or 0 for a free one",
        ) from error
    with listener:
        yield listener
