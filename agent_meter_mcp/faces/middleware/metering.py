"""Admission before the work, settlement after it. What fails is logged and counted, and raises nothing."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from agent_meter_mcp.client import Hold, Meter
from agent_meter_mcp.client.hold import without_meter
from agent_meter_mcp.client.results import Decided
from agent_meter_mcp.core.errors import InvalidInput, MeterError
from agent_meter_mcp.core.money import micro_units
from agent_meter_mcp.core.text import name
from agent_meter_mcp.settings import load_settings

from .attachment import Attachment
from .callers import ANONYMOUS, agent_by
from .keeping import Kept
from .settlement import Settlement

if TYPE_CHECKING:
    from typing import TypeAlias

    from agent_meter_mcp.client.fields import SettleFields
    from agent_meter_mcp.client.hold import OnError

    from .callers import Identify, Unidentified

    Number: TypeAlias = int | float | Decimal
    After: TypeAlias = Callable[[Any, int], Number | None]
    Units: TypeAlias = Number | Mapping[str, Number] | After
    """So many per request; or by route; or what a function says of the request and its status, afterwards."""

_log = logging.getLogger(__name__)


class Options(TypedDict, total=False):
    """Where the meter is (`url` and `key`, `db`, or a `meter` that is open), and how it is used."""

    url: str | None
    key: str | None
    db: str | os.PathLike[str] | None
    meter: Meter | None
    identify: Identify | None
    unidentified: Unidentified
    units: Units | None
    on_error: OnError


class Admission(NamedTuple):
    """`refused` says why not. Without `hold`, which whoever got it settles, it goes on unmetered."""

    hold: Kept | None = None
    refused: Decided | None = None


class Metering:
    """Of one service. `counters` are the meter's, and `unmetered`: requests that are not in the ledger."""

    def __init__(
        self,
        service: str,
        *,
        url: str | None = None,
        key: str | None = None,
        db: str | os.PathLike[str] | None = None,
        meter: Meter | None = None,
        identify: Identify | None = None,
        unidentified: Unidentified = "meter",
        units: Units | None = None,
        on_error: OnError = "allow",
    ) -> None:
        """Raises InvalidInput."""
        if unidentified not in ("meter", "refuse", "pass"):
            raise InvalidInput("unidentified", 'must be "meter", "refuse" or "pass"')
        self.service = name(service, "service")
        self.unidentified: Unidentified = unidentified
        self.counters: Counter[str] = Counter() if meter is None else meter.counters
        self._identify = identify
        self._units, self._units_by_route, self._units_after = _sorted(units)
        self._on_error: OnError = on_error

        def make() -> Meter:
            return Meter(
                url=url, key=key, db=db, on_error=on_error, source="middleware", counters=self.counters
            )

        if meter is None:
            make()  # what is wrong with it is found now
        if meter is None and url is None and load_settings(os.environ).agent is not None:
            raise InvalidInput(
                "AGENT_METER_AGENT",
                "binds this process to one agent, but a service meters many: unset it here",
            )
        self.attachment = Attachment(make, meter)

    async def agent_of(self, request: object, told: Callable[[], str | None]) -> str | None:
        """Whose request it is, by the app's own function or else by what `told` finds; None: pass it by."""
        try:
            agent = told() if self._identify is None else await agent_by(self._identify, request)
        except Exception:  # the app's function: a request without a name is all that we can make of it
            self.counters["identify_failed"] += 1
            _log.exception("identify failed, so the request is unidentified")
            agent = None
        return ANONYMOUS if agent is None and self.unidentified == "meter" else agent

    async def admit(self, agent: str, operation: str, route: str) -> Admission:
        """A hold on the budget, or the reason why not."""
        estimate = self._estimate(operation, route)

        async def ask(meter: Meter) -> Hold:
            hold = meter.reserve(
                service=self.service,
                agent=agent,
                operation=operation,
                units=estimate,
                raise_on_denial=False,
            )
            return await hold.ask()

        try:
            hold = await self.attachment.run(ask)
        except MeterError as error:
            return self._unmetered(error)
        except Exception as error:  # whatever it is, it is ours, and not to be the app's
            _log.exception("admission failed")
            return self._unmetered(MeterError(str(error)))
        if not hold.allowed:
            return Admission(refused=hold.decision)
        return Admission(Kept(hold, self.attachment))

    async def settle(
        self,
        kept: Kept,
        request: object,
        status: int,
        duration_s: float,
        metadata: Mapping[str, object] | None = None,
    ) -> None:
        """What was used, once it is over. Others need not wait for it."""
        kept.stop()
        units = self._actual(request, status)
        ended: SettleFields = {
            "status_code": status,
            "duration_ms": max(round(duration_s * 1000), 0),
            "metadata": metadata,
        }
        settlement = Settlement(kept.hold, self.service, units, ended, self.counters)
        try:
            await self.attachment.later(settlement.attempt, settlement.lost)
        except Exception as error:  # whatever it is, it is ours, and not to be the app's
            settlement.lost(error)

    def _unmetered(self, error: MeterError) -> Admission:
        decision = Decided(**without_meter(error, self._on_error, self.counters))
        if not decision.allowed:
            return Admission(refused=decision)
        self.counters["unmetered"] += 1
        return Admission()

    def _estimate(self, operation: str, route: str) -> Number | None:
        by_route = self._units_by_route
        if by_route is None:
            return self._units
        method, _, path = operation.partition(" ")
        if method == "HEAD" and operation not in by_route:  # frameworks do all the work of GET for it
            operation = f"GET {path}"
        return by_route.get(operation, by_route.get(route))

    def _actual(self, request: object, status: int) -> Number | None:
        """None: as estimated."""
        if self._units_after is None:
            return None
        try:
            return self._units_after(request, status)
        except Exception:  # the app's function; the request itself is metered all the same
            self.counters["units_failed"] += 1
            _log.exception("units failed, so none are counted")
            return None


def _sorted(units: Units | None) -> tuple[Number | None, Mapping[str, Number] | None, After | None]:
    """What it is: a number, a mapping or a function. Raises InvalidInput."""
    if isinstance(units, Mapping):
        by_route: dict[str, Number] = {**units}
        for value in by_route.values():
            micro_units(value)
        return None, by_route, None
    if units is None or isinstance(units, int | float | Decimal):
        if units is not None:
            micro_units(units)
        return units, None, None
    if iscoroutinefunction(units):
        raise InvalidInput("units", "must be a plain function: it is called when the response has gone")
    return None, None, units
