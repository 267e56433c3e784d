"""The meter for programs without an event loop: the same one, run in a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, Unpack

from .background import Background
from .fields import AmountFields, CheckFields, RecordFields, ReserveFields, SettleFields
from .meter import SPOOL_BYTES_MAX, TIMEOUT_S, Meter

if TYPE_CHECKING:
    import os
    from collections import Counter
    from collections.abc import Coroutine
    from types import TracebackType
    from typing import Self

    from agent_meter_mcp.core.models import Source

    from .hold import Hold, OnError
    from .results import BudgetReserved, Decided, ReservationSettled, UsageRecorded

T = TypeVar("T")


class SyncMeter:
    """`with SyncMeter(...) as meter`: as Meter, without `await`. Any thread may use it."""

    def __init__(
        self,
        *,
        url: str | None = None,
        key: str | None = None,
        db: str | os.PathLike[str] | None = None,
        spool: str | os.PathLike[str] | None = None,
        spool_bytes_max: int = SPOOL_BYTES_MAX,
        on_error: OnError = "allow",
        timeout_s: float = TIMEOUT_S,
        source: Source = "self",
    ) -> None:
        self._meter = Meter(
            url=url,
            key=key,
            db=db,
            spool=spool,
            spool_bytes_max=spool_bytes_max,
            on_error=on_error,
            timeout_s=timeout_s,
            source=source,
        )
        self._background: Background | None = None

    @property
    def counters(self) -> Counter[str]:
        return self._meter.counters

    def record(self, **usage: Unpack[RecordFields]) -> UsageRecorded:
        """As Meter.record."""
        return self._run(self._meter.record(**usage))

    def check(self, **asked: Unpack[CheckFields]) -> Decided:
        """As Meter.check."""
        return self._run(self._meter.check(**asked))

    def reserve(self, *, raise_on_denial: bool = True, **estimate: Unpack[ReserveFields]) -> SyncHold:
        """As Meter.reserve: `with meter.reserve(...) as hold`."""
        return SyncHold(self._meter.reserve(raise_on_denial=raise_on_denial, **estimate), self)

    def __enter__(self) -> Self:
        background = Background()
        try:
            background.run(self._meter.__aenter__())
        except BaseException:
            background.close()
            raise
        self._background = background
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        background, self._background = self._background, None
        if background is not None and background.is_here:
            try:
                background.run(self._meter.__aexit__(kind, error, trace))
            finally:
                background.close()

    def _run(self, work: Coroutine[object, object, T]) -> T:
        if self._background is None:
            work.close()
            raise RuntimeError("this meter is not open: use it inside `with SyncMeter(...)`")
        return self._background.run(work)


class SyncHold:
    """`with meter.reserve(...) as hold`: as Hold, without `await`."""

    def __init__(self, hold: Hold, meter: SyncMeter) -> None:
        self._hold = hold
        self._run = meter._run  # pyright: ignore[reportPrivateUsage]  two halves of one thing

    @property
    def allowed(self) -> bool:
        return self._hold.allowed

    @property
    def reservation_id(self) -> str | None:
        return self._hold.reservation_id

    @property
    def decision(self) -> BudgetReserved:
        return self._hold.decision

    def used(self, **amounts: Unpack[AmountFields]) -> None:
        self._hold.used(**amounts)

    def settle(self, **actual: Unpack[SettleFields]) -> ReservationSettled:
        return self._run(self._hold.settle(**actual))

    def release(self) -> ReservationSettled:
        return self._run(self._hold.release())

    def extend(self, ttl: str) -> ReservationSettled:
        return self._run(self._hold.extend(ttl))

    def __enter__(self) -> Self:
        self._run(self._hold.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._hold.__aexit__(kind, error, trace))
