"""What is on disk, on its way to a remote meter.

Nothing that is there is lost, and nothing there holds up the rest for ever. What the meter refuses for good
is put aside. What it fails at, by itself, comes last from then on: it is tried again when all else has had
its turn, until the meter can take it. And a meter that fails at one thing after another is given time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from anyio import CapacityLimiter, to_thread

from agent_meter_mcp.core.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    MeterError,
    NotFound,
    StoreError,
    Unauthorized,
)
from agent_meter_mcp.core.text import ID_MAX, shown

from .connection import OUTAGE_S, OUTAGE_S_MAX
from .errors import UNAVAILABLE, Failed
from .sending import BYTES_MAX, RECORDS_MAX, record_all, settle_asked, settle_over
from .spool import LINE_BYTES_MAX

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Sequence

    from .connection import Connection
    from .spool import Spool, SpoolFile

FAILURES_MAX = 64
"""In a row: then it is the meter that is ill. To find one line among a thousand takes eleven."""
SAID_WIDTH = 200
_DATE = "occurred_at"
_log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """A line, and what it says; None: nothing that could be sent."""

    line: str
    kept: dict[str, Any] | None

    @property
    def is_record(self) -> bool:
        """Also one of work for which budget was asked: nobody knows whether it was held."""
        return self.kept is not None and "reservation_id" not in self.kept

    @property
    def was_asked(self) -> bool:
        return self.kept is not None and "asked" in self.kept

    @property
    def record(self) -> dict[str, Any]:
        kept = self.kept or {}
        return kept["record"] if self.was_asked else kept

    @property
    def sent(self) -> str:
        """The record's JSON; as ASCII, where it is written anew, because half a character is no UTF-8."""
        return json.dumps(self.record) if self.was_asked else self.line

    def undated(self) -> Entry:
        """The same record, of the moment at which it is sent."""
        record = {field: said for field, said in self.record.items() if field != _DATE}
        kept = {**(self.kept or {}), "record": record} if self.was_asked else record
        return Entry(json.dumps(kept), kept)


