"""`export`: all events, to a file that is there whole or not at all."""

from __future__ import annotations

import csv
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import click

from agent_meter_mcp.core.errors import StoreReadOnly
from agent_meter_mcp.core.queries import EVENTS_PAGE_MAX, EventsQuery
from agent_meter_mcp.faces.wire import queries as take
from agent_meter_mcp.faces.wire import reports as give

from .options import from_model, sent
from .session import with_ledger

if TYPE_CHECKING:
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.ledger import Ledger

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@click.command()
@from_model(take.ListUsageEvents, leave_out=("cursor", "limit"))
@click.option("--format", "format_", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True)
@click.option("--output", metavar="FILE", default="-", show_default=True, help="The file, or - for stdout.")
def export(format_: str, output: str, **values: Any) -> None:
    """Write events, newest first, refused ones too. A file appears when it is complete.

    \b
    Example:
      agent-meter export --format csv --since 2026-11-01T00:00:00Z --output november.csv
    """
    query = sent(take.ListUsageEvents, values).query().replace(limit=EVENTS_PAGE_MAX)

    def written_to(file: IO[str]) -> int:
        async def run(ledger: Ledger, caller: Caller) -> int:
            return await _write(_events(ledger, caller, query), file, format_)

        return with_ledger(run)

    if output == "-":
        written_to(sys.stdout)
        return
    with _appearing(output) as file:
        written = written_to(file)
    click.echo(f"{written:,} events in {output}", err=True)


async def _events(ledger: Ledger, caller: Caller, query: EventsQuery) -> AsyncIterator[dict[str, Any]]:
    while True:
        page = await ledger.events(caller, query)
        for event in page.events:
            yield give.Event.of(event).model_dump(mode="json")
        if page.next_seq is None:
            return
        query = query.replace(before_seq=page.next_seq)


@contextmanager
def _appearing(path: str) -> Generator[IO[str]]:
    """A file that takes its name when it is complete; if anything goes wrong, nothing is there."""
    try:
        handle, unfinished = tempfile.mkstemp(dir=os.path.dirname(os.path.abspath(path)), prefix=".export-")
    except OSError as error:
        raise StoreReadOnly(f"{path} cannot be written ({error.strerror})") from error
    try:
        with open(handle, "w", encoding="utf-8", newline="") as file:
            yield file
        os.replace(unfinished, path)
    except BaseException:
        os.unlink(unfinished)
        raise


async def _write(events: AsyncIterator[dict[str, Any]], file: IO[str], format_: str) -> int:
    written = 0
    progress = sys.stderr.isatty() and not file.isatty()
    sheet = csv.writer(file)
    if format_ == "csv":
        sheet.writerow(give.Event.model_fields)
    async for event in events:
        if format_ == "csv":
            sheet.writerow(_cell(value) for value in event.values())
        else:
            file.write(json.dumps(event, ensure_ascii=True, separators=(",", ":")) + "\n")
        written += 1
        if progress and written % 5000 == 0:
            click.echo(f"\r{written:,} events", nl=False, err=True)
    if progress and written >= 5000:
        click.echo("\r", nl=False, err=True)
    return written


def _cell(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula gets an apostrophe before it."""
    if isinstance(value, dict):
        value = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return "'" + value if isinstance(value, str) and value.startswith(_FORMULA) else value
