"""The process that serves HTTP: `agent-meter serve`. MCP (streamable HTTP) is at `/mcp`.

As long as no key has been made, whoever can reach the port is its owner. So it then listens on a loopback
address only. In any case it refuses requests that a web page made a browser send there (`faces.auth`).
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import uvicorn
from anyio import to_thread
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from agent_meter_mcp.core.errors import Forbidden, InvalidInput, PricesUnusable
from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.core.text import shown
from agent_meter_mcp.runtime import (
    GARBAGE_AFTER_BATCHES,
    collect_seldom,
    open_ledger,
    price_book,
    process_caller,
)
from agent_meter_mcp.secrets import SecretsFile

from .auth import Authentication, KnownHosts
from .connections import PunctualProtocol
from .ending import Ending
from .http.app import build_api
from .http.bodies import BoundedBodies
from .http.metrics import Counted, Metrics
from .mcp import OwnedSessions, build_server, http_caller

if TYPE_CHECKING:
    from mcp.server import MCPServer
    from starlette.types import ASGIApp

    from agent_meter_mcp.ledger import Ledger
    from agent_meter_mcp.settings import Settings

GRACE_S = 2
"""How long requests may still take once it was told to stop."""
MCP_PATH = "/mcp"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_SERVER = Caller("operator", "serve")
_log = logging.getLogger(__name__)


class Tls(NamedTuple):
    """Paths of PEM files: the certificate (with those between it and its root), and its private key."""

    cert: str
    key: str


def serve(settings: Settings, host: str, port: int, *, tls: Tls | None = None) -> None:
    """Serves until SIGINT or SIGTERM. Port 0 takes a free one.

    Raises:
        MeterError: another address than loopback while there is no key, a port in use, a ledger that cannot
        be opened, a certificate that cannot be used.
    """
    if not is_loopback(host) and not os.path.exists(settings.db):
        raise _without_keys(host)
    if tls is not None:
        _check(tls)
    with listening_at(host, port) as listener:
        # Before the SDK does it, whose handler, where `rich` is installed, blocks while it draws tracebacks.
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
        anyio.run(_serve, settings, host, listener, tls)


def _warn_of_files(settings: Settings) -> None:
    """What cannot be used is told before the first usage is refused for it, or has no cost."""
    try:
        SecretsFile(settings.secrets).read()
    except InvalidInput as error:
        _log.error("usage is refused as long as the file of secrets cannot be used: %s", shown(error.problem))
    try:
        price_book(settings).check_own()
    except PricesUnusable as error:
        _log.error(
            "usage is recorded without a cost as long as the prices cannot be used: %s", shown(str(error))
        )


def build_site(ledger: Ledger, settings: Settings, host: str) -> ASGIApp:
    """All that is served on one port, to callers who are known: MCP, and every other route."""
    server = build_server(ledger, http_caller, timezone=settings.timezone)
    mcp = mcp_app(server)
    api = build_api(ledger, timezone=settings.timezone, secrets=SecretsFile(settings.secrets))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            for app in (mcp, api):
                await stack.enter_async_context(app.router.lifespan_context(app))
            yield

    metrics: Metrics = api.state.metrics
    sessions = Counted(BoundedBodies(OwnedSessions(mcp)), metrics)
    routes = [Route(MCP_PATH, sessions), Route(f"{MCP_PATH}/", sessions), Mount("/", api)]
    owner = process_caller(settings) if _is_ours_alone(settings, host) else None
    app = Starlette(routes=routes, lifespan=lifespan)
    site = Authentication(app, ledger, owner, refused=metrics.refused)
    names = (*LOOPBACK, _place(host), *map(_place, settings.allowed_hosts))
    return KnownHosts(site, names, refused=metrics.refused)


def mcp_app(server: MCPServer[Any], **options: Any) -> Starlette:
    """`server` at `/mcp`. Who asks, and for which host, is looked at before it. `options` are the SDK's."""
    hosts_are_checked = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    app = server.streamable_http_app(
        streamable_http_path=MCP_PATH, transport_security=hosts_are_checked, **options
    )
    (served,) = (route for route in app.routes if isinstance(route, Route) and route.path == MCP_PATH)
    # No redirect: behind a proxy it could lead, key and all, to http instead of https, or to another path.
    app.routes.append(Route(f"{MCP_PATH}/", served.endpoint))
    return app


