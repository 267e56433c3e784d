"""How requests end when the server has been told to stop.

uvicorn waits for each that is under way, and then cancels it: whoever listens to a stream would always be
waited for, because a stream has no end, and each cancelled request would be a traceback in the log.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from .auth import STREAM
from .wire.problems import problem

if TYPE_CHECKING:
    from typing import Any

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

RETRY_S = 1
"""By then there may be another server: one that is restarted takes about as long."""
METHOD_HEADER, LISTEN = "mcp-method", "subscriptions/listen"
"""By which an MCP client asks to be told of changes, in a POST."""


class Ending:
    """ASGI middleware around all others. After `begin`, whoever listens is told that the stream is over.
    Everybody else is answered, as long as the server waits for them: a request that it cancels is 503 if its
    answer has not begun."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._has_begun = False
        self._listening: set[asyncio.Task[Any]] = set()

    def begin(self) -> None:
        """Belongs to the event loop that serves the requests."""
        self._has_begun = True
        for task in self._listening:
            task.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        if scope["type"] != "http" or task is None:
            return await self._app(scope, receive, send)
        answer = _Answer(send)

        async def watched(message: Message) -> None:
            await answer.send(message)
            if answer.is_open_stream and task not in self._listening and _listens(scope):
                self._listening.add(task)
                if self._has_begun:
                    task.cancel()

        try:
            await self._app(scope, receive, watched)
        except asyncio.CancelledError:
            if not self._has_begun:
                raise
            task.uncancel()
            with suppress(asyncio.CancelledError):  # its client takes nothing, and it is given up
                await answer.end(scope, receive)
        finally:
            self._listening.discard(task)


def _listens(scope: Scope) -> bool:
    """Whether a request that is answered by an event stream is there for that alone: the answer to the call
    of a tool is one as well, and has an end."""
    return scope["method"] == "GET" or Headers(scope=scope).get(METHOD_HEADER) == LISTEN


class _Answer:
    """How far the answer to one request has come."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._has_begun = False
        self.is_open_stream = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._has_begun = True
            self.is_open_stream = Headers(raw=message["headers"]).get("content-type", "").startswith(STREAM)
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self.is_open_stream = False
        await self._send(message)

    async def end(self, scope: Scope, receive: Receive) -> None:
        if not self._has_begun:
            refusal = problem(
                503,
                "Stopping",
                "the server is being stopped, and this was not answered in time: it may have been done all"
                " the same. Send it again, with the same id, in a moment.",
                headers={"Retry-After": str(RETRY_S), "Connection": "close"},
                code="stopping",
            )
            await refusal(scope, receive, self._send)
        elif self.is_open_stream:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
