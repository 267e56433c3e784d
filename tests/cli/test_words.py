"""Amounts, times and tables in words for people."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_meter_mcp.cli.exporting import decimal_text
from agent_meter_mcp.cli.table import Cell, Column, fullness, table
from agent_meter_mcp.cli.times import exact, moment, moments, parse_moment, parse_span, period_name
from agent_meter_mcp.core.check import usage_filter
from agent_meter_mcp.core.decide import percent_of
from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.figures import amount, dollars, length, number, percent, shortened, width_of
from agent_meter_mcp.core.money import usd
from agent_meter_mcp.core.queries import UsageFilter
from agent_meter_mcp.core.windows import zone_of

SECOND = 1_000_000
NOON = int(datetime(2026, 3, 29, 12, tzinfo=UTC).timestamp()) * SECOND


@pytest.mark.parametrize(
    ("nano_usd", "text"),
    [
        (None, "—"), (0, "$0.00"), (1, "<$0.0001"), (99_999, "<$0.0001"), (100_000, "$0.0001"),
        (149_999, "$0.0001"), (150_000, "$0.0002"), (9_999_999, "$0.0100"), (10_000_000, "$0.01"),
        (14_999_999, "$0.01"), (15_000_000, "$0.02"), (995_000_000, "$1.00"), (1_204_500_000_000, "$1,204.50"),
        (-1, "-<$0.0001"), (-3_100_000_000, "-$3.10"), (9 * 10**18, "$9,000,000,000.00"),
    ],
)  # fmt: skip
def test_dollars(nano_usd: int | None, text: str) -> None:
    assert dollars(nano_usd) == text


@given(st.integers(-(10**18), 10**18))
def test_dollars_are_right_to_the_last_place_shown_and_never_minus_nought(nano_usd: int) -> None:
    text = dollars(nano_usd)
    assert text not in ("-$0.00", "-$0.0000")
    assert "e" not in text
    if "<" not in text:
        shown = Decimal(text.replace("$", "").replace(",", ""))
        assert abs(shown - usd(nano_usd)) <= (
            Decimal("0.005") if abs(nano_usd) >= 10**7 else Decimal("0.00005")
        )
        assert (shown == 0) == (nano_usd == 0)


@pytest.mark.parametrize(
    ("part", "text"),
    [(0, "0 %"), (1, "<1 %"), (420, "42 %"), (994, "99 %"), (996, "99 %"), (999, "99 %"), (1_000, "100 %"),
     (1_004, "100 %"), (1_006, "101 %"), (9_990, "999 %"), (10_000, ">999 %")],
)  # fmt: skip
def test_what_is_not_full_is_not_100_percent(part: int, text: str) -> None:
    assert percent(percent_of(part, 1_000)) == text


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("requests", 1, "1 request"), ("requests", 1200, "1,200 requests"), ("tokens", 0, "0 tokens"),
        ("units", 1_500_000, "1.5 units"), ("units", 1_000_000, "1 unit"), ("units", 1, "0.000001 units"),
        ("units", 100_000_000, "100 units"), ("cost_usd", 5 * 10**9, "$5.00"),
    ],
)  # fmt: skip
def test_amounts(metric: str, value: int, text: str) -> None:
    assert amount(metric, value) == text  # pyright: ignore[reportArgumentType] - one of the four
    assert number(metric, None) == "—"  # pyright: ignore[reportArgumentType] - one of the four


@given(st.integers(0, 10**18))
def test_a_decimal_is_written_with_all_its_digits(nano_usd: int) -> None:
    text = decimal_text(usd(nano_usd))
    assert Decimal(text) * 10**9 == nano_usd
    assert "E" not in text


@pytest.mark.parametrize(("percent", "text", "style"), [
    (0.0, "0 %", ""), (0.1, "<1 %", ""), (79.9, "80 %", ""), (80.0, "80 %", "warn"), (99.9, "99 %", "warn"),
    (100.0, "100 %", "alarm"), (1234.5, ">999 %", "alarm"),
])  # fmt: skip
def test_how_full_a_limit_is(percent: float, text: str, style: str) -> None:
    assert fullness(percent) == Cell(text, style)


@pytest.mark.parametrize(
    ("length_us", "parts", "text"),
    [
        (1, 2, "1 s"), (40 * SECOND, 2, "40 s"), (59 * SECOND + 1, 2, "1 min"), (3_720 * SECOND, 2, "1 h 2 min"),
        (3_721 * SECOND, 2, "1 h 3 min"), (86_399 * SECOND, 2, "1 d"), (90_000 * SECOND, 2, "1 d 1 h"),
        (3_599 * SECOND, 1, "1 h"), (59 * 60 * SECOND, 1, "59 min"), (-5, 2, "1 s"),
    ],
)  # fmt: skip
def test_lengths_of_time_are_rounded_up(length_us: int, parts: int, text: str) -> None:
    assert length(length_us, parts=parts) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "1 s"), (61, "61 s"), (120, "2 min"), (3_660, "61 min"), (7_199, "2 h"), (90_000, "25 h"),
     (172_800, "2 d")],
)  # fmt: skip
def test_a_length_in_one_part_is_not_rounded_to_twice_as_long(seconds: int, text: str) -> None:
    assert length(seconds * SECOND, parts=1, least=2) == text


@pytest.mark.parametrize(
    ("text", "zone", "time"),
    [
        ("now", "UTC", "2026-03-29T12:00:00Z"),
        ("today", "UTC", "2026-03-29T00:00:00Z"),
        ("today", "Europe/Berlin", "2026-03-28T23:00:00Z"),
        ("yesterday", "Europe/Berlin", "2026-03-27T23:00:00Z"),
        ("90m", "UTC", "2026-03-29T10:30:00Z"),
        ("2d", "Europe/Berlin", "2026-03-27T12:00:00Z"),
        ("2026-01-31", "UTC", "2026-01-31T00:00:00Z"),
        ("2026-07-01", "Europe/Berlin", "2026-06-30T22:00:00Z"),
        ("2026-07-01T06:00:00.000001+05:30", "Europe/Berlin", "2026-07-01T00:30:00.000001Z"),
        ("2026-07-01 06:00", "America/New_York", "2026-07-01T10:00:00Z"),
        ("0001-01-01T00:00:00Z", "UTC", "0005-04-19T09:46:40Z"),
    ],
)
def test_times_as_people_write_them(text: str, zone: str, time: str) -> None:
    assert exact(parse_moment(text, "since", zone, NOON)) == time


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "1.5h",
        "-1d",
        "0d",
        "999d",
        "24",
        "2026-13-01",
        "12:00",
        "²d",
        "9" * 99,
        "9999-12-31T23:59:59-23:59x",
    ],
)
def test_what_is_no_time_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^until: must be "):
        parse_moment(text, "until", "UTC", NOON)


def span(
    since: str | None = None, until: str | None = None, window: str | None = None
) -> tuple[int | None, int | None]:
    return parse_span({"since": since, "until": until, "window": window}, "UTC", NOON)


def test_spans_are_half_open() -> None:
    assert span() == (None, None)
    assert span(window="total") == (None, None)
    assert span(window="day") == (NOON - 12 * 3600 * SECOND, NOON + 12 * 3600 * SECOND)
    assert span(window="1h") == (NOON - 3600 * SECOND + 1, None)
    assert span(since="1h") == (NOON - 3600 * SECOND, None)
    assert span(since="2h", until="1h") == (NOON - 7200 * SECOND, NOON - 3600 * SECOND)


@pytest.mark.parametrize(
    "given", [("1h", "2h", None), ("now", "now", None), ("1h", None, "day"), (None, None, "x")]
)
def test_impossible_spans_are_refused(given: tuple[str | None, str | None, str | None]) -> None:
    with pytest.raises(InvalidInput):
        usage_filter(UsageFilter(*span(*given)))


def test_moments_are_as_short_as_they_can_be() -> None:
    day = 86_400 * SECOND
    today, year = NOON - 3600 * SECOND, 365 * day
    assert moments([today], UTC, NOON)(today) == "11:00:00"
    assert moments([today, today - day], UTC, NOON)(today) == "03-29 11:00:00"
    assert moments([today, today - year], UTC, NOON)(today) == "2026-03-29 11:00:00"
    assert moments([], UTC, NOON)(None) == "—"
    assert moment(NOON, zone_of("Asia/Kolkata")) == "2026-03-29 17:30"
    assert moment(NOON + SECOND, UTC) == "2026-03-29 12:00:01"


def test_the_hour_that_comes_twice_has_two_names() -> None:
    berlin = zone_of("Europe/Berlin")
    first = int(datetime(2026, 10, 25, 0, tzinfo=UTC).timestamp()) * SECOND
    names = [period_name("hour", first + hour * 3600 * SECOND, berlin) for hour in (0, 1)]
    assert names == ["2026-10-25 02:00 +02:00", "2026-10-25 02:00 +01:00"]


@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from(["UTC", "Pacific/Kiritimati", "America/St_Johns"]))
def test_any_time_of_a_ledger_can_be_shown(at_us: int, zone: str) -> None:
    assert moment(at_us, zone_of(zone))
    assert exact(at_us).endswith("Z")


@given(st.text(), st.integers(1, 40))
def test_what_is_shortened_fits(text: str, width: int) -> None:
    short = shortened(text, width)
    assert width_of(short) <= width
    assert short == text or short.endswith("…")


def test_wide_letters_take_two_cells() -> None:
    assert width_of("你好") == 4
    assert width_of("é") == 1
    assert shortened("你好你好", 6) == "你好…"
    assert (
        table([Column("Name"), Column("N", right=True)], [["你", "1"], ["ab", "22"]])
        == "Name   N\n你     1\nab    22"
    )


def test_columns_shrink_and_then_go(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = [Column("Name", shrinks=6), Column("Id", drop=1), Column("N", right=True)]
    row = ["a-long-name", "0123456789", "7"]
    assert table(columns, [row]) == "Name         Id          N\na-long-name  0123456789  7"
    monkeypatch.setenv("COLUMNS", "22")
    assert table(columns, [row]) == "Name     Id          N\na-long…  0123456789  7"
    monkeypatch.setenv("COLUMNS", "20")
    assert table(columns, [row]) == "Name         N\na-long-name  7"


def test_a_spare_column_goes_before_another_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = [Column("Name", shrinks=4), Column("Id", spare=True), Column("N", right=True)]
    row = ["a-long-name", "0123456789", "7"]
    monkeypatch.setenv("COLUMNS", "26")
    assert table(columns, [row]) == "Name         Id          N\na-long-name  0123456789  7"
    monkeypatch.setenv("COLUMNS", "25")
    assert table(columns, [row]) == "Name         N\na-long-name  7"


texts = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=60)


@given(st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=5), st.integers(40, 130))
def test_a_table_fits_and_its_columns_line_up(rows: list[tuple[str, str, str]], width: int) -> None:
    columns = [
        Column("First", shrinks=10),
        Column("Second", shrinks=10, drop=1),
        Column("Third", right=True, shrinks=8),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        lines = table(columns, rows).split("\n")
    assert len(lines) == len(rows) + 1
    assert max(map(width_of, lines)) <= width
    ends = {width_of(line) for line, row in zip(lines[1:], rows, strict=True) if row[2]}
    assert ends <= {width_of(lines[0])}