async def _serve(settings: Settings, host: str, listener: socket.socket, tls: Tls | None) -> None:
    async with open_ledger(settings) as ledger:
        now_us = ledger.now_us()
        has_keys = any(key.is_valid(now_us) for key in await ledger.keys(_SERVER))
        if not has_keys and not is_loopback(host):
            raise _without_keys(host)
        site = Ending(build_site(ledger, settings, host))
        config = uvicorn.Config(
            site,
            http=PunctualProtocol,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=GRACE_S,
            ssl_certfile=None if tls is None else tls.cert,
            ssl_keyfile=None if tls is None else tls.key,
        )
        http = _Server(config)
        async with anyio.create_task_group() as tasks:
            if sys.platform != "win32":
                tasks.start_soon(_stop_on_signal, http, site)
            url = (
                f"{'http' if tls is None else 'https'}://{_place(host)}:{listener.getsockname()[1]}{MCP_PATH}"
            )
            needs_key = await ledger.has_keys() or not _is_ours_alone(settings, host)
            _announce(settings, host, url, needs_key=needs_key)
            await to_thread.run_sync(_warn_of_files, settings)
            collect_seldom(GARBAGE_AFTER_BATCHES)
            await http.serve([listener])
            tasks.cancel_scope.cancel()


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn raises them again at its end, and the ledger would still be open."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


async def _stop_on_signal(server: _Server, site: Ending) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            server.force_exit = server.should_exit
            server.should_exit = True
            site.begin()


def _announce(settings: Settings, host: str, url: str, *, needs_key: bool) -> None:
    owner = "the operator" if settings.agent is None else f"agent {settings.agent!r}"
    if not needs_key:
        who = f"On this machine only, and without keys: every caller is {owner}."
    elif is_loopback(host) or url.startswith("https:"):
        who = "Every caller needs a key."
    else:
        who = (
            "Every caller needs a key, which others on the way can read: use --tls-cert, or a proxy with TLS."
        )
    sys.stderr.write(f"agent-meter serves MCP at {url} from {settings.db}\n{who} Stop with Ctrl-C.\n")
    sys.stderr.flush()


def _place(host: str) -> str:
    """A host as it stands in a URL."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_ours_alone(settings: Settings, host: str) -> bool:
    """Whether nobody but this machine's people can send requests: there is no proxy before it, either."""
    return is_loopback(host) and not settings.allowed_hosts


def _without_keys(host: str) -> Forbidden:
    return Forbidden(
        f"{host} can be reached from other machines, and without a key whoever reaches it would be the "
        "operator. Make one first with `agent-meter keys create`, or listen on 127.0.0.1."
    )


def _check(tls: Tls) -> None:
    """Raises InvalidInput unless the two can serve."""
    for field, path in (("tls_cert", tls.cert), ("tls_key", tls.key)):
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            raise InvalidInput(field, f"{path} cannot be read ({error.strerror})") from error
    try:
        # With a password, so that nobody is asked for one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.cert, tls.key, password="")
    except (OSError, ValueError) as error:
        raise InvalidInput(
            "tls_key", f"{tls.key} is not the key of {tls.cert} in PEM, without a password ({error})"
        ) from error


@contextmanager
def listening_at(host: str, port: int) -> Generator[socket.socket]:
    """A socket that listens. Raises InvalidInput when it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (while attempting")[0]
        if isinstance(error.__context__, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise InvalidInput("host", f"{host} is no address of this machine ({why})") from error
        raise InvalidInput(
            "port", f"{port} on {host} cannot be listened on ({why}): choose another, or 0 for a free one"
        ) from error
    with listener:
        # Connections inherit it. asyncio sets it for sockets of its own making only; without it an answer in
        # two writes waits 40 ms for the client's acknowledgement of the first.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listener
