"""The way to a meter elsewhere: its routes, its tools (MCP over streamable HTTP) and its stream.

Whatever goes wrong on it is a MeterError with one sentence. While the meter has said that it does not want to
be asked, nobody asks it: `Link` answers with the same error.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx2
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream, to_thread
from mcp import Client, MCPError
from mcp.client.caching import CacheConfig, InMemoryResponseCacheStore
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, Implementation, TextContent

import agent_meter_mcp
from agent_meter_mcp.client.errors import error_of
from agent_meter_mcp.client.results import members_of
from agent_meter_mcp.core.errors import InvalidInput, MeterError, Unauthorized, Unreachable
from agent_meter_mcp.core.keys import can_be_sent
from agent_meter_mcp.core.text import shown
from agent_meter_mcp.faces.errors import META

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator

PROTOCOL = "2026-07-28"
"""It has neither a handshake nor sessions: a meter that was started again needs no new connection."""
TIMEOUT_S = 10.0
ANSWER_S = 30.0
"""How long an answer may take as a whole: between any two bytes of it `TIMEOUT_S` may pass."""
SILENCE_S = 40.0
"""A stream on which nothing is heard for so long is dead: the meter says every 15 s that it is there."""
CLOSING_S = 1.0
REFUSED_S = 30.0
"""How long a meter that does not take the key is left in peace."""
REST_S_MAX = 60.0
WHY_WIDTH = 200
LOST = (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError, UnicodeError)
"""What a request raises when it cannot be sent, or its answer cannot be read. What the other end wants sent
back to it (a cookie) may be nothing that can be."""
BROKE_OFF = (BrokenResourceError, ClosedResourceError, EndOfStream)
"""What the SDK's own streams say of a connection that ends while it is about to end itself."""
CHANGED_NOTHING = " Nothing was changed."
"""What a meter adds to a refusal says nothing to whoever only looks."""


class Key(httpx2.Auth):
    """A key that nothing prints: no title, no error, no traceback with its local variables."""

    def __init__(self, text: str) -> None:
        """Raises InvalidInput, without saying what it is."""
        if not can_be_sent(text):
            raise InvalidInput("key", "is no key: it has characters that no key has")
        self._header = f"Bearer {text}"

    def __repr__(self) -> str:
        return "Key(...)"

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        request.headers["Authorization"] = self._header
        yield request


