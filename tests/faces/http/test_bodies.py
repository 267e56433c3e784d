"""Bodies that are too large, packed, broken, nested, slow: refused with the right status, by a server that
stays up."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import socket
import threading
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import httpx2
import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_meter_mcp.faces.http.bodies import BODY_MAX, SMALL, BoundedBodies
from agent_meter_mcp.faces.http.room import Room

from .conftest import problem_in

if TYPE_CHECKING:
    from typing import TypeAlias

    from starlette.types import Receive, Scope, Send

    Sending: TypeAlias = Callable[..., Coroutine[Any, Any, httpx2.Response]]

JSON = {"content-type": "application/json"}
GZIP = {**JSON, "content-encoding": "gzip"}
STEP = {"agent": "bot", "service": "openai"}
WHOLE = json.dumps(STEP).encode()
NESTED = b"[" * 100_000 + b"]" * 100_000


PLAIN = {"content-type": "text/plain"}
LATIN = {"content-type": "application/json; charset=latin-1"}
BAD: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "cut off": (WHOLE[:-5], JSON, 400, "malformed"),
    "hardly begun": (b"{", JSON, 400, "malformed"),
    "utf-16": (b"\xff\xfe", JSON, 400, "malformed"),
    "latin-1": (b'{"agent": "b\xe4r"}', JSON, 400, "malformed"),
    "nested": (NESTED, JSON, 400, "malformed"),
    "nested and cut off": (b'{"agent":' * 50_000, JSON, 400, "malformed"),
    "a list": (b"[]", JSON, 422, "invalid_input"),
    "null": (b"null", JSON, 422, "invalid_input"),
    "nothing": (b"", JSON, 422, "invalid_input"),
    "a number": (b"7", JSON, 422, "invalid_input"),
    "NaN": (b'{"agent": "bot", "cost_usd": NaN}', JSON, 422, "invalid_input"),
    "infinite": (b'{"agent": "bot", "cost_usd": 1e999}', JSON, 422, "invalid_input"),
    "5000 digits": (b'{"agent": "bot", "requests": ' + b"9" * 5000 + b"}", JSON, 400, "malformed"),
    "300 digits": (b'{"agent": "bot", "requests": ' + b"9" * 300 + b"}", JSON, 422, "invalid_input"),
    "half a character": (b'{"agent": "\\ud800"}', JSON, 422, "invalid_input"),
    "no JSON by its type": (WHOLE, PLAIN, 415, "unsupported_media_type"),
    "another charset": (WHOLE, LATIN, 400, "malformed"),
    "brotli": (WHOLE, {**JSON, "content-encoding": "br"}, 415, "unsupported_encoding"),
    "packed twice": (WHOLE, {**JSON, "content-encoding": "gzip, gzip"}, 415, "unsupported_encoding"),
    "no gzip": (WHOLE, GZIP, 400, "malformed"),
    "gzip cut off": (gzip.compress(WHOLE)[:-6], GZIP, 400, "malformed"),
    "gzip and more": (gzip.compress(WHOLE) + b"more", GZIP, 400, "malformed"),
    "too large unpacked": (gzip.compress(bytes(BODY_MAX + 1)), GZIP, 413, "body_too_large"),
    "a bomb": (gzip.compress(bytes(200 * 1024 * 1024), 1), GZIP, 413, "body_too_large"),
    "too large": (bytes(BODY_MAX + 1), JSON, 413, "body_too_large"),
    "a length in words": (WHOLE, {**JSON, "content-length": "many"}, 400, "malformed"),
    "a length below 0": (WHOLE, {**JSON, "content-length": "-1"}, 400, "malformed"),
    "an endless length": (WHOLE, {**JSON, "content-length": "9" * 30}, 413, "body_too_large"),
    "another length": (WHOLE, {**JSON, "content-length": "3"}, 400, "malformed"),
}


@pytest.mark.parametrize("bad", BAD)
async def test_a_bad_body_is_refused(client: httpx2.AsyncClient, bad: str) -> None:
    body, headers, status, code = BAD[bad]
    problem_in(await client.post("/v1/check", content=body, headers=headers), status, code)
    assert (await client.post("/v1/check", json=STEP)).status_code == 200


@pytest.mark.parametrize("charset", ["", "; charset=utf-8", '; charset="UTF-8"'])
async def test_a_packed_body_is_unpacked(client: httpx2.AsyncClient, charset: str) -> None:
    headers = {"content-type": f"application/json{charset}", "content-encoding": "gzip"}
    answer = await client.post("/v1/check", content=gzip.compress(WHOLE), headers=headers)
    assert answer.json()["allowed"] is True


async def test_a_body_in_pieces_is_bounded_too(client: httpx2.AsyncClient) -> None:
    taken = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield bytes(64 * 1024)

    problem_in(await client.post("/v1/check", content=pieces(), headers=JSON), 413, "body_too_large")
    assert taken <= BODY_MAX // (64 * 1024) + 1


@pytest.mark.parametrize(("depth", "status"), [(30, 200), (200, 422), (900, 422)])
async def test_metadata_that_is_nested_deeply_spoils_no_report(
    client: httpx2.AsyncClient, depth: int, status: int
) -> None:
    held = (await client.post("/v1/reservations", json=STEP)).json()["reservation_id"]
    body = b'{"metadata":' + b'{"\\"[[[[":' * depth + b"1" + b"}" * (depth + 1)
    settled = await client.post(f"/v1/reservations/{held}/settle", content=body, headers=JSON)
    assert settled.status_code == status, settled.text
    assert (await client.get("/v1/usage")).status_code == 200


JSON_TEXT = st.recursive(st.none() | st.text(), st.lists).map(lambda value: json.dumps(value).encode())


@given(st.binary(max_size=200) | JSON_TEXT, st.sampled_from(["gzip", "identity", "deflate", "\xff"]))
@settings(max_examples=50)
def test_no_body_makes_it_fail(body: bytes, encoding: str) -> None:
    seen: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def ask() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=BoundedBodies(app, maximum=150))
        async with httpx2.AsyncClient(transport=transport, base_url="http://meter") as client:
            headers = [(b"content-encoding", encoding.encode("latin-1"))]
            return await client.post("/", content=body, headers=headers)

    answer = anyio.run(ask)
    assert answer.status_code in (204, 400, 413, 415)
    assert (answer.status_code == 204) == bool(seen)


LONG = "y" * 1_000_000
UPSTREAM = {
    "id": "1",
    "timestamp": "2026-01-01T00:00:00Z",
    "serviceId": "openai",
    "agent": {"agentId": "bot"},
    "operation": "chat",
    "units": 1,
    "unitType": "request",
    "pricingModel": "per-call",
    "method": "GET",
    "path": "/",
    "statusCode": 200,
    "durationMs": 1,
}
SPAN = {
    "name": "chat",
    "attributes": [
        {"key": "gen_ai.request.model", "value": {"stringValue": LONG}},
        {"key": "gen_ai.usage.input_tokens", "value": {"stringValue": "many"}},
    ],
}
LARGE: dict[str, tuple[str, object]] = {
    "no record": ("/v1/usage/batch", {"records": [{"id": LONG, "serviceId": 7}]}),
    "a record's metadata": ("/v1/usage/batch", {"records": [{**STEP, "metadata": {"a": LONG}}]}),
    "an upstream record": (
        "/v1/usage/batch",
        {"records": [{**UPSTREAM, "metadata": {"a": LONG}}]},
    ),
    "no session": ("/v1/sessions/batch", {"agentName": "bot", "sessions": [{"cwd": LONG}]}),
    "a span's model": ("/v1/traces", {"resourceSpans": [{"scopeSpans": [{"spans": [SPAN]}]}]}),
    "a reservation's id": ("/v1/reservations", {**STEP, "id": LONG}),
    "a check's agent": ("/v1/check", {**STEP, "agent": LONG}),
}


@pytest.mark.parametrize(("path", "sent"), LARGE.values(), ids=LARGE)
async def test_what_is_refused_is_not_kept(client: httpx2.AsyncClient, path: str, sent: object) -> None:
    """Nor until somebody looks for garbage: that much of each request would have been half a gigabyte."""
    body = json.dumps(sent).encode()
    first = await client.post(path, content=body, headers=JSON)
    assert first.status_code in (200, 422), first.text
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(4):
            await client.post(path, content=body, headers=JSON)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert kept < 2 * len(body)


class Served:
    """The application of a server in a thread, on a free loopback port. It answers 204."""

    def __init__(self, deadline_s: float) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})

        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        bounded = BoundedBodies(app, deadline_s=deadline_s)
        self.server = uvicorn.Server(uvicorn.Config(bounded, log_config=None, lifespan="off"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})

    def talk(self, *said: bytes, finish: bool = False) -> bytes:
        """Says this on a new connection, and what comes back until the server closes it."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            for part in said:
                connection.sendall(part)
            if finish:
                connection.shutdown(socket.SHUT_WR)
            heard = b""
            with suppress(ConnectionResetError):  # it had more to say than was read
                while chunk := connection.recv(65536):
                    heard += chunk
            return heard


