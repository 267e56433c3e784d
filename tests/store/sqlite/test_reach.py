"""What is read of some minutes long ago costs no more as the ledger grows, and days are not read hour by hour
where they are another zone's: SQLite's own steps are counted.

Of two upper bounds in a query SQLite may search by the one of no use, and walk the rest of the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent_meter_mcp.core.commands import Ask, Record, Reserve, SetLimit, Settle
from agent_meter_mcp.core.limits import Coverage
from agent_meter_mcp.core.models import LimitKey, Subject, Usage, UsageEvent, Who
from agent_meter_mcp.core.queries import SummaryQuery, UsageFilter
from agent_meter_mcp.store.sqlite import SqliteStore, driver, open_store
from agent_meter_mcp.store.sqlite.reading import Reader
from agent_meter_mcp.store.sqlite.rollups import ROLL_AT
from agent_meter_mcp.store.sqlite.schema import ALL, DAY
from agent_meter_mcp.store.sqlite.summarising import cover
from agent_meter_mcp.store.sqlite.sums import FAR_US, Sums

from .steps import counted

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 3600 * SECOND
START_US = 500_000 * HOUR  # a whole hour
EARLY = START_US + HOUR + 600 * SECOND, START_US + HOUR + 1500 * SECOND  # a part of one hour
BATCH = 64
PAUSE_US = 200 * SECOND
"""Between two batches: 1152 events an hour, of which every second one is booked elsewhere."""

OFFSETS = {"UTC": 0, "Europe/Berlin": 1, "Pacific/Kiritimati": 14}
"""Hours by which clocks were ahead in the winter of START_US."""

Read = Callable[[Reader], object]


def summarise(reader: Reader) -> object:
    wanted = UsageFilter(*EARLY)
    return reader.summary(SummaryQuery(wanted, ("agent", "model")), START_US).total


def sum_up(reader: Reader) -> object:
    """For a counter, over a day whose ends lie in the middle of an hour."""
    sums = Sums(reader.connection, Coverage("llm"), "requests")
    return sums.used_long(EARLY[0] - 24 * HOUR, EARLY[1])


def grow(store: SqliteStore, batches: int, number: Iterator[int]) -> None:
    for _ in range(batches):
        events = [
            UsageEvent(f"{at}", Who("ann", "llm"), Usage(), occurred_at_us=_occurred(at))
            for at in (next(number) for _ in range(BATCH))
        ]
        store.apply([Record(event) for event in events], _recorded(int(events[-1].id)))


def _recorded(number: int) -> int:
    return START_US + number // BATCH * PAUSE_US + PAUSE_US


def _occurred(number: int) -> int | None:
    return _recorded(number) - number % BATCH * SECOND if number % 2 else None


def steps(path: str, read: Read) -> tuple[object, int]:
    """What is read, on a connection of its own, and how much SQLite did for it."""
    reader = Reader(driver.connect(path, synchronous="NORMAL", busy_timeout_s=1))
    reader.policy()  # the configuration is read once
    with counted(reader.connection) as taken:
        found = read(reader)
    reader.connection.close()
    return found, taken[0]


@pytest.mark.parametrize("read", [summarise, sum_up])
def test_an_early_part_of_an_hour_costs_the_same_in_a_ledger_that_grew(tmp_path: Path, read: Read) -> None:
    path, number = str(tmp_path / "ledger.db"), count()
    store = open_store(path, synchronous="NORMAL")
    grow(store, 2 * ROLL_AT // BATCH, number)
    before, few = steps(path, read)
    grow(store, 8 * ROLL_AT // BATCH, number)
    store.close()
    after, many = steps(path, read)
    assert after == before
    assert 100 < few <= many < 1.1 * few


def test_of_an_hour_that_a_range_has_nearly_whole_the_rest_is_read(tmp_path: Path) -> None:
    path = str(tmp_path / "ledger.db")
    store = open_store(path, synchronous="NORMAL")
    grow(store, 4 * ROLL_AT // BATCH, count())
    store.close()

    def requests(since_min: int, until_min: int) -> tuple[int, int]:
        query = SummaryQuery(
            UsageFilter(START_US + since_min * MINUTE, START_US + until_min * MINUTE), ("agent",)
        )
        found, taken = steps(path, lambda reader: reader.summary(query, START_US).total.requests)
        assert isinstance(found, int)
        return found, taken

    two_hours, few = requests(55, 175)
    one_hour, most = requests(90, 150)
    parts = [requests(*part)[0] for part in ((55, 60), (60, 120), (120, 150), (150, 175))]
    assert two_hours == sum(parts) > one_hour > 0
    assert few < most / 2


def list_holds(reader: Reader) -> object:
    return reader.reservations(START_US)


def ask(agent: str, requests: int) -> Read:
    wanted = Ask(Who(agent, "llm"), Usage(requests))
    return lambda reader: reader.peek([wanted], START_US + HOUR)[0].allowed


@pytest.mark.parametrize("window", ["1h", "7d", "day", "total"])
def test_who_is_new_costs_the_same_whatever_others_used(tmp_path: Path, window: str) -> None:
    """A limit on each agent is counted from the ledger when an agent comes, which has nothing there."""
    path = str(tmp_path / "ledger.db")
    store = open_store(path, synchronous="NORMAL")
    key = LimitKey(Subject("agent", "*"), None, "requests", window)
    store.apply([SetLimit("each", key, 9, "me")], START_US)
    taken: list[int] = []
    for batch in range(2):
        used = [UsageEvent(f"{batch} {each}", Who(f"{each % 50}", "llm"), Usage()) for each in range(1000)]
        store.apply([Record(event) for event in used], START_US + batch * SECOND)
        allowed, some = steps(path, ask("new", 1))
        assert allowed
        taken.append(some)
    store.close()
    assert taken[1] <= 1.1 * taken[0] < 200


@pytest.mark.parametrize(
    ("read", "is_allowed"),
    [(ask("ann", 9), False), (ask("new", 1), True), (list_holds, None)],
    ids=["a refusal that says who holds the budget", "who is new", "what is held"],
)
def test_what_is_held_costs_the_same_however_much_was(
    tmp_path: Path, read: Read, is_allowed: bool | None
) -> None:
    path = str(tmp_path / "ledger.db")
    store = open_store(path, synchronous="NORMAL")
    key = LimitKey(Subject("agent", "*"), None, "requests", "1h")
    store.apply([SetLimit("each", key, 9, "me"), hold("open", "ann")], START_US)
    taken: list[int] = []
    for batch in range(2):
        names = [f"{batch} {number}" for number in range(500)]
        store.apply([hold(name, "bob") for name in names], START_US + batch * SECOND)
        store.apply([Settle(name, None) for name in names], START_US + batch * SECOND)
        found, some = steps(path, read)
        assert is_allowed is None or found is is_allowed
        taken.append(some)
    store.close()
    assert taken[1] <= 1.1 * taken[0] < 200


def hold(name: str, agent: str) -> Reserve:
    return Reserve(name, name, Who(agent, "llm"), Usage(0 if agent == "bob" else 1), 7200 * SECOND)


TIMES = st.integers(0, 4 * 24 * 60).map(lambda minute: minute * MINUTE)


@given(TIMES, TIMES, st.booleans())
@example(0, FAR_US, True)
@example(30 * MINUTE, FAR_US, True)
def test_what_is_read_of_a_range_adds_up_to_it(one: int, other: int, is_near: bool) -> None:
    start, end = min(one, other), max(one, other)
    stretches, edges = cover(start, end, is_near=is_near)
    if stretches and stretches[0][1] == ALL:
        assert (stretches, edges) == ([(1, ALL, 0, 1)], []) and (start, end) == (0, FAR_US)
        return
    pieces = list(edges)
    for sign, grain, first, last in stretches:
        size = HOUR * (24 if grain == DAY else 1)
        pieces.append((sign, first * size, last * size))
    for moment in {start - 1, start, end - 1, end, *(bound for _, *bounds in pieces for bound in bounds)}:
        covered = sum(sign for sign, first, last in pieces if first <= moment < last)
        assert covered == (start <= moment < end)
    assert sum(last - first for _, first, last in edges) <= (HOUR if is_near else 2 * HOUR)


def test_days_of_another_zone_cost_little_more_than_the_days_that_are_summed_up(tmp_path: Path) -> None:
    path, agents, days = str(tmp_path / "ledger.db"), ("ann", "bob", "cy", "dee"), 20
    store = open_store(path, synchronous="NORMAL")
    for hour in range(30 * 24):
        at_us = START_US + hour * HOUR
        used = [UsageEvent(f"{agent} {hour}", Who(agent, "llm"), Usage()) for agent in agents]
        store.apply([Record(event) for event in used], at_us)
    store.close()

    def days_of(zone: str) -> Read:
        begin = START_US - START_US % (24 * HOUR) + 24 * HOUR - OFFSETS[zone] * HOUR
        wanted = UsageFilter(begin, begin + days * 24 * HOUR)
        return lambda reader: (
            reader.summary(
                SummaryQuery(wanted, ("agent", "day"), limit=1000, zone=zone), START_US
            ).total.events
        )

    (utc, few), (berlin, more), (kiritimati, most) = (steps(path, days_of(zone)) for zone in OFFSETS)
    assert utc == berlin == kiritimati == days * 24 * len(agents)
    assert 50 < few <= more < 3 * few
    assert most < 6 * few  # ten hours are missed, and as many had too much
