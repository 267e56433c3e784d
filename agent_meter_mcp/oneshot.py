"""One event, recorded by a process that does nothing else: a hook, a shell script.

No event loop, no threads, nothing imported that is not needed: such a process takes about twice as long as a
bare interpreter.
"""

from __future__ import annotations

import gc
import os

from .core.commands import Recorded
from .core.errors import MeterError
from .intake import Intake, known_lineage
from .runtime import new_id, open_store, price_book, system_clock_us

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .core.commands import Result
    from .core.models import Usage
    from .core.roles import Caller
    from .intake import Prices, Report
    from .settings import Settings


def record(settings: Settings, report: Report, caller: Caller) -> Recorded:
    """Usage that happened, written durably on return.

    Raises:
        InvalidInput, Forbidden, Conflict, StoreError: nothing was written.
    """
    collects = gc.isenabled()
    gc.disable()  # there is no garbage in what is imported, and looking for it is a twentieth of all the time
    try:
        answer = _apply(settings, report, caller)
    finally:
        if collects:
            gc.enable()
    if isinstance(answer, MeterError):
        raise answer
    if not isinstance(answer, Recorded):
        raise TypeError(f"the store answered {type(answer).__name__}")
    return answer


def _apply(settings: Settings, report: Report, caller: Caller) -> Result:
    store = open_store(settings)
    try:
        now_us = system_clock_us()
        intake = Intake(_prices(settings, report.usage), new_id, lambda agent: known_lineage(store, agent))
        command = intake.record(caller, report, now_us, want_limits=True)
        (answer,) = store.apply([command], now_us).results
        return answer
    finally:
        store.close()


def _prices(settings: Settings, usage: Usage) -> Prices:
    """The price book, unless there is nothing to look up in it."""
    if usage.cost_nano_usd is None and (usage.model is not None or os.path.exists(settings.prices)):
        return price_book(settings)
    return _NothingToPrice()


class _NothingToPrice:
    """For usage whose cost is reported, or can be found in no list."""

    def price(self, usage: Usage, at_us: int, service: str) -> Usage:
        source = "unpriced" if usage.cost_nano_usd is None else "reported"
        return usage.replace(cost_source=source, price_version=None)
