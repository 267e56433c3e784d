"""Usage that is in the ledger as upstream's records, and attestations of it."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, time
from typing import TYPE_CHECKING
from uuid import uuid4

from anyio import to_thread

from agent_meter_mcp.core import check
from agent_meter_mcp.core.attest import attest
from agent_meter_mcp.core.errors import Forbidden, InvalidInput
from agent_meter_mcp.core.queries import EVENTS_PAGE_MAX, EventsQuery, UsageFilter
from agent_meter_mcp.core.text import ID_MAX, name
from agent_meter_mcp.core.times import time_text_ms, us_of
from agent_meter_mcp.core.windows import parse_window, period, zone_of

from .upstream import record_text

if TYPE_CHECKING:
    from agent_meter_mcp.core.models import StoredEvent
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.ledger import Ledger

RECORDS_MAX = 10_000
"""In one answer or attestation."""


def day_of(text: str, zone: str) -> tuple[int, int]:
    """[start, end) of a day such as "2026-01-31" by the clocks of the zone. Raises InvalidInput."""
    clocks = zone_of(zone)
    try:
        if len(text) != 10:
            raise ValueError
        day = datetime.fromisoformat(text).date()
        noon = datetime.combine(day, time(12), clocks)
        start_us, end_us = period(parse_window("day"), zone, us_of(noon))
    except (ValueError, OverflowError):
        raise InvalidInput("day", 'must be a day such as "2026-01-31"') from None
    if end_us is None:
        raise InvalidInput("day", "is too far off")
    return start_us, end_us


async def newest_usage(
    ledger: "Ledger", caller: "Caller", query: EventsQuery
) -> AsyncIterator[tuple[Sequence["StoredEvent"], int | None]]:
    """Pages of usage that was counted, newest first, each with the cursor after it."""
    async for page in ledger.event_pages(caller, query):
        yield [stored for stored in page.events if stored.outcome != "rejected"], page.next_seq


async def record_texts(events: Sequence["StoredEvent"]) -> list[str]:
    """In a thread: a page of them takes longer than others should wait."""
    return await to_thread.run_sync(lambda: [record_text(stored) for stored in events])


async def attestation(
    ledger: "Ledger",
    caller: "Caller",
    secret: str,
    service: str,
    span: tuple[int | None, int | None],
    ids: Sequence[str] | None = None,
) -> str:
    """Of a service's usage in [since, until), or of that with these ids; the oldest first.

    Raises:
        InvalidInput: there is none, or too much, or an id that is not there.
        Forbidden: the caller does not see all of it.
    """
    if caller.role == "agent":
        raise Forbidden("an agent sees its own usage only; this needs the role viewer or operator.")
    chosen = check.usage_filter(UsageFilter(*span, service=service))
    texts = await (_of_span(ledger, caller, chosen) if ids is None else _of_ids(ledger, caller, chosen, ids))
    if not texts:
        raise InvalidInput("service", "has no usage there: there is nothing to attest")
    return attest(secret, uuid4().hex, time_text_ms(ledger.now_us()), service, texts)


async def _of_span(ledger: "Ledger", caller: "Caller", chosen: UsageFilter) -> list[str]:
    texts: list[str] = []
    async for events, _ in newest_usage(ledger, caller, EventsQuery(chosen, EVENTS_PAGE_MAX)):
        texts += await record_texts(events)
        if len(texts) > RECORDS_MAX:
            raise InvalidInput(
                "since", f"there are more than {RECORDS_MAX} records: attest a shorter stretch of time"
            )
    return texts[::-1]


async def _of_ids(ledger: "Ledger", caller: "Caller", chosen: UsageFilter, ids: Sequence[str]) -> list[str]:
    if not 1 <= len(ids) <= RECORDS_MAX:
        raise InvalidInput("ids", f"has {len(ids)} entries; 1 to {RECORDS_MAX} are allowed")
    wanted = tuple(dict.fromkeys(name(one, "ids", maximum=ID_MAX) for one in ids))
    found: list[StoredEvent] = []
    for start in range(0, len(wanted), EVENTS_PAGE_MAX):
        part = wanted[start : start + EVENTS_PAGE_MAX]
        query = EventsQuery(chosen, EVENTS_PAGE_MAX, ids=part)
        found += [stored async for events, _ in newest_usage(ledger, caller, query) for stored in events]
    there = {stored.event.id for stored in found}
    missing = [one for one in wanted if one not in there]
    if missing:
        raise InvalidInput("ids", f"the service has no usage under {len(missing)} of them: {missing[0]!r}")
    return await record_texts(sorted(found, key=lambda stored: stored.seq))
