"""The headers that tell of limits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from agent_meter_mcp.core.decide import LimitState
from agent_meter_mcp.core.models import Limit, LimitKey, Subject
from agent_meter_mcp.faces.http.ratelimit import NEVER_S, limit_headers, quota_exceeded, retry_header

if TYPE_CHECKING:
    from agent_meter_mcp.core.models import Metric

DAY_US = 86_400_000_000


def state(
    limit_id: str,
    maximum: int = 10,
    used: int = 0,
    *,
    metric: Metric = "requests",
    window: str = "1h",
    action: str = "reject",
    resets_at_us: int | None = None,
    frees_at_us: int | None = None,
) -> LimitState:
    key = LimitKey(Subject(), None, metric, window)
    limit = Limit(limit_id, key, maximum, "warn" if action == "warn" else "reject")
    return LimitState(limit, "", used, 0, 0, resets_at_us, frees_at_us, DAY_US // 2)


def test_a_rolling_limit_tells_its_length_and_when_usage_leaves_it() -> None:
    assert limit_headers([state("hourly", 10, 4, frees_at_us=DAY_US // 2 + 1)]) == {
        "RateLimit-Policy": '"hourly";q=10;qu="requests";w=3600',
        "RateLimit": '"hourly";r=6;t=1',
    }


def test_a_period_tells_its_length_and_its_end_and_dollars_are_micro_dollars() -> None:
    told = limit_headers(
        [state("daily", 2_000_000_000, 500, metric="cost_usd", window="day", resets_at_us=DAY_US)]
    )
    assert told["RateLimit-Policy"] == '"daily";q=2000000;qu="micro-usd";w=86400'
    assert told["RateLimit"] == '"daily";r=1999999;t=43200'


def test_overspent_is_nothing_left_and_total_has_no_end() -> None:
    told = limit_headers([state("all", 10, 14, window="total")])
    assert told == {"RateLimit-Policy": '"all";q=10;qu="requests"', "RateLimit": '"all";r=0'}


def test_a_few_hard_limits_are_told_the_tightest_first() -> None:
    states = [state(f"l{used}", 10, used) for used in range(9)] + [state("soft", 10, 10, action="warn")]
    assert [part.split(";")[0] for part in limit_headers(states)["RateLimit"].split(", ")] == [
        '"l8"',
        '"l7"',
        '"l6"',
    ]
    assert limit_headers(states[-1:]) == {}


def test_amounts_fit_into_a_structured_field() -> None:
    told = limit_headers([state("huge", 9_000_000_000_000_000_000)])
    assert 'q=999999999999999;qu="requests"' in told["RateLimit-Policy"]


@pytest.mark.parametrize("name", ['a"b\\c', "a\r\nSet-Cookie: x=1", "ä\x00", '";q=1'])
def test_no_name_gets_out_of_its_quotes(name: str) -> None:
    for value in limit_headers([state(name)]).values():
        assert value.isascii() and value.isprintable()
        assert value.replace("\\\\", "").replace('\\"', "").count('"') in (2, 4)  # the name's, and the unit's
    assert limit_headers([state('a"b\\c')])["RateLimit"].startswith('"a\\"b\\\\c";r=10')


@pytest.mark.parametrize(
    ("wait_us", "told"), [(1, "1"), (0, "1"), (1_500_000, "2"), (None, str(NEVER_S)), (DAY_US, "86400")]
)
def test_the_wait_is_whole_seconds_and_at_least_one(wait_us: int | None, told: str) -> None:
    assert retry_header(wait_us) == {"Retry-After": told}


def test_others_can_say_it_too() -> None:
    answer = quota_exceeded(
        "bot is over",
        [state("hourly")],
        violated=[state("hourly")],
        retry_after_us=60_000_000,
        accepted=2,
    )
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
    told = json.loads(bytes(answer.body))
    assert (told["violated-policies"][0]["name"], told["accepted"]) == ("hourly", 2)