@contextmanager
def served(deadline_s: float) -> Generator[Served]:
    site = Served(deadline_s)
    site.thread.start()
    try:
        yield site
    finally:
        site.server.should_exit = True
        site.thread.join(20)
        site.listener.close()


HEAD = b"POST /v1/check HTTP/1.1\r\nHost: meter\r\nContent-Type: application/json\r\n"
BYE = b"Connection: close\r\n"


NUMBERS = [1] * 100_000
UNKNOWN = dict.fromkeys(map(str, range(100_000)), 1)
ALL_WRONG: dict[str, tuple[str, str, object]] = {
    "arguments": ("POST", "/v1/check", UNKNOWN),
    "a list": ("PUT", "/v1/limits", {"max": 1, "thresholds": ["x"] * 100_000}),
    "a session": (
        "POST",
        "/v1/sessions/batch",
        {"agentName": "bot", "sessions": [{"id": "1", "ts": "now", "api": "openai", "intent": NUMBERS}]},
    ),
    "ids": ("POST", "/v1/attestations", {"service": "openai", "ids": NUMBERS}),
    "resources": ("POST", "/v1/logs", {"resourceLogs": NUMBERS}),
    "scopes": ("POST", "/v1/traces", {"resourceSpans": [{"scopeSpans": NUMBERS}]}),
    "attributes": ("POST", "/v1/logs", {"resourceLogs": [{"resource": {"attributes": NUMBERS}}]}),
}


