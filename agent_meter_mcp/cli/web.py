"""`dashboard --web`: the same dashboard in a browser. Each tab is a process of its own.

A web page can make a browser send requests to this machine, so everything is behind a guard: the address
that was printed has a token, which is exchanged for a cookie at once; a request must come with the cookie, be
meant for this server, and come from a page of this server. There is no way around it, for no file and no
socket.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import signal
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click
from aiohttp import web
from textual_serve.app_service import AppService
from textual_serve.server import Server, to_int

from agent_meter_mcp.core.attest import is_same
from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.runtime import collect_seldom

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HOST = "127.0.0.1"
TABS_MAX = 16
CELLS_MAX = 1000
LEAVE_S = 3.0
"""How long a dashboard may take to end by itself, when its tab is closed."""
HEARTBEAT_S = 15.0
TOKEN = "token"
REFUSED = "Open the address that agent-meter printed.\n"
_SAFE = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
# A word in the font makes the page wait for it: the terminal measures its cells when the page has loaded.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>agent-meter</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/static/css/xterm.css">
<style>
@font-face {{ font-family: "Roboto Mono"; src: url("/static/fonts/RobotoMono-VariableFont_wght.ttf"); }}
body {{ margin: 0; overflow: hidden; background: #121212; color: #e0e0e0; }}
body {{ font-family: "Roboto Mono", monospace; }}
.textual-terminal {{ width: 100vw; height: 100vh; }}
.xterm .xterm-viewport {{ scrollbar-width: none; }}
p {{ position: absolute; z-index: 1; padding: 1rem; }}
#ended, body.-first-byte #starting {{ display: none; }}
body.-closed #ended {{ display: block; }}
body.-closed .textual-terminal {{ display: none; }}
a {{ color: inherit; }}
</style>
<script src="/static/js/textual.js"></script>
<script src="/keys.js" defer></script>
</head>
<body>
<p id="starting">Starting…</p>
<p id="ended">The dashboard has ended. <a href="/">Start it again</a></p>
<div id="terminal" class="textual-terminal" data-session-websocket-url="ws://{host}/ws"
 data-font-size="{size}"></div>
</body>
</html>
"""
_KEYS = """// What is typed is for the dashboard, also if nobody has clicked into it yet.
const focus = () => document.querySelector(".xterm-helper-textarea")?.focus();
new MutationObserver(focus).observe(document.body, { attributeFilter: ["class"] });
addEventListener("focus", focus);
"""


class Tab(AppService):
    """The process of one tab."""

    async def end(self) -> None:
        """Asks it to leave; it is not there any more afterwards."""
        running, process = self._task, self._process
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(LEAVE_S):
                await self.stop()
        if running is not None:
            running.cancel()
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


