"""A clock that goes back, after commands that took no seq: nothing is forgotten, nothing counts twice."""

from __future__ import annotations

import pytest

from agent_meter_mcp.core.errors import NotFound

from .building import Desk, subject, used

DAYS = 11.5 * 86_400
"""How far ahead the clock was: windows of any kind have ended."""

windows = pytest.mark.parametrize("window", ["90s", "61h", "hour", "day"])


@windows
def test_a_correction_made_ahead_of_time_counts_when_the_clock_is_right_again(
    desk: Desk, window: str
) -> None:
    limit = desk.limit(30, window, "tokens")
    first = desk.record(used(tokens=10))
    desk.now = DAYS
    desk.record(used(tokens=20), id=first.event_id)
    desk.now = 1
    assert desk.reserve(used(tokens=11)).status == "reserved", "the ledger's clock does not go back behind it"
    assert desk.state(limit).at_us > limit.created_at_us + DAYS * 1_000_000


@windows
def test_a_duplicate_seen_ahead_of_time_makes_no_counter_that_is_short_of_usage(
    desk: Desk, window: str
) -> None:
    first = desk.record(used(tokens=10))
    desk.limit(30, window, "tokens")
    desk.now = DAYS
    assert desk.record(used(tokens=10), id=first.event_id).status == "duplicate"
    desk.now = 1
    assert desk.reserve(used(tokens=21)).status == "denied"
    assert desk.reserve(used(tokens=20)).status == "reserved"


@windows
def test_a_repeated_reservation_makes_no_counter_that_is_short_of_usage(desk: Desk, window: str) -> None:
    desk.record(used(tokens=10))
    asked = desk.reserving(used(tokens=5), ttl=2 * DAYS)
    desk.apply(asked)
    desk.limit(30, window, "tokens")
    desk.now = DAYS
    (again,) = desk.apply(asked)
    assert again.status == "duplicate"
    desk.now = 1
    assert desk.reserve(used(tokens=16)).status == "denied"
    assert desk.reserve(used(tokens=15)).status == "reserved"


@windows
def test_a_release_ahead_of_time_holds_nothing_when_the_clock_is_right_again(desk: Desk, window: str) -> None:
    desk.limit(30, window, "tokens")
    held = desk.hold(used(tokens=10), ttl=2 * DAYS)
    desk.now = DAYS
    desk.release(held.reservation_id)
    desk.now = 1
    assert desk.reserve(used(tokens=30)).status == "reserved"


def test_the_exact_edge_of_a_rolling_window_goes_back_with_the_clock(desk: Desk) -> None:
    desk.limit(2, "60s")
    for desk.now in (0.2, 0.92):
        desk.record()
    desk.now = 60.5
    assert desk.reserve(used(3)).status == "denied"
    desk.now = 60.95
    assert desk.peek(used(3)).affordable[0] == 2
    assert desk.reserve(used(3)).status == "denied", "a further count in the fold of 60 s: it takes no seq"
    desk.now = 60.6
    assert desk.peek(used(2)).affordable[0] == 1
    assert desk.reserve(used(2)).status == "denied"
    assert desk.reserve(used(1)).status == "reserved"


def test_a_hold_that_was_extended_does_not_move_the_clock_at_its_first_end(desk: Desk) -> None:
    held = desk.hold(ttl=60)
    desk.extend(held.reservation_id, 3600)
    desk.now = 100
    with pytest.raises(NotFound):
        desk.release("none")
    desk.now = 50
    assert desk.record().seq == desk.now_us


def test_a_hold_that_is_older_than_the_limit_is_open_again_where_the_clock_goes_back(desk: Desk) -> None:
    desk.hold(ttl=10)
    desk.limit(9, "day")
    seen: list[int] = []
    for desk.now in (1, 11, 5, 11):
        seen.append(desk.peek().limits[0].held)
    assert seen == [1, 0, 1, 0]


def test_a_parent_that_is_heard_of_ahead_of_time_has_what_it_holds_when_the_clock_is_right_again(
    desk: Desk,
) -> None:
    desk.limit(0, subject=subject("agent", "cy"))
    desk.now = 0.1
    assert desk.reserve(agent="cy").status == "denied"
    desk.now = 0.9
    again = desk.reserve(agent="cy", parent="pam")
    assert again.status == "denied", "a further count in the fold of that second: it takes no seq"
    desk.now = 0.5
    assert desk.reserve(agent="pam").status == "reserved"
    desk.limit(1, subject=subject("agent", "*"))
    assert desk.reserve(agent="pam").status == "denied"


@windows
def test_a_no_that_is_one_more_of_its_second_makes_no_counter_that_is_short_of_usage(
    desk: Desk, window: str
) -> None:
    desk.record(used(tokens=10))
    desk.limit(30, window, "tokens")
    desk.switch(True)
    desk.refuse(first=DAYS + 0.1)  # decided while the clock was ahead already, and written when it was right
    desk.now = DAYS + 0.2
    assert desk.reserve(used(tokens=1)).status == "denied"
    desk.now = 1
    desk.switch(False)
    assert list(desk.store.verify()) == []
    assert desk.reserve(used(tokens=21)).status == "denied"
    assert desk.reserve(used(tokens=20)).status == "reserved"
