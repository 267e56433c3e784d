"""How figures are written in the few cells that a dashboard has for them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_meter_mcp.core.figures import UNKNOWN, dollars, length, number
from agent_meter_mcp.core.money import MICRO_PER_UNIT, NANO_PER_USD

if TYPE_CHECKING:
    from agent_meter_mcp.core.models import Metric

BLOCKS = " ▏▎▍▌▋▊▉█"
SPARKS = "▁▂▃▄▅▆▇█"
_STEPS = ((1_000_000_000, "B"), (1_000_000, "M"), (10_000, "k"))


def short_count(count: int) -> str:
    """ "9,999", "10.00k", "8.12M", "123k": three or four digits, up to a thousand billions."""
    for size, letter in _STEPS:
        if count >= size:
            number = count / (1000 if letter == "k" else size)
            places = f"{number:.2f}"
            return f"{places if len(places) <= 5 else f'{number:.0f}'}{letter}"
    return f"{count:,}"


def brief_dollars(nano_usd: int, width: int = 9) -> str:
    """ "$1,204.50", "$120,450", "$12.05M": with as many digits as there is room for, for none may be cut.
    What is not nothing is not "$0"."""
    whole = nano_usd // NANO_PER_USD
    for text in (dollars(nano_usd), f"${whole:,}" if whole else "<$0.01"):
        if len(text) <= width:
            return text
    return f"${short_count(whole)}"


def brief(metric: Metric, value: int, width: int = 10) -> str:
    """An amount in the few cells of a table."""
    if metric == "cost_usd":
        return brief_dollars(value, width)
    if metric != "units":
        return short_count(value)
    whole = value // MICRO_PER_UNIT
    return short_count(whole) if whole >= 100 else number(metric, round(value, -4))


def bar(value: float, width: int) -> str:
    """A bar of `width` cells for a percentage: full at 100 and beyond, never empty above 0."""
    eighths = min(max(round(value / 100 * width * 8), 1 if value > 0 else 0), width * 8)
    if value < 100:
        eighths = min(eighths, width * 8 - 1)
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (BLOCKS[rest] if rest else "")).ljust(width, "·")


def spark(values: list[int], width: int) -> str:
    """The last `width` values as a line of blocks; the highest of them is a full one, 0 is the lowest."""
    shown = values[-width:]
    top = max(shown, default=0)
    if not top:
        return SPARKS[0] * len(shown)
    return "".join(SPARKS[min(-(-value * 7 // top), 7)] for value in shown)


def age(length_us: int | None) -> str:
    """How long ago, in one unit: "now", "40 s", "3 h"."""
    if length_us is None:
        return UNKNOWN
    return "now" if length_us < 1_000_000 else length(length_us, parts=1)


def until(moment_us: int | None, now_us: int) -> str:
    """How long from now, in at most two units; unknown where there is no such moment."""
    if moment_us is None:
        return UNKNOWN
    return "now" if moment_us <= now_us else length(moment_us - now_us, parts=2)
