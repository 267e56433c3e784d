"""Windows: over which stretch of time a limit counts. Times are integer microseconds since 1970 in UTC.

Rolling windows ("90s", "5m", "1h", "24h", "7d"; 1 second to 366 days)
- The window of length L at t is (t - L, t]. It is counted in buckets [n * grain, (n + 1) * grain).
- The grain is a 60th of the length, rounded up, and from 60 hours on rounded up to a whole hour, so that such
  a bucket is made of whole UTC hours. At most 61 buckets touch a window.
- "60s" and "1m" are equally long and two different windows: a window is its text.

Calendar windows ("hour", "day", "week", "month", "year")
- A period is half-open, [start, end). Consecutive periods touch: no instant is in none or in two of them.
- A day (week, month, year) is the longest unbroken stretch of instants with the same local date (week, month,
  year). A week starts on Monday.
- So a day with a DST change is not 24 hours long; a day whose midnight is skipped starts at the first instant
  after the gap; a day whose last hour is repeated holds it twice; a day that a zone skipped has no period.
  Where clocks go back over midnight (from 00:01 to 23:01), the old date comes back as a period of its own.
- An hour is the longest unbroken stretch with the same local date, hour and UTC offset. So an hour that is
  repeated is two periods, and a change in the middle of an hour ends it.

"total" is one period without end, from 1970 on, and one bucket.
"""

from __future__ import annotations

from .errors import InvalidInput
from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import tzinfo
    from typing import Literal, TypeVar

    Unit = Literal["hour", "day", "week", "month", "year"]
    WindowKind = Literal["rolling", "calendar", "total"]
    Key = TypeVar("Key")
    Kept = TypeVar("Kept")

UNITS: tuple[Unit, ...] = ("hour", "day", "week", "month", "year")
SLOTS = 128
"""Ring size: `bucket % SLOTS` is distinct over the buckets of two consecutive windows and some slack."""
PERIODS_MAX = 10_000
"""The most periods that a report is cut into."""

_SECOND = 1_000_000
_HOUR = 3600 * _SECOND
_DAY = 24 * _HOUR
_SUFFIXES = {"s": _SECOND, "m": 60 * _SECOND, "h": _HOUR, "d": _DAY}
_ROLLING_MAX = 366 * _DAY
_BUCKETS = 60
_WRITTEN = "a whole number without leading zeros, then s, m, h or d"

_EVEN = {"hour": (_HOUR, 0), "day": (_DAY, 0), "week": (7 * _DAY, 4 * _DAY)}
"""Length, and one start, of the units that are equally long by local time. 5 January 1970 was a Monday."""
_EPOCH_ORDINAL = 719_163
_YEAR_1000 = -30_610_224_000 * _SECOND
YEAR_9000_US = 221_845_392_000 * _SECOND
_REACH = 48 * _HOUR
"""More than there is between a local boundary, read as UTC, and an instant at which local time gets over it:
local times jump by at most 24 h and are less than 16 h away from UTC."""
_STEP = 48 * _HOUR
"""Less than there is between any two changes of one zone: in the whole time zone database, 95 h."""

_ZONE_CHARACTERS_MAX = 64
_CACHE_MAX = 1024
_windows: dict[str, Window] = {}
_zones: dict[str, tzinfo] = {}
_last_periods: dict[tuple[str, str], tuple[int, int]] = {}


class Window(Value):
    """What a limit counts over. `length_us` and `grain_us` (the width of a bucket) are for rolling ones."""

    text: str
    kind: WindowKind
    length_us: int = 0
    grain_us: int = 0


def parse_window(text: str, *, field: str = "window") -> Window:
    """The window that `text` names.

    Raises:
        InvalidInput: `text` names none, or a rolling one outside 1 second to 366 days.
    """
    return _windows.get(text) or _keep(_windows, text, _new_window(text, field))


def _new_window(text: str, field: str) -> Window:
    if text == "total":
        return Window(text, "total")
    if text in UNITS:
        return Window(text, "calendar")
    length = _microseconds(text)
    if length is None or length > _ROLLING_MAX:
        calendar = ", ".join(f'"{unit}"' for unit in UNITS)
        rolling = f'a rolling window such as "90s", "5m", "24h" or "7d" ({_WRITTEN}; "1s" to "366d")'
        raise InvalidInput(field, f'must be {rolling}, a calendar window ({calendar}), or "total"')
    grain = _rounded_up(length, _BUCKETS) // _BUCKETS
    return Window(text, "rolling", length, grain if grain < _HOUR else _rounded_up(grain, _HOUR))


