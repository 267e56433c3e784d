"""An API with a budget for every agent."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx2
import pytest
from fastapi import BackgroundTasks, FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from agent_meter_mcp import MeterMiddleware
from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.models import LimitKey, Subject
from agent_meter_mcp.faces.errors import QUOTA_EXCEEDED
from agent_meter_mcp.runtime import open_ledger
from agent_meter_mcp.settings import Settings, load_settings

from ..conftest import OPERATOR
from .conftest import Books, Exchange, client_of, living


def api(books: Books, **options: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(MeterMiddleware, service="my-api", meter=books.meter, **options)

    @app.get("/items/{number}")
    async def item(number: int) -> dict[str, int]:
        if number == 13:
            raise LookupError("no thirteen")
        return {"number": number}

    return app


async def test_a_request_is_settled_with_what_it_was(books: Books) -> None:
    async with client_of(api(books)) as client:
        assert (await client.get("/items/7")).json() == {"number": 7}
        assert (await client.get("/nowhere/at/all")).status_code == 404
    found, missing = [stored.event for stored in await books.settled(2)]
    assert (found.who.agent, found.who.service, found.operation) == ("bot", "my-api", "GET /items/{number}")
    assert (found.status_code, found.usage.requests, found.source) == (200, 1, "middleware")
    assert found.duration_ms is not None
    assert (missing.operation, missing.status_code) == ("GET (no route)", 404)
    assert await books.holds() == 0


async def test_the_rogue_is_stopped_and_recovers_and_the_others_never_notice(books: Books) -> None:
    await books.limit(10, "rogue")
    statuses: dict[str, list[int]] = {name: [] for name in ("rogue", "ann", "ben", "cleo")}
    refusals: list[httpx2.Response] = []
    app = api(books)

    async def load(agent: str) -> None:
        async with client_of(app, agent) as client:
            for number in range(20, 45):
                answer = await client.get(f"/items/{number}")
                statuses[agent].append(answer.status_code)
                if answer.status_code == 429:
                    refusals.append(answer)

    async with anyio.create_task_group() as tasks:
        for agent in statuses:
            tasks.start_soon(load, agent)
    assert {agent: statuses[agent].count(200) for agent in statuses} == {
        "rogue": 10,
        "ann": 25,
        "ben": 25,
        "cleo": 25,
    }
    assert [refusal.status_code for refusal in refusals] == [429] * 15
    wait_s = int(refusals[-1].headers["retry-after"])
    assert 59 <= wait_s <= 62
    async with client_of(app, "rogue") as client:
        books.clock.advance(wait_s - 3)
        assert (await client.get("/items/1")).status_code == 429
        books.clock.advance(3)
        assert (await client.get("/items/1")).status_code == 200


async def test_a_refusal_explains_itself_and_says_nothing_of_others(books: Books) -> None:
    await books.limit(1)
    await books.meter.record(service="my-api", agent="bot")
    async with client_of(api(books)) as client:
        refused = await client.get("/items/1")
    assert refused.headers["content-type"] == "application/problem+json"
    problem = refused.json()
    assert problem["type"] == QUOTA_EXCEEDED
    assert (problem["status"], problem["code"]) == (429, "limit")
    (policy,) = problem["violated-policies"]
    assert (policy["metric"], policy["window"], policy["max"], policy["used"]) == ("requests", "60s", 1, 1)
    assert problem["affordable"] == {"requests": 0}
    assert problem["detail"].startswith("Not allowed: 1 of 1 requests used (60s). Try again in ")


@pytest.mark.parametrize(
    ("metric", "maximum", "used", "said"),
    [
        ("tokens", 1_200_000, {"output_tokens": 1_234_567}, "1,234,567 of 1,200,000 tokens used"),
        ("cost_usd", 1_250_000_000, {"cost_usd": 1.5}, "$1.50 of $1.25 used"),
        ("units", 500_000, {"units": 0.500001}, "0.500001 of 0.5 units used"),
    ],
)
async def test_a_refusal_has_all_digits_of_an_amount(
    books: Books, metric: str, maximum: int, used: dict[str, Any], said: str
) -> None:
    await books.limit(maximum, metric=metric)
    await books.meter.record(service="my-api", agent="bot", **used)
    async with client_of(api(books)) as client:
        refused = await client.get("/items/1")
    assert refused.json()["detail"].startswith(f"Not allowed: {said} (60s). ")


async def test_what_never_comes_back_has_no_retry_after(books: Books) -> None:
    await books.limit(1, window="total")
    await books.meter.record(service="my-api", agent="bot")
    async with client_of(api(books)) as client:
        refused = await client.get("/items/1")
    assert refused.status_code == 429
    assert "retry-after" not in refused.headers
    assert refused.json()["detail"].endswith("Waiting alone does not help.")


async def test_a_kill_switch_is_403(books: Books) -> None:
    await books.stop("bot")
    async with client_of(api(books)) as client:
        refused = await client.get("/items/1")
    assert refused.status_code == 403
    assert refused.json()["code"] == "kill_switch"
    assert "it ran wild" in refused.json()["detail"]


async def test_an_exception_is_the_apps_own_and_settled(books: Books) -> None:
    async with client_of(api(books)) as client:
        with pytest.raises(LookupError):
            await client.get("/items/13")
    (stored,) = await books.settled()
    assert stored.event.status_code == 500


async def test_a_stream_passes_through_piece_by_piece(books: Books) -> None:
    app = api(books)
    go_on = asyncio.Event()

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"one"
            await go_on.wait()
            yield b"two"

        return StreamingResponse(pieces())

    exchange = Exchange(path="/stream")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(exchange.run, app)
        await exchange.until_sent(2)
        assert exchange.sent[1]["body"] == b"one"
        assert await books.holds() == 1
        assert await books.events() == []
        go_on.set()
    assert [message.get("body") for message in exchange.sent] == [None, b"one", b"two", b""]
    (stored,) = await books.settled()
    assert (stored.event.status_code, stored.event.operation) == (200, "GET /stream")


async def test_a_background_task_is_not_waited_for(books: Books) -> None:
    app = api(books)
    go_on = asyncio.Event()

    @app.get("/later")
    async def later(tasks: BackgroundTasks) -> str:
        tasks.add_task(go_on.wait)
        return "soon"

    exchange = Exchange(path="/later")
    async with anyio.create_task_group() as running:
        running.start_soon(exchange.run, app)
        await exchange.until_sent(2)
        (stored,) = await books.settled()  # while the task still runs
        assert stored.event.status_code == 200
        go_on.set()


async def test_a_client_that_leaves_is_settled(books: Books) -> None:
    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.disconnect"

    exchange = Exchange()
    exchange.incoming.put_nowait({"type": "http.disconnect"})
    await exchange.run(MeterMiddleware(waits, "my-api", meter=books.meter))
    (stored,) = await books.settled()
    assert stored.event.status_code == 499


async def test_a_request_that_is_cancelled_is_settled(books: Books) -> None:
    async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 206, "headers": []})
        await anyio.sleep_forever()

    exchange = Exchange()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(exchange.run, MeterMiddleware(hangs, "my-api", meter=books.meter))
        await exchange.until_sent(1)
        tasks.cancel_scope.cancel()
    (stored,) = await books.settled()
    assert stored.event.status_code == 206


def socket_api(books: Books) -> FastAPI:
    app = api(books)

    @app.websocket("/ws/{room}")
    async def talk(socket: WebSocket, room: str) -> None:
        await socket.accept()
        await socket.send_text(room)
        await socket.receive_text()
        await socket.close()

    return app


async def test_a_websocket_is_admitted_when_it_connects_and_settled_when_it_closes(books: Books) -> None:
    exchange = Exchange("websocket", "/ws/red")
    exchange.incoming.put_nowait({"type": "websocket.connect"})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(exchange.run, socket_api(books))
        await exchange.until_sent(2)
        assert await books.holds() == 1
        exchange.incoming.put_nowait({"type": "websocket.receive", "text": "bye"})
    assert [message["type"] for message in exchange.sent] == [
        "websocket.accept",
        "websocket.send",
        "websocket.close",
    ]
    (stored,) = await books.settled()
    assert (stored.event.status_code, stored.event.operation) == (101, "WEBSOCKET /ws/{room}")


def echo_api(books: Books) -> FastAPI:
    """As it is usually written: that the client has left is an exception, which nobody catches."""
    app = api(books)

    @app.websocket("/echo")
    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        while True:
            text = await socket.receive_text()
            if text == "13":
                raise LookupError("no thirteen")
            await socket.send_text(text)

    return app


async def opened(app: FastAPI, agent: str = "bot") -> tuple[Exchange, asyncio.Task[None]]:
    exchange = Exchange("websocket", "/echo", agent)
    exchange.incoming.put_nowait({"type": "websocket.connect"})
    running = asyncio.create_task(exchange.run(app))
    await exchange.until_sent(1)
    return exchange, running


async def test_a_websocket_whose_client_leaves_has_not_failed(books: Books) -> None:
    exchange, running = await opened(echo_api(books))
    exchange.incoming.put_nowait({"type": "websocket.disconnect", "code": 1001})
    with pytest.raises(WebSocketDisconnect):
        await running
    (stored,) = await books.settled()
    assert stored.event.status_code == 101


async def test_a_websocket_whose_client_is_found_gone_when_it_is_told_something_has_not_failed(
    books: Books,
) -> None:
    app = echo_api(books)

    async def gone(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_until_gone(message: Any) -> None:
            if message["type"] == "websocket.send":
                raise OSError("the connection is gone")
            await send(message)

        await app(scope, receive, send_until_gone)

    exchange = Exchange("websocket", "/echo")
    exchange.incoming.put_nowait({"type": "websocket.connect"})
    exchange.incoming.put_nowait({"type": "websocket.receive", "text": "anybody?"})
    with pytest.raises(WebSocketDisconnect):
        await exchange.run(gone)
    (stored,) = await books.settled()
    assert stored.event.status_code == 101


async def test_a_websocket_whose_app_raises_has_failed(books: Books) -> None:
    exchange, running = await opened(echo_api(books))
    exchange.incoming.put_nowait({"type": "websocket.receive", "text": "13"})
    with pytest.raises(LookupError):
        await running
    (stored,) = await books.settled()
    assert stored.event.status_code == 500


async def test_hundreds_of_websockets_at_once_are_as_many_as_the_limit_says(books: Books) -> None:
    """A stop that comes while they are open lets nobody in; who is there is settled like any other."""
    await books.limit(200)
    app = echo_api(books)
    exchanges = await asyncio.gather(*(opened(app) for _ in range(300)))
    assert await books.holds() == 200
    await books.stop("bot")
    late, _ = await opened(app)
    assert late.sent[0]["type"] == "websocket.close"
    accepted = [one for one in exchanges if one[0].sent[0]["type"] == "websocket.accept"]
    for exchange, _ in accepted:
        exchange.incoming.put_nowait({"type": "websocket.disconnect", "code": 1001})
    await asyncio.gather(*(running for _, running in accepted), return_exceptions=True)
    stored = await books.settled(200)
    assert {one.event.status_code for one in stored} == {101}
    assert len(stored) == 200
    assert await books.holds() == 0


async def test_a_websocket_over_budget_is_refused_as_the_server_can(books: Books) -> None:
    await books.limit(0)
    app = socket_api(books)
    plain = Exchange("websocket", "/ws/red")
    plain.incoming.put_nowait({"type": "websocket.connect"})
    await plain.run(app)
    assert [(message["type"], message["code"]) for message in plain.sent] == [("websocket.close", 1013)]
    answering = Exchange("websocket", "/ws/red", extensions={"websocket.http.response": {}})
    answering.incoming.put_nowait({"type": "websocket.connect"})
    await answering.run(app)
    assert answering.sent[0]["status"] == 429
    assert b"quota-exceeded" in answering.sent[1]["body"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-agent-id": "*"},
        {"x-agent-id": ""},
        {"x-agent-id": "a" * 129},
        [(b"x-agent-id", b"\xff\x85")],
        [(b"x-agent-id", b"a\x1b[31m")],
        [(b"x-agent-id", "a\u202eb".encode())],
        [(b"x-agent-id", b"one"), (b"x-agent-id", b"two")],
    ],
)
async def test_who_does_not_say_who_it_is_is_metered_refused_or_passed_by(books: Books, headers: Any) -> None:
    for unidentified, status in (("meter", 200), ("refuse", 401), ("pass", 200)):
        async with client_of(api(books, unidentified=unidentified), agent=None) as client:
            answer = await client.get("/items/1", headers=headers)
        assert answer.status_code == status
        if status == 401:
            assert answer.headers["www-authenticate"] == "X-Agent-Id"
            assert "X-Agent-Id" in answer.json()["detail"]
    assert [stored.event.who.agent for stored in await books.settled()] == ["anonymous"]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
async def test_a_name_in_a_header_is_read_as_it_was_sent(books: Books, encoding: str) -> None:
    async with client_of(api(books), agent=None) as client:
        await client.get("/items/1", headers=[(b"x-agent-id", "Zoë".encode(encoding))])
    (stored,) = await books.settled()
    assert stored.event.who.agent == "Zoë"


async def test_a_name_will_do_where_there_is_no_id(books: Books) -> None:
    async with client_of(api(books), agent=None) as client:
        await client.get("/items/1", headers={"x-agent-name": "Ada's bot"})
    (stored,) = await books.settled()
    assert stored.event.who.agent == "Ada's bot"


async def test_the_apps_own_function_says_who_it_is(books: Books, caplog: pytest.LogCaptureFixture) -> None:
    def by_path(scope: Scope) -> str | None:
        return scope["path"].removeprefix("/items/")

    async def by_and_by(scope: Scope) -> str | None:
        await anyio.lowlevel.checkpoint()
        return "later"

    def fails(scope: Scope) -> str | None:
        raise KeyError("user")

    for identify in (by_path, by_and_by, fails):
        async with client_of(api(books, identify=identify), agent="ignored") as client:
            assert (await client.get("/items/5")).status_code == 200
    agents = {stored.event.who.agent for stored in await books.settled(3)}
    assert agents == {"5", "later", "anonymous"}
    assert books.meter.counters["identify_failed"] == 1
    assert "identify failed" in caplog.text


def a_hundredth(scope: Scope, status: int) -> float:
    return status / 100


def nothing(scope: Scope, status: int) -> None:
    return None


def fails(scope: Scope, status: int) -> int:
    raise KeyError("units")


def impossible(scope: Scope, status: int) -> int:
    return -1


@pytest.mark.parametrize(
    ("units", "held", "counted"),
    [
        (2.5, 2_500_000, 2_500_000),
        ({"/items/{number}": 3}, 3_000_000, 3_000_000),
        ({"GET /items/{number}": 4, "/items/{number}": 3}, 4_000_000, 4_000_000),
        ({"/else": 3}, None, None),
        (a_hundredth, None, 2_000_000),
        (nothing, None, None),
        (fails, None, None),
        (impossible, None, None),
    ],
    ids=["fixed", "by route", "by method", "another route", "worked out", "none", "fails", "impossible"],
)
async def test_units_are_fixed_or_by_route_or_worked_out(
    books: Books, units: Any, held: int | None, counted: int | None
) -> None:
    app = api(books, units=units)
    seen: list[int | None] = []

    @app.get("/items/{number}/held")
    async def look(number: int) -> None:
        seen.extend(one.usage.units_micro for one in await books.ledger.reservations(OPERATOR))

    async with client_of(app) as client:
        await client.get("/items/1")
    (stored,) = await books.settled()
    assert stored.event.usage.units_micro == counted
    assert stored.event.usage.requests == 1
    if not isinstance(units, dict):
        async with client_of(app) as client:
            await client.get("/items/1/held")
        assert seen == [held]


async def test_a_limit_of_units_counts_what_is_held(books: Books) -> None:
    await books.limit(5_000_000, metric="units")
    async with client_of(api(books, units=2)) as client:
        assert [(await client.get("/items/1")).status_code for _ in range(3)] == [200, 200, 429]


async def test_head_costs_what_get_costs(books: Books) -> None:
    """It does the same work: who asked for heads only had as many as it liked."""

    async def look(request: Request) -> PlainTextResponse:
        return PlainTextResponse("found")

    units = {"GET /items/{number}": 5, "HEAD /free": 0, "/free": 3}
    routes = [Route("/items/{number}", look), Route("/free", look)]
    app = Starlette(routes=routes)
    app.add_middleware(MeterMiddleware, service="my-api", meter=books.meter, units=units)
    async with client_of(app) as client:
        for path in ("/items/1", "/free"):
            assert (await client.head(path)).status_code == 200
    stored = await books.settled(2)
    assert [one.event.usage.units_micro for one in stored] == [5_000_000, 0]


async def test_a_browser_may_ask_first_where_cors_goes_around_the_meter(books: Books) -> None:
    """As documented: what a browser asks before a request has no headers of the page's."""
    app = api(books, unidentified="refuse")
    app.add_middleware(CORSMiddleware, allow_origins=["http://page"], allow_headers=["X-Agent-Id"])
    page = {"Origin": "http://page"}
    first = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "X-Agent-Id"}
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api", headers=page) as client:
        asked = await client.options("/items/1", headers=first)
        refused = await client.get("/items/1")
        let_in = await client.get("/items/1", headers={"X-Agent-Id": "bot"})
    assert [answer.status_code for answer in (asked, refused, let_in)] == [200, 401, 200]
    assert {answer.headers["access-control-allow-origin"] for answer in (asked, refused, let_in)} == {
        "http://page"
    }
    assert len(await books.settled()) == 1


