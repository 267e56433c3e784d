"""A server that is told to stop: nobody waits for those who listen, nobody is cut off, and its log is no
place for tracebacks of what was under way."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from anyio import to_thread
from mcp import Client
from mcp.client.subscriptions import SubscriptionLost

from .test_serve import SECONDS, called, serving

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals end a process there without a word")


def stopped(process: subprocess.Popen[str]) -> str:
    """What it said since it began to serve, once it has ended."""
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    said = process.stderr.read()  # to its end; `communicate` would miss what is in its buffer
    assert process.wait(SECONDS) == 0
    return said.partition("Stop with Ctrl-C.\n")[2]


def test_who_listens_is_told_that_it_is_over_and_nobody_waits_for_them(tmp_path: Path) -> None:
    with serving(tmp_path) as (url, process):
        stream = url.replace("/mcp", "/v1/stream")
        with httpx2.stream("GET", stream, timeout=SECONDS) as one, httpx2.stream("GET", stream) as other:
            lines = one.iter_lines()
            assert next(lines).startswith("retry: ")
            said = stopped(process)
            assert [line for line in lines if line][1:] == []
            assert next(other.iter_lines()).startswith("retry: ")
    assert said == ""  # no word of requests that had to be cancelled


async def test_an_mcp_client_with_a_session_leaves_no_traceback(tmp_path: Path) -> None:
    with serving(tmp_path) as (url, process):
        async with Client(url, mode="legacy") as client:
            await called(client, "record_usage", service="openai")
            assert await to_thread.run_sync(stopped, process) == ""


async def test_an_mcp_client_that_listens_by_a_request_is_told_that_it_is_over(tmp_path: Path) -> None:
    with serving(tmp_path) as (url, process):
        async with Client(url) as client, client.listen(resource_subscriptions=["meter://alerts"]) as events:
            assert await to_thread.run_sync(stopped, process) == ""
            with pytest.raises(SubscriptionLost):
                await anext(events)


def test_a_request_that_does_not_come_to_its_end_is_told_to_come_again(tmp_path: Path) -> None:
    with serving(tmp_path) as (url, process):
        place = urlsplit(url)
        assert place.hostname is not None
        with socket.create_connection((place.hostname, place.port or 0), SECONDS) as slow:
            head = f"POST /v1/usage/batch HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: 99\r\n"
            slow.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
            assert slow.recv(1024).startswith(b"HTTP/1.1 100 ")  # so its body is waited for
            said = stopped(process)
            answer = b"".join(iter(lambda: slow.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in answer
    assert b'"code": "stopping"' in answer
    assert said == "ERROR: Cancel 1 running task(s), timeout graceful shutdown exceeded\n"
