"""Times as ISO 8601 and as `datetime`. Everywhere else they are microseconds since 1970 in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_S = 86_400
_SECOND_US = 1_000_000
_MILLISECOND_US = 1000
_YEAR_2_US = -62_104_060_800 * _SECOND_US
_YEAR_9999_US = 253_370_764_800 * _SECOND_US


def us_of(time: datetime) -> int:
    """Of a time that has an offset from UTC."""
    since = time - _EPOCH
    return (since.days * _DAY_S + since.seconds) * _SECOND_US + since.microseconds


def time_of(at_us: int, zone: tzinfo = UTC) -> datetime:
    """Raises OverflowError outside the years 1 to 9999."""
    time = _EPOCH + timedelta(microseconds=at_us)
    return time if zone is UTC else time.astimezone(zone)


def time_text(at_us: int, zone: tzinfo = UTC) -> str:
    """ISO 8601, with "Z" for UTC and no fraction where there is none."""
    text = time_of(at_us, zone).isoformat()
    return text.removesuffix("+00:00") + "Z" if zone is UTC else text


def optional_time(at_us: int | None) -> str | None:
    """As `time_text`; None stays None, and a time too far off to be written (year 9999) is None as well."""
    return time_text(at_us) if at_us is not None and _YEAR_2_US <= at_us < _YEAR_9999_US else None


def time_text_ms(at_us: int) -> str:
    """To the millisecond, as `Date.toISOString` in JavaScript."""
    return f"{time_of(at_us):%Y-%m-%dT%H:%M:%S}.{at_us % _SECOND_US // _MILLISECOND_US:03}Z"
