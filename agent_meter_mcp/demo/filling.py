"""Puts the month down in a ledger of its own: through the same intake and store as everybody's usage."""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from agent_meter_mcp.core.commands import Recorded, Release, Reserve, Reserved, Settle
from agent_meter_mcp.core.errors import InvalidInput, MeterError, NotFound, StoreError
from agent_meter_mcp.core.models import Reservation
from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.core.value import Value
from agent_meter_mcp.intake import Intake, Report, known_lineage
from agent_meter_mcp.prices import PriceBook
from agent_meter_mcp.runtime import id_of, open_store, system_clock_us
from agent_meter_mcp.settings import load_settings
from agent_meter_mcp.store.sqlite import open_store as open_sqlite

from .month import Asked, Finished, Month

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from agent_meter_mcp.core.commands import Command, Result
    from agent_meter_mcp.store.base import Store

    from .month import Deed, Step

SLICES_PER_AGE = 200
SLICE_MAX_US = 15 * 60 * 1_000_000
"""What happened close together is written in one transaction: the longer ago, the longer its stretch."""
TURN_S = 0.05
"""How often the live events are written."""
_CALLER = Caller("operator", "demo")


class Made(Value):
    """How many there are of what."""

    agents: int = 0
    events: int = 0
    over_limit: int = 0
    refused: int = 0
    corrected: int = 0
    unpriced: int = 0
    alerts: int = 0


class Filler:
    """Writes steps to a store. `made` counts what came of them."""

    def __init__(self, store: Store, seed: int) -> None:
        rng = random.Random(seed + 2)
        self._store = store
        self._intake = Intake(
            PriceBook(None), lambda at_us: id_of(at_us, rng.getrandbits(62)), partial(known_lineage, store)
        )
        self._asked: dict[tuple[str | None, str], Reserve] = {}
        self._counts = dict.fromkeys(Made.fields, 0)

    @property
    def made(self) -> Made:
        return Made(**self._counts)

    def write(self, deeds: Iterable[Deed], at_us: int) -> None:
        """In one transaction, at that moment. Raises StoreError, and what is wrong with a deed."""
        commands = [self._command(deed, at_us) for deed in deeds]
        applied = self._store.apply(commands, at_us)
        self._counts["alerts"] += len(applied.alerts)
        for command, result in zip(commands, applied.results, strict=True):
            self._count(command, result)

    def forget_asked(self) -> None:
        """Of what was asked so far, nobody says what came."""
        self._asked.clear()

    def _command(self, deed: Deed, at_us: int) -> Command:
        intake = self._intake
        if isinstance(deed, Report):
            return intake.record(_CALLER, deed, at_us, want_limits=False)
        if isinstance(deed, Asked):
            asked = intake.reserve(_CALLER, deed.report, deed.ttl_us, at_us)
            self._asked[deed.report.who.service, asked.event_id] = asked
            return asked
        if not isinstance(deed, Finished):
            return deed
        asked = self._asked.pop((deed.service, deed.id))
        if deed.usage is None:
            return intake.release(asked.reservation_id)
        # Nobody knows yet whether it was granted: that may be decided in the same transaction.
        held = Reservation(
            asked.reservation_id, asked.event_id, asked.who, asked.usage, asked.operation, asked.source, 0, 0
        )
        return intake.settle(_CALLER, held, Settle(held.reservation_id, deed.usage, 200), at_us)

    def _count(self, command: Command, result: Result) -> None:
        counts = self._counts
        if isinstance(result, NotFound) and isinstance(command, Settle | Release):
            return  # it had been refused
        if isinstance(result, MeterError):
            raise result
        if isinstance(result, Recorded):
            counts["corrected"] += result.status == "corrected"
            if result.status == "recorded":
                counts["events"] += 1
                counts["over_limit"] += result.outcome == "over_limit"
                counts["unpriced"] += result.cost_nano_usd is None
        elif isinstance(result, Reserved):
            counts["refused"] += result.reservation is None


def make(path: str, month: Month, seed: int, progress: Callable[[int], None]) -> Made:
    """A new ledger at `path` with the month in it. It appears there when it is complete, or not at all.

    Raises:
        InvalidInput: there is something at `path`.
        StoreError: it cannot be written.
    """
    check_free(path)
    making = f"{path}.making-{os.getpid()}"
    try:
        made = _fill(making, month, seed, progress)
        check_free(path)
        with open(making, "rb") as complete:
            os.fsync(complete.fileno())
        os.rename(making, path)
    except StoreError as error:
        # Nobody knows of the other name, and the environment does not say where the demo is made.
        told = str(error).replace(making, path).replace("AGENT_METER_DB", "--db")
        raise type(error)(told) from error
    finally:
        for ending in ("", "-wal", "-shm", "-queue"):
            with suppress(OSError):  # where it could not be made, there is nothing to remove
                os.unlink(making + ending)
    return made


def check_free(path: str) -> None:
    """Raises InvalidInput: a ledger with real usage is never mixed with invented one."""
    if os.path.lexists(path):
        raise InvalidInput(
            "db", f"{path} exists; the demo fills a new file only. Name another one, or remove that one first"
        )


def _fill(path: str, month: Month, seed: int, progress: Callable[[int], None]) -> Made:
    # A file that appears when it is complete can wait for the disk until then.
    store = open_sqlite(path, synchronous="OFF")
    try:
        filler = Filler(store, seed)
        for at_us, deeds in _slices(month.steps(), month.until_us):
            filler.write(deeds, at_us)
            progress(filler.made.events)
        return filler.made.replace(agents=len(month.members))
    finally:
        store.close()


def _slices(steps: Iterable[Step], until_us: int) -> Iterator[tuple[int, list[Deed]]]:
    """Deeds with the moment at which they are written: that of the last of them."""
    deeds: list[Deed] = []
    last_us = end_us = 0
    for step in steps:
        if deeds and (step.at_us >= end_us or len(deeds) >= 1000):
            yield last_us, deeds
            deeds = []
        if not deeds:
            end_us = step.at_us + min((until_us - step.at_us) // SLICES_PER_AGE, SLICE_MAX_US)
        deeds.append(step.deed)
        last_us = step.at_us
    if deeds:
        yield last_us, deeds


def go_on(path: str, month: Month, seed: int, rate: float) -> Iterator[Made]:
    """Writes so many events a second at `path` as time goes by; says after each turn what there is so far.

    Raises StoreError.
    """
    store = open_store(load_settings({"AGENT_METER_DB": path}))
    try:
        filler, live = Filler(store, seed), month.live()
        began, written = time.monotonic(), 0
        while True:
            due = int((time.monotonic() - began) * rate) - written
            at_us = system_clock_us()
            filler.write([next(live).deed for _ in range(min(due, 1000))], at_us)
            filler.forget_asked()
            written += due
            yield filler.made
            time.sleep(TURN_S)
    finally:
        store.close()