class Link:
    """To the meter at `url`. It belongs to the event loop that first uses it."""

    def __init__(self, url: str, key: Key | None = None) -> None:
        """Raises InvalidInput."""
        self.url = _base_of(url)
        self._key = key
        self._http: httpx2.AsyncClient | None = None
        self._opening = asyncio.Lock()
        self._schemas = CacheConfig(InMemoryResponseCacheStore(), "dashboard", self.url)
        self._rests_until_s = 0.0
        self._rests_for: MeterError | None = None

    async def close(self) -> None:
        """Within a moment, also when nobody answers any more."""
        http, self._http = self._http, None
        if http is not None:
            try:
                async with asyncio.timeout(CLOSING_S):
                    await http.aclose()
            except (TimeoutError, OSError, httpx2.HTTPError):
                return

    def rest(self, error: MeterError, seconds: float) -> None:
        """For so long, nothing is asked: the answer is `error`."""
        self._rests_for, self._rests_until_s = error, time.monotonic() + min(seconds, REST_S_MAX)

    async def _ready(self) -> httpx2.AsyncClient:
        if self._rests_for is not None:
            if time.monotonic() < self._rests_until_s:
                raise self._rests_for
            self._rests_for = None
        async with self._opening:
            if self._http is None:
                self._http = await to_thread.run_sync(self._new_client)
        return self._http

    def _new_client(self) -> httpx2.AsyncClient:
        """In a thread: it reads certificates."""
        return httpx2.AsyncClient(base_url=self.url, auth=self._key, timeout=TIMEOUT_S)

    # Routes

    async def get(self, path: str, **query: str | int) -> dict[str, Any]:
        """The JSON object that a route answers with. Asked twice where a connection broke that was kept open.

        Raises MeterError.
        """
        http = await self._ready()
        try:
            async with asyncio.timeout(ANSWER_S):
                try:
                    response = await http.get(path, params=query)
                except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError):
                    response = await http.get(path, params=query)
        except LOST as error:
            raise self._lost(error) from error
        document = _document(response.content)
        if response.status_code != 200:
            raise self._refused(response, document)
        if document is None:
            raise self._no_meter()
        return document

    def _refused(self, response: httpx2.Response, document: dict[str, Any] | None) -> MeterError:
        """What the meter, or who stands before it, says; for some of it, it is left in peace."""
        status = response.status_code
        if status == 404 and (document is None or document.get("code") is None):
            return self._no_meter()
        said = document or {}
        if isinstance(said.get("detail"), str):
            said = {**said, "detail": said["detail"].removesuffix(CHANGED_NOTHING)}
        error = error_of(status, said)
        if status == 401 and not isinstance(error, Unauthorized):
            error = Unauthorized(f"{self.url} wants a key (HTTP 401).")
        if 300 <= status < 400:
            error = Unreachable(f"{self.url} sends elsewhere (HTTP {status}): name that place itself.")
        wait_s = _seconds(response.headers.get("retry-after"))
        if status == 401:
            self.rest(error, REFUSED_S)
        elif wait_s:
            if status == 429:
                error = Unreachable(
                    f"{self.url} wants to be asked again in {wait_s:.0f} s, not before: {error}"
                )
            self.rest(error, wait_s)
        return error

    def _no_meter(self) -> Unreachable:
        return Unreachable(
            f"{self.url} does not answer like a meter, or like one that is older than this dashboard. Is it"
            " the address of agent-meter serve? Then upgrade it."
        )

    @contextmanager
    def reading(self) -> Generator[None]:
        """In it, an answer is read. Raises Unreachable where that is not what it should be."""
        try:
            yield
        except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise self._misread(error) from error

    def _misread(self, error: Exception) -> Unreachable:
        why = shown(f"{type(error).__name__} {error}", width=WHY_WIDTH)
        return Unreachable(
            f"{self.url} answers in words that this dashboard does not know ({why}): it is of another"
            " version."
        )

    def _lost(self, error: BaseException) -> Unreachable:
        return Unreachable(f"the meter at {self.url} cannot be reached: {_why(error)}")

    # Tools

    async def call(self, *calls: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
        """What these tools answer, asked together. Raises MeterError."""
        http = await self._ready()
        transport = streamable_http_client(f"{self.url}/mcp", http_client=http, max_sse_event_size=None)
        client = Client(
            transport,
            mode=PROTOCOL,
            client_info=Implementation(name="dashboard", version=agent_meter_mcp.__version__),
            cache=self._schemas,
            read_timeout_seconds=TIMEOUT_S,
        )
        try:
            async with client:
                results = await asyncio.gather(*(client.call_tool(name, given) for name, given in calls))
        except Exception as error:
            raise await self._failed(error) from error
        return [_told(name, result) for (name, _), result in zip(calls, results, strict=True)]

    async def _failed(self, error: Exception) -> MeterError:
        """The SDK tells little of why: a plain request tells more."""
        causes = list(_causes(error))
        for cause in causes:
            if isinstance(cause, LOST):
                return self._lost(cause)
        broke_off = next((cause for cause in causes if isinstance(cause, BROKE_OFF)), None)
        if broke_off is None and not any(isinstance(cause, MCPError) for cause in causes):
            raise error
        try:
            await self.get("/v1/status")
        except MeterError as told:
            return told
        return self._misread(error) if broke_off is None else self._lost(broke_off)

    # The stream

    async def listen(self, last: str | None, heard: Callable[[str], None]) -> None:
        """Calls `heard` with the id of each message, "" at first, until the stream ends.

        Raises MeterError.
        """
        http = await self._ready()
        headers = {b"Last-Event-ID": last.encode()} if last else {}
        timeout = httpx2.Timeout(TIMEOUT_S, read=SILENCE_S)
        try:
            async with http.sse("/v1/stream", headers=headers, timeout=timeout) as source:
                if source.response.status_code != 200:
                    body = await source.response.aread()
                    raise self._refused(source.response, _document(body))
                heard("")
                async for message in source:
                    heard(message.id)
        except LOST as error:
            raise self._lost(error) from error


@asynccontextmanager
async def together() -> AsyncGenerator[asyncio.TaskGroup]:
    """Tasks that are waited for. When one fails the others end, and its error alone is raised."""
    try:
        async with asyncio.TaskGroup() as tasks:
            yield tasks
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


def _base_of(url: str) -> str:
    """A URL without what follows the meter's place. Raises InvalidInput, which does not repeat it."""
    try:
        httpx2.URL(url.strip())  # which refuses more, and would do so as something is asked
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except (ValueError, httpx2.InvalidURL) as error:
        raise InvalidInput("url", f"is no URL: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise InvalidInput("url", "must be the URL of a meter, such as http://127.0.0.1:8787")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise InvalidInput(
            "url", "must be an address alone; a key belongs into AGENT_METER_KEY, or a file for --key-file"
        )
    place = f"[{host}]" if ":" in host else host
    path = parts.path.rstrip("/").removesuffix("/mcp")
    return f"{parts.scheme}://{place}{'' if port is None else f':{port}'}{path}"


def _told(name: str, result: object) -> dict[str, Any]:
    """Raises MeterError for what the tool calls an error, and when it says nothing."""
    if isinstance(result, CallToolResult):
        if result.structured_content is not None and not result.is_error:
            return result.structured_content
        said = " ".join(block.text for block in result.content if isinstance(block, TextContent))
        text = said.removeprefix("Error executing tool ").removeprefix(f"{name}: ")
        if result.is_error and text:
            raise error_of(200, {**members_of((result.meta or {}).get(META)), "detail": text})
    raise Unreachable(f"the tool {name} gave no answer")


def _document(content: bytes) -> dict[str, Any] | None:
    """A JSON object; None for anything else."""
    try:
        document: Any = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None  # pyright: ignore[reportUnknownVariableType] - of JSON


def _seconds(retry_after: str | None) -> float:
    return float(retry_after) if retry_after and retry_after.isascii() and retry_after.isdigit() else 0.0


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what it came from, the nearest first."""
    while error is not None:
        yield error
        for inner in getattr(error, "exceptions", ()):  # of a group
            yield from _causes(inner)
        error = error.__cause__ or error.__context__


def _why(error: BaseException) -> str:
    """What broke, in words for a person."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            return "its name is not known (DNS)."
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = shown(cause.verify_message, width=WHY_WIDTH)
            return f"its certificate is not to be trusted ({why}). For your own authority set SSL_CERT_FILE."
        if isinstance(cause, ssl.SSLError):
            return "it does not speak TLS as it should. Is it http, not https?"
        if isinstance(cause, ConnectionRefusedError):
            return "nothing listens there. Is it running?"
    if any(isinstance(cause, httpx2.TimeoutException | TimeoutError) for cause in causes):
        return "it does not answer in time."
    if isinstance(error, BROKE_OFF):
        return "it broke off."
    if isinstance(error, httpx2.RemoteProtocolError | httpx2.ReadError):
        return "it broke off, or it speaks TLS: is it https, not http?"
    return f"{shown(str(error) or type(error).__name__, width=WHY_WIDTH)}."