class Guarded(Server):
    """On a socket that listens. `command` is what each tab runs."""

    def __init__(self, command: Sequence[str], listener: socket.socket) -> None:
        self._listener = listener
        port: int = listener.getsockname()[1]
        shell = shlex.join(command)
        super().__init__(  # pyright: ignore[reportUnknownMemberType] - of paths that are not given
            shell if os.name == "nt" else f"exec {shell}", host=HOST, port=port
        )
        self._hosts = {f"{name}:{port}" for name in (HOST, "localhost")}
        self._token = secrets.token_urlsafe(32)
        self._pass = secrets.token_urlsafe(32)
        self._cookie = f"agent-meter-{port}"
        self._tabs: set[Tab] = set()

    @property
    def address(self) -> str:
        """Where whoever may see it can see it."""
        return f"http://{HOST}:{self.port}/?{TOKEN}={self._token}"

    async def run(self, started: Callable[[], None]) -> None:
        """Until SIGINT or SIGTERM. Then all tabs have ended, too."""
        ended = asyncio.Event()
        for number in () if os.name == "nt" else (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        runner = web.AppRunner(await self._make_app(), access_log=None, shutdown_timeout=LEAVE_S)
        await runner.setup()
        try:
            await web.SockSite(runner, self._listener).start()
            started()
            await ended.wait()
        finally:
            await asyncio.gather(*(tab.end() for tab in list(self._tabs)), return_exceptions=True)
            await runner.cleanup()

    async def _make_app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard()])
        app.on_response_prepare.append(_make_safe)
        app.add_routes(
            [
                web.get("/", self.handle_index),
                web.get("/keys.js", _keys),
                web.get("/ws", self.handle_websocket),
                web.get("/download/{key}", self.handle_download),
                web.static("/static", self.statics_path),
            ]
        )
        return app

    # The guard

    def _guard(self) -> Any:
        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            if not self._is_from_here(request):
                return web.Response(status=403, text="This was not sent by a page of this server.\n")
            if request.path == "/" and TOKEN in request.query:
                return self._exchange(request.query[TOKEN])
            if not is_same(self._pass, request.cookies.get(self._cookie, "")):
                return web.Response(status=403, text=REFUSED)
            return await handler(request)

        return guard

    def _is_from_here(self, request: web.Request) -> bool:
        """A page of another site cannot choose these headers. A socket always says which page opened it."""
        hosts, origins = request.headers.getall("Host", []), request.headers.getall("Origin", [])
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return False
        needed = 1 if request.path == "/ws" else 0
        return needed <= len(origins) <= 1 and all(origin == f"http://{hosts[0]}" for origin in origins)

    def _exchange(self, token: str) -> web.Response:
        """A cookie for the token, which is then in the address no more."""
        if not is_same(self._token, token):
            return web.Response(status=403, text=REFUSED)
        answer = web.Response(status=303, headers={"Location": "/"})
        answer.set_cookie(self._cookie, self._pass, path="/", httponly=True, samesite="Strict")
        return answer

    # What is behind it

    async def handle_index(self, request: web.Request) -> web.Response:
        size = min(max(to_int(request.query.get("fontsize", "16"), 16), 6), 64)
        return web.Response(text=_PAGE.format(host=request.host, size=size), content_type="text/html")

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        if len(self._tabs) >= TABS_MAX:
            raise web.HTTPServiceUnavailable(text=f"{TABS_MAX} tabs are open, and there may not be more.\n")
        socket_ = web.WebSocketResponse(heartbeat=HEARTBEAT_S)
        await socket_.prepare(request)
        tab = Tab(
            self.command,
            write_bytes=socket_.send_bytes,
            write_str=socket_.send_str,
            close=_closing(socket_),
            download_manager=self.download_manager,
        )
        self._tabs.add(tab)
        try:
            sides = (to_int(request.query.get(side, ""), 80) for side in ("width", "height"))
            await tab.start(*(min(max(side, 1), CELLS_MAX) for side in sides))
            await self._process_messages(socket_, tab)
        except (ValueError, TypeError, KeyError, IndexError, AssertionError):
            await socket_.close(code=1008)  # no message that a page of ours sends
        finally:
            await tab.end()
            self._tabs.discard(tab)
        return socket_


def serve(command: Sequence[str], port: int) -> None:
    """Serves until it is interrupted. Raises InvalidInput when the port cannot be had."""
    try:
        listener = socket.create_server((HOST, port))
    except (OSError, OverflowError) as error:
        raise InvalidInput(
            "port", f"{port} cannot be listened on ({error}): choose another, or 0 for a free one"
        ) from error
    with listener:
        server = Guarded(command, listener)

        def started() -> None:
            click.echo(f"The dashboard is at {server.address}\nStop with Ctrl-C.")

        collect_seldom()
        with suppress(KeyboardInterrupt):
            asyncio.run(server.run(started))


def child_command(*arguments: str) -> list[str]:
    """What a tab runs: this program again."""
    return [sys.executable, "-m", "agent_meter_mcp", "dashboard", *arguments]


async def _keys(_: web.Request) -> web.Response:
    return web.Response(text=_KEYS, content_type="text/javascript")


async def _make_safe(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_SAFE)


def _closing(socket_: web.WebSocketResponse) -> Callable[[], Awaitable[None]]:
    async def close() -> None:
        await socket_.close()

    return close
