"""HTTP to a remote meter: one pool of connections, bounded in time, repeated where it gets lost."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx2
from anyio import to_thread

from agent_meter_mcp.core.errors import InvalidInput, Unreachable
from agent_meter_mcp.core.text import shown

from .errors import Failed, error_of
from .place import check_loop
from .results import members_of

if TYPE_CHECKING:
    from agent_meter_mcp.core.errors import MeterError

TRIES = 3
PAUSE_S = 0.1
OUTAGE_S = 0.5
OUTAGE_S_MAX = 30.0
AGAIN = (502, 503, 504)
ANSWER_MAX = 16 * 1024 * 1024
"""Bytes, unpacked, that are read of an answer: many times what a batch is answered."""
SAID_WIDTH = 200
NOT_OPEN = "this meter is not open: use it inside `async with Meter(url=...)`."


class Connection:
    """Every request may be repeated: what it changes carries an id.

    A call takes `timeout_s` at most, with all its repeats. After one that no meter answered, others fail at
    once for a while, which doubles up to half a minute: an app must not wait for a meter that is down. Then
    one of them finds out for all whether it is back.
    """

    def __init__(self, url: str, key: str | None, timeout_s: float, counters: Counter[str]) -> None:
        """Raises InvalidInput for what is no URL."""
        try:
            has_host = httpx2.URL(url).host != ""
        except httpx2.InvalidURL as error:
            raise InvalidInput("url", f"is no URL: {error}") from None
        if not has_host:
            raise InvalidInput("url", "names no host: it must be such as http://127.0.0.1:8787")
        self.where = _without_password(url)
        """The URL, as it may be told."""
        self._url = url
        self._key = key
        self._timeout_s = timeout_s
        self._counters = counters
        self._http: httpx2.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._down_until = 0.0
        self._outage_s = OUTAGE_S

    async def open(self) -> None:
        """In a thread: certificates are read, and the rest of the HTTP library."""
        self._http = await to_thread.run_sync(self._new_client)
        self._loop = asyncio.get_running_loop()

    def _new_client(self) -> httpx2.AsyncClient:
        headers = {"content-type": "application/json"}
        if self._key is not None:
            headers["authorization"] = f"Bearer {self._key}"
        return httpx2.AsyncClient(base_url=self._url, headers=headers, timeout=self._timeout_s)

    async def close(self) -> None:
        if self._http is not None:
            http, self._http = self._http, None
            await http.aclose()

    def check_loop(self) -> None:
        """Raises RuntimeError in another event loop than the one that it was opened in."""
        check_loop(self._loop)

    async def call(
        self, method: str, path: str, body: str, *, refusals: tuple[int, ...] = (), probing: bool = False
    ) -> tuple[int, Any]:
        """The status and the JSON of an answer: 2xx, or one of `refusals`. `probing`: also during an outage.

        Raises:
            MeterError: what the meter says. Unreachable: it says nothing, or nothing of a meter.
        """
        self.check_loop()
        if not probing and self._down_until:
            now_s = time.monotonic()
            if now_s < self._down_until:
                raise Unreachable(f"the meter at {self.where} did not answer a moment ago.")
            self._down_until = now_s + self._timeout_s
        try:
            async with asyncio.timeout(self._timeout_s):
                status, document = await self._repeat(method, path, body)
        except TimeoutError:
            raise self._lost(f"no answer within {self._timeout_s:g} s") from None
        error = None if status < 300 or status in refusals else error_of(status, document)
        is_no_meter = isinstance(error, Unreachable) and not isinstance(error, Failed)
        if is_no_meter and "code" not in members_of(document):
            self._mark_outage()  # somebody answers, and it is no meter
        else:
            self._down_until, self._outage_s = 0.0, OUTAGE_S
        if error is not None:
            raise error
        return status, document

    async def _repeat(self, method: str, path: str, body: str) -> tuple[int, Any]:
        said: MeterError = self._unreachable("nothing was tried")
        for attempt in range(TRIES):
            if attempt:
                self._counters["retries"] += 1
                await asyncio.sleep(random.uniform(0, PAUSE_S * 2**attempt))
            if self._http is None:  # it may have been closed meanwhile
                raise Unreachable(NOT_OPEN)
            try:
                async with self._http.stream(method, path, content=body) as response:
                    document = await _json(response)
            except (httpx2.RequestError, UnicodeError) as error:  # such as a body, or a cookie, of nonsense
                said = self._unreachable(str(error) or type(error).__name__)
                continue
            if response.status_code not in AGAIN:
                return response.status_code, document
            said = error_of(response.status_code, document)
        self._mark_outage()
        raise said

    def _lost(self, why: str) -> Unreachable:
        self._mark_outage()
        return self._unreachable(why)

    def _unreachable(self, why: str) -> Unreachable:
        return Unreachable(f"the meter at {self.where} cannot be reached ({shown(why, width=SAID_WIDTH)}).")

    def _mark_outage(self) -> None:
        self._down_until = time.monotonic() + self._outage_s
        self._outage_s = min(self._outage_s * 2, OUTAGE_S_MAX)


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    return f"{scheme}://{place.rpartition('@')[2]}{slash}{path}"


async def _json(response: httpx2.Response) -> Any:
    """None for what no meter says: something else, or more than ANSWER_MAX, of which the rest is not read."""
    content = bytearray()
    async for some in response.aiter_bytes():
        content += some
        if len(content) > ANSWER_MAX:
            return None
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
