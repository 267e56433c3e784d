"""What a person types about a limit, and what it means. Pure: the bounds are those of the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from agent_meter_mcp.core import check
from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.figures import CENT, dollars, number
from agent_meter_mcp.core.models import EACH, Limit, LimitKey, Subject
from agent_meter_mcp.core.money import LIMIT_MAX_INTEGER, typed_maximum, units, usd
from agent_meter_mcp.core.text import ID_MAX, NAME_MAX, name, optional_name
from agent_meter_mcp.core.value import Value
from agent_meter_mcp.core.windows import check_zone, parse_window

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_meter_mcp.core.models import Action, Metric, SubjectKind

T = TypeVar("T")

WHOM: dict[str, tuple[SubjectKind, bool]] = {
    "everyone": ("pool", False),
    "each agent": ("agent", False),
    "one agent": ("agent", True),
    "each of a tier": ("tier", True),
    "each project": ("project", False),
    "one project": ("project", True),
    "each session": ("session", False),
    "one session": ("session", True),
}
"""Whom a limit is for, as a person chooses it: the kind of subject, and whether it has a name.

There is none for each tier: agents of a tier are counted one by one anyway.
"""
THRESHOLDS = "50, 80, 100"
RAISES = (10, 50)


class Typed(Value):
    """The fields as they stand. `name` and `zone` count only where there is something that they can mean."""

    whom: str = "each agent"
    name: str = ""
    service: str = ""
    metric: Metric = "cost_usd"
    window: str = "day"
    max: str = ""
    action: Action = "reject"
    zone: str = "UTC"
    thresholds: str = THRESHOLDS

    @property
    def has_name(self) -> bool:
        return WHOM[self.whom][1]

    @property
    def has_calendar(self) -> bool:
        """Whether the window is cut by the clocks of a zone (also while it is none yet)."""
        try:
            return parse_window(self.window.strip()).kind == "calendar"
        except InvalidInput:
            return True


class Wish(Value):
    """A limit as it shall be."""

    key: LimitKey
    max: int
    action: Action
    zone: str
    thresholds: tuple[int, ...]

    @property
    def limit(self) -> Limit:
        """The limit that it would be."""
        return Limit("", self.key, self.max, self.action, self.zone, self.thresholds)


def typed_of(limit: Limit) -> Typed:
    """The fields of a limit that is there."""
    key = limit.key
    has_name = key.subject.name not in (None, EACH)
    whom = next(words for words, meant in WHOM.items() if meant == (key.subject.kind, has_name))
    return Typed(
        whom,
        key.subject.name or "" if has_name else "",
        key.service or "",
        key.metric,
        key.window,
        plain(key.metric, limit.max),
        limit.action,
        limit.zone,
        ", ".join(map(str, limit.thresholds)),
    )


def wish_of(limit: Limit) -> Wish:
    return Wish(limit.key, limit.max, limit.action, limit.zone, limit.thresholds)


def read(typed: Typed) -> tuple[Wish | None, dict[str, str]]:
    """The limit that the fields mean; or None, and by field what is wrong with it."""
    wrong: dict[str, str] = {}

    def meant(field: str, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except InvalidInput as error:
            wrong[field] = error.problem
            return None

    subject = meant("name", lambda: _subject(typed))
    service = meant("service", lambda: _service(typed))
    meant("window", lambda: parse_window(typed.window.strip()))
    maximum = meant("max", lambda: check.limit_max(typed_maximum(typed.metric, typed.max)))
    zone = meant("zone", lambda: check_zone(typed.zone.strip()) if typed.has_calendar else "UTC")
    thresholds = meant("thresholds", lambda: _thresholds(typed.thresholds))
    if wrong or subject is None or maximum is None or zone is None or thresholds is None:
        return None, wrong
    key = check.limit_key(LimitKey(subject, service, typed.metric, typed.window.strip()))
    return Wish(key, maximum, typed.action, zone, thresholds), {}


def _subject(typed: Typed) -> Subject:
    kind, has_name = WHOM[typed.whom]
    if not has_name:
        return Subject() if kind == "pool" else Subject(kind, EACH)
    given = name(typed.name.strip(), kind, maximum=ID_MAX if kind in ("project", "session") else NAME_MAX)
    if given == EACH:
        raise InvalidInput(kind, "is nobody's name: choose each instead")
    return Subject(kind, given)


def _service(typed: Typed) -> str | None:
    given = optional_name(typed.service.strip() or None, "service")
    if given == EACH:
        raise InvalidInput("service", "leave it empty to count all services")
    return given


def _thresholds(text: str) -> tuple[int, ...] | None:
    try:
        values = tuple(int(part) for part in text.replace("%", " ").replace(",", " ").split())
    except ValueError:
        raise InvalidInput("thresholds", f"must be whole percentages, such as {THRESHOLDS}") from None
    return check.thresholds(values)


# Words and figures


def plain(metric: Metric, value: int) -> str:
    """An amount as one would type it: exact, without signs."""
    if metric not in ("cost_usd", "units"):
        return str(value)
    text = f"{usd(value) if metric == 'cost_usd' else units(value):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def exact(metric: Metric, value: int) -> str:
    """An amount as it is read, with all its digits: "$1,204.50", "$0.0115", "1,500,000"."""
    if metric != "cost_usd":
        return number(metric, value)
    if value % CENT == 0:
        return dollars(value)
    whole, _, rest = plain(metric, value).partition(".")
    return f"${int(whole):,}.{rest}"


def raised(maximum: int, by_percent: int) -> int:
    """So many percent more, rounded up to three digits; at most the largest there is."""
    more = -(-maximum * (100 + by_percent) // 100)
    grain = 10 ** max(len(str(more)) - 3, 0)
    return min(-(-more // grain) * grain, LIMIT_MAX_INTEGER)
