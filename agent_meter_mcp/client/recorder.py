"""Usage on its way to a remote meter: in batches, at our own pace, by way of the disk if there is no other.

The sender takes all that has gathered since it last looked and never waits for more: one record goes out at
once, and many share a request. Who records is answered when the meter has committed it, or when it is on our
own disk; what is there is sent by and by, by whichever process gets to it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter, deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from anyio import CapacityLimiter, to_thread

from agent_meter_mcp.core.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    MeterError,
    NotFound,
    Overloaded,
    StoreError,
    Unreachable,
)
from agent_meter_mcp.core.text import shown
from agent_meter_mcp.core.times import time_text

from .connection import NOT_OPEN
from .errors import UNAVAILABLE, error_of
from .fields import SettleFields
from .results import UsageRecorded, members_of

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence

    from .connection import Connection
    from .spool import Spool

RECORDS_MAX = 1000
BYTES_MAX = 3 * 1024 * 1024
"""Of one request. The server takes 4 MiB."""
QUEUE_MAX = 10_000
SAID_WIDTH = 200
NO_METER = "this is not the answer of a meter."
KEPT = "Kept on disk until the meter can be reached."
SETTLED = frozenset(SettleFields.__annotations__)
_log = logging.getLogger(__name__)


class Waiting:
    """A record, as JSON, and who waits for its answer. `asked`: the reservation that may have been made for
    it, as it was asked for."""

    __slots__ = ("answer", "asked", "at_us", "id", "line")

    def __init__(
        self,
        line: str,
        event_id: str,
        at_us: int,
        answer: asyncio.Future[UsageRecorded],
        asked: dict[str, Any] | None,
    ) -> None:
        self.line = line
        self.id = event_id
        self.at_us = at_us
        self.answer = answer
        self.asked = asked

    def dated(self) -> str:
        """The record as it is kept on disk: it may get there much later."""
        record = {"occurred_at": time_text(self.at_us), **json.loads(self.line)}
        kept = record if self.asked is None else {"record": record, "asked": self.asked}
        return json.dumps(kept, ensure_ascii=False)


class Recorder:
    """Belongs to the event loop that started it."""

    def __init__(self, connection: Connection, spool: Spool, counters: Counter[str]) -> None:
        self._connection = connection
        self._spool = spool
        self._counters = counters
        self._waiting: deque[Waiting] = deque()
        self._disk = CapacityLimiter(1)
        """One thread at a time, and none of the app's: many that wait for our disk would be all it has."""
        self._wake: asyncio.Event
        self._spooled: asyncio.Event
        self._stopped: asyncio.Event
        self._closing = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._wake, self._spooled, self._stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._closing = False
        self._spooled.set()  # what an earlier process has left
        self._tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._drain())]

    async def close(self) -> None:
        """Sends or keeps what is waiting. What is on the disk stays there for the next process."""
        if not self._tasks:
            return
        self._closing = True
        tasks, self._tasks = self._tasks, []
        for event in (self._wake, self._spooled, self._stopped):
            event.set()
        await asyncio.gather(*tasks)
        await to_thread.run_sync(self._spool.close)

    async def record(
        self, members: dict[str, Any], at_us: int, asked: dict[str, Any] | None = None
    ) -> UsageRecorded:
        """Usage of now, `at_us`, unless it says when it occurred. `asked` as in Waiting.

        Raises MeterError; Overloaded when neither the meter nor the disk takes it."""
        if not self._tasks or len(self._waiting) >= QUEUE_MAX:
            self._counters["lost"] += 1
            waiting = f"{len(self._waiting)} records are waiting; nothing was kept."
            raise Overloaded(waiting if self._tasks else NOT_OPEN)
        answer: asyncio.Future[UsageRecorded] = asyncio.get_running_loop().create_future()
        line = json.dumps(members, ensure_ascii=False)
        self._waiting.append(Waiting(line, members["id"], at_us, answer, asked))
        self._wake.set()
        return await answer

    async def keep(self, line: dict[str, Any]) -> None:
        """On the disk until it can be sent. Raises Overloaded, StoreError: said aloud, and counted."""
        await self._append([json.dumps(line, ensure_ascii=False)])

    # Sending

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._send_batch(self._gather())
            if self._closing:
                return

    def _gather(self) -> list[Waiting]:
        batch: list[Waiting] = []
        size = 0
        while self._waiting and len(batch) < RECORDS_MAX:
            size += _bytes(self._waiting[0].line)
            if batch and size > BYTES_MAX:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _send_batch(self, batch: list[Waiting]) -> None:
        try:
            answers = await self._post([one.line for one in batch])
        except UNAVAILABLE as error:
            await self._keep_batch(batch, error)
        except Exception as error:  # it concerns this batch, and is raised to each who waits for it
            for one in batch:
                self._fail(one, error)
        else:
            for one, answer in zip(batch, answers, strict=True):
                if isinstance(answer, Conflict) and one.asked is not None:
                    await self._settle_asked(one, one.asked)
                else:
                    self._end(one, answer)

    async def _settle_asked(self, one: Waiting, asked: dict[str, Any]) -> None:
        try:
            document = await settle_asked(self._connection, asked, json.loads(one.line))
            answer = _answer({**members_of(document), "id": one.id})
        except UNAVAILABLE as error:
            await self._keep_batch([one], error)
        except Exception as error:  # it concerns this one
            self._fail(one, error)
        else:
            self._end(one, answer)

    async def _keep_batch(self, batch: list[Waiting], why: MeterError) -> None:
        try:
            await self._append([one.dated() for one in batch])
        except MeterError as error:
            for one in batch:
                self._fail(one, error)
            return
        _log.warning("%d records wait on disk for the meter: %s", len(batch), why)
        for one in batch:
            if not one.answer.done():
                one.answer.set_result(UsageRecorded(KEPT, one.id, "spooled"))

    def _end(self, one: Waiting, answer: UsageRecorded | MeterError) -> None:
        if isinstance(answer, MeterError):
            self._fail(one, answer)
        elif not one.answer.done():
            self._counters["recorded"] += 1
            one.answer.set_result(answer)

    def _fail(self, one: Waiting, error: Exception) -> None:
        if not one.answer.done():
            one.answer.set_exception(error)

    async def _post(self, lines: Sequence[str], *, probing: bool = False) -> list[UsageRecorded | MeterError]:
        """What became of each. A 429 is an answer too: all is stored, and somebody is over a limit."""
        body = f'{{"records":[{",".join(lines)}]}}'
        status, document = await self._connection.call(
            "POST", "/v1/usage/batch", body, refusals=(429,), probing=probing
        )
        results = members_of(document).get("results")
        if not isinstance(results, list) or len(cast("list[Any]", results)) != len(lines):
            raise (error_of(status, document) if status == 429 else Unreachable(NO_METER))
        return [_answer(result) for result in cast("list[Any]", results)]

    async def _append(self, lines: list[str]) -> None:
        try:
            await to_thread.run_sync(self._spool.append, lines, limiter=self._disk)
        except MeterError as error:
            self._counters["lost"] += len(lines)
            _log.warning("usage is lost to the meter: %s", error)
            raise
        self._counters["spooled"] += len(lines)
        self._spooled.set()

    # Draining

    async def _drain(self) -> None:
        """Stops between two requests, never within one."""
        while not self._closing:
            await self._spooled.wait()
            self._spooled.clear()
            while not self._closing and await self._has_waiting():
                try:
                    await self._drain_files()
                except MeterError as error:
                    _log.warning("what is on disk cannot be sent yet: %s", error)
                else:
                    if not await self._has_waiting():
                        break  # else another process is writing there
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopped.wait(), self._connection.outage_s)

    async def _has_waiting(self) -> bool:
        try:
            return await to_thread.run_sync(self._spool.waiting)
        except StoreError as error:  # it is looked at again when something has been kept there
            _log.warning("what is on disk cannot be sent: %s", error)
            return False

    async def _drain_files(self) -> None:
        files = self._spool.files()
        try:
            while not self._closing and (found := await to_thread.run_sync(next, files, None)) is not None:
                lines, file = found
                for batch in _batches(lines):
                    if self._closing:
                        return
                    await self._drain_batch(batch)
                await to_thread.run_sync(file.remove)
        finally:
            await to_thread.run_sync(files.close)

    async def _drain_batch(self, lines: list[str]) -> None:
        records: list[str] = []
        for line in lines:
            kept = _object(line)
            if kept is None:
                self._reject("a line that is no JSON", "cannot be read")
            elif "reservation_id" in kept:
                await self._drain_settle(settle_over(self._connection, kept, probing=True), kept)
            elif "asked" in kept:
                await self._drain_asked(kept["asked"], kept["record"])
            else:
                records.append(line)
        if records:
            await self._drain_records(records)

    async def _drain_records(self, lines: list[str]) -> None:
        for line, answer in zip(lines, await self._post(lines, probing=True), strict=True):
            if isinstance(answer, MeterError):
                self._reject((_object(line) or {}).get("id"), str(answer))
            else:
                self._counters["drained"] += 1

    async def _drain_asked(self, asked: dict[str, Any], record: dict[str, Any]) -> None:
        (answer,) = await self._post([json.dumps(record, ensure_ascii=False)], probing=True)
        if isinstance(answer, Conflict):
            await self._drain_settle(settle_asked(self._connection, asked, record, probing=True), record)
        elif isinstance(answer, MeterError):
            self._reject(record.get("id"), str(answer))
        else:
            self._counters["drained"] += 1

    async def _drain_settle(self, settling: Coroutine[Any, Any, Any], kept: dict[str, Any]) -> None:
        try:
            await settling
        except (NotFound, Conflict, InvalidInput, Forbidden) as error:
            self._reject(kept.get("reservation_id", kept.get("id")), str(error))
        else:
            self._counters["drained"] += 1

    def _reject(self, what: object, why: str) -> None:
        """It can never be accepted; keeping it would hold up all that comes after it."""
        self._counters["rejected"] += 1
        _log.error(
            "the meter refuses what was kept on disk, %s: %s",
            shown(str(what), width=SAID_WIDTH),
            shown(why, width=SAID_WIDTH),
        )


