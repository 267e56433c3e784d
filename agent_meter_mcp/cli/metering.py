"""`record` and `check`."""

from __future__ import annotations

import json
from typing import Any

import click

from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.faces.wire import arguments as take
from agent_meter_mcp.faces.wire import results as give
from agent_meter_mcp.runtime import process_caller
from agent_meter_mcp.settings import load_settings

from .options import from_model, sent
from .output import as_json
from .session import with_ledger

NOT_ALLOWED = 1


@click.command()
@from_model(take.RecordUsage)
@click.option("--json", "json_", is_flag=True, help="Answer in JSON.")
def record(json_: bool, **values: Any) -> None:
    """Record usage that has happened. It always counts, also over a limit.

    \b
    Example:
      agent-meter record --agent research-bot --service openai --model gpt-5 --input-tokens 900 --id call-17
    """
    from agent_meter_mcp import oneshot

    settings = load_settings()
    caller = process_caller(settings)
    arguments = sent(take.RecordUsage, {**values, "metadata": _object(values["metadata"])})
    answer = give.UsageRecorded.of(oneshot.record(settings, arguments.report(caller), caller))
    as_json(answer) if json_ else click.echo(answer.text())


def _object(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidInput("metadata", 'must be a JSON object, such as \'{"trace": "17"}\'') from None


@click.command()
@from_model(take.CheckBudget)
@click.option("--json", "json_", is_flag=True, help="Answer in JSON.")
def check(json_: bool, **values: Any) -> int:
    """Ask whether a step fits the budget now. Exit code 1 when it does not. Holds nothing.

    \b
    Example:
      agent-meter check --agent research-bot --service openai --cost-usd 0.50 && run-the-step
    """
    arguments = sent(take.CheckBudget, values)

    async def ask(ledger: Any, caller: Any) -> give.Decided:
        who = arguments.who(caller, arguments.service)
        return give.Decided.of(await ledger.check(caller, who, arguments.usage()), ledger.now_us())

    answer = with_ledger(ask)
    as_json(answer) if json_ else click.echo(answer.text())
    return 0 if answer.allowed else NOT_ALLOWED
