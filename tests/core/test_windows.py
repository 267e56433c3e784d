"""Windows against their definition: what zoneinfo says about every instant of a period and just outside."""

from __future__ import annotations

import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import TZPATH, ZoneInfo, available_timezones

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.windows import (
    PERIODS_MAX,
    SLOTS,
    UNITS,
    bucket,
    bucket_range,
    check_zone,
    oldest_bucket,
    parse_duration,
    parse_window,
    period,
    periods,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent_meter_mcp.core.windows import Unit, Window

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

ZONES = """
    UTC Africa/Cairo Africa/Casablanca Africa/El_Aaiun Africa/Monrovia America/Anchorage America/Asuncion
    America/Caracas America/Goose_Bay America/Havana America/Juneau America/Moncton America/New_York
    America/Nuuk America/Santiago America/Sao_Paulo America/Scoresbysund America/St_Johns
    Antarctica/Casey Antarctica/Troll Asia/Amman Asia/Beirut Asia/Gaza Asia/Kathmandu Asia/Kolkata
    Asia/Manila Asia/Pyongyang Asia/Tehran Asia/Tokyo Atlantic/Azores Australia/Eucla Australia/Lord_Howe
    Etc/GMT+12 Etc/GMT-14 Europe/Berlin Europe/Dublin Europe/London Europe/Paris Pacific/Apia
    Pacific/Auckland Pacific/Chatham Pacific/Kiritimati Pacific/Kwajalein Pacific/Norfolk
""".split()

units = st.sampled_from(UNITS)
examples = settings(derandomize=True, deadline=None, max_examples=100)
"""The same examples on every run: a new one that fails is found by whoever changes something."""


def named(value: object) -> str:
    return ascii(value)[:24]


def us(text: str) -> int:
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(microseconds=1)


def shown(at_us: int) -> str:
    return (EPOCH + timedelta(microseconds=at_us)).isoformat().replace("+00:00", "Z")


def local(zone: str, at_us: int) -> datetime:
    return (EPOCH + timedelta(seconds=at_us // SECOND)).astimezone(ZoneInfo(zone))


def label(unit: Unit, zone: str, at_us: int) -> object:
    """What all instants of a period have in common, and its neighbours have not."""
    at = local(zone, at_us)
    return {
        "hour": (at.date(), at.hour, at.utcoffset()),
        "day": at.date(),
        "week": at.isocalendar()[:2],
        "month": (at.year, at.month),
        "year": at.year,
    }[unit]


def span(unit: Unit, zone: str, at_us: int) -> tuple[int, int]:
    start, end = period(parse_window(unit), zone, at_us)
    assert end is not None
    return start, end


@cache
def zone_changes(zone: str) -> list[tuple[int, int]]:
    """The UTC offsets of a zone and since when each holds, in seconds, as the zone's file lists them."""
    folders = [*map(Path, TZPATH), resources.files("tzdata").joinpath("zoneinfo")]
    files = [folder.joinpath(*zone.split("/")) for folder in folders]
    data = next(file for file in files if file.is_file()).read_bytes()

    def counts(at: int) -> tuple[int, ...]:
        assert data[at : at + 4] == b"TZif"
        return struct.unpack(">6l", data[at + 20 : at + 44])

    utc, standard, leaps, times, types, characters = counts(0)
    at = 44 + times * 5 + types * 6 + characters + leaps * 8 + standard + utc
    _, _, _, times, types, _ = counts(at)
    instants = struct.unpack(f">{times}q", data[at + 44 : at + 44 + 8 * times])
    indexes = data[at + 44 + 8 * times : at + 44 + 9 * times]
    records = at + 44 + 9 * times
    offsets = [struct.unpack(">l", data[records + 6 * n : records + 6 * n + 4])[0] for n in range(types)]
    listed = [(-(10**11), offsets[0]), *zip(instants, (offsets[n] for n in indexes), strict=True)]
    return [listed[0], *(later for earlier, later in pairwise(listed) if earlier[1] != later[1])]


@st.composite
def zoned_instants(draw: st.DrawFn) -> tuple[str, int]:
    """A zone and an instant of 1850 to 2150; half of the time close to a change of the zone's offset."""
    zone = draw(st.sampled_from(ZONES))
    changes = [at * SECOND for at, _ in zone_changes(zone)[1:]]
    if changes and draw(st.booleans()):
        near = st.integers(-2 * DAY, 2 * DAY) | st.sampled_from((-HOUR, -SECOND, -1, 0, 1, HOUR))
        return zone, draw(st.sampled_from(changes)) + draw(near)
    return zone, draw(st.integers(us("1850-01-01T00:00Z"), us("2150-01-01T00:00Z")))


# Rolling windows


@pytest.mark.parametrize(
    ("text", "length_us"),
    [("1s", SECOND), ("90s", 90 * SECOND), ("5m", 5 * MINUTE), ("24h", DAY), ("366d", 366 * DAY)],
)
def test_a_rolling_window_is_as_long_as_its_text_says(text: str, length_us: int):
    window = parse_window(text)
    assert (window.text, window.kind, window.length_us) == (text, "rolling", length_us)


def test_equal_lengths_with_different_texts_are_different_windows():
    assert parse_window("60s") != parse_window("1m")
    assert parse_window("60s").replace(text="1m") == parse_window("1m")


@pytest.mark.parametrize("text", [*UNITS, "total"])
def test_a_window_with_a_name_has_no_length_and_keeps_its_name(text: str):
    window = parse_window(text)
    assert (window.text, window.kind) == (text, "total" if text == "total" else "calendar")
    assert (window.length_us, window.grain_us) == (0, 0)


NO_WINDOWS = [
    *"s h 0s 00s -1m +1m 1.5h 1,5h 60 1w 1y 1M 1H 01h 1_0s 1e3s 0x1s 1h30m m5 367d 31622401s 8785h".split(),
    *"Day DAY days daily weekly TOTAL totals rolling None hour,day".split(),
    *("", " ", " 1h", "1h ", "1 h", "1h\n", "total ", "\x001h", "1\x00h", "9" * 12 + "d", "9" * 10_000 + "s"),
    *("\N{ARABIC-INDIC DIGIT ONE}h", "\N{FULLWIDTH DIGIT ONE}h", "\N{SUPERSCRIPT TWO}s"),
]


@pytest.mark.parametrize("text", NO_WINDOWS, ids=named)
def test_anything_else_is_no_window_and_the_error_says_what_is(text: str):
    with pytest.raises(InvalidInput) as caught:
        parse_window(text, field="limit.window")
    assert caught.value.field == "limit.window"
    assert len(str(caught.value)) < 250
    for form in ('"90s"', '"24h"', '"7d"', '"366d"', '"week"', '"total"'):
        assert form in caught.value.problem


def test_a_window_is_remembered_until_many_others_came():
    first = parse_window("7d")
    assert parse_window("7d") is first
    for count in range(1, 3000):
        assert parse_window(f"{count}s").length_us == count * SECOND
    assert parse_window("7d") is not first
    assert parse_window("7d") == first


lengths = (
    st.integers(1, 366 * 86_400).map(lambda seconds: parse_window(f"{seconds}s"))
    | st.integers(1, 366 * 24).map(lambda hours: parse_window(f"{hours}h"))
    | st.integers(1, 300).map(lambda seconds: parse_window(f"{seconds}s"))
)
instants = st.integers(-(10**15), 10**17)


@examples
@given(window=lengths)
def test_the_grain_is_a_sixtieth_and_whole_hours_from_60_hours_on(window: Window):
    assert 60 * window.grain_us >= window.length_us
    if window.length_us >= 60 * HOUR:
        assert window.grain_us % HOUR == 0
        assert 60 * (window.grain_us - HOUR) < window.length_us
    else:
        assert 60 * (window.grain_us - 1) < window.length_us


@examples
@given(window=lengths, at_us=instants)
def test_the_oldest_bucket_is_the_one_of_the_first_instant_in_the_window(window: Window, at_us: int):
    oldest = oldest_bucket(window, at_us)
    assert oldest == bucket(window, "UTC", at_us - window.length_us + 1)
    assert bucket(window, "UTC", at_us) - oldest + 1 <= 61


@examples
@given(window=lengths, number=st.integers(-1000, 10**6))
def test_a_bucket_leaves_once_its_last_instant_is_as_old_as_the_window(window: Window, number: int):
    _, end = bucket_range(window, number, "UTC")
    assert end is not None
    assert oldest_bucket(window, end - 1 + window.length_us - 1) == number
    assert oldest_bucket(window, end - 1 + window.length_us) == number + 1


@examples
@given(window=lengths, at_us=instants)
def test_two_consecutive_windows_and_some_slack_have_a_slot_for_each_bucket(window: Window, at_us: int):
    oldest = oldest_bucket(window, at_us - window.length_us)
    newest = bucket(window, "UTC", at_us)
    assert newest - oldest + 1 <= SLOTS - 6


@examples
@given(window=lengths, at_us=instants)
def test_rolling_buckets_hold_every_instant_once(window: Window, at_us: int):
    number = bucket(window, "UTC", at_us)
    start, end = bucket_range(window, number, "UTC")
    assert end is not None
    assert start <= at_us < end
    assert bucket(window, "UTC", start) == bucket(window, "UTC", end - 1) == number
    assert bucket_range(window, number + 1, "UTC")[0] == end


def test_a_rolling_window_has_no_period():
    with pytest.raises(ValueError, match="no periods: 5m"):
        period(parse_window("5m"), "UTC", 0)


def test_total_is_one_bucket_and_one_period_without_end():
    total = parse_window("total")
    assert period(total, "Europe/Berlin", us("2025-01-01T00:00Z")) == (0, None)
    assert bucket(total, "Europe/Berlin", us("2025-01-01T00:00Z")) == 0
    assert bucket_range(total, 0, "Europe/Berlin") == (0, None)


# Durations


@pytest.mark.parametrize(("text", "length_us"), [("1s", SECOND), ("60s", MINUTE), ("1h", HOUR)])
def test_a_duration_is_read_as_microseconds(text: str, length_us: int):
    assert parse_duration(text, field="ttl", minimum_us=SECOND, maximum_us=HOUR) == length_us


@pytest.mark.parametrize("text", ["", *"60 0s 61m 3601s 1d -5s 1.5m 05m day".split(), "9" * 999 + "s"])
def test_a_duration_that_is_malformed_or_out_of_range_names_the_field_and_the_range(text: str):
    with pytest.raises(InvalidInput) as caught:
        parse_duration(text, field="ttl", minimum_us=SECOND, maximum_us=HOUR)
    assert caught.value.field == "ttl"
    assert 'from "1s" to "1h"' in caught.value.problem


def test_the_range_of_a_duration_is_shown_in_its_largest_whole_unit():
    with pytest.raises(InvalidInput, match='from "90s" to "2d"'):
        parse_duration("1s", field="ttl", minimum_us=90 * SECOND, maximum_us=2 * DAY)


# Zones


@pytest.mark.parametrize("zone", [*ZONES, "Etc/GMT+5", "America/Argentina/Salta", "America/Port-au-Prince"])
def test_an_iana_name_is_a_zone(zone: str):
    assert check_zone(zone) == zone


def test_every_zone_of_the_system_is_accepted_except_those_that_name_no_place_or_differ_by_machine():
    known = available_timezones()
    refused: set[str] = set()
    for zone in known:
        try:
            check_zone(zone)
        except InvalidInput:
            refused.add(zone)
    assert refused <= {"Factory", "localtime"}


NO_ZONES = [
    *"/ . .. ../ ../../etc/passwd /etc/localtime Europe/../UTC Europe Europe/ Europe//Berlin".split(),
    *"/Europe/Berlin Europe\\Berlin C:/Windows C: Nowhere Europe/Atlantis europe/berlin".split(),
    *"right/UTC posix/UTC localtime posixrules Factory zone.tab leapseconds __init__.py tzdata - +".split(),
    *("", " ", " UTC", "UTC ", "UTC\n", "UTC\0", "Europe/Berlin\0", "\u202eUTC", "UTC\ud800", "Ä"),
    *("UTC+2", "+02:00", "A" * 65, "B" * 100_000, "A/" * 30 + "A", "America/Argentina"),
]


@pytest.mark.parametrize("zone", NO_ZONES, ids=named)
def test_anything_else_is_no_zone(zone: str):
    with pytest.raises(InvalidInput) as caught:
        check_zone(zone, field="timezone")
    assert caught.value.field == "timezone"
    assert "IANA name" in caught.value.problem


def test_an_unknown_zone_fails_every_calendar_question_by_name():
    day = parse_window("day")
    for ask in (
        lambda: period(day, "Nowhere/City", 0),
        lambda: bucket(day, "Nowhere/City", 0),
        lambda: bucket_range(day, 0, "Nowhere/City"),
        lambda: periods("day", "Nowhere/City", 0, 1),
    ):
        with pytest.raises(InvalidInput, match="timezone"):
            ask()


def test_the_time_zone_database_keeps_what_the_search_for_boundaries_relies_on():
    for zone in available_timezones() - {"Factory", "localtime"}:
        changes = zone_changes(zone)
        assert all(abs(offset) < 16 * 3600 for _, offset in changes), zone
        for (at, offset), (later_at, later_offset) in pairwise(changes):
            assert later_at - at > 48 * 3600, zone
            assert abs(later_offset - offset) <= 24 * 3600, zone


# Calendar windows: the definition


def assert_borders(unit: Unit, zone: str, at_us: int, start: int, end: int) -> None:
    expected = label(unit, zone, at_us)
    assert start <= at_us < end
    assert label(unit, zone, start - 1) != expected
    assert label(unit, zone, start) == label(unit, zone, end - 1) == expected
    assert label(unit, zone, end) != expected


@examples
@given(unit=units, place=zoned_instants())
@example(unit="day", place=("America/St_Johns", us("2006-10-29T02:30Z")))
@example(unit="year", place=("America/Juneau", us("1867-10-18T12:00Z")))
@example(unit="year", place=("Asia/Manila", us("1844-12-31T12:00Z")))
@example(unit="day", place=("America/Juneau", us("1867-10-18T23:00Z")))
@example(unit="week", place=("Antarctica/Casey", us("2010-03-05T00:00Z")))
def test_a_period_is_the_longest_unbroken_stretch_with_one_label(unit: Unit, place: tuple[str, int]):
    zone, at_us = place
    start, end = span(unit, zone, at_us)
    assert_borders(unit, zone, at_us, start, end)
    expected = label(unit, zone, at_us)
    # Beyond 27 hours from a border no change can jump over it; there, hours will do.
    minutes = [*range(start, end, MINUTE)[: 27 * 60], *range(start, end, MINUTE)[-27 * 60 :]]
    seconds = [*range(start, end, SECOND)[:200], *range(start, end, SECOND)[-200:]]
    for instant in [*seconds, *minutes, *range(start, end, HOUR)]:
        assert label(unit, zone, instant) == expected, shown(instant)


@pytest.mark.parametrize("zone", ZONES)
def test_periods_around_every_change_of_a_zone_have_the_right_borders(zone: str):
    for at, _ in zone_changes(zone)[1:]:
        for unit in UNITS:
            for at_us in (at * SECOND - 1, at * SECOND):
                assert_borders(unit, zone, at_us, *span(unit, zone, at_us))


@examples
@given(unit=units, place=zoned_instants(), ahead=st.integers(0, 400))
def test_adjacent_periods_tile_and_have_one_bucket_each(unit: Unit, place: tuple[str, int], ahead: int):
    zone, since_us = place
    window = parse_window(unit)
    until_us = since_us + ahead * {"hour": HOUR, "day": DAY}.get(unit, 7 * DAY)
    found = periods(unit, zone, since_us, until_us)
    if ahead == 0:
        assert found == []
        return
    assert found[0][0] <= since_us < found[0][1]
    assert found[-1][0] < until_us <= found[-1][1]
    assert all(earlier[1] == later[0] for earlier, later in pairwise(found))
    for start, end in found[:: max(len(found) // 20, 1)]:
        for at_us in (start, (start + end) // 2, end - 1):
            assert bucket(window, zone, at_us) == start
        assert bucket_range(window, start, zone) == period(window, zone, end - 1) == (start, end)


def test_the_answer_does_not_depend_on_what_was_asked_before_even_from_many_threads():
    questions: list[tuple[Unit, str, int]] = [
        (unit, zone, us("2024-01-01T00:00Z") + step * 37 * HOUR)
        for step in range(250)
        for zone in ("Europe/Berlin", "America/Santiago", "Australia/Lord_Howe")
        for unit in UNITS
    ]
    expected = [periods(unit, zone, at_us, at_us + 1)[0] for unit, zone, at_us in questions]
    with ThreadPoolExecutor(8) as pool:
        for order in (1, -1):
            found = list(pool.map(span, *zip(*questions[::order], strict=True)))
            assert found == expected[::order]


# Calendar windows: cases with a name


@pytest.mark.parametrize(
    ("unit", "start", "end"),
    [
        ("hour", "2024-02-29T17:00:00Z", "2024-02-29T18:00:00Z"),
        ("day", "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z"),
        ("week", "2024-02-26T00:00:00Z", "2024-03-04T00:00:00Z"),
        ("month", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"),
        ("year", "2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z"),
    ],
)
def test_utc_periods_on_a_leap_day(unit: Unit, start: str, end: str):
    assert tuple(map(shown, span(unit, "UTC", us("2024-02-29T17:30:59.999999Z")))) == (start, end)
    assert span(unit, "UTC", us(end) - 1) == (us(start), us(end))
    assert span(unit, "UTC", us(end))[0] == us(end)


def test_months_and_years_follow_each_other_through_centuries():
    assert len(periods("month", "UTC", us("1600-01-01T00:00Z"), us("2400-01-01T00:00Z"))) == 800 * 12
    assert len(periods("year", "Asia/Tokyo", us("1600-06-01T00:00Z"), us("2400-06-01T00:00Z"))) == 801


CASES = """
day Pacific/Apia - Samoa goes from the 29th to the 31st
    2011-12-29T10:00 2011-12-30T10:00 2011-12-31T10:00
week Pacific/Apia - Samoa has a week of six days
    2011-12-26T10:00 2012-01-01T10:00
month Pacific/Kiritimati - Kiritimati has no 31 December 1994
    1994-12-01T10:00 1994-12-31T10:00 1995-01-31T10:00
day Pacific/Kwajalein - Kwajalein has no 21 August 1993
    1993-08-20T12:00 1993-08-21T12:00 1993-08-22T12:00
hour Australia/Lord_Howe - Lord Howe repeats half an hour
    2024-04-06T14:00 2024-04-06T15:00 2024-04-06T15:30 2024-04-06T16:30
hour Australia/Lord_Howe - Lord Howe skips half an hour
    2024-10-05T14:30 2024-10-05T15:30 2024-10-05T16:00 2024-10-05T17:00
day Australia/Lord_Howe - Lord Howe has a day of 24.5 hours
    2024-04-06T13:00 2024-04-07T13:30 2024-04-08T13:30
day Africa/Cairo - Cairo skips midnight
    2024-04-24T22:00 2024-04-25T22:00 2024-04-26T21:00
day Africa/Cairo - Cairo goes back at midnight
    2024-10-30T21:00 2024-10-31T22:00 2024-11-01T22:00
month Africa/Cairo - Cairo goes back at the end of a month
    2024-09-30T21:00 2024-10-31T22:00 2024-11-30T22:00
day Asia/Beirut - Beirut goes back at midnight
    2024-10-25T21:00 2024-10-26T22:00 2024-10-27T22:00
week America/Santiago - Santiago goes back within a week
    2024-04-01T03:00 2024-04-08T04:00 2024-04-15T04:00
day America/Santiago - Santiago skips midnight
    2024-09-07T04:00 2024-09-08T04:00 2024-09-09T03:00
month America/Asuncion - Asuncion skips the midnight that begins a month
    2023-09-01T04:00 2023-10-01T04:00 2023-11-01T03:00
day America/Sao_Paulo - Sao Paulo goes back at midnight
    2018-02-17T02:00 2018-02-18T03:00 2018-02-19T03:00
day America/Sao_Paulo - Sao Paulo skips midnight
    2018-11-03T03:00 2018-11-04T03:00 2018-11-05T02:00
hour Asia/Kathmandu - hours of Kathmandu start at a quarter past
    2023-12-31T23:15 2024-01-01T00:15 2024-01-01T01:15
year Asia/Kathmandu - Kathmandu skips the first quarter of an hour of 1986
    1984-12-31T18:30 1985-12-31T18:30 1986-12-31T18:15
day Antarctica/Troll - Troll has a day of 22 hours
    2024-03-31T00:00 2024-03-31T22:00 2024-04-01T22:00
hour Africa/Casablanca - Casablanca repeats an hour for Ramadan
    2024-03-10T01:00 2024-03-10T02:00 2024-03-10T03:00
day Africa/Casablanca - Casablanca has a day of 25 hours
    2024-03-09T23:00 2024-03-11T00:00 2024-03-12T00:00
hour Europe/Berlin - a repeated hour of Berlin is two periods
    2024-10-27T00:00 2024-10-27T01:00 2024-10-27T02:00
day America/St_Johns - St Johns goes back from 00:01 to the day before
    2006-10-28T02:30 2006-10-29T02:30 2006-10-29T02:31 2006-10-29T03:30 2006-10-30T03:30
day Africa/Monrovia - Monrovia leaves local mean time
    1972-01-06T00:44:30 1972-01-07T00:44:30 1972-01-08T00:00 1972-01-09T00:00
day Europe/Paris - Paris in local mean time
    1900-05-04T23:50:39 1900-05-05T23:50:39
"""
"""Unit, zone and what is special; below, in UTC, the start of each period in turn and the end of the last."""


def cases() -> Iterator[object]:
    lines = CASES.split("\n")[1:-1]
    for title, borders in zip(lines[::2], lines[1::2], strict=True):
        place, name = title.split(" - ")
        yield pytest.param(*place.split(), [us(border + "Z") for border in borders.split()], id=name)


@pytest.mark.parametrize(("unit", "zone", "borders"), list(cases()))
def test_periods_right_through_a_change(unit: Unit, zone: str, borders: list[int]):
    found = periods(unit, zone, borders[0], borders[-1])
    assert list(map(shown, chain(*found))) == [shown(at) for pair in pairwise(borders) for at in pair]
    assert [span(unit, zone, start) for start, _ in found] == found


def test_a_budget_of_the_second_berlin_hour_is_not_that_of_the_first():
    hour = parse_window("hour")
    assert bucket(hour, "Europe/Berlin", us("2024-10-27T02:30+02:00")) == us("2024-10-27T00:00Z")
    assert bucket(hour, "Europe/Berlin", us("2024-10-27T02:30+01:00")) == us("2024-10-27T01:00Z")


# The edges of time, and of reports


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Etc/GMT-14", "Etc/GMT+12"])
@pytest.mark.parametrize("unit", UNITS)
def test_times_from_year_1000_to_9000_are_answered_and_others_refused(unit: Unit, zone: str):
    first, end = us("1000-01-01T00:00Z"), us("9000-01-01T00:00Z")
    for at_us in (first, end - 1):
        assert_borders(unit, zone, at_us, *span(unit, zone, at_us))
    for at_us in (first - 1, end, us("9999-12-31T23:59:59Z"), -(2**63), 2**63 - 1, 10**30):
        with pytest.raises(InvalidInput, match="years 1000 and 9000"):
            span(unit, zone, at_us)


def test_a_report_of_too_many_periods_is_refused_and_of_the_most_is_not():
    until = us("2025-01-01T00:00Z")
    assert len(periods("hour", "UTC", until - PERIODS_MAX * HOUR, until)) == PERIODS_MAX
    with pytest.raises(InvalidInput, match="more than 10000 hours") as caught:
        periods("hour", "UTC", until - PERIODS_MAX * HOUR - 1, until)
    assert caught.value.field == "since"


@pytest.mark.parametrize("until_us", [us("2025-01-01T00:00Z"), us("2024-01-01T00:00Z")])
def test_an_empty_or_reversed_range_has_no_periods(until_us: int):
    assert periods("day", "Europe/Berlin", us("2025-01-01T00:00Z"), until_us) == []


def test_utc_and_rolling_windows_do_without_zoneinfo_and_the_module_without_slow_imports():
    program = """
import sys
before = set(sys.modules)
from agent_meter_mcp.core import windows
slow = {"typing", "dataclasses", "enum", "re", "json", "functools", "datetime", "zoneinfo"}
assert not slow & (set(sys.modules) - before), slow & (set(sys.modules) - before)
windows.check_zone("UTC")
for text in ("hour", "day", "week", "month", "year", "total", "5m"):
    windows.bucket(windows.parse_window(text), "UTC", 1_700_000_000_000_000)
assert "zoneinfo" not in sys.modules
"""
    root = Path(sys.modules[parse_window.__module__].__file__ or "").parents[2]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True, timeout=60)
