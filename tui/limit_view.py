"""The rows of the limits page, and of the lists of limits to choose from. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len

from agent_meter_mcp.core.figures import UNKNOWN
from agent_meter_mcp.core.models import EACH
from agent_meter_mcp.core.text import shown
from agent_meter_mcp.core.times import time_of
from agent_meter_mcp.core.windows import parse_window, period

from .format import brief, until
from .view import Cell, Row, fullness, fullness_cells, used_cell, what_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import tzinfo

    from agent_meter_mcp.core.decide import LimitState
    from agent_meter_mcp.core.queries import LimitView

    from .table import Column
    from .view import Style

SORTS = ("tightness", "name", "resets", "burn", "runs out")
USED = 1
"""The column of what is used, on all pages."""
_DAY_US = 86_400_000_000
_NEVER = 2**63


def clock(at_us: int, now_us: int, zone: tzinfo) -> str:
    """A moment to come by the clocks of the zone, in few cells: "18:00", "Fri 18:00", "3 Dec"."""
    at = time_of(at_us, zone)
    if at.date() == time_of(now_us, zone).date():
        return f"{at:%H:%M}"
    return f"{at:%a %H:%M}" if at_us - now_us < 6 * _DAY_US else f"{at.day} {at:%b}"


def columns_for(columns: tuple[Column, ...], rows: Sequence[Row]) -> tuple[Column, ...]:
    """What is used takes no more room than it needs: the names have the rest."""
    used = columns[USED]
    widest = max((cell_len(row.cells[USED].text) for row in rows), default=0)
    fitting = used.replace(width=max(len(used.title), min(widest, used.width)))
    return (*columns[:USED], fitting, *columns[USED + 1 :])


def tightness(view: LimitView) -> float:
    """How full it is, in percent. A limit of 0 is fuller than all others."""
    if view.limit.max == 0:
        return float("inf")
    return 0.0 if view.state is None else view.state.percent


def resets_at_us(view: LimitView, now_us: int) -> int | None:
    """When usage leaves it: the end of its period, or when the oldest usage is out of a rolling window."""
    state, window = view.state, parse_window(view.limit.key.window)
    if state is not None and (at := state.leaves_at_us) is not None:
        return at
    return period(window, view.limit.zone, now_us)[1] if window.kind == "calendar" else None


def ordered(views: Iterable[LimitView], sort: str, reverse: bool, now_us: int) -> list[LimitView]:
    """The tightest first, the soonest first, by name; limits that are equal in it by their names."""

    def burn(view: LimitView) -> float:
        return 0.0 if view.state is None or not view.limit.max else view.state.burn_per_hour / view.limit.max

    keys: dict[str, Callable[[LimitView], float]] = {
        "tightness": lambda view: -tightness(view),
        "name": lambda _: 0,
        "resets": lambda view: resets_at_us(view, now_us) or _NEVER,
        "burn": lambda view: -burn(view),
        "runs out": lambda view: (view.state and view.state.runs_out_at_us) or _NEVER,
    }
    found = sorted(sorted(views, key=lambda view: what_of(view.limit.key)), key=keys[sort])
    return found[::-1] if reverse else found


def row(view: LimitView, now_us: int, zone: tzinfo) -> Row:
    """What it is, how full, when it resets, how fast it fills, when it runs out, and what happens then."""
    limit, state = view.limit, view.state
    full = 100.0 if limit.max == 0 else tightness(view)
    style = fullness(full)
    used = 0 if state is None else state.used + state.held
    return Row(
        limit.limit_id,
        (
            Cell(_name(view), style),
            used_cell(limit, used, style),
            *fullness_cells(full, style),
            Cell(_resets(view, now_us, zone)),
            Cell(UNKNOWN if state is None else _burn(state)),
            Cell(*_runs_out(state, now_us, style)),
            Cell(limit.action, "dim" if limit.action == "warn" else ""),
        ),
    )


def _name(view: LimitView) -> str:
    """What it is; where it counts each one by itself, also whose counter it shows."""
    scope = view.state.scope if view.state is not None else ""
    return what_of(view.limit.key) + (f" ({shown(scope)})" if scope and scope != EACH else "")


def _resets(view: LimitView, now_us: int, zone: tzinfo) -> str:
    if view.limit.key.window == "total":
        return "never"
    at_us = resets_at_us(view, now_us)
    return UNKNOWN if at_us is None else clock(at_us, now_us, zone)


def _burn(state: LimitState) -> str:
    """Less than one an hour is not none."""
    metric, rate = state.limit.key.metric, state.burn_per_hour
    return "<1/h" if state.used and not rate else f"{brief(metric, rate, 8)}/h"


def _runs_out(state: LimitState | None, now_us: int, style: Style) -> tuple[str, Style]:
    if state is None:
        return UNKNOWN, "dim"
    if state.exceeded:
        return "over", style
    return until(state.runs_out_at_us, now_us), style
