"""The apps: `python -m tests.frameworks.apps NAME` serves one on a free loopback port and prints its URL.

The frameworks are imported by name, because where types are checked they are not installed.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncGenerator
from importlib import import_module
from typing import Any

import uvicorn

from agent_meter_mcp import MeterMiddleware, meter_tools

DB = os.environ.get("AGENT_METER_DB")
TOKENS = {"token-of-ann": {"client_id": "ann", "scopes": list[str]()}}


async def pieces(go_on: asyncio.Event) -> AsyncGenerator[bytes]:
    """The second one comes when somebody has asked for it."""
    yield b"one"
    await go_on.wait()
    yield b"two"


def litestar() -> Any:
    """In its stack of middleware: it has found the route by then."""
    framework, responses = import_module("litestar"), import_module("litestar.response")
    define = import_module("litestar.middleware").DefineMiddleware
    go_on = asyncio.Event()

    @framework.get("/items/{number:int}")
    async def item(number: int) -> dict[str, int]:
        return {"number": number}

    @framework.get("/stream")
    async def stream() -> Any:
        return responses.Stream(pieces(go_on))

    @framework.get("/go")
    async def go() -> None:
        go_on.set()

    metered = define(MeterMiddleware, service="my-api", db=DB)
    return framework.Litestar([item, stream, go], middleware=[metered], logging_config=None)


def django() -> Any:
    """Around the whole app. It knows no lifespan: the middleware has it to itself."""
    http, urls = import_module("django.http"), import_module("django.urls")
    settings = import_module("django.conf").settings
    go_on = asyncio.Event()

    async def item(request: Any, number: int) -> Any:
        return http.JsonResponse({"number": number})

    async def stream(request: Any) -> Any:
        return http.StreamingHttpResponse(pieces(go_on))

    async def go(request: Any) -> Any:
        go_on.set()
        return http.HttpResponse()

    routes = [
        urls.path("items/<int:number>", item),
        urls.path("stream", stream),
        urls.path("go", go),
    ]
    settings.configure(ROOT_URLCONF=tuple(routes), ALLOWED_HOSTS=["127.0.0.1"], SECRET_KEY="of a test")
    import_module("django").setup()
    app = import_module("django.core.asgi").get_asgi_application()
    return MeterMiddleware(app, service="my-api", db=DB)


def fastmcp(**options: Any) -> Any:
    server = import_module("fastmcp").FastMCP("maps", middleware=[meter_tools("maps", db=DB)], **options)
    error = import_module("fastmcp.exceptions").ToolError

    @server.tool
    def route(start: str) -> dict[str, str]:
        return {"start": start}

    @server.tool
    def fail() -> str:
        raise error("no road")

    @server.resource("map://all")
    def everything() -> str:
        return "a map"

    return server.http_app()


def fastmcp_with_tokens() -> Any:
    verifier = import_module("fastmcp.server.auth").StaticTokenVerifier
    return fastmcp(auth=verifier(TOKENS))


APPS = {app.__name__: app for app in (litestar, django, fastmcp, fastmcp_with_tokens)}


def main(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = APPS[name]()
        sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1)
        asyncio.run(uvicorn.Server(config).serve([listener]))


if __name__ == "__main__":
    main(sys.argv[1])
