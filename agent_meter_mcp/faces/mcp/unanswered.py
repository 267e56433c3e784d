"""Stdin and stdout, on which what was asked before stdin closed is answered.

At the end of its input the SDK cancels what it is doing and answers "Connection closed", also to usage that
is recorded all the same: whoever pipes requests into the process would report it again, and count it twice.
And what it cannot read it drops without a word, so that whoever asked would wait for ever.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import anyio
from mcp.server import MCPServer
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp.types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
)
from pydantic import ValidationError

if TYPE_CHECKING:
    from contextvars import Context
    from types import TracebackType
    from typing import Self

    from mcp.shared._context_streams import ContextReceiveStream, ContextSendStream
    from mcp.types import JSONRPCMessage, RequestId

ENDLESS = ("subscriptions/listen",)
"""What is not answered before it is ended."""
ANSWERED_WITHIN_S = 60.0
"""More than anything takes; nothing keeps a process longer whose client is gone."""


async def run_stdio(server: MCPServer[Any]) -> None:
    """Serves until stdin has closed and what was asked before is answered."""
    low = server._lowlevel_server  # pyright: ignore[reportPrivateUsage]  MCPServer serves stdio without a word to us
    async with stdio_server() as (incoming, outgoing):
        asked = Unanswered()
        answers = Answers(outgoing, asked)
        await low.run(Asked(incoming, asked, answers), answers, low.create_initialization_options())


class Unanswered:
    """The requests that wait for an answer."""

    def __init__(self) -> None:
        self._ids: set[RequestId] = set()
        self._fewer = anyio.Event()

    def asks(self, message: JSONRPCMessage) -> None:
        """Something came in. Who has cancelled a request gets no answer to it."""
        if isinstance(message, JSONRPCRequest) and message.method not in ENDLESS:
            self._ids.add(message.id)
        elif isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            cancelled = (message.params or {}).get("requestId")
            if isinstance(cancelled, (str, int)):
                self._answered(cancelled)

    def answers(self, message: JSONRPCMessage) -> None:
        """Something went out."""
        if isinstance(message, (JSONRPCResponse, JSONRPCError)) and message.id is not None:
            self._answered(message.id)

    async def wait(self) -> None:
        """Until there is none, but not for ever."""
        with anyio.move_on_after(ANSWERED_WITHIN_S):
            while self._ids:
                await self._fewer.wait()

    def _answered(self, number: RequestId) -> None:
        self._ids.discard(number)
        if not self._ids:
            self._fewer.set()
            self._fewer = anyio.Event()


class _Around:
    """A stream of the SDK, which is closed with this."""

    def __init__(
        self, stream: ContextReceiveStream[SessionMessage | Exception] | ContextSendStream[SessionMessage]
    ) -> None:
        self._closes = stream

    async def aclose(self) -> None:
        await self._closes.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.aclose()


class Asked(_Around):
    """What comes in. It ends when all of it is answered, what is no message too."""

    def __init__(
        self, stream: ContextReceiveStream[SessionMessage | Exception], asked: Unanswered, answers: Answers
    ) -> None:
        super().__init__(stream)
        self._stream = stream
        self._asked = asked
        self._answers = answers

    @property
    def last_context(self) -> Context | None:
        """In which the last message was sent: the SDK looks for it by this name."""
        return self._stream.last_context

    async def receive(self) -> SessionMessage | Exception:
        try:
            item = await self._stream.receive()
        except anyio.EndOfStream:
            await self._asked.wait()
            raise
        if isinstance(item, SessionMessage):
            self._asked.asks(item.message)
        elif isinstance(item, ValidationError) and (refused := _refusal(item)) is not None:
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # nobody reads any more
                await self._answers.send(SessionMessage(refused))
        return item

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None


class Answers(_Around):
    """What goes out."""

    def __init__(self, stream: ContextSendStream[SessionMessage], asked: Unanswered) -> None:
        super().__init__(stream)
        self._stream = stream
        self._asked = asked

    async def send(self, item: SessionMessage, /) -> None:
        await self._stream.send(item)
        self._asked.answers(item.message)


def _refusal(error: ValidationError) -> JSONRPCError | None:
    """The answer to a line that is no message: such as one with half a character, which JavaScript writes
    where it has cut a text within one. None where nobody waits for an answer."""
    found = error.errors(include_url=False)
    first, sent = found[0], None
    if first["type"] == "json_invalid":
        if not first["input"].strip():
            return None
        code, told = PARSE_ERROR, f"Parse error: {first.get('ctx', {}).get('error', first['msg'])}"
        with suppress(ValueError, RecursionError):  # Python reads more than is JSON, and so may know who asks
            sent = json.loads(first["input"])
    else:
        field = ".".join(str(part) for part in first["loc"][1:]) or "message"
        code, told = INVALID_REQUEST, f"Invalid request: {field}: {first['msg']}"
        # Only an answer has a result: of a request, where that is missing, the whole is told.
        sent = next((one["input"] for one in found if one["type"] == "missing"), None)
    number: Any = None
    if isinstance(sent, dict):
        request = cast("dict[str, Any]", sent)
        number = request.get("id")
        if "method" not in request or number is None:
            return None
    return JSONRPCError(
        jsonrpc="2.0",
        id=number if _can_be_told(number) else None,
        error=ErrorData(code=code, message=f"{told}. Nothing was changed."),
    )


def _can_be_told(number: Any) -> bool:
    """Whether an answer can have it for its id: it is a whole number, or text without half a character."""
    if not isinstance(number, str):
        return type(number) is int
    try:
        number.encode()
    except UnicodeEncodeError:
        return False
    return True
