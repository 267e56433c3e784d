"""A request's body: read as a whole, never more of it than is allowed, and given to what comes after."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import Message, Receive

BODY_MAX = 4 * 1024 * 1024
"""Bytes, as sent and unpacked."""
DEADLINE_S = 30.0
"""How long a whole body may take to arrive."""


class TooLarge(Exception):
    """There is more of it than is allowed, which is not read."""


class Gone(Exception):
    """The client has left before its body was complete: nobody is there to be answered."""


async def read_body(receive: Receive, maximum: int) -> bytes:
    """Raises TooLarge, Gone."""
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > maximum:
            raise TooLarge
        if chunk:
            chunks.append(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks)


def replayed(body: bytes, receive: Receive) -> Receive:
    """Gives the body at first, and what happens to the connection afterwards."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