@pytest.mark.parametrize(("method", "path", "sent"), ALL_WRONG.values(), ids=ALL_WRONG)
async def test_where_all_is_wrong_a_few_mistakes_are_told(
    client: httpx2.AsyncClient, method: str, path: str, sent: object
) -> None:
    """Each takes a kilobyte: one body of 4 MiB took two gigabytes, and twelve seconds of everybody's time."""
    body = json.dumps(sent).encode()
    tracemalloc.start()
    try:
        answer = await client.request(method, path, content=body, headers=JSON)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.status_code in (200, 422), answer.text
    assert most < 30_000_000


def test_on_the_wire_slow_and_lying_clients_are_let_go() -> None:
    with served(deadline_s=0.3) as site:
        slow = site.talk(HEAD + b"Content-Length: 10\r\n\r\n", b"{")
        assert slow.startswith(b"HTTP/1.1 408") and b"body_too_slow" in slow
        chunked = site.talk(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n{\r\n")
        assert chunked.startswith(b"HTTP/1.1 408")
        large = site.talk(HEAD + b"Content-Length: 99999999\r\n\r\n")
        assert large.startswith(b"HTTP/1.1 413") and b"connection: close" in large.lower()
        assert site.talk(HEAD + b"Content-Length: 10\r\n\r\n", b"{", finish=True) == b""
        assert b"204" not in site.talk(HEAD + b"X: " + b"a" * 200_000 + b"\r\n\r\n")
        assert site.talk(b"\x00\xff\r\n\r\n").startswith(b"HTTP/1.1 400")
        right = site.talk(HEAD + BYE + b"Content-Length: 2\r\n\r\n", b"{}")
        assert right.startswith(b"HTTP/1.1 204")


BIG = 2 * SMALL


@asynccontextmanager
async def bounded(together: int, room_s: float = 20) -> AsyncGenerator[tuple[Sending, list[int]]]:
    """Sends a body of that size and with these headers; and how many bytes of them are in the app."""
    inside: list[int] = []
    ended = anyio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        size = len((await receive())["body"])
        inside.append(size)
        await ended.wait()
        inside.remove(size)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    transport = httpx2.ASGITransport(app=BoundedBodies(app, together=together, room_s=room_s))
    async with httpx2.AsyncClient(transport=transport, base_url="http://meter") as client:

        async def sent(body: bytes | AsyncGenerator[bytes], **headers: str) -> httpx2.Response:
            return await client.post("/", content=body, headers=headers)

        try:
            yield sent, inside
        finally:
            ended.set()


async def until(happened: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not happened():
            await anyio.lowlevel.checkpoint()


async def test_large_bodies_wait_for_room_and_small_ones_do_not() -> None:
    async with anyio.create_task_group() as tasks:
        async with bounded(3 * BIG) as (sent, inside):
            for _ in range(10):
                tasks.start_soon(sent, b"x" * BIG)
            await until(lambda: len(inside) == 3)
            for _ in range(10):
                tasks.start_soon(sent, b"x" * SMALL)
            await until(lambda: len(inside) == 13)
            assert inside.count(BIG) == 3
        await until(lambda: not inside)  # and all of them have been let in


async def test_who_waits_too_long_for_room_is_told_when_to_come_again() -> None:
    async with anyio.create_task_group() as tasks:
        async with bounded(BIG, room_s=0.05) as (sent, inside):
            tasks.start_soon(sent, b"x" * BIG)
            await until(lambda: len(inside) == 1)
            answer = await sent(b"x" * BIG)
            assert problem_in(answer, 503, "overloaded")
            assert answer.headers["retry-after"] == "5"


@pytest.mark.parametrize("headers", [{"content-encoding": "gzip"}, {}], ids=["packed", "in pieces"])
async def test_a_body_of_unknown_size_needs_all_room_until_it_is_known(headers: dict[str, str]) -> None:
    has_begun, may_end = anyio.Event(), anyio.Event()

    async def slowly() -> AsyncGenerator[bytes]:
        has_begun.set()
        body = gzip.compress(b"{}") if headers else b"{}"
        yield body[:1]
        await may_end.wait()
        yield body[1:]

    async with anyio.create_task_group() as tasks:
        async with bounded(BODY_MAX, room_s=0.05) as (sent, inside):
            tasks.start_soon(lambda: sent(slowly(), **headers))
            await has_begun.wait()
            assert (await sent(b"x" * BIG)).status_code == 503
            may_end.set()
            await until(lambda: inside == [2])  # whose answer may take for ever
            tasks.start_soon(sent, b"x" * BIG)
            await until(lambda: inside == [2, BIG])


async def test_who_gives_up_while_waiting_for_room_stands_in_nobodys_way() -> None:
    room = Room(10)
    let_in: list[int] = []

    async def come(size: int) -> None:
        async with room.held(size, 20):
            let_in.append(size)

    async with room.held(5, 20), anyio.create_task_group() as tasks:
        large = asyncio.create_task(come(10))
        await anyio.lowlevel.checkpoint()
        tasks.start_soon(come, 5)
        await anyio.lowlevel.checkpoint()
        assert let_in == []
        large.cancel()
        await until(lambda: let_in == [5])
    async with room.held(10, 1):
        pass


@pytest.mark.parametrize("is_let_in", [True, False], ids=["let in", "before it has heard of either"])
async def test_who_gives_up_in_the_moment_in_which_room_is_given_back_takes_none(is_let_in: bool) -> None:
    room = Room(10)

    async def come() -> None:
        async with room.held(10, 20):
            pytest.fail("it had given up")

    async with room.held(10, 20):
        coming = asyncio.create_task(come())
        await anyio.lowlevel.checkpoint()
        if not is_let_in:
            coming.cancel()
    if is_let_in:
        coming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await coming
    async with room.held(10, 1):
        pass