def parse_duration(text: str, *, field: str, minimum_us: int, maximum_us: int) -> int:
    """A duration such as "60s" in microseconds.

    Raises:
        InvalidInput: it is no duration, or below `minimum_us` or above `maximum_us`.
    """
    length = _microseconds(text)
    if length is None or not minimum_us <= length <= maximum_us:
        shortest, longest = _duration_text(minimum_us), _duration_text(maximum_us)
        raise InvalidInput(field, f'must be a duration from "{shortest}" to "{longest}" ({_WRITTEN})')
    return length


def seconds(length_us: int | None) -> int | None:
    """Whole seconds, rounded up: who waits that long has waited long enough."""
    return None if length_us is None else -(-length_us // _SECOND)


def _microseconds(text: str) -> int | None:
    """The length of a duration, None if it is not written as one. Too long for any use stays too long."""
    number, width = text[:-1], _SUFFIXES.get(text[-1:])
    if width is None or not (number.isascii() and number.isdigit()) or number[0] == "0":
        return None
    return int(number[:12]) * width


def _duration_text(length_us: int) -> str:
    suffix = next((suffix for suffix in "dhm" if length_us % _SUFFIXES[suffix] == 0), "s")
    return f"{length_us // _SUFFIXES[suffix]}{suffix}"


def _rounded_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def check_zone(zone: str, *, field: str = "timezone") -> str:
    """`zone` if it is the IANA name of a time zone that is known here.

    Raises:
        InvalidInput: it is not.
    """
    if zone != "UTC":
        _load_zone(zone, field)
    return zone


def zone_of(name: str) -> tzinfo:
    """Raises InvalidInput as `check_zone`."""
    if name != "UTC":
        return _load_zone(name)
    from datetime import UTC

    return UTC


def _load_zone(zone: str, field: str = "timezone") -> tzinfo:
    known = _zones.get(zone)
    if known is not None:
        return known
    from zoneinfo import ZoneInfo

    try:
        if _is_zone_name(zone):
            return _keep(_zones, zone, ZoneInfo(zone))
    except (KeyError, ValueError, OSError):  # unknown, no zone file, a folder
        pass
    raise InvalidInput(field, 'must be the IANA name of a time zone, such as "UTC" or "America/New_York"')


def _is_zone_name(zone: str) -> bool:
    """Whether it is written as one: the folder of the zones holds other files too (`right/`, `localtime`)."""
    return (
        len(zone) <= _ZONE_CHARACTERS_MAX
        and all(char.isascii() and (char.isalnum() or char in "/_+-") for char in zone)
        and all("A" <= part[:1] <= "Z" for part in zone.split("/"))
        and zone != "Factory"
    )


def period(window: Window, zone: str, at_us: int) -> tuple[int, int | None]:
    """The period [start, end) of a calendar window that contains `at_us`. `total` has no end.

    Raises:
        InvalidInput: the zone is unknown, or the time is outside the years 1000 to 9000.
        ValueError: the window is rolling.
    """
    if window.kind == "total":
        return 0, None
    if window.kind == "rolling":
        raise ValueError(f"a rolling window has no periods: {window.text}")
    return _calendar_period(window.text, zone, at_us)


def span(window: Window, zone: str, at_us: int) -> tuple[int | None, int | None]:
    """[since, until) of what a window counts at that moment; None is open. Raises as `period`."""
    if window.kind == "rolling":
        return at_us - window.length_us + 1, None
    return (None, None) if window.kind == "total" else period(window, zone, at_us)


def bucket(window: Window, zone: str, booked_us: int) -> int:
    """The bucket that usage booked at `booked_us` counts in. For a calendar window: the start of its period.

    Raises:
        InvalidInput: as `period`, for a calendar window.
    """
    if window.kind == "rolling":
        return booked_us // window.grain_us
    return 0 if window.kind == "total" else _calendar_period(window.text, zone, booked_us)[0]


def oldest_bucket(window: Window, at_us: int) -> int:
    """The lowest bucket that touches (at - length, at], for a rolling window."""
    return (at_us - window.length_us + 1) // window.grain_us


def bucket_range(window: Window, bucket: int, zone: str) -> tuple[int, int | None]:
    """The [start, end) of the times that are booked in a bucket. Raises InvalidInput as `period`."""
    if window.kind == "rolling":
        return bucket * window.grain_us, (bucket + 1) * window.grain_us
    return period(window, zone, bucket)


def periods(unit: Unit, zone: str, since_us: int, until_us: int) -> list[tuple[int, int]]:
    """The consecutive periods [start, end) that cover [since, until), oldest first; none is cut short.

    Raises:
        InvalidInput: there are more than 10,000, or as `period`.
    """
    found: list[tuple[int, int]] = []
    at_us = since_us
    while at_us < until_us:
        if len(found) == PERIODS_MAX:
            raise InvalidInput("since", f"the time range holds more than {PERIODS_MAX} {unit}s; start later")
        found.append(_find_period(unit, zone, at_us))
        at_us = found[-1][1]
    return found


def _calendar_period(unit: str, zone: str, at_us: int) -> tuple[int, int]:
    last = _last_periods.get((unit, zone))
    if last is not None and last[0] <= at_us < last[1] and _YEAR_1000 <= at_us < YEAR_9000_US:
        return last
    return _keep(_last_periods, (unit, zone), _find_period(unit, zone, at_us))


def _find_period(unit: str, zone: str, at_us: int) -> tuple[int, int]:
    if not _YEAR_1000 <= at_us < YEAR_9000_US:
        raise InvalidInput("time", "must lie between the years 1000 and 9000")
    if zone == "UTC":
        return _local_period(unit, at_us)
    tz = _load_zone(zone)
    start, end = _local_period(unit, at_us + _offset(tz, at_us))
    changes = _changes(unit, tz, start) + _changes(unit, tz, end)
    return max(at for at in changes if at <= at_us), min(at for at in changes if at > at_us)


def _local_period(unit: str, local_us: int) -> tuple[int, int]:
    """The period around a local time, from local time to local time, as if the offset never changed."""
    if unit in _EVEN:
        length, origin = _EVEN[unit]
        start = local_us - (local_us - origin) % length
        return start, start + length
    from datetime import date, timedelta

    day = date.fromordinal(local_us // _DAY + _EPOCH_ORDINAL)
    first = day.replace(day=1) if unit == "month" else day.replace(month=1, day=1)
    following = (first + timedelta(31 if unit == "month" else 366)).replace(day=1)
    return (first.toordinal() - _EPOCH_ORDINAL) * _DAY, (following.toordinal() - _EPOCH_ORDINAL) * _DAY


def _changes(unit: str, tz: tzinfo, boundary: int) -> list[int]:
    """The instants at which local time gets over `boundary`, the local time at which a period begins.

    Other instants nearby at which a period ends may be among them.
    """
    found: list[int] = []
    at, end = boundary - _REACH, boundary + _REACH
    offset = _offset(tz, at)
    while True:
        turn = _next_turn(tz, at, end, offset)
        if at < boundary - offset < turn:
            found.append(boundary - offset)
        if turn == end:
            return found
        after = _offset(tz, turn)
        if unit == "hour" or _local_period(unit, turn - 1 + offset) != _local_period(unit, turn + after):
            found.append(turn)
        at, offset = turn, after


def _next_turn(tz: tzinfo, at: int, end: int, offset: int) -> int:
    """The first instant after `at` at which the UTC offset is not `offset`, or `end` if that is earlier."""
    while at < end:
        step = min(at + _STEP, end)
        if _offset(tz, step) != offset:
            while step - at > _SECOND:
                middle = at + (step - at) // (2 * _SECOND) * _SECOND
                at, step = (middle, step) if _offset(tz, middle) == offset else (at, middle)
            return step
        at = step
    return end


def _offset(tz: tzinfo, at_us: int) -> int:
    """How far local time is ahead of UTC at that instant, in microseconds."""
    from datetime import UTC, datetime, timedelta

    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at_us // _SECOND)
    offset = at.astimezone(tz).utcoffset() or timedelta(0)
    return offset.days * _DAY + offset.seconds * _SECOND


def _keep(cache: dict[Key, Kept], key: Key, value: Kept) -> Kept:
    """Keeps `value`; a full cache starts afresh. Each step is atomic, and all threads would keep the same."""
    if len(cache) >= _CACHE_MAX:
        cache.clear()
    cache[key] = value
    return value
