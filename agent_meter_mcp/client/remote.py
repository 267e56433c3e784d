"""A meter behind a URL."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar

from anyio import CancelScope

from agent_meter_mcp.core import check
from agent_meter_mcp.core.errors import MeterError, Unreachable
from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.core.value import Value
from agent_meter_mcp.core.windows import seconds
from agent_meter_mcp.intake import Intake
from agent_meter_mcp.runtime import new_id, system_clock_us

from .connection import Connection
from .errors import UNAVAILABLE, error_of
from .fields import ask_json, record_json, settle_json, source_json
from .place import Granted
from .recorder import KEPT, Recorder
from .results import BudgetReserved, Decided, ReservationSettled, UsageRecorded, members_of, parsed
from .sending import NO_METER, settle_over

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from agent_meter_mcp.core.commands import Settle
    from agent_meter_mcp.core.models import Usage, Who
    from agent_meter_mcp.intake import Report

    from .spool import Spool

T = TypeVar("T")
V = TypeVar("V", bound=Value)
_SOMEBODY = Caller("operator", "client")
_log = logging.getLogger(__name__)
_STAND_IN = "-"
"""Whom the rules are applied to where the server will find out from the key who it is."""


class RemotePlace:
    """What is wrong with a request is found here, by the ledger's own rules, before it is sent or kept."""

    def __init__(
        self, url: str, key: str | None, timeout_s: float, counters: Counter[str], spool: Spool
    ) -> None:
        self._counters = counters
        self._connection = Connection(url.rstrip("/"), key, timeout_s, counters)
        self._recorder = Recorder(self._connection, spool, counters)
        self._intake = Intake(_AsReported(), new_id, lambda agent: (agent,))
        self._going_on: set[asyncio.Task[Any]] = set()
        """What ends holds, and is not given up with whoever waits for it."""

    @property
    def default_agent(self) -> str | None:
        return ""

    async def open(self) -> None:
        await self._connection.open()
        self._recorder.start()

    async def close(self) -> None:
        """As a ledger is closed: to its end, also in a scope that is cancelled."""
        with CancelScope(shield=True):
            try:
                if self._going_on:
                    await asyncio.wait(self._going_on)  # if that is given up, they go on
            finally:  # also where nobody waits for that
                await self._recorder.close()
                await self._connection.close()

    async def record(self, report: Report, asked: dict[str, Any] | None = None) -> UsageRecorded:
        now_us = system_clock_us()
        command = self._intake.record(_SOMEBODY, _acting(report), now_us)
        event = command.event.replace(who=report.who)
        return await self._recorder.record(record_json(event, source_json(report)), now_us, asked)

    async def record_unheld(self, report: Report, asked: Report, ttl_us: int) -> UsageRecorded:
        """Only with an id of the caller's own it can meet its hold: ours is another for each attempt."""
        if asked.id is None:
            return await self.record(report)
        return await self.record(report, _reserve_json(asked, asked.id, ttl_us))

    async def check(self, who: Who, usage: Usage) -> Decided:
        self._intake.ask(_SOMEBODY, who.replace(agent=who.agent or _STAND_IN), usage, system_clock_us())
        return self._parsed(Decided, await self._post("/v1/check", ask_json(who, usage)))

    async def reserve(self, report: Report, ttl_us: int) -> Granted:
        """With an id of ours, so that a repeat finds the hold of the first attempt.

        Where the caller is cancelled it is let go of, unless the report has an id: it can be asked for again.
        """
        now_us = system_clock_us()
        command = self._intake.reserve(_SOMEBODY, _acting(report), ttl_us, now_us)
        asking = asyncio.create_task(self._ask(_reserve_json(report, command.event_id, ttl_us)))
        try:
            await asyncio.wait((asking,))  # it goes on when this is cancelled
        except asyncio.CancelledError:
            if report.id is None:
                self._start(self._let_go(asking))
            else:
                asking.cancel()
            raise
        reserved = asking.result()
        return Granted(reserved.allowed, reserved.reservation_id, lambda: reserved)

    async def _ask(self, body: dict[str, Any]) -> BudgetReserved:
        status, document = await self._connection.call(
            "POST", "/v1/reservations", json.dumps(body), refusals=(403, 429)
        )
        return self._reserved(status, document)

    async def _let_go(self, asking: asyncio.Task[BudgetReserved]) -> None:
        with suppress(MeterError):  # then it expires
            reserved = await asking
            if reserved.reservation_id is not None:
                await self.release(reserved.reservation_id)

    async def settle(self, settle: Settle) -> Callable[[], ReservationSettled]:
        """If the meter cannot be reached, it is kept on disk: what was used is not forgotten."""
        check.details(settle.status_code, settle.duration_ms, settle.metadata, "self")
        if settle.usage is not None:
            check.amounts(settle.usage)
        settled = await self._to_its_end(self._settle(settle_json(settle)))
        return lambda: settled

    async def release(self, reservation_id: str) -> ReservationSettled:
        return await self._to_its_end(self._end(reservation_id, action="release"))

    async def extend(self, reservation_id: str, ttl_us: int) -> ReservationSettled:
        return await self._end(reservation_id, action="extend", ttl=f"{seconds(ttl_us)}s")

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Closing waits for it."""
        task = asyncio.create_task(work)
        self._going_on.add(task)
        task.add_done_callback(self._going_on.discard)
        return task

    async def _to_its_end(self, ending: Coroutine[Any, Any, ReservationSettled]) -> ReservationSettled:
        """Also where the caller is cancelled: the work is over, and what it used has been used."""
        task = self._start(ending)
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            task.add_done_callback(self._tell_failure)
            raise
        return task.result()

    def _tell_failure(self, task: asyncio.Task[ReservationSettled]) -> None:
        """Nobody else hears of it any more."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._counters["unsettled"] += 1
            _log.warning("a hold could not be ended: %s", error)

    async def _settle(self, members: dict[str, Any]) -> ReservationSettled:
        try:
            return self._parsed(ReservationSettled, await settle_over(self._connection, members))
        except UNAVAILABLE:
            await self._recorder.keep(members)
            return ReservationSettled(KEPT, members["reservation_id"], "spooled")

    async def _end(self, reservation_id: str, **members: str) -> ReservationSettled:
        sent = {"reservation_id": reservation_id, **members}
        return self._parsed(ReservationSettled, await settle_over(self._connection, sent))

    async def _post(self, path: str, members: dict[str, Any]) -> Any:
        return (await self._connection.call("POST", path, json.dumps(members)))[1]

    def _reserved(self, status: int, document: object) -> BudgetReserved:
        """A hold, or the problem that says why there is none: it has the members of the answer."""
        members = members_of(document)
        if "allowed" not in members:
            raise error_of(status, members) if status >= 400 else Unreachable(NO_METER)
        told = {"message": members.get("detail"), **members}
        if not told["allowed"]:
            told["status"] = "denied"  # a problem's own status is a number
        return self._parsed(BudgetReserved, told)

    def _parsed(self, kind: type[V], document: object) -> V:
        try:
            return parsed(kind, document)
        except ValueError as error:
            raise Unreachable(f"{self._connection.where} does not answer like a meter: {error}.") from error


def spool_name(url: str, key: str | None) -> str:
    """The folder of what is for this URL, among those for others.

    With a key it is that key's alone: who it is that used something may be said by the key only."""
    place = url.rstrip("/") if key is None else f"{url.rstrip('/')} {key}"
    return sha256(place.encode()).hexdigest()[:16]


def _reserve_json(report: Report, event_id: str, ttl_us: int) -> dict[str, Any]:
    """The arguments of reserve_budget."""
    return ask_json(
        report.who,
        report.usage,
        operation=report.operation,
        id=event_id,
        ttl=f"{seconds(ttl_us)}s",
        source=source_json(report),
    )


class _AsReported:
    """Prices are known where the ledger is."""

    def price(self, usage: Usage, at_us: int, service: str) -> Usage:
        return usage


def _acting(report: Report) -> Report:
    return report.replace(who=report.who.replace(agent=report.who.agent or _STAND_IN))