class Drain:
    """Belongs to the event loop that runs it."""

    def __init__(self, connection: Connection, spool: Spool, counters: Counter[str]) -> None:
        self._connection = connection
        self._spool = spool
        self._counters = counters
        self._disk = CapacityLimiter(1)
        """A thread of its own, so that an app whose threads are all busy holds up nothing."""
        self._spooled = asyncio.Event()
        self._stopped = asyncio.Event()
        self._failures = 0
        self._failed: list[str] = []
        self._untried: list[str] = []

    def wake(self) -> None:
        """Something has been kept."""
        self._spooled.set()

    def stop(self) -> None:
        """Between two requests, never within one."""
        self._stopped.set()
        self._spooled.set()

    async def run(self) -> None:
        """Until it is stopped. Raises nothing."""
        pause_s = OUTAGE_S
        while not self._stopped.is_set():
            await self._spooled.wait()
            self._spooled.clear()
            while not self._stopped.is_set() and await self._has_waiting():
                if await self._all_is_sent():
                    pause_s = OUTAGE_S
                    if not await self._has_waiting():
                        break  # else another process is writing there
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopped.wait(), pause_s * random.uniform(0.5, 1))
                pause_s = min(pause_s * 2, OUTAGE_S_MAX)

    @property
    def _gives_up(self) -> bool:
        """Nothing more is to be tried of this file now."""
        return self._failures > FAILURES_MAX or self._stopped.is_set()

    async def _has_waiting(self) -> bool:
        try:
            return await to_thread.run_sync(self._spool.waiting, limiter=self._disk)
        except Exception as error:  # it is looked at again when something has been kept there
            _log.warning("what is on disk cannot be sent: %s", error)
            return False

    async def _all_is_sent(self) -> bool:
        """Whether one pass through all files left nothing that must be tried again."""
        files = self._spool.files()
        all_is_sent = True
        self._failures = 0
        try:
            while not self._stopped.is_set():
                file = await to_thread.run_sync(next, files, None, limiter=self._disk)
                if file is None:
                    break
                all_is_sent &= await self._drain_file(file)
        except MeterError as error:
            _log.warning("what is on disk cannot be sent yet: %s", error)
            return False
        except Exception:  # whatever it is, what comes later is to be sent all the same
            _log.exception("what is on disk could not be sent")
            return False
        finally:
            await to_thread.run_sync(files.close, limiter=self._disk)
        return all_is_sent

    async def _drain_file(self, file: SpoolFile) -> bool:
        """Whether all of it was sent, or put aside. What was not comes last from now on.

        Raises MeterError: nobody can be told anything now."""
        batches = _batches(file.lines())
        self._untried, self._failed = [], []
        while (batch := await to_thread.run_sync(next, batches, None, limiter=self._disk)) is not None:
            if self._stopped.is_set():
                return False
            await self._drain_batch(batch)
        again = self._untried + self._failed
        if self._untried and self._stopped.is_set():
            return False  # the file stays as it is: what has been sent of it counts once
        if again:
            await to_thread.run_sync(self._spool.put_back, again, limiter=self._disk)
        await to_thread.run_sync(file.remove, limiter=self._disk)
        if self._failures > FAILURES_MAX:
            raise Failed(f"the meter fails at whatever it is sent, {self._failures} requests in a row.")
        return not again

    async def _drain_batch(self, batch: Sequence[Entry]) -> None:
        unusable = [entry for entry in batch if entry.kept is None]
        if unusable:
            await self._refuse(unusable, f"{len(unusable)} lines are nothing that was kept for a meter")
        for entry in batch:
            if entry.kept is not None and not entry.is_record:
                await self._drain_end(entry, entry.kept)
        records = [entry for entry in batch if entry.is_record]
        if records:
            await self._drain_records(records)

    async def _drain_records(self, records: Sequence[Entry]) -> None:
        """As one request; in two if the meter fails at that, and so on down to the one which it fails at."""
        if self._gives_up:
            self._untried += [entry.line for entry in records]
            return
        try:
            answers = await record_all(self._connection, [entry.sent for entry in records], probing=True)
        except MeterError as error:
            self._note(error)
            if half := len(records) // 2:
                await self._drain_records(records[:half])
                await self._drain_records(records[half:])
            else:
                self._try_later(records[0], error)
            return
        self._failures = 0
        ahead: list[Entry] = []
        held: list[Entry] = []
        for entry, answer in zip(records, answers, strict=True):
            if _is_ahead(answer, entry.record):
                ahead.append(entry.undated())
            elif isinstance(answer, Conflict) and entry.was_asked:
                held.append(entry)
            elif isinstance(answer, MeterError):
                await self._refuse([entry], str(answer))
            else:
                self._counters["drained"] += 1
        for entry in held:
            await self._drain_end(entry, entry.kept or {})
        if ahead:
            await self._drain_records(ahead)

    async def _drain_end(self, entry: Entry, kept: dict[str, Any]) -> None:
        """Of a hold, or of what was to be held."""
        if self._gives_up:
            self._untried.append(entry.line)
            return
        try:
            if "reservation_id" in kept:
                await settle_over(self._connection, kept, probing=True)
            else:
                await settle_asked(self._connection, kept["asked"], kept["record"], probing=True)
        except (NotFound, Conflict, InvalidInput, Forbidden) as error:
            await self._refuse([entry], str(error))
        except MeterError as error:
            self._note(error)
            self._try_later(entry, error)
            return
        else:
            self._counters["drained"] += 1
        self._failures = 0

    def _note(self, error: MeterError) -> None:
        """Raises it, unless it may be about what was sent."""
        if isinstance(error, Unauthorized | Forbidden | NotFound):
            raise error
        if isinstance(error, UNAVAILABLE) and not isinstance(error, Failed):
            raise error
        self._failures += 1

    def _try_later(self, entry: Entry, error: MeterError) -> None:
        self._failed.append(entry.line)
        _log.error(
            "the meter fails at what was kept on disk, %s, which is sent again later: %s",
            _called(entry),
            shown(str(error), width=SAID_WIDTH),
        )

    async def _refuse(self, entries: Sequence[Entry], why: str) -> None:
        """They can never be accepted; keeping them among the others would hold those up."""
        lines = [entry.line for entry in entries]
        try:
            await to_thread.run_sync(self._spool.put_aside, lines, limiter=self._disk)
            kept = f"It is in {self._spool.refused}."
        except StoreError as error:  # a disk that the spool has filled is emptied by sending what can be sent
            self._counters["lost"] += len(lines)
            kept = f"It is lost, because {error}"
        self._counters["rejected"] += len(lines)
        _log.error(
            "the meter refuses what was kept on disk, %s: %s. %s",
            _called(entries[0]),
            shown(why.rstrip("."), width=SAID_WIDTH),
            kept,
        )


def _is_ahead(answer: object, record: dict[str, Any]) -> bool:
    """Whether the meter refuses a record for when it occurred: its time is that of our clock, which may be
    ahead. It has happened by now all the same, so the meter's own time is as near as can be told."""
    return isinstance(answer, InvalidInput) and answer.field == _DATE and _DATE in record


def _called(entry: Entry) -> str:
    kept = entry.kept
    if kept is None:
        return shown(entry.line, width=SAID_WIDTH)
    record = kept.get("record", kept)
    return shown(str(kept.get("reservation_id", record.get("id"))), width=SAID_WIDTH)


def _batches(lines: Iterator[bytes]) -> Iterator[list[Entry]]:
    """Each fits into one request."""
    batch: list[Entry] = []
    size = 0
    for line in lines:
        batch.append(_entry(line))
        size += len(line)
        if size > BYTES_MAX - LINE_BYTES_MAX or len(batch) == RECORDS_MAX:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _entry(line: bytes) -> Entry:
    try:
        text = line.decode()
        kept = json.loads(text)
    except (ValueError, RecursionError):
        return Entry(line.decode("utf-8", "backslashreplace"), None)
    return Entry(text, cast("dict[str, Any]", kept) if _can_be_sent(kept) else None)


def _can_be_sent(kept: Any) -> bool:
    """Whether it has the form of what is kept. Whether it says what can be, the meter knows."""
    if not isinstance(kept, dict):
        return False
    members = cast("dict[str, Any]", kept)
    if "reservation_id" in members:
        found = members["reservation_id"]
        return isinstance(found, str) and 0 < len(found) <= ID_MAX and found.isprintable()
    if "asked" in members:
        asked = members["asked"]
        return isinstance(asked, dict) and "id" in asked and isinstance(members.get("record"), dict)
    return True
