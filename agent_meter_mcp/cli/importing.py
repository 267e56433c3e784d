"""`import`: what upstream's hooks have written, into the ledger."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from agent_meter_mcp.core.commands import Recorded
from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.figures import counted
from agent_meter_mcp.core.text import shown

from . import options
from .exits import DONE
from .table import show_progress

if TYPE_CHECKING:
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.intake import Report
    from agent_meter_mcp.ledger import Ledger

    from .session import Session

LINE_BYTES_MAX = 1_048_576
BATCH = 500
SHOWN_MAX = 20
REFUSED = 2
"""The exit code when a row could not be taken: as for any bad input."""


@options.command(
    "import",
    "agent-meter import ~/.agent-meter/spend.jsonl --agent my-laptop",
    "agent-meter import spend.jsonl --json",
)
@click.argument("file", type=options.FILE, metavar="FILE")
@options.name_option("--agent", "agent", "Whose usage it is where a row does not say. [AGENT_METER_AGENT]")
@options.as_json
@options.pass_session
def import_(session: Session, file: str, agent: str | None, as_json: bool) -> int:
    """Record what is in upstream's spend.jsonl. What is there already is not recorded again.

    A session counts by its last row. Calls that are listed beside it are recorded one by one, and the session
    as what is left. A row that cannot be taken is named; all others are recorded, and the exit code is 2.
    """
    rows, problems = _rows(file)
    from agent_meter_mcp.faces.wire.sessions import spend_reports

    reports: list[tuple[int, Report]] = []
    whose = agent if agent is not None else session.caller.default_agent
    for number, found in spend_reports(rows, whose):
        if isinstance(found, InvalidInput):
            problems.append((number, str(found)))
        else:
            reports.append((number, found))
    done = session.ask(lambda ledger, caller: _record(ledger, caller, reports, problems))
    problems.sort()
    if as_json:
        from .document import print_document

        rejected = [{"line": number, "error": problem} for number, problem in problems]
        print_document({**done, "rejected": rejected})
    else:
        for number, problem in problems[:SHOWN_MAX]:
            click.echo(f"line {number}: {shown(problem)}", err=True)
        if len(problems) > SHOWN_MAX:
            click.echo(f"and {len(problems) - SHOWN_MAX} more lines: --json has all", err=True)
        refused = f", {len(problems)} could not be" if problems else ""
        click.echo(
            f"{done['recorded']} recorded, {done['corrected']} corrected, {done['duplicate']} already there"
            + refused
        )
    return REFUSED if problems else DONE


def _rows(path: str) -> tuple[list[tuple[int, dict[str, Any]]], list[tuple[int, str]]]:
    """The rows of the file and what is wrong with others, each with the number of its line."""
    from agent_meter_mcp.faces.wire.sessions import spend_row

    rows: list[tuple[int, dict[str, Any]]] = []
    problems: list[tuple[int, str]] = []
    try:
        with click.open_file(path, "rb") as file:
            number = 0
            while line := file.readline(LINE_BYTES_MAX + 1):
                number += 1
                if len(line) > LINE_BYTES_MAX and not line.endswith(b"\n"):
                    problems.append((number, f"is longer than {LINE_BYTES_MAX} bytes"))
                    while (rest := file.readline(LINE_BYTES_MAX)) and not rest.endswith(b"\n"):
                        pass
                    continue
                if not line.strip():
                    continue
                try:
                    rows.append((number, spend_row(json.loads(line.decode()))))
                except InvalidInput as error:
                    problems.append((number, str(error)))
                except (ValueError, RecursionError):
                    problems.append((number, "is no JSON, or cut off"))
    except OSError as error:
        raise InvalidInput("file", f"{shown(path)} cannot be read: {error.strerror}") from None
    return rows, problems


async def _record(
    ledger: Ledger,
    caller: Caller,
    reports: list[tuple[int, Report]],
    problems: list[tuple[int, str]],
) -> dict[str, int]:
    """How many were recorded, corrected and there already; adds what was refused to `problems`."""
    from agent_meter_mcp.faces.wire.sessions import record_sessions

    done = {"recorded": 0, "corrected": 0, "duplicate": 0}
    for start in range(0, len(reports), BATCH):
        part = reports[start : start + BATCH]
        answers = await record_sessions(ledger, caller, [report for _, report in part])
        for (number, _), answer in zip(part, answers, strict=True):
            if isinstance(answer, Recorded):
                done[answer.status] += 1
            else:
                problems.append((number, str(answer)))
        show_progress(f"{min(start + BATCH, len(reports)):,} of {counted(len(reports), 'row')}")
    show_progress("")
    return done
