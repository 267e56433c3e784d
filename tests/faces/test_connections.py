"""Clients on the wire that send the heads of their requests slowly, or without end."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import uvicorn

from agent_meter_mcp.faces.connections import OTHER_FILES, PunctualProtocol
from tests.clients.serving import running_server

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

SECONDS = 20
HEAD_S = 0.3
HEAD = b"POST /v1/check HTTP/1.1\r\nHost: meter\r\n"
WHOLE = HEAD + b"Content-Length: 2\r\n\r\n{}"


class Quick(PunctualProtocol):
    head_s = HEAD_S
    taken_s = HEAD_S


answered = threading.Event()
"""All of a large answer has been taken, or nobody is there to take it."""
LARGE = 20_000_000


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers 204, and reads the body only at /v1/check. What is at /large is."""
    if scope["path"] == "/large":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * LARGE, "more_body": True})
        await send({"type": "http.response.body"})
        answered.set()
        return
    if scope["path"] == "/v1/check":
        while (await receive()).get("more_body"):
            continue
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


@pytest.fixture
def port() -> Generator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, http=Quick, log_config=None, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join(SECONDS)


@contextmanager
def connected(port: int) -> Generator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        yield connection


def heard(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    answer = b""
    with suppress(ConnectionResetError):  # it had been sent more than it read
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


def dripped(connection: socket.socket, said: bytes) -> bytes:
    """Says it byte by byte, as soon as nothing was heard for a while; what is heard in the end."""
    connection.settimeout(HEAD_S / 10)
    for byte in said:
        try:
            connection.sendall(bytes((byte,)))
            first = connection.recv(65536)
        except TimeoutError:
            continue
        except OSError:
            return b""
        connection.settimeout(SECONDS)
        return first + heard(connection)
    raise AssertionError("it was heard out")


def problem_in(answer: bytes) -> dict[str, object]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    assert b"connection: close" in head.lower()
    return json.loads(body)


def test_a_head_that_comes_byte_by_byte_is_cut_off(port: int) -> None:
    with connected(port) as connection:
        began = time.monotonic()
        answer = dripped(connection, HEAD + b"X-Padding: " + b"a" * 2000)
        assert (
            HEAD_S * 0.9 <= time.monotonic() - began < SECONDS
        )  # the server began to count a little earlier
    assert answer.startswith(b"HTTP/1.1 408")
    assert problem_in(answer)["status"] == 408


@pytest.mark.parametrize("said", [b"P", HEAD, HEAD + b"Content-Length: 2"])
def test_a_head_that_stops_is_cut_off(port: int, said: bytes) -> None:
    with connected(port) as connection:
        connection.sendall(said)
        assert heard(connection).startswith(b"HTTP/1.1 408")


def test_who_says_nothing_is_let_go_in_silence(port: int) -> None:
    with connected(port) as connection:
        assert heard(connection) == b""


def test_the_second_head_has_the_same_time(port: int) -> None:
    with connected(port) as connection:
        for _ in range(3):
            connection.sendall(WHOLE)
            assert connection.recv(65536).startswith(b"HTTP/1.1 204")
        assert dripped(connection, HEAD + b"X-Padding: " + b"a" * 2000).startswith(b"HTTP/1.1 408")


def test_two_requests_at_once_are_answered_and_a_third_that_stops_is_not(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(WHOLE + WHOLE + HEAD)
        answer = heard(connection)
    assert (answer.count(b"HTTP/1.1 204"), answer.count(b"HTTP/1.1 408")) == (2, 1)


def test_the_rest_of_a_body_that_nobody_reads_is_not_waited_for(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(b"POST /elsewhere HTTP/1.1\r\nHost: meter\r\nContent-Length: 100000\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 204")
        began = time.monotonic()
        assert dripped(connection, b"a" * 2000) == b""
        assert time.monotonic() - began < SECONDS


def test_a_body_has_its_own_time(port: int) -> None:
    """A request is being answered as soon as its head is there; how long its body may take, the app says."""
    with connected(port) as connection:
        connection.sendall(HEAD + b"Content-Length: 20\r\n\r\n")
        connection.settimeout(HEAD_S / 10)
        for _ in range(20):
            with pytest.raises(TimeoutError):
                connection.recv(1)
            connection.sendall(b"a")
        connection.settimeout(SECONDS)
        assert connection.recv(65536).startswith(b"HTTP/1.1 204")


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (HEAD + b"X: " + b"a" * 100_000, 431),
        (HEAD + b"X: y\r\n" * 20_000, 431),
        (b"GET /" + b"a" * 100_000, 431),
        (b"a" * 100_000, 431),
        (b"\x00\xff\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: rot13\r\n\r\n", 501),
    ],
)
def test_what_is_no_head_is_refused_as_what_it_is(port: int, said: bytes, status: int) -> None:
    with connected(port) as connection:
        with suppress(OSError):
            connection.sendall(said)
        answer = heard(connection)
    if answer:  # what was not read any more may have reset the connection
        assert problem_in(answer)["status"] == status
    with connected(port) as connection:
        connection.sendall(WHOLE)
        assert connection.recv(65536).startswith(b"HTTP/1.1 204")


def test_who_takes_nothing_of_an_answer_is_let_go(port: int) -> None:
    """It would hold all that the answer was made of, as long as it likes."""
    answered.clear()
    with connected(port) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: meter\r\n\r\n")
        assert answered.wait(SECONDS)
        assert len(heard(connection)) < LARGE


def test_who_takes_an_answer_slowly_gets_all_of_it(port: int) -> None:
    answered.clear()
    with connected(port) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: meter\r\nConnection: close\r\n\r\n")
        taken = 0
        while chunk := connection.recv(LARGE // 10, socket.MSG_WAITALL):
            taken += len(chunk)
            answered.wait(HEAD_S / 3)  # not yet: what it waits for is itself
        assert taken > LARGE


def test_many_slow_heads_hold_nobody_up(port: int) -> None:
    slow = [socket.create_connection(("127.0.0.1", port), timeout=SECONDS) for _ in range(200)]
    try:
        for connection in slow:
            connection.sendall(HEAD + b"X: " + b"a" * 15_000)
        with connected(port) as another:
            another.sendall(WHOLE)
            assert another.recv(65536).startswith(b"HTTP/1.1 204")
        assert all(heard(connection).startswith(b"HTTP/1.1 408") for connection in slow)
    finally:
        for connection in slow:
            connection.close()


def answer_to(server_url: str, target: str, host: str) -> tuple[int, bytes]:
    """The status and the body of what is answered to a target of any form."""
    with connected(int(server_url.rpartition(":")[2])) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        head, _, body = heard(connection).partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def test_what_is_asked_for_may_be_a_whole_url(tmp_path: Path) -> None:
    with running_server(tmp_path / "meter.db") as server:
        url = server.url.removesuffix("/mcp")
        for target, host, status in (
            (f"{url}/healthz", "127.0.0.1", 200),
            (f"{url}/v1/agents?tier=a%2Fb", "somewhere.example", 200),  # HTTP: the URL's host counts
            ("http://somewhere.example/healthz", "127.0.0.1", 421),
            (url, "127.0.0.1", 404),
            ("*", "127.0.0.1", 400),
            ("healthz", "127.0.0.1", 400),
            ("http:///healthz", "127.0.0.1", 400),
        ):
            found, body = answer_to(url, target, host)
            assert (found, target) == (status, target)
            assert status == 200 or json.loads(body)["status"] == status


def test_the_server_that_is_started_does_so(tmp_path: Path) -> None:
    with running_server(tmp_path / "meter.db") as server:
        port = int(server.url.rpartition(":")[2])
        with connected(port) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 16_400)
            assert problem_in(heard(connection))["status"] == 431
        with connected(port) as connection:
            host = f"Host: 127.0.0.1:{port}".encode()
            connection.sendall(b"POST /mcp HTTP/1.1\r\n" + host + b"\r\nContent-Length: 99999999\r\n\r\n{")
            assert problem_in(heard(connection))["code"] == "body_too_large"


def test_so_many_connections_are_open_and_no_more(
    port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who is there goes on, who comes is told; and when somebody has left, there is room again."""
    monkeypatch.setattr(Quick, "at_most", 2)
    monkeypatch.setattr(Quick, "head_s", SECONDS)
    with connected(port) as first:
        first.sendall(WHOLE)
        assert b" 204 " in first.recv(1000)
        with connected(port) as second:
            second.sendall(WHOLE)
            assert b" 204 " in second.recv(1000)
            for _ in range(3):
                with connected(port) as third:
                    answer = heard(third)
                    assert answer.startswith(b"HTTP/1.1 503 ")
                    assert b"retry-after: 5" in answer.lower()
                    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "overloaded"
            first.sendall(WHOLE)
            assert b" 204 " in first.recv(1000)
        deadline = time.monotonic() + SECONDS
        while True:
            with connected(port) as again, suppress(OSError):
                again.sendall(WHOLE)
                if b" 204 " in again.recv(1000):
                    break
            assert time.monotonic() < deadline
    assert "2 connections are open, so 1 were turned away" in caplog.text


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_there_are_files_left_for_the_ledger(tmp_path: Path) -> None:
    """A server that may open few files has its connections bounded by that, and answers those that it has."""
    few = OTHER_FILES + 20
    with running_server(tmp_path / "usage.db", files=few) as server, ExitStack() as stack:
        port = int(server.url.rpartition(":")[2])
        held = [stack.enter_context(connected(port)) for _ in range(40)]
        assert b" 503 " in heard(held[-1])
        for connection in held[:5]:
            connection.sendall(b"GET /v1/status HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert b" 200 " in connection.recv(1000)
