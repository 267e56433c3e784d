"""HTTP/1.1 as uvicorn speaks it, to clients that may be slow on purpose, or too many.

uvicorn waits for the head of a request as long as it takes, and so anybody could hold all connections by
sending a byte now and then; it waits as long for an answer to be taken, with all that it was made of in
memory; and it takes connections until no file can be opened, the ledger's included. (Its
`limit_concurrency` refuses requests, and keeps the connections.)
"""

from __future__ import annotations

import logging
import sys
from asyncio import TimerHandle, Transport
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .wire.problems import problem

if TYPE_CHECKING:
    from asyncio import BaseTransport
    from collections.abc import Mapping

    from uvicorn.protocols.http.h11_impl import RequestResponseCycle

HEAD_S = 10.0
"""How long a head may take, from its first byte, or the connection's beginning, to its last."""
TAKEN_S = 30.0
"""How long a client may take nothing of an answer that waits for it."""
CONNECTIONS_MAX = 4096
"""How many may be open at once."""
OTHER_FILES = 128
"""How many files a process has open beside its connections, at most: those of the ledger and its readers."""
RETRY_S = 5
_log = logging.getLogger(__name__)


def connections_max() -> int:
    """As many as there may be, and fewer where the system lets a process open fewer files."""
    try:
        from resource import RLIMIT_NOFILE, getrlimit
    except ImportError:  # Windows
        return CONNECTIONS_MAX
    files, _ = getrlimit(RLIMIT_NOFILE)
    return CONNECTIONS_MAX if files < 0 else max(min(CONNECTIONS_MAX, files - OTHER_FILES), 1)


class PunctualProtocol(H11Protocol):
    """Lets a client go that makes the server wait: with 408 for a head that does not come to its end, and
    silently where none has begun. A head may have 16 KiB; one that has more is 431.

    Once a request has been answered, what is still to come of its body is given as long. Who takes nothing of
    an answer for a while is let go, too. Whoever comes when there are too many is told so, with 503, and let
    go at once.
    """

    head_s = HEAD_S
    taken_s = TAKEN_S
    at_most = connections_max()
    turned_away = 0
    _deadline: TimerHandle | None = None
    _taking: TimerHandle | None = None
    _has_begun = False

    def connection_made(self, transport: BaseTransport) -> None:
        assert isinstance(transport, Transport)
        super().connection_made(transport)
        if len(self.connections) > self.at_most:
            self._turn_away()
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        self._has_begun = True
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        self._stop_waiting()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """More of an answer waits for its client than is kept here without waiting."""
        super().pause_writing()
        self._stop_waiting()
        self._wait_for_client()

    def resume_writing(self) -> None:
        self._stop_waiting()
        super().resume_writing()

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

    def _wait_for_client(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._taking = self.loop.call_later(self.taken_s, self._unless_it_takes, left)

    def _unless_it_takes(self, left: int) -> None:
        if self.transport.get_write_buffer_size() < left:
            self._wait_for_client()
        else:
            self.transport.abort()

    def _stop_waiting(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

    def _turn_away(self) -> None:
        kind = type(self)
        kind.turned_away += 1
        if kind.turned_away & (kind.turned_away - 1) == 0:  # at the first, and whenever it has doubled
            _log.warning("%d connections are open, so %d were turned away", self.at_most, kind.turned_away)
        self._refuse(
            503,
            f"{self.at_most} connections are open, and there may not be more. Try again later.",
            "overloaded",
            {"Retry-After": str(RETRY_S)},
        )

    def _refuse(
        self, status: int, detail: str, code: str = "malformed", headers: Mapping[str, str] | None = None
    ) -> None:
        title = HTTPStatus(status).phrase.capitalize()
        answer = problem(status, title, detail, headers={"Connection": "close", **(headers or {})}, code=code)
        for event in (
            h11.Response(status_code=status, headers=answer.raw_headers, reason=title.encode()),
            h11.Data(data=bytes(answer.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
