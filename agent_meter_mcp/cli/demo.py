"""`demo`: a ledger with an invented month in it, to look around in."""

from __future__ import annotations

import os
import shlex
import sys
import time
from typing import TYPE_CHECKING

import click

from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.figures import counted
from agent_meter_mcp.core.text import shown

from . import options
from .table import show_progress
from .times import DAY_US, parse_moment

if TYPE_CHECKING:
    from agent_meter_mcp.demo.filling import Made
    from agent_meter_mcp.demo.month import Month

    from .session import Session

FILE = "agent-meter-demo.db"
AGENTS_MIN, AGENTS_MAX = 12, 2000
RATE_MAX = 1000.0
TELL_S = 0.2
EARLIEST_US = 90 * DAY_US


@options.command(
    "demo",
    "agent-meter demo --seed 7",
    "agent-meter demo --seed 7 --agents 2000 --db large.db",
    "agent-meter demo --seed 7 --rate 200",
)
@click.option(
    "--seed", type=int, metavar="N", default=1, show_default=True, help="Another number, another month."
)
@click.option(
    "--agents",
    type=click.IntRange(AGENTS_MIN, AGENTS_MAX),
    metavar="N",
    default=AGENTS_MIN,
    show_default=True,
    help=f"How many agents: {AGENTS_MIN} to {AGENTS_MAX}.",
)
@click.option("--until", metavar="TIME", default="now", help="The month ends then. Default: now.")
@click.option(
    "--rate",
    type=click.FloatRange(0, RATE_MAX, min_open=True),
    metavar="N",
    help="Then go on with so many events a second, until Ctrl-C.",
)
@options.pass_session
def demo(session: Session, seed: int, agents: int, until: str, rate: float | None) -> None:
    """Fill a new ledger with an invented month: teams of agents, budgets, a runaway, a kill switch.

    The file is agent-meter-demo.db here, unless --db names another one; it must not exist. The same seed,
    number of agents and --until give the same month.
    """
    from agent_meter_mcp.demo.filling import check_free, make
    from agent_meter_mcp.demo.month import Month
    from agent_meter_mcp.runtime import system_clock_us

    now_us = system_clock_us()
    until_us = min(parse_moment(until, "until", "UTC", now_us), now_us)
    if until_us < EARLIEST_US:
        raise InvalidInput("until", "must be in April 1970 or later: usage is recorded from 1970 on")
    path = os.path.abspath(os.path.expanduser(session.options.get("AGENT_METER_DB", FILE)))
    check_free(path)
    events = usual_events(agents)
    month = Month(seed, agents, events, until_us)
    progress = _Progress(events)
    try:
        made = make(path, month, seed, progress.show)
    finally:
        show_progress("")
    click.echo(_told(made, path))
    if rate is not None:
        _go_on(path, month, seed, rate)


def usual_events(agents: int) -> int:
    """So much is usual for so many agents: a large company's do less each."""
    return 25_000 + 100 * (agents - AGENTS_MIN)


class _Progress:
    """A line that is not written more often than somebody can read."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._told_s = 0.0

    def show(self, done: int) -> None:
        if time.monotonic() - self._told_s >= TELL_S:
            self._told_s = time.monotonic()
            full = min(done * 24 // self._total, 24)
            show_progress(f"{'█' * full}{'·' * (24 - full)}  {done:,} of about {self._total:,} events")


def _told(made: Made, path: str) -> str:
    size_mb = os.path.getsize(path) / 1e6
    name = shown(os.path.relpath(path) if path.startswith(os.getcwd() + os.sep) else path)
    typed = shlex.quote(name)
    return (
        f"{name}: {counted(made.agents, 'agent')}, {counted(made.events, 'event')} in 30 days,"
        f" {size_mb:.0f} MB\n"
        f"  {made.over_limit:,} over a limit, {made.refused:,} refused, {made.corrected:,} corrected,"
        f" {made.unpriced:,} without a price, {counted(made.alerts, 'alert')}\n"
        "Try next:\n"
        f"  agent-meter dashboard --db {typed}\n"
        f"  agent-meter summary --window month --group-by owner --db {typed}\n"
        f"  agent-meter limit list --db {typed}\n"
        f"  agent-meter verify --db {typed}"
    )


def _go_on(path: str, month: Month, seed: int, rate: float) -> None:
    """Until Ctrl-C, which is how this ends: no failure."""
    from agent_meter_mcp.demo.filling import go_on

    click.echo(f"\nWriting {rate:g} events a second. Ctrl-C ends it.", err=True)
    told_s = 0.0
    try:
        for made in go_on(path, month, seed, rate):
            if time.monotonic() - told_s >= TELL_S:
                told_s = time.monotonic()
                show_progress(f"{made.events:,} more events, {made.refused:,} refused")
    except KeyboardInterrupt:
        show_progress("")
        if sys.stderr.isatty():
            click.echo(err=True)