async def later(scope: Scope, status: int) -> int:
    return status


@pytest.mark.parametrize(
    "wrong",
    [
        {"unidentified": "ignore"},
        {"units": -1},
        {"units": {"/x": "many"}},
        {"units": later},
        {"on_error": "explode", "meter": None},
        {"url": "nowhere", "meter": None},
    ],
)
def test_what_cannot_be_is_found_when_the_app_is_made(wrong: dict[str, Any]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({})

    with pytest.raises(InvalidInput):
        MeterMiddleware(app, "my-api", **wrong)
    with pytest.raises(InvalidInput, match="service"):
        MeterMiddleware(app, "")


# With a file of its own


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("AGENT_METER_DB", str(tmp_path / "own.db"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return load_settings()


def three_lines() -> FastAPI:
    app = FastAPI()

    @app.get("/hello")
    async def hello() -> str:
        return "hello"

    from agent_meter_mcp import MeterMiddleware

    app.add_middleware(MeterMiddleware, service="my-api")
    return app


@asynccontextmanager
async def own(settings: Settings) -> AsyncGenerator[Books]:
    async with open_ledger(settings) as ledger:
        yield Books(ledger, None)  # pyright: ignore[reportArgumentType]  this one has the system's clock


async def test_a_process_that_is_bound_to_an_agent_cannot_meter_for_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It would refuse every request's hold, so nothing would be metered."""
    monkeypatch.setenv("AGENT_METER_AGENT", "bot")
    with pytest.raises(InvalidInput, match="AGENT_METER_AGENT"):
        MeterMiddleware(FastAPI(), "my-api", db=tmp_path / "meter.db")
    MeterMiddleware(FastAPI(), "my-api", url="http://127.0.0.1:1")


async def test_three_lines_stop_a_rogue_within_its_first_window(settings: Settings) -> None:
    async with own(settings) as books:
        await books.ledger.set_limit(OPERATOR, LimitKey(Subject("agent", "rogue"), None, "requests", "2s"), 5)
        app = three_lines()
        others: list[int] = []
        first: list[httpx2.Response] = []

        async def load(agent: str) -> None:
            async with client_of(app, agent) as client:
                others.extend([(await client.get("/hello")).status_code for _ in range(12)])

        async with living(app) as said, client_of(app, "rogue") as rogue:
            async with anyio.create_task_group() as tasks:
                for agent in ("ann", "ben", "cleo"):
                    tasks.start_soon(load, agent)
                first.extend([await rogue.get("/hello") for _ in range(8)])
            assert [answer.status_code for answer in first] == [200] * 5 + [429] * 3
            assert others == [200] * 36
            wait_s = int(first[-1].headers["retry-after"])
            assert 1 <= wait_s <= 3
            with anyio.fail_after(30):
                await anyio.sleep(wait_s)  # what it was told to wait, and no longer
                assert (await rogue.get("/hello")).status_code == 200
        assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert len(await books.events()) == 42


def test_without_a_lifespan_each_event_loop_is_served(settings: Settings) -> None:
    app = three_lines()

    async def request() -> int:
        async with client_of(app) as client:
            return (await client.get("/hello")).status_code

    assert [asyncio.run(request()) for _ in range(3)] == [200, 200, 200]

    async def recorded() -> int:
        async with own(settings) as books:
            return len(await books.settled(3))

    assert asyncio.run(recorded()) == 3


async def test_an_app_without_a_lifespan_of_its_own_has_that_of_the_meter(settings: Settings) -> None:
    async def http_only(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError("only HTTP here")
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    app = MeterMiddleware(http_only, "my-api")
    async with living(app) as said, client_of(app) as client:
        assert (await client.get("/a/17/b")).status_code == 204
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    async with own(settings) as books:
        (stored,) = await books.settled()
    assert stored.event.operation == "GET /a/{}/b"


@pytest.mark.parametrize("with_lifespan", [True, False])
async def test_a_meter_that_fails_breaks_nothing_and_hides_nothing(
    tmp_path: Path, with_lifespan: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for on_error, status in (("allow", 200), ("deny", 503)):
        app = FastAPI()

        @app.get("/hello")
        async def hello() -> str:
            return "hello"

        nowhere = tmp_path / "no" / "such" / "folder" / "x.db"
        metered = MeterMiddleware(app, "my-api", db=nowhere, on_error=on_error)  # pyright: ignore[reportArgumentType]  one of the two
        async with client_of(metered) as client:
            if with_lifespan:
                async with living(metered):
                    answer = await client.get("/hello")
                assert metered.counters["open_failed"] == 1
            else:
                answer = await client.get("/hello")
        assert answer.status_code == status
        if status == 503:
            assert answer.headers["retry-after"] == "1"
            assert metered.counters["denied_without_meter"] == 1
            assert str(tmp_path) not in answer.text
        else:
            assert metered.counters["allowed_without_meter"] == 1
    assert "without the meter" in caplog.text


async def test_a_meter_that_fails_for_long_does_not_fill_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = MeterMiddleware(FastAPI(), "my-api", db=tmp_path / "no" / "such" / "folder" / "x.db")
    began = time.monotonic()
    async with living(app), client_of(app) as client:
        for _ in range(100):
            await client.get("/")
    assert app.counters["allowed_without_meter"] == 100
    assert 1 <= caplog.text.count("without the meter") <= 1 + time.monotonic() - began


async def test_prices_that_cannot_be_read_are_no_way_past_a_limit(books: Books, tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text("[models", encoding="utf-8")
    await books.limit(1)
    async with client_of(api(books)) as client:
        assert [(await client.get("/items/7")).status_code for _ in range(2)] == [200, 429]
        (event,) = await books.settled()
        assert event.event.usage.cost_source == "unpriced"
        await books.stop("bot")
        assert (await client.get("/items/7")).status_code == 403


async def test_a_remote_meter_that_is_down_gets_the_usage_later(settings: Settings, tmp_path: Path) -> None:
    with_remote = MeterMiddleware(three_lines(), "my-api", url="http://127.0.0.1:9", key="am_1")
    async with living(with_remote), client_of(with_remote) as client:
        assert (await client.get("/hello")).status_code == 200
    assert with_remote.counters["allowed_without_meter"] == 1
    assert with_remote.counters["spooled"] == 1
    (spooled,) = (tmp_path / ".agent-meter" / "spool").rglob("*.jsonl")
    assert '"source": "middleware"' in spooled.read_text(encoding="utf-8")
