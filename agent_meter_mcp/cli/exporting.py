"""`export`: every event, exact, to a file that is there whole or not at all."""

from __future__ import annotations

import csv
import json
import os
import signal
import stat
import sys
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

import click

from agent_meter_mcp.core import told
from agent_meter_mcp.core.errors import InvalidInput, StoreReadOnly
from agent_meter_mcp.core.figures import counted
from agent_meter_mcp.core.models import StoredEvent, Usage, UsageEvent, Who
from agent_meter_mcp.core.money import units, usd
from agent_meter_mcp.core.queries import EVENTS_PAGE_MAX, EventsQuery
from agent_meter_mcp.core.text import guarded, shown
from agent_meter_mcp.core.windows import check_zone
from agent_meter_mcp.runtime import system_clock_us

from . import options
from .table import show_progress
from .times import parse_span

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator
    from decimal import Decimal

    from agent_meter_mcp.core.queries import EventsPage
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.ledger import Ledger
    from agent_meter_mcp.settings import Settings

    from .session import Session

    Field = str | int | Decimal | dict[str, Any] | None

STDOUT = "-"


@options.command(
    "export",
    "agent-meter export --output usage.jsonl",
    "agent-meter export --format csv --window month --output month.csv",
    "agent-meter export --agent coder | jq .cost_usd",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["jsonl", "csv"]),
    default="jsonl",
    metavar="FORMAT",
    show_default=True,
    help="jsonl: an object per line; csv: for spreadsheets.",
)
@click.option(
    "--output",
    type=options.FILE,
    metavar="FILE",
    default=STDOUT,
    show_default=True,
    help="The file; - is stdout.",
)
@options.span
@options.filters
@options.pass_session
def export(session: Session, /, format_: str, output: str, **given: Any) -> None:
    """Write the events, newest first, refused ones too.

    JSON lines have the fields of `events --json`, and every number exactly. In CSV, text that a spreadsheet
    would run as a formula gets an apostrophe before it. A file appears under its name when it is complete.
    """
    zone = check_zone(given["timezone"] or session.settings.timezone)
    chosen = options.filter_of(given, *parse_span(given, zone, system_clock_us()))

    if output == STDOUT and sys.stdout is None:
        raise InvalidInput("output", "stdout is closed: name a file")
    is_watched = output != STDOUT or not sys.stdout.isatty()  # or the lines would run into each other

    def write_to(file: IO[str]) -> int:
        write = csv_writer(file) if format_ == "csv" else line_writer(file)

        async def work(ledger: Ledger, caller: Caller) -> int:
            pages = ledger.event_pages(caller, EventsQuery(chosen, EVENTS_PAGE_MAX))
            return await _write_all(pages, write, is_watched)

        return session.ask(work)

    if output == STDOUT:
        write_to(sys.stdout)
        return
    _spare_our_own(output, session.settings)
    with appearing(output) as file:
        written = write_to(file)
    click.echo(f"{counted(written, 'event')} in {shown(output)}", err=True)


def _spare_our_own(output: str, settings: Settings) -> None:
    """Raises InvalidInput where an export would take the place of the ledger, or of what belongs to it."""
    ledger = [os.path.realpath(settings.db) + suffix for suffix in ("", "-wal", "-shm", "-journal", "-queue")]
    for own in (*ledger, settings.prices, settings.secrets):
        # The same file by another name: a link, or other letters where they make no difference.
        is_same = os.path.exists(output) and os.path.exists(own) and os.path.samefile(output, own)
        if is_same or os.path.realpath(output) == os.path.realpath(own):
            raise InvalidInput("output", f"{shown(output)} is the meter's own file: name another one")


async def _write_all(
    pages: AsyncIterator[EventsPage], write: Callable[[StoredEvent], object], is_watched: bool
) -> int:
    written = 0
    async for page in pages:
        for event in page.events:
            write(event)
        written += len(page.events)
        if is_watched:
            show_progress(counted(written, "event"))
    if is_watched:
        show_progress("")
    return written


def event_fields(stored: StoredEvent) -> dict[str, Field]:
    """The fields of an event, as `events --json` has them; numbers are exact."""
    return told.event_fields(
        stored, lambda metric, value: usd(value) if metric == "cost_usd" else units(value)
    )


def line_writer(file: IO[str]) -> Callable[[StoredEvent], object]:
    """Writes an event as a line of JSON."""

    def write(event: StoredEvent) -> None:
        fields = ", ".join(f'"{name}": {_json(value)}' for name, value in event_fields(event).items())
        file.write(f"{{{fields}}}\n")

    return write


def _json(value: Field) -> str:
    if value is None or isinstance(value, str | int | dict):
        return json.dumps(value)
    return decimal_text(value)


def decimal_text(value: Decimal) -> str:
    """All its digits, without an exponent: "0.000000001", "5"."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def csv_writer(file: IO[str]) -> Callable[[StoredEvent], object]:
    """Writes the header now, and an event as a row."""
    sheet = csv.writer(file, lineterminator="\n")
    sheet.writerow(event_fields(StoredEvent(0, UsageEvent("", Who(""), Usage()), "accepted", 0)))
    return lambda event: sheet.writerow([_cell(value) for value in event_fields(event).values()])


def _cell(value: Field) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return guarded(shown(value))
    return json.dumps(value) if isinstance(value, int | dict) else decimal_text(value)


@contextmanager
def appearing(path: str) -> Generator[IO[str]]:
    """A file that takes its name when all of it is on the disk. If that fails, nothing has changed.

    Raises:
        StoreReadOnly: it cannot be made.
    """
    target = os.path.realpath(path)
    try:
        if os.path.exists(target) and not stat.S_ISREG(os.stat(target).st_mode):
            with open(target, "w", encoding="utf-8", newline="") as file:  # a pipe, a device
                yield file
            return
        unfinished = os.path.join(
            os.path.dirname(target), f".{os.path.basename(target)[:200]}.{os.getpid()}.part"
        )
        handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    except OSError as error:
        raise StoreReadOnly(f"{path} cannot be written ({error.strerror}). Name another file.") from error
    try:
        with _removed_on_signal(unfinished), open(handle, "w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(unfinished)
        raise


@contextmanager
def _removed_on_signal(path: str) -> Generator[None]:
    """SIGTERM and SIGHUP end a process without unwinding it; the file has to go first."""

    def end(number: int, _frame: object) -> None:
        with suppress(OSError):
            os.unlink(path)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
