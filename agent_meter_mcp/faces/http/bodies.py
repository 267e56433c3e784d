"""Bounds what requests may bring: their size, packed and unpacked, their encoding, how long they may take.

A body is read here, as a whole, before anything else looks at it, and never more of it than is allowed. What
comes after gets it unpacked, in one piece. Answers pass untouched. Before a large body is read there must be
room for it beside all others: many of them at once would be more than a machine has, parsed most of all.
"""

from __future__ import annotations

import asyncio
import zlib
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders

from agent_meter_mcp.faces.wire.bodies import BODY_MAX, DEADLINE_S, Gone, TooLarge, read_body, replayed
from agent_meter_mcp.faces.wire.problems import problem

from .room import Room

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

TOGETHER_MAX = 8 * BODY_MAX
"""Bytes of all large bodies at once. Eight full batches are what the ledger takes at once, and some more."""
SMALL = 64 * 1024
"""Not large: the server has as much of every connection in its buffers anyway."""
ROOM_S = DEADLINE_S
"""How long a request waits for room."""
_GZIP = 31
"""What zlib calls a gzip header and checksum, with the largest window."""
_CLOSE = {"Connection": "close"}
"""Where the rest of a body is not read, the connection is of no further use."""


class BoundedBodies:
    """ASGI middleware."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        maximum: int = BODY_MAX,
        deadline_s: float = DEADLINE_S,
        together: int = TOGETHER_MAX,
        room_s: float = ROOM_S,
    ) -> None:
        self._app = app
        self._maximum = maximum
        self._deadline_s = deadline_s
        self._room = Room(together)
        self._room_s = room_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refused = _refused_unread(headers, self._maximum)
        if refused is not None:
            await refused(scope, receive, send)
            return
        needed = _needed(headers, self._maximum)
        if not needed:
            await self._pass_on(scope, headers, await self._taken(headers, receive), receive, send)
            return
        async with AsyncExitStack() as stack:
            try:
                place = await stack.enter_async_context(self._room.held(needed, self._room_s))
            except TimeoutError:
                await _no_room()(scope, receive, send)
                return
            taken = await self._taken(headers, receive)
            # Now it is known how much it is; its answer may be a stream that does not end.
            place.shrink(len(taken) if isinstance(taken, bytes) and len(taken) > SMALL else 0)
            await self._pass_on(scope, headers, taken, receive, send)

    async def _pass_on(
        self, scope: Scope, headers: Headers, taken: bytes | Response | None, receive: Receive, send: Send
    ) -> None:
        if isinstance(taken, bytes):
            unpacked = _as_unpacked(scope, headers, len(taken))
            await self._app(unpacked, replayed(taken, receive), send)
        elif taken is not None:
            await taken(scope, receive, send)

    async def _taken(self, headers: Headers, receive: Receive) -> bytes | Response | None:
        """The body as it was meant, or why it cannot be had; None: nobody is there to be told."""
        try:
            async with asyncio.timeout(self._deadline_s):
                body = await read_body(receive, self._maximum)
        except TimeoutError:
            return _too_slow(self._deadline_s)
        except TooLarge:
            return _too_large(self._maximum)
        except Gone:
            return None
        return _unpacked(headers, body, self._maximum)


def _refused_unread(headers: Headers, maximum: int) -> Response | None:
    """What can be said without reading the body; None: read it."""
    length = headers.get("content-length")
    if length is not None:
        if not (length.isascii() and length.isdigit()):
            return _malformed("Content-Length is not a number")
        if len(length) > 18 or int(length) > maximum:
            return _too_large(maximum)
    if headers.get("content-encoding", "identity").strip().lower() not in ("gzip", "x-gzip", "identity", ""):
        return problem(
            415,
            "Unsupported media type",
            "Content-Encoding: send the body as it is, or packed by gzip once",
            headers={"Accept-Encoding": "gzip", **_CLOSE},
            code="unsupported_encoding",
        )
    charset = _charset(headers.get("content-type", ""))
    if charset not in ("utf-8", "utf8", "us-ascii", ""):
        return _malformed("Content-Type names a character set other than UTF-8: JSON is sent as UTF-8")
    return None


def _needed(headers: Headers, maximum: int) -> int:
    """How much room a body takes, at most. A small one needs none."""
    if "transfer-encoding" in headers or "gzip" in headers.get("content-encoding", "").lower():
        return maximum
    length = int(headers.get("content-length", 0))
    return length if length > SMALL else 0


def _charset(content_type: str) -> str:
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"').lower()
    return ""


def _unpacked(headers: Headers, body: bytes, maximum: int) -> bytes | Response:
    """The body as it was meant, or why it cannot be had."""
    stated = headers.get("content-length")
    if stated is not None and int(stated) != len(body):
        return _malformed(f"Content-Length says {int(stated)} bytes; {len(body)} came")
    if not body or "gzip" not in headers.get("content-encoding", "").lower():
        return body
    unpacking = zlib.decompressobj(_GZIP)
    try:
        unpacked = unpacking.decompress(body, maximum + 1)
    except zlib.error:
        return _malformed("Content-Encoding says gzip, but the body is none")
    if len(unpacked) > maximum:
        return _too_large(maximum)
    if not unpacking.eof or unpacking.unused_data:
        return _malformed(
            "the gzip body is cut off" if not unpacking.eof else "something follows the gzip body"
        )
    return unpacked


def _as_unpacked(scope: Scope, headers: Headers, size: int) -> Scope:
    """The scope of a request with this body. Requests without one stay as they are."""
    if "content-encoding" not in headers:
        return scope
    changed = MutableHeaders(raw=list(headers.raw))
    del changed["content-encoding"]
    changed["content-length"] = str(size)
    return {**scope, "headers": changed.raw}


def _malformed(detail: str) -> Response:
    return problem(400, "Bad request", f"{detail}. Nothing was changed.", headers=_CLOSE, code="malformed")


def _too_large(maximum: int) -> Response:
    detail = f"a body may have {maximum:,} bytes, as sent and unpacked: send fewer records at a time"
    return problem(413, "Content too large", detail, headers=_CLOSE, code="body_too_large", maximum=maximum)


def _too_slow(deadline_s: float) -> Response:
    detail = f"the body did not arrive within {deadline_s:g} seconds. Nothing was changed."
    return problem(408, "Request timeout", detail, headers=_CLOSE, code="body_too_slow")


def _no_room() -> Response:
    detail = "too many large bodies are being read at once. Nothing was changed. Try again in a moment."
    return problem(503, "Overloaded", detail, headers={"Retry-After": "5", **_CLOSE}, code="overloaded")
