"""Times as a person writes them, and as a person reads them. Inside they are microseconds since 1970."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.models import SECOND_US
from agent_meter_mcp.core.times import time_of, time_text, us_of
from agent_meter_mcp.core.windows import parse_duration, parse_window, period, span, zone_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import tzinfo

CHARACTERS_MAX = 64
DAY_US = 86_400_000_000
AGO_MAX_US = 366 * DAY_US
_PAST_US, _FUTURE_US = -62_000_000_000_000_000, 253_300_000_000_000_000
"""Between the years 5 and 9996: in them any zone can show a time."""


def parse_moment(text: str, field: str, zone: str, now_us: int) -> int:
    """An ISO 8601 time (by the clocks of `zone` if it has no offset), a length of time ago, or a word.

    Raises:
        InvalidInput: it is none of them; names `field`.
    """
    if text == "now":
        return now_us
    if text in ("today", "yesterday"):
        start_us, _ = period(parse_window("day"), zone, now_us)
        return start_us if text == "today" else period(parse_window("day"), zone, start_us - 1)[0]
    if text[:-1].isdigit() and text[-1:] in "smhd":
        return now_us - parse_duration(text, field=field, minimum_us=SECOND_US, maximum_us=AGO_MAX_US)
    try:
        if len(text) > CHARACTERS_MAX:
            raise ValueError
        time = datetime.fromisoformat(text)
        return us_of(time if time.tzinfo else time.replace(tzinfo=zone_of(zone)))
    except (ValueError, OverflowError):
        raise InvalidInput(
            field,
            "must be an ISO 8601 time (2026-01-31T18:00:00Z), a length ago (24h), now, today or yesterday",
        ) from None


def parse_span(
    given: dict[str, Any], zone: str, now_us: int, *, default: str = "total"
) -> tuple[int | None, int | None]:
    """[since, until) of the options `since`, `until` and `window`; None is open. Raises InvalidInput."""
    since, until, window = given["since"], given["until"], given["window"]
    if since is not None or until is not None:
        if window is not None:
            raise InvalidInput("window", "give either a window, or since and until")
        return (
            None if since is None else parse_moment(since, "since", zone, now_us),
            None if until is None else parse_moment(until, "until", zone, now_us),
        )
    return span(parse_window(default if window is None else window), zone, now_us)


def local(at_us: int, zone: tzinfo) -> datetime:
    """The time there; what is too far off to be shown is the farthest that can be."""
    return time_of(_within(at_us), zone)


def moment(at_us: int, zone: tzinfo) -> str:
    """ "2026-01-31 18:00:00"; without the seconds at a full minute."""
    time = local(at_us, zone)
    return f"{time:%Y-%m-%d %H:%M:%S}".removesuffix(":00" if time.second == 0 else "")


def exact(at_us: int) -> str:
    """ISO 8601 in UTC, with "Z", to the microsecond."""
    return time_text(_within(at_us))


def _within(at_us: int) -> int:
    return min(max(at_us, _PAST_US), _FUTURE_US)


def moments(times_us: Iterable[int], zone: tzinfo, now_us: int) -> Callable[[int | None], str]:
    """How to write these times shortly: without the date where all are of today, without this year."""
    today = local(now_us, zone)
    days = {local(at_us, zone).date() for at_us in times_us}
    if days <= {today.date()}:
        pattern = "%H:%M:%S"
    else:
        pattern = "%m-%d %H:%M:%S" if {day.year for day in days} <= {today.year} else "%Y-%m-%d %H:%M:%S"
    return lambda at_us: "—" if at_us is None else f"{local(at_us, zone):{pattern}}"


def period_name(unit: str, start_us: int, zone: tzinfo) -> str:
    """What the hour, day, week or month that starts then is called."""
    start = local(start_us, zone)
    if unit == "hour":
        # The hour that is repeated in autumn has two names.
        offset = "" if zone is UTC else f" {start.isoformat()[-6:]}"
        return f"{start:%Y-%m-%d %H:%M}{offset}"
    return f"{start:%Y-%m}" if unit == "month" else f"{start:%Y-%m-%d}"


def zone_name(zone: str) -> str:
    """How a column of times names its zone."""
    return zone.replace("_", " ").rpartition("/")[2]
