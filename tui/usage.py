"""Usage by service, project and session, as rows. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from agent_meter_mcp.core.figures import UNKNOWN, counted
from agent_meter_mcp.core.text import shown

from .view import NAME_WIDTH, NOTHING, Cell, Row, group_row, moment, name_cell, totals_cells

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import tzinfo

    from agent_meter_mcp.core.models import KillSwitch
    from agent_meter_mcp.core.queries import Dimension, Summary

FORMS: dict[Dimension, str] = {"hour": "%d %b %H:00", "day": "%d %b", "month": "%b %Y"}


def service_rows(usage: Summary, by_agent: Summary, switches: Sequence[KillSwitch]) -> list[Row]:
    """Each service: whether it is stopped, how many agents use it, its totals. One that is stopped is there
    even if nobody uses it."""
    stopped = {switch.name for switch in switches if switch.kind == "service" and switch.name is not None}
    everything = any(switch.kind == "everything" for switch in switches)
    totals = {_name(group.key[0]): group.totals for group in usage.groups}
    totals |= dict.fromkeys(sorted(stopped - totals.keys()), NOTHING)
    agents = Counter(_name(group.key[0]) for group in by_agent.groups)
    rows = [
        Row(
            name,
            (
                name_cell(name or None),
                Cell("■ STOPPED", "held") if everything or name in stopped else Cell("● open", "good"),
                _agents(agents[name], by_agent),
                *totals_cells(used),
            ),
        )
        for name, used in totals.items()
    ]
    return rows + _left_out(usage, "service")


def parts_of(operations: Summary, agents: Summary) -> list[Row]:
    """What a service was used for, then by whom."""
    rows = [group_row(group) for group in operations.groups]
    rows += _left_out(operations, "operation")
    users = [group_row(group) for group in agents.groups]
    rows += [Row(f"agent {row.key}", (_by(row.cells[0]), *row.cells[1:])) for row in users]
    return rows + _left_out(agents, "agent")


def _by(cell: Cell) -> Cell:
    return Cell(f"by {cell.text}", "dim")


def session_rows(
    usage: Summary,
    by_agent: Summary,
    by_time: Summary,
    by: Sequence[Dimension],
    unit: Dimension,
    zone: tzinfo,
) -> list[Row]:
    """Each session with its project (or each project): how many agents, from when to when, its totals.

    `by` is project and session (or project alone), by which all is summed up: what agents used also by agent,
    and by periods of `unit`. The times are those in which it was used; unknown where there are too many.
    """
    members = Counter(group.key[:-1] for group in by_agent.groups)
    times: dict[tuple[str | int | None, ...], list[int]] = {}
    for group in by_time.groups if not by_time.groups_left_out else ():
        times.setdefault(group.key[:-1], []).append(int(group.key[-1] or 0))
    rows = [
        Row(
            repr(group.key),
            (
                _named(group.key),
                _agents(members[group.key], by_agent),
                Cell(_stretch(times.get(group.key, []), FORMS[unit], zone), "dim"),
                *totals_cells(group.totals),
            ),
            next((str(part) for part in reversed(group.key) if part is not None), ""),
        )
        for group in sorted(usage.groups, key=lambda one: (-one.totals.cost_nano_usd, repr(one.key)))
    ]
    return rows + _left_out(usage, by[-1])


def agents_in(by_agent: Summary, key: str) -> list[Row]:
    """The agents of a session or a project, by the key of its row."""
    rows = [
        Row(str(group.key[-1]), (name_cell(str(group.key[-1])), *totals_cells(group.totals)))
        for group in by_agent.groups
        if repr(group.key[:-1]) == key
    ]
    if by_agent.groups_left_out:
        rows.append(Row("", (Cell("and perhaps others, who used little here", "dim"), *_blank())))
    return rows


def _named(key: tuple[str | int | None, ...]) -> Cell:
    told = [shown(str(part), width=NAME_WIDTH) for part in key if part is not None]
    return Cell(" · ".join(told)) if told else Cell("(none given)", "dim")


def _stretch(starts: Sequence[int], form: str, zone: tzinfo) -> str:
    if not starts:
        return UNKNOWN
    first, last = (moment(start, zone, form) for start in (min(starts), max(starts)))
    return first if first == last else f"{first} – {last}"


def _agents(count: int, by_agent: Summary) -> Cell:
    """At least so many, when not all are told."""
    return Cell(f"{count}+" if by_agent.groups_left_out else str(count))


def _left_out(usage: Summary, what: str) -> list[Row]:
    """A last row for what is not in the others."""
    if not usage.groups_left_out:
        return []
    return [Row("", (Cell(f"and {counted(usage.groups_left_out, what)} more", "dim"), *_blank()))]


def _blank() -> tuple[Cell, ...]:
    """More than any of these tables has columns."""
    return (Cell(""),) * 6


def _name(part: object) -> str:
    return "" if part is None else str(part)