def _batches(lines: list[str]) -> Iterator[list[str]]:
    """Each fits into one request."""
    batch: list[str] = []
    size = 0
    for line in lines:
        if batch and (size + _bytes(line) > BYTES_MAX or len(batch) == RECORDS_MAX):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += _bytes(line)
    if batch:
        yield batch


def _bytes(line: str) -> int:
    """As UTF-8, at most."""
    return len(line) * 4


async def settle_over(connection: Connection, members: dict[str, Any], *, probing: bool = False) -> Any:
    """The JSON of a ReservationSettled. `members` are the arguments of settle_reservation."""
    rest = dict(members)
    path = f"/v1/reservations/{quote(str(rest.pop('reservation_id')), safe='')}/settle"
    return (await connection.call("POST", path, json.dumps(rest), probing=probing))[1]


async def settle_asked(
    connection: Connection, asked: dict[str, Any], record: dict[str, Any], *, probing: bool = False
) -> Any:
    """As `settle_over`, for a reservation whose answer got lost: asked for again, it is the same one.

    Raises Conflict when there is another thing under its id."""
    body = json.dumps(asked)
    status, document = await connection.call(
        "POST", "/v1/reservations", body, refusals=(403, 429), probing=probing
    )
    reservation_id = members_of(document).get("reservation_id")
    if not isinstance(reservation_id, str):
        if "allowed" in members_of(document):  # just now it has expired, so the record will be taken
            raise Unreachable(f"the hold of {asked['id']!r} has ended in this moment; try again.")
        raise error_of(status, document)
    actual = {field: value for field, value in record.items() if field in SETTLED}
    return await settle_over(connection, {"reservation_id": reservation_id, **actual}, probing=probing)


STORED = ("recorded", "duplicate", "corrected")
"""What can have become of a record that is in the ledger."""


def _answer(result: object) -> UsageRecorded | MeterError:
    """What became of one record. Raises Unreachable for what no meter says."""
    members = members_of(result)
    if members.get("status") not in STORED:
        return error_of(
            422, {"code": members.get("code"), "field": members.get("field"), "detail": _said(members)}
        )
    event_id = members.get("id")
    if not isinstance(event_id, str):
        raise Unreachable(NO_METER)
    known = {
        field: members[field] for field in ("cost_usd", "cost_source", "retry_after_s") if field in members
    }
    return UsageRecorded(
        str(members.get("message") or "Recorded."),
        event_id,
        members["status"],
        members.get("outcome"),
        **known,
    )


def _said(members: dict[str, Any]) -> str:
    error = members.get("error")
    told = members_of(error)
    return str(told.get("detail") or told.get("message") or error or "the meter refused this record")


def _object(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None
