"""What is on the screen, as plain values: cells, rows, and the words that all pages use. Pure.

Every text that an agent chose goes through `core.text.shown`: no control code and no markup gets further.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Literal, overload

from agent_meter_mcp.core.figures import UNKNOWN, amount, cost_of, number, percent
from agent_meter_mcp.core.models import EACH, METRICS
from agent_meter_mcp.core.money import usd
from agent_meter_mcp.core.queries import Totals
from agent_meter_mcp.core.text import shown
from agent_meter_mcp.core.times import time_of
from agent_meter_mcp.core.value import Value

from .filters import Facts, wanted
from .format import bar, brief, brief_dollars, short_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import tzinfo

    from agent_meter_mcp.core.models import Limit, LimitKey, Reservation, Subject
    from agent_meter_mcp.core.queries import Group, LimitView

    Style = Literal["", "alarm", "warn", "good", "dim", "held"]

NAME_WIDTH = 128
BAR_WIDTH = 8
WARN_PERCENT = 80.0
TIME_IN_FULL = "%Y-%m-%d %H:%M:%S %Z"
NOTHING = Totals()
_figures = attrgetter(*Totals.fields)


class Cell(Value):
    """A word in a table. Its style says what it means, not what it looks like.

    `full` is what a file gets instead, where `text` is shortened or decorated.
    """

    text: str
    style: Style = ""
    full: str = ""


class Row(Value):
    """`key` stays that of the same thing, wherever the row moves. `id` is the one to copy, if another."""

    key: str
    cells: tuple[Cell, ...]
    id: str | None = None


class Rows(Sequence[Row]):
    """Rows that are made when somebody looks at them: of thousands, a screen shows forty."""

    def __init__(self, keys: Sequence[str], make: Callable[[int], Row]) -> None:
        self.keys = keys
        self._make = make
        self._made: dict[int, Row] = {}

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Row]: ...
    def __getitem__(self, place: int | slice) -> Row | Sequence[Row]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        place %= len(self)
        if place not in self._made:
            self._made[place] = self._make(place)
        return self._made[place]


def name_cell(name: str | None, style: Style = "") -> Cell:
    """A name that an agent or a person chose; unknown where there is none."""
    return Cell(UNKNOWN, "dim") if name is None else Cell(shown(name, width=NAME_WIDTH), style)


def totals_cells(totals: Totals) -> tuple[Cell, ...]:
    """Requests, tokens, cost and refusals."""
    return (
        count_cell(totals.requests),
        count_cell(totals.tokens),
        cost_cell(totals),
        count_cell(totals.rejected, "alarm" if totals.rejected else "dim"),
    )


def count_cell(count: int, style: Style = "") -> Cell:
    return Cell(short_count(count), style, str(count))


def cost_cell(totals: Totals) -> Cell:
    if cost_of(totals) == UNKNOWN:
        return Cell(UNKNOWN)
    return Cell(brief_dollars(totals.cost_nano_usd), full=dollars_in_full(totals.cost_nano_usd))


def dollars_in_full(nano_usd: int) -> str:
    return f"{usd(nano_usd):f}"


def fullness_cells(full: float, style: Style) -> tuple[Cell, Cell]:
    """The bar and the percentage. A bar that asks for nothing is not the brightest thing on the screen."""
    of_bar: Style = style or "dim"
    return Cell(bar(full, BAR_WIDTH), of_bar, f"{full:.2f}"), Cell(percent(full), style, f"{full:.2f}")


def plus(*totals: Totals) -> Totals:
    """All of them together."""
    return Totals(*map(sum, zip(*map(_figures, totals), strict=True)))


def matching_rows(rows: Iterable[Row], typed: str) -> list[Row]:
    """Those with all the words, anywhere in the row; a word with `!` before it must be missing."""
    has = wanted(typed)
    return [row for row in rows if has is None or has(Facts("\n".join(cell.text for cell in row.cells)))]


def moment(at_us: int, zone: tzinfo, form: str = "%d %b %H:%M:%S") -> str:
    """A time of day, and a date, in the zone of who looks."""
    return format(time_of(at_us, zone), form)


def amounts_of(held: Reservation) -> str:
    """ "1 request, 1,500 tokens, $0.04": all that it holds."""
    stated = zip(METRICS, held.usage.stated, strict=True)
    return ", ".join(amount(metric, value) for metric, value in stated if value)


@lru_cache(maxsize=512)
def time_cell(at_us: int, zone: tzinfo, form: str) -> Cell:
    """A time in few cells; in a file it is a whole one. The same ones are there look after look."""
    return Cell(moment(at_us, zone, form), "dim", moment(at_us, zone, TIME_IN_FULL))


def whom_of(subject: Subject) -> str:
    """ "everyone", "each of tier gold", "agent coder": as `core.figures.whom`, in fewer cells."""
    if subject.kind == "pool":
        return "everyone"
    if subject.name == EACH:
        return f"each {subject.kind}"
    return f"{'each of ' if subject.kind == 'tier' else ''}{subject.kind} {shown(subject.name or '')}"


def what_of(key: LimitKey) -> str:
    """ "everyone · cost_usd/day at openai"."""
    return f"{whom_of(key.subject)} · {counted_by(key)}"


def counted_by(key: LimitKey) -> str:
    """ "cost_usd/day at openai"."""
    window = "total" if key.window == "total" else f"/{key.window}"
    at = f" at {shown(key.service)}" if key.service else ""
    return f"{key.metric}{' in ' if window == 'total' else ''}{window}{at}"


def fullness(full: float) -> Style:
    """What a percentage of a limit means."""
    return "alarm" if full >= 100 else "warn" if full >= WARN_PERCENT else ""


def used_cell(limit: Limit, used: int, style: Style) -> Cell:
    """ "12.0k of 20.0k", and in a file with all digits."""
    metric, most = limit.key.metric, limit.max
    in_full = f"{number(metric, used)} of {number(metric, most)}"
    return Cell(f"{brief(metric, used)} of {brief(metric, most)}", style, in_full)


def limit_row(view: LimitView) -> Row:
    """A limit of one agent: what it is, how full, and whether it binds or was replaced."""
    limit, state = view.limit, view.state
    key = limit.key
    if state is None:
        return Row(limit.limit_id, (Cell(what_of(key)), Cell(UNKNOWN), Cell(""), Cell("")))
    full = state.percent
    style: Style = "dim" if view.is_replaced else fullness(full)
    used = state.used + state.held
    return Row(
        limit.limit_id,
        (
            Cell(what_of(key), style),
            used_cell(limit, used, style),
            *fullness_cells(full, style),
        ),
    )


def group_row(group: Group) -> Row:
    """Usage of one service, session or the like: what it is, and its totals."""
    name = " · ".join(shown(str(part), width=NAME_WIDTH) for part in group.key if part is not None)
    cells = (Cell(name or UNKNOWN), *totals_cells(group.totals))
    return Row(repr(group.key), cells, str(group.key[0] or ""))
