"""A ledger on either store, under a clock that stands still until a test moves it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from agent_meter_mcp.core.models import LimitKey, Subject, Usage, Who
from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.intake import Report
from agent_meter_mcp.ledger import Ledger
from agent_meter_mcp.store.memory import MemoryStore
from agent_meter_mcp.store.sqlite import open_store

if TYPE_CHECKING:
    from agent_meter_mcp.core.commands import Applied, Ask, Command
    from agent_meter_mcp.core.decide import Decision
    from agent_meter_mcp.store.base import Store

NOON_US = 1_790_000_000_000_000 // 86_400_000_000 * 86_400_000_000 + 43_200_000_000
SECOND_US = 1_000_000
_NUMBERS = itertools.count(1)
OPERATOR = Caller("operator", "olga")
VIEWER = Caller("viewer", "vera")
AGENT = Caller("agent", "agent bot", bound_to="bot")
SERVICE = Caller("service", "openai's key", bound_to="openai")


class ManualClock:
    def __init__(self) -> None:
        self.now_us = NOON_US

    def __call__(self) -> int:
        return self.now_us

    def advance(self, seconds: float) -> None:
        self.now_us += int(seconds * SECOND_US)


class NoPrices:
    """A price list without a price in it."""

    def price(self, usage: Usage, at_us: int, service: str) -> Usage:
        return usage if usage.cost_nano_usd is None else usage.replace(cost_source="reported")


class Observed:
    """What a store is seen to do. `hold` keeps writes waiting; `failure` is raised in their place."""

    def __init__(self) -> None:
        self.batches: list[tuple[Command, ...]] = []
        self.threads: set[int] = set()
        self.peeks = 0
        self.looks = 0
        self.failure: Exception | None = None
        self.closed = False
        self.looked_five_times = threading.Event()
        self.entered = threading.Event()
        self._pass = threading.Event()
        self._pass.set()

    def hold(self) -> None:
        self.entered.clear()
        self._pass.clear()

    def let_go(self) -> None:
        self._pass.set()

    def before_apply(self, commands: Sequence[Command]) -> None:
        self.entered.set()
        assert self._pass.wait(10)
        self.threads.add(threading.get_ident())
        if self.failure is not None:
            raise self.failure
        self.batches.append(tuple(commands))

    @property
    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.batches]


class AnyStore:
    """A real store, observed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.seen = Observed()

    def apply(self, commands: Sequence[Command], now_us: int) -> Applied:
        self.seen.before_apply(commands)
        return self._store.apply(commands, now_us)

    def peek(self, asks: Sequence[Ask], now_us: int) -> list[Decision]:
        self.seen.peeks += 1
        return self._store.peek(asks, now_us)

    def changed(self) -> int:
        self.seen.looks += 1
        if self.seen.looks == 5:
            self.seen.looked_five_times.set()
        return self._store.changed()

    def close(self) -> None:
        self.seen.closed = True
        self._store.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnyStore]:
    inner = MemoryStore() if request.param == "memory" else open_store(str(tmp_path / "meter.db"))
    made = AnyStore(inner)
    yield made
    if not made.seen.closed:
        made.close()


def ledger_on(store: AnyStore, clock: ManualClock, **bounds: float) -> Ledger:
    """To be entered by the test. `bounds` are the keyword arguments of Ledger."""
    return Ledger(
        cast("Store", store),
        NoPrices(),
        clock,
        lambda now_us: f"id-{now_us}-{next(_NUMBERS):06}",
        **bounds,  # pyright: ignore[reportArgumentType]  all but one are whole numbers
    )


@pytest.fixture
def ledger(store: AnyStore, clock: ManualClock) -> Ledger:
    return ledger_on(store, clock)


def report(agent: str = "bot", service: str = "openai", **fields: object) -> Report:
    """One request by somebody somewhere; `fields` are those of Report."""
    return Report(Who(agent, service), Usage(), **fields)  # pyright: ignore[reportArgumentType]  the test says which


def requests_per_day(name: str | None = "*", service: str | None = None) -> LimitKey:
    return LimitKey(Subject() if name is None else Subject("agent", name), service, "requests", "day")
