"""What requests are called: few names, whatever is asked for."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from agent_meter_mcp.faces.middleware.operations import NAMES_MAX, Operations, collapsed


async def page(request: Request) -> Response:
    return PlainTextResponse("page")


async def talk(socket: WebSocket) -> None:
    await socket.accept()


def starlette_app() -> Starlette:
    return Starlette(
        routes=[
            Route("/", page),
            Route("/users/me", page),
            Route("/users/{id:int}", page),
            Route("/files/{path:path}", page),
            WebSocketRoute("/ws/{room}", talk),
            Mount("/admin", routes=[Route("/logs/{day}", page), Mount("/deep", routes=[Route("/x", page)])]),
            Mount("/static", app=page_app),
            Host("api.test", app=Starlette(routes=[Route("/hosted/{x}", page)])),
        ]
    )


async def page_app(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("page")(scope, receive, send)


def echo(x: str) -> str:
    return x


def fastapi_app() -> FastAPI:
    app = FastAPI()
    inner = APIRouter(prefix="/inner")
    inner.add_api_route("/{x}", echo)
    outer = APIRouter()
    outer.include_router(inner, prefix="/outer")
    app.include_router(outer, prefix="/v2")
    app.add_api_route("/direct/{x}", echo)
    app.mount("/sub", starlette_app())
    return app


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/", "/"),
        ("/users/me", "/users/me"),
        ("/users/17", "/users/{id}"),
        ("/files/a/b/c.txt", "/files/{path}"),
        ("/ws/red", "/ws/{room}"),
        ("/admin/logs/monday", "/admin/logs/{day}"),
        ("/admin/deep/x", "/admin/deep/x"),
        ("/admin/other", "/admin/*"),
        ("/static/site.css", "/static/*"),
        ("/hosted/1", "/hosted/{x}"),
        ("/nothing", "(no route)"),
    ],
)
def test_starlette_shows_its_routes(path: str, template: str) -> None:
    assert Operations().template({"app": starlette_app(), "path": path}) == template


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/v2/outer/inner/5", "/v2/outer/inner/{x}"),
        ("/direct/5", "/direct/{x}"),
        ("/sub/users/5", "/sub/users/{id}"),
        ("/docs", "/docs"),
        ("/nothing", "(no route)"),
    ],
)
def test_fastapi_shows_its_routes_and_those_that_it_included(path: str, template: str) -> None:
    assert Operations().template({"app": fastapi_app(), "path": path}) == template


def test_a_route_that_is_added_later_is_found() -> None:
    app, operations = starlette_app(), Operations()
    assert operations.template({"app": app, "path": "/new/1"}) == "(no route)"
    app.router.routes.append(Route("/new/{id}", page))
    assert operations.template({"app": app, "path": "/new/1"}) == "/new/{id}"


def test_the_path_is_below_the_root_of_the_app() -> None:
    scope = {"app": starlette_app(), "path": "/proxied/users/17", "root_path": "/proxied"}
    assert Operations().template(scope) == "/users/{id}"


def test_a_framework_may_tell_the_template_itself() -> None:
    assert Operations().template({"path_template": "/a/{b}", "path": "/a/1"}) == "/a/{b}"
    assert Operations().template({"route": Route("/r/{x}", page), "path": "/r/1"}) == "/r/{x}"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/api/v1/users/1234", "/api/v1/users/{}"),
        ("/users/0af76519-16cd-43dd-8448-eb211c80319c/posts", "/users/{}/posts"),
        ("/a%0Ab/\x1b[31m", "/{}/{}"),
        ("/", "/"),
        ("", "/"),
        ("/a/b/c/d/e/f/g/h/i/j", "/a/b/c/d/e/f/g/h/..."),
        ("/" + "x" * 41, "/{}"),
    ],
)
def test_elsewhere_what_looks_like_an_id_is_left_out(path: str, name: str) -> None:
    assert collapsed(path) == name


def test_the_names_are_bounded_and_printable() -> None:
    operations = Operations()
    names = {operations.name({"method": "GET"}, f"/{number}") for number in range(NAMES_MAX + 50)}
    assert len(names) == NAMES_MAX + 1
    assert "(other)" in names
    assert Operations().name({"method": "BREW\n"}, "/\x00") == "(other) /\\x00"
    assert len(Operations().name({"method": "GET"}, "/" * 900)) == 256
