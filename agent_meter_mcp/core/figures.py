"""Amounts, lengths of time, whom a limit is for and what is stopped, in words.

For people in a terminal money has 2 decimals, and 4 below a cent; sentences for models and programs have it
exactly. Unlimited, zero and unknown are three different things. Names come from agents: `named` says how one
may stand in the text, such as `core.text.shown`.
"""

from __future__ import annotations

import unicodedata

from .models import EACH
from .money import SCALES
from .text import REASON_WIDTH, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .models import KillSwitch, Metric, Subject, SwitchKind
    from .queries import Totals

UNKNOWN = "—"
UNLIMITED = "unlimited"
ELLIPSIS = "…"
CENT = 10_000_000
_TENTH_OF_A_MILLE = 100_000
_PERIODS = {
    "hour": "this hour",
    "day": "today",
    "week": "this week",
    "month": "this month",
    "year": "this year",
    "total": "in total",
}
_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def dollars(cost_nano_usd: int | None) -> str:
    """Rounded half up: "$1,204.50", "$0.0012", "<$0.0001", "$0.00", "-$3.10"; unknown for None."""
    if cost_nano_usd is None:
        return UNKNOWN
    sign, size = "-" if cost_nano_usd < 0 else "", abs(cost_nano_usd)
    if 0 < size < CENT:
        if size < _TENTH_OF_A_MILLE:
            return f"{sign}<$0.0001"
        parts = (size + _TENTH_OF_A_MILLE // 2) // _TENTH_OF_A_MILLE
        return f"{sign}$0.{parts:04}"
    cents = (size + CENT // 2) // CENT
    return f"{sign}${cents // 100:,}.{cents % 100:02}"


def number(metric: Metric, value: int | None) -> str:
    """An amount in the metric's integer unit, without the metric's name."""
    if value is None:
        return UNKNOWN
    return dollars(value) if metric == "cost_usd" else exact_number(metric, value)


def amount(metric: Metric, value: int) -> str:
    """ "$1.25", "1,200 tokens", "1 request"."""
    return of_metric(metric, number(metric, value))


def exact_number(metric: Metric, value: int) -> str:
    """ "$1.50", "$12", "$0.000000001", "1,200", "0.5": all its digits, and no trailing zeros but of cents."""
    scale = SCALES[metric]
    whole, rest = divmod(abs(value), scale)
    places = f"{rest:0{len(str(scale)) - 1}}".rstrip("0") if rest else ""
    is_money = metric == "cost_usd"
    fraction = f".{places:0<{2 if is_money else 1}}" if places else ""
    return f"{'-' if value < 0 else ''}{'$' if is_money else ''}{whole:,}{fraction}"


def exact_amount(metric: Metric, value: int) -> str:
    """ "$1.25", "1,200 tokens", "1 request": as `exact_number`, and of what."""
    return of_metric(metric, exact_number(metric, value))


def of_metric(metric: Metric, text: str) -> str:
    """An amount that is written already, and of what it is: "1.2k tokens", "1 request", "$5"."""
    return text if metric == "cost_usd" else f"{text} {metric.removesuffix('s') if text == '1' else metric}"


def cost_of(totals: Totals) -> str:
    """Unknown when nothing of it has a price."""
    return dollars(totals.cost_nano_usd) if _has_a_price(totals) else UNKNOWN


def exact_cost_of(totals: Totals) -> str:
    """ "$1.50", "cost unknown": as `cost_of`, in a sentence."""
    return exact_amount("cost_usd", totals.cost_nano_usd) if _has_a_price(totals) else "cost unknown"


def _has_a_price(totals: Totals) -> bool:
    return bool(totals.cost_nano_usd) or totals.unpriced < totals.events or not totals.events


def percent(value: float) -> str:
    """ "42 %", ">999 %"; what is not nothing is "<1 %", and what is not full at most "99 %"."""
    if value > 999:
        return ">999 %"
    if 0 < value < 1:
        return "<1 %"
    return f"{value if value >= 100 else min(value, 99):.0f} %"


def counted(count: int, what: str) -> str:
    """ "1 event", "1,200 events"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def length(length_us: int, *, parts: int = 2, least: int = 1) -> str:
    """ "40 s", "3 h 12 min", "2 d 4 h", rounded up to the last of its parts.

    `least`: so many of the first part; with 2, an hour and a minute in one part are 61 min, and not 2 h.
    """
    left = max(-(-length_us // 1_000_000), 1)
    finest = _UNITS[min(_first(left, least) + parts, len(_UNITS)) - 1][1]
    left = -(-left // finest) * finest
    told: list[str] = []
    for unit, width in _UNITS[_first(left, least) :]:  # what was rounded up may be one of a larger unit
        count, left = divmod(left, width)
        if count:
            told.append(f"{count} {unit}")
    return " ".join(told)


def _first(length_s: int, least: int) -> int:
    """Which of the units is the largest that it has so many of."""
    return next(
        (index for index, (_, width) in enumerate(_UNITS) if length_s >= width * least), len(_UNITS) - 1
    )


def during(window: str) -> str:
    """When something is counted: "today", "in total", "in any 24h"."""
    return _PERIODS.get(window, f"in any {window}")


def per(window: str) -> str:
    """How often there is as much anew: "per day", "in total", "in any 24h"."""
    return f"per {window}" if window in _PERIODS and window != "total" else during(window)


def whom(subject: Subject, named: Callable[[str], str]) -> str:
    """Whom a limit is for: "everyone", "each session", "each agent of tier gold", "agent coder"."""
    if subject.kind == "pool":
        return "everyone"
    if subject.kind == "tier":
        return f"each agent of tier {named(subject.name or '')}"
    return f"each {subject.kind}" if subject.name == EACH else f"{subject.kind} {named(subject.name or '')}"


def target(kind: SwitchKind, name: str | None, named: Callable[[str], str]) -> str:
    """What a kill switch stops: "everything", "agent coder"."""
    return "everything" if kind == "everything" else f"{kind} {named(name or '')}"


def stopped(switch: KillSwitch, named: Callable[[str], str]) -> str:
    """What was stopped, by whom and why."""
    by, why = named(switch.engaged_by), shown(switch.reason, width=REASON_WIDTH)
    return f"{target(switch.kind, switch.name, named)} was stopped by {by}: {why}"


def width_of(text: str) -> int:
    """How many cells of a terminal it takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def shortened(text: str, width: int) -> str:
    """At most `width` cells of it, with an ellipsis where something is missing."""
    if width_of(text) <= width:
        return text
    left, kept = width - 1, ""
    for char in text:
        left -= width_of(char)
        if left < 0:
            break
        kept += char
    return kept + ELLIPSIS
