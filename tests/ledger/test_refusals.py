"""Refusals: judged in a snapshot, folded, kept, and never in anybody's way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from anyio import fail_after

from agent_meter_mcp.core.commands import Refusal, Refuse, Reserve, Reserved
from agent_meter_mcp.core.decide import Decision
from agent_meter_mcp.core.errors import InvalidInput, StoreFull
from agent_meter_mcp.core.models import StoredEvent, Usage, Who
from agent_meter_mcp.core.queries import EventsQuery, SummaryQuery, UsageFilter
from agent_meter_mcp.intake import Report
from agent_meter_mcp.ledger import Ledger, engine
from agent_meter_mcp.ledger.refusals import FOLDS_MAX, Refusals

from .conftest import AGENT, NOON_US, OPERATOR, SECOND_US, AnyStore, ManualClock, report, requests_per_day


@pytest.fixture(autouse=True)
def no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts wait for as long as a test needs; those that are about the timer set it themselves."""
    monkeypatch.setattr(engine, "FOLD_S", 3600.0)


async def rejected(ledger: Ledger) -> int:
    return (await ledger.summary(OPERATOR, SummaryQuery(UsageFilter()))).total.rejected


def kept(store: AnyStore) -> list[tuple[int, str | None]]:
    """Count and service of each refusal in the store itself, oldest first."""
    page: Sequence[StoredEvent] = store.events(EventsQuery(UsageFilter(outcome="rejected"), 500)).events
    return [(event.count, event.event.who.service) for event in reversed(page)]


def gist(reserved: Reserved) -> tuple[object, ...]:
    """An answer without its moment, which differs by a microsecond."""
    decided = reserved.decision
    return (
        reserved.status,
        reserved.reservation,
        decided.allowed,
        decided.affordable,
        [state.replace(at_us=0) for state in decided.limits],
        [
            (reason.code, reason.asked, reason.retry_at_us, reason.holders, reason.switch)
            for reason in decided.reasons
        ],
    )


async def test_ten_thousand_refusals_take_a_few_writes(ledger: Ledger, store: AnyStore) -> None:
    async with ledger:
        await ledger.set_limit(OPERATOR, requests_per_day(), 0)

        async def hammer() -> None:
            for _ in range(200):
                assert (await ledger.reserve(OPERATOR, report())).status == "denied"

        await asyncio.gather(*(hammer() for _ in range(50)))
        assert await rejected(ledger) == 10_000
        # The limit, the first 50 at once, the first of the fold, and the count.
        assert len(store.seen.batches) <= 6
        assert sum(store.seen.sizes) <= 60
    assert sum(count for count, _ in kept_after(store)) == 0 or store.seen.closed


def kept_after(store: AnyStore) -> list[tuple[int, str | None]]:
    return [] if store.seen.closed else kept(store)
