"""A meter as a process on a loopback port, that can be killed and started again there; and what is none."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import anyio

WAIT_S = 30


class Meter:
    """`agent-meter serve` on the ledger in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.db = str(folder / "meter.db")
        self.url = ""
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """On the port that it had, if it had one."""
        port = self.url.rpartition(":")[2] or "0"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agent_meter_mcp", "serve", "--port", port],
            env={**os.environ, "AGENT_METER_DB": self.db},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        said = self.process.stderr.readline()
        self.url = next(word for word in said.split() if word.startswith("http")).removesuffix("/mcp")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.communicate()


async def until(holds: Callable[[], bool]) -> None:
    """Of what other processes and threads do."""
    with anyio.fail_after(WAIT_S):
        while not holds():  # noqa: ASYNC110 - they set no event here
            await anyio.sleep(0.01)


@contextmanager
def serving(folder: Path) -> Generator[Meter]:
    meter = Meter(folder)
    meter.start()
    try:
        yield meter
    finally:
        meter.kill()


@contextmanager
def answering(answer: bytes | None) -> Generator[tuple[str, list[bytes]]]:
    """The URL of something that says this to whoever connects (None: nothing), and what it was sent."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            open_: list[socket.socket] = []
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:  # that is all
                    break
                open_.append(connection)
                if answer is None:
                    heard.append(b"")
                    continue
                heard.append(connection.recv(65536))
                connection.sendall(answer)
                connection.close()
            for connection in open_:
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", heard
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@asynccontextmanager
async def dripping(answer: bytes) -> AsyncGenerator[str]:
    """The URL of something that begins with this answer, and goes on with a space now and then, for ever.

    Ends when its clients have gone.
    """
    dripped: list[asyncio.Task[None] | None] = []

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dripped.append(asyncio.current_task())
        writer.write(answer)
        with suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(b" ")
                await writer.drain()
                with suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(65536), 0.02)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    await asyncio.gather(*(task for task in dripped if task is not None))


def http(status: int, body: str, *headers: str, kind: str = "application/problem+json") -> bytes:
    head = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "Connection: close", "", body]).encode()
