"""What is accepted: the bounds of every field, once, for every face. Each failure names its field."""

from __future__ import annotations

from .errors import InvalidInput
from .models import EACH, LIMIT_FIELDS, METRICS, SOURCES, TOKEN_FIELDS, LimitKey, Subject, Usage, Who
from .money import LIMIT_MAX_INTEGER, REQUESTS_MAX, TOKENS_MAX
from .text import ID_MAX, METADATA_BYTES_MAX, METADATA_DEPTH_MAX, NAME_MAX, name, optional_name
from .windows import parse_duration, parse_window

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .queries import UsageFilter

TTL_DEFAULT, TTL_DEFAULT_US = "60s", 60_000_000
TTL_MIN_US = 1_000_000
TTL_MAX_US = 3_600_000_000
THRESHOLDS_MAX = 10
DURATION_MS_MAX = 1_000_000_000_000

CURSOR_MAX = 18
"""Any number that has more digits is larger than the ledger's can be, or SQLite's."""

UNIT_TYPE_MAX = 64
SEEN_MAX = 1000

_seen: set[tuple[str | None, ...]] = set()
"""Texts of usage that were found good lately: the same agents do the same things again and again."""


def usable(value: object, maximum: int = NAME_MAX) -> str | None:
    """`value` if it can be somebody's name. What is mentioned by the way is no error: it is as if it had not
    been."""
    if not isinstance(value, str) or value == EACH:
        return None
    try:
        return name(value, "name", maximum=maximum)
    except InvalidInput:
        return None


def who(value: Who) -> Who:
    """Raises InvalidInput when a name is empty, too long, or not printable."""
    name(value.agent, "agent")
    optional_name(value.service, "service")
    if value.parent is not None or value.project is not None or value.session is not None:
        optional_name(value.parent, "parent")
        optional_name(value.project, "project", maximum=ID_MAX)
        optional_name(value.session, "session", maximum=ID_MAX)
    for field in ("agent", "parent", "project", "session"):
        if getattr(value, field) == EACH:
            raise InvalidInput(field, '"*" means each one separately in a limit; it is nobody\'s name')
    if value.parent == value.agent:
        raise InvalidInput("parent", "an agent cannot be its own parent")
    return value


def texts(who_uses: Who, used: Usage, operation: str | None = None) -> None:
    """Raises InvalidInput when one of the names of usage is empty, too long, or not printable."""
    named = (
        who_uses.agent,
        who_uses.service,
        who_uses.parent,
        who_uses.project,
        who_uses.session,
        operation,
        used.unit_type,
        used.model,
    )
    if named in _seen:
        return
    who(who_uses)
    optional_name(operation, "operation", maximum=ID_MAX)
    optional_name(used.unit_type, "unit_type", maximum=UNIT_TYPE_MAX)
    optional_name(used.model, "model")
    if len(_seen) >= SEEN_MAX:
        _seen.clear()
    _seen.add(named)


def amounts(value: Usage) -> Usage:
    """Raises InvalidInput when an amount is negative or too large."""
    integer(value.requests, "requests", REQUESTS_MAX)
    if value.tokens is not None:
        for field in TOKEN_FIELDS:
            amount = getattr(value, field)
            if amount is not None:
                integer(amount, field, TOKENS_MAX)
    return value


def integer(value: int, field: str, maximum: int) -> int:
    """Raises InvalidInput unless `value` is within 0..maximum."""
    if not 0 <= value <= maximum:
        raise InvalidInput(field, f"must be between 0 and {maximum}")
    return value


def details(status_code: int | None, duration_ms: int | None, metadata: str | None, source: str) -> None:
    """Raises InvalidInput when one of the descriptive fields of an event is out of bounds."""
    if status_code is not None and not 0 <= status_code <= 65_535:
        raise InvalidInput("status_code", "must be between 0 and 65535")
    if duration_ms is not None:
        integer(duration_ms, "duration_ms", DURATION_MS_MAX)
    if metadata is not None:
        if len(metadata) > METADATA_BYTES_MAX // 4 and _size(metadata) > METADATA_BYTES_MAX:
            raise InvalidInput("metadata", f"is larger than {METADATA_BYTES_MAX} bytes of JSON")
        if _depth(metadata) > METADATA_DEPTH_MAX:
            raise InvalidInput("metadata", f"is nested more than {METADATA_DEPTH_MAX} deep")
    if source not in SOURCES:
        raise InvalidInput("source", f"must be one of {', '.join(SOURCES)}")


