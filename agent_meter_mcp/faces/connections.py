"""HTTP/1.1 as uvicorn speaks it, to clients that may be slow on purpose.

uvicorn waits for the head of a request as long as it takes, and so anybody could hold all connections by
sending a byte now and then.
"""

from __future__ import annotations

import sys
from asyncio import TimerHandle, Transport
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .wire.problems import problem

if TYPE_CHECKING:
    from asyncio import BaseTransport

    from uvicorn.protocols.http.h11_impl import RequestResponseCycle

HEAD_S = 10.0
"""How long a head may take, from its first byte, or the connection's beginning, to its last."""


class PunctualProtocol(H11Protocol):
    """Lets a client go that makes the server wait: with 408 for a head that does not come to its end, and
    silently where none has begun. A head may have 16 KiB; one that has more is 431.

    Once a request has been answered, what is still to come of its body is given as long.
    """

    head_s = HEAD_S
    _deadline: TimerHandle | None = None
    _has_begun = False

    def connection_made(self, transport: BaseTransport) -> None:
        assert isinstance(transport, Transport)
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        self._has_begun = True
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            self._has_begun = False  # and uvicorn waits for the next head to begin
        else:
            self._watch()

    def send_400_response(self, msg: str) -> None:
        """uvicorn calls it for whatever h11 cannot read, which says better what it is."""
        status = getattr(sys.exception(), "error_status_hint", 400)
        self._refuse(status, "the head of the request is too large" if status == 431 else msg)

    def _watch(self) -> None:
        """Runs while no request is being answered."""
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None before the first request
        is_waited_for = cycle is None or cycle.response_complete
        if not is_waited_for or self.transport.is_closing():
            self._stop_watching()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.head_s, self._let_go)

    def _stop_watching(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _let_go(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if self._has_begun and self.conn.our_state is h11.IDLE:
            self._refuse(408, f"the head of the request did not arrive within {self.head_s:g} seconds")
        else:
            self.transport.close()

    def _refuse(self, status: int, detail: str) -> None:
        title = HTTPStatus(status).phrase.capitalize()
        answer = problem(status, title, detail, headers={"Connection": "close"}, code="malformed")
        for event in (
            h11.Response(status_code=status, headers=answer.raw_headers, reason=title.encode()),
            h11.Data(data=bytes(answer.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
