"""Budget that is held around a piece of work, and settles itself."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Unpack

from anyio import CancelScope

from agent_meter_mcp.core import check
from agent_meter_mcp.core.errors import MeterError
from agent_meter_mcp.runtime import new_id, system_clock_us

from .errors import UNAVAILABLE, OverBudget
from .fields import AMOUNTS, AmountFields, SettleFields, added, refuse_unknown, settle_of
from .place import Granted
from .results import BudgetReserved, Reason, ReservationSettled

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable
    from types import TracebackType
    from typing import Literal, Self

    from agent_meter_mcp.core.commands import Settle
    from agent_meter_mcp.intake import Report

    from .place import Place

    OnError = Literal["allow", "deny"]

SAY_AGAIN_S = 1.0
"""How long the same failure is not said again: every request has it, and the log may be on the full disk."""
SAID_MAX = 64
_said: dict[str, float] = {}
"""What was said lately, and when."""
_log = logging.getLogger(__name__)


class Hold:
    """`async with meter.reserve(...) as hold`: what `hold.used(...)` said is settled on leaving.

    That is so when the block raises, too, and for what a `settle` said that was cancelled or failed. Where
    nothing was said, the estimate counts as right; if the block raised, nothing counts as used. A denial
    raises OverBudget, unless `raise_on_denial` is False: then ask `hold.allowed`.
    """

    def __init__(
        self,
        place: Place,
        report: Report,
        ttl_us: int,
        *,
        raise_on_denial: bool,
        on_error: OnError,
        counters: Counter[str],
    ) -> None:
        self.place = place
        self._report = report
        self._ttl_us = ttl_us
        self._raise_on_denial = raise_on_denial
        self._on_error: OnError = on_error
        self._counters = counters
        self._granted: Granted | None = None
        self._failure: MeterError | None = None
        self._decision: BudgetReserved | None = None
        self._used: dict[str, Any] = {}
        self._unsettled: SettleFields | None = None
        """What a `settle` said that was cancelled, or that the meter failed at; None: there was none such."""
        self._record_id = report.id
        self._ended = False

    @property
    def allowed(self) -> bool:
        """Whether the work may be done."""
        return self._answer.allowed

    @property
    def agent(self) -> str | None:
        """Whose budget it is, as it was stated."""
        return self._report.who.agent

    @property
    def reservation_id(self) -> str | None:
        """None when denied, and when the meter could not be asked."""
        return self._answer.reservation_id

    @property
    def decision(self) -> BudgetReserved:
        """Everything that explains it."""
        if self._decision is None:
            self._decision = self._answer.tell()
        return self._decision

    @property
    def failure(self) -> MeterError | None:
        """Why the meter could not be asked, if so."""
        return self._failure

    async def ask(self) -> Self:
        """Makes the reservation. `async with` does it.

        Raises OverBudget; InvalidInput, Forbidden, Conflict. A meter that cannot be asked is no error here:
        `on_error` decides.
        """
        try:
            self._granted = await self.place.reserve(self._report, self._ttl_us)
        except UNAVAILABLE as error:
            self._failure = error
            self._granted = self._without_meter(error)
        if not self.allowed and self._raise_on_denial:
            raise OverBudget(self.decision)
        return self

    def used(self, **amounts: Unpack[AmountFields]) -> None:
        """What was used so far; each call adds to the ones before. Raises InvalidInput."""
        refuse_unknown(amounts, AmountFields)
        self._used = added(self._used, amounts)

    async def settle(self, **actual: Unpack[SettleFields]) -> ReservationSettled:
        """Ends the hold with what was used: `used` and `actual` together, or, without any, the estimate."""
        return (await self._settle(actual, want_limits=True))()

    async def end(self, **actual: Unpack[SettleFields]) -> None:
        """As `settle`, for whom the states of the limits are of no use: it is cheaper."""
        await self._settle(actual, want_limits=False)

    async def release(self) -> ReservationSettled:
        """Ends the hold: nothing was used."""
        self._check_open()
        reservation_id = self.reservation_id
        if reservation_id is None:
            self._ended = True
            return ReservationSettled("Released.", None, "released")
        settled = await self.place.release(reservation_id)
        self._ended = True
        return settled

    async def extend(self, ttl: str) -> ReservationSettled:
        """The hold lasts `ttl` from now."""
        self._check_open()
        reservation_id = self.reservation_id
        if reservation_id is None:
            return ReservationSettled("There is no hold to extend.", None, "open")
        return await self.place.extend(reservation_id, check.ttl_of(ttl))

    async def __aenter__(self) -> Self:
        return await self.ask()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises what settling raises, unless the block raised something itself: then that is logged."""
        if self._ended or not self.allowed:
            return
        with CancelScope(shield=True):
            try:
                if error is None or self._used or self._unsettled is not None:
                    await self.end(**(self._unsettled or {}))
                else:
                    await self.release()
            except MeterError as failure:
                self._counters["unsettled"] += 1
                if error is None:
                    raise
                _log.warning("a hold could not be ended: %s", failure)

    @property
    def _answer(self) -> Granted:
        if self._granted is None:
            raise RuntimeError("nothing is reserved yet: use `async with meter.reserve(...)`")
        return self._granted

    def _check_open(self) -> None:
        if self._ended:
            raise RuntimeError("this hold has ended already")
        if not self.allowed:
            raise RuntimeError("there is no hold: it was denied")

    def _actual(self, actual: SettleFields, *, want_limits: bool) -> Settle:
        refuse_unknown(actual, SettleFields)
        self._check_open()
        amounts = {field: value for field, value in actual.items() if field in AMOUNTS}
        stated: dict[str, Any] = added(self._used, amounts) if amounts else self._used
        requests = {"requests": self._report.usage.requests} if stated else {}
        return settle_of({**actual, **requests, **stated}, self.reservation_id or "", want_limits=want_limits)

    async def _settle(self, actual: SettleFields, *, want_limits: bool) -> Callable[[], ReservationSettled]:
        settle = self._actual(actual, want_limits=want_limits)
        self._unsettled = actual
        try:
            settling = self.place.settle(settle) if self._failure is None else self._record(settle)
            tell = await settling
        except MeterError as error:
            if not isinstance(error, UNAVAILABLE):  # it was heard, and is wrong
                self._unsettled = None
            raise
        self._ended = True
        return tell

    async def _record(self, settle: Settle) -> Callable[[], ReservationSettled]:
        """The meter could not be asked, and the work was done all the same: that is usage, and counts. It is
        one record, however often it is tried."""
        if self._record_id is None:
            self._record_id = new_id(system_clock_us())
        used = self._report.replace(
            id=self._record_id,
            usage=self._report.usage if settle.usage is None else settle.usage,
            status_code=settle.status_code,
            duration_ms=settle.duration_ms,
            metadata=settle.metadata,
        )
        recorded = await self.place.record_unheld(used, self._report, self._ttl_us)
        return lambda: ReservationSettled(reservation_id=None, **recorded.as_dict())

    def _without_meter(self, error: MeterError) -> Granted:
        decision = without_meter(error, self._on_error, self._counters)
        reserved = BudgetReserved(**decision, status="unreachable")
        return Granted(reserved.allowed, None, lambda: reserved)


def without_meter(error: MeterError, on_error: OnError, counters: Counter[str]) -> dict[str, Any]:
    """The fields of a decision that the meter could not take. Counted, and said aloud."""
    allowed = on_error == "allow"
    answer = "allowed" if allowed else "denied"
    counters[f"{answer}_without_meter"] += 1
    if _is_new(f"{answer}: {error}"):
        so_far = counters[f"{answer}_without_meter"]
        _log.warning("%s without the meter (%d so far): %s", answer, so_far, error)
    message = f"{'Allowed' if allowed else 'Not allowed'}: the meter could not be asked ({error})"
    return {
        "message": message,
        "allowed": allowed,
        "reasons": (Reason("unreachable", message),),
        "retry_after_s": None if allowed else 1,
    }


def _is_new(what: str) -> bool:
    now_s = time.monotonic()
    if now_s - _said.get(what, -SAY_AGAIN_S) < SAY_AGAIN_S:
        return False
    if len(_said) >= SAID_MAX:
        _said.clear()
    _said[what] = now_s
    return True