def metadata_text(metadata: Mapping[str, object] | None) -> str | None:
    """As an event keeps it: canonical JSON, with sorted keys and no blanks. Raises InvalidInput."""
    if metadata is None:
        return None
    import json  # slow, for a process that only records

    try:
        text = json.dumps(
            dict(metadata), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        text.encode()
    except (TypeError, ValueError, RecursionError):
        problem = "must be JSON: finite numbers, valid Unicode, not nested deeply"
        raise InvalidInput("metadata", problem) from None
    return text


def _size(text: str) -> int:
    """In bytes: at most four a character."""
    return len(text.encode("utf-8", "surrogatepass"))


def _depth(text: str) -> int:
    """How deeply JSON text is nested. What nobody can write out again must not get into the ledger."""
    if text.count("{") + text.count("[") <= METADATA_DEPTH_MAX:
        return 0
    depth = deepest = 0
    quoted = escaped = False
    for char in text:
        if escaped or (quoted and char == "\\"):
            escaped = not escaped
        elif char == '"':
            quoted = not quoted
        elif not quoted and char in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif not quoted and char in "}]":
            depth -= 1
    return deepest


def ttl(ttl_us: int) -> int:
    """Raises InvalidInput unless a hold lasts between 1 second and 1 hour."""
    if not TTL_MIN_US <= ttl_us <= TTL_MAX_US:
        raise InvalidInput("ttl", 'must be between "1s" and "1h"')
    return ttl_us


def ttl_of(text: str) -> int:
    """How long a hold lasts that is to last so long: "60s". Raises InvalidInput as `ttl`."""
    if text == TTL_DEFAULT:  # what most want
        return TTL_DEFAULT_US
    return parse_duration(text, field="ttl", minimum_us=TTL_MIN_US, maximum_us=TTL_MAX_US)


def limit_key(key: LimitKey) -> LimitKey:
    """The key with its window normalised. Raises InvalidInput for an impossible one."""
    kind, subject_name = key.subject.kind, key.subject.name
    if kind == "pool":
        if subject_name is not None:
            raise InvalidInput("agent", "a limit for everybody has no name")
    else:
        name(subject_name or "", kind, maximum=ID_MAX if kind in ("project", "session") else NAME_MAX)
    if kind == "tier" and subject_name == EACH:
        raise InvalidInput("tier", 'must name one tier; for each agent separately use agent="*"')
    optional_name(key.service, "service")
    if key.service == EACH:
        raise InvalidInput("service", "must name one service; leave it out to count all services")
    if key.metric not in METRICS:
        raise InvalidInput("metric", f"must be one of {', '.join(METRICS)}")
    return key.replace(window=parse_window(key.window).text)


def limit_max(value: int) -> int:
    """Raises InvalidInput unless the maximum fits the ledger's integers."""
    return integer(value, "max", LIMIT_MAX_INTEGER)


def thresholds(values: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Sorted and each once. Raises InvalidInput unless at most 10 percentages within 1..1000."""
    if values is None:
        return None
    if len(values) > THRESHOLDS_MAX:
        raise InvalidInput("thresholds", f"has {len(values)} entries; at most {THRESHOLDS_MAX} are allowed")
    for value in values:
        if not 1 <= value <= 1000:
            raise InvalidInput("thresholds", "must be whole percentages between 1 and 1000")
    return tuple(sorted(set(values)))


def usage_filter(wanted: UsageFilter) -> UsageFilter:
    """Raises InvalidInput when a name can be nobody's, the range has no length, or children are nobody's."""
    if wanted.include_children and wanted.agent is None:
        raise InvalidInput("include_children", "says whose: name the agent, or leave it out for everybody")
    since_us, until_us = wanted.since_us, wanted.until_us
    if since_us is not None and until_us is not None and since_us >= until_us:
        raise InvalidInput("until", "must be later than since")
    for field in ("agent", "service", "model", "tier"):
        optional_name(getattr(wanted, field), field)
    for field in ("operation", "project", "session"):
        optional_name(getattr(wanted, field), field, maximum=ID_MAX)
    return wanted


def page_size(size: int, maximum: int) -> int:
    """Raises InvalidInput unless a page has 1 to `maximum` entries."""
    if not 1 <= size <= maximum:
        raise InvalidInput("limit", f"must be between 1 and {maximum}")
    return size


def before_seq(cursor: str | None) -> int | None:
    """The place in the ledger that a cursor names; None: the newest. Raises InvalidInput."""
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= CURSOR_MAX):
        raise InvalidInput("cursor", "is not one that a page ended with: leave it out to start again")
    return int(cursor)


def subject(**named: str | None) -> Subject:
    """The subject of a limit from at most one of agent, tier, project, session.

    Raises:
        InvalidInput: more than one was given.
    """
    given = [(kind, value) for kind, value in named.items() if value is not None]
    if not given:
        return Subject()
    if len(given) > 1:
        raise InvalidInput(
            given[1][0], f"give at most one of {', '.join(LIMIT_FIELDS)}; {given[0][0]} is given too"
        )
    kind, value = given[0]
    if kind not in LIMIT_FIELDS:
        raise InvalidInput(kind, f"is not one of {', '.join(LIMIT_FIELDS)}")
    return Subject(kind, value)
