"""`agent-meter`: the command line. Each command is imported when it is called, and only what it needs."""

from __future__ import annotations

import importlib
import os
import sys

import click

from agent_meter_mcp import __version__
from agent_meter_mcp.core.errors import MeterError

COMMANDS = {
    "record": ("metering", "Record usage that has happened."),
    "check": ("metering", "Ask whether a step fits the budget now."),
    "summary": ("reports", "Totals of usage, grouped."),
    "events": ("reports", "The single usage events, newest first."),
    "agents": ("reports", "Who uses, and how they stand."),
    "audit": ("reports", "Who changed what, newest first."),
    "limit": ("control", "Set, list and remove limits."),
    "kill": ("control", "Stop an agent, a service or everything."),
    "resume": ("control", "Release a kill switch."),
    "export": ("exporting", "Write all events to a file: JSONL or CSV."),
    "verify": ("upkeep", "Rebuild every figure from the events and compare."),
    "doctor": ("upkeep", "Look for what is wrong with this installation."),
    "mcp": ("serving", "Serve MCP on stdin and stdout."),
    "serve": ("serving", "Serve MCP over HTTP."),
    "completion": ("serving", "Print the shell's completion script."),
}
EXIT_CODES = """\b
Exit codes:
  0   done; for `check`: allowed
  1   `check`: not allowed; `verify`, `doctor`: something is wrong
  2   an option or a value is wrong
  3   there is no such thing
  4   the same id came with other content
  65  the file is not a usable ledger        73  the file cannot be written
  74  the disk failed or is full             75  busy: try again
  77  your role may not do this              78  the file is of a newer version"""
EXAMPLES = """\b
Examples:
  agent-meter limit set --agent research-bot --metric cost_usd --window day --max 5
  agent-meter record --agent research-bot --service openai --model gpt-5 --input-tokens 900
  agent-meter summary --group-by agent --window month
  agent-meter kill agent rogue-bot --reason "runaway loop" """


class Lazy(click.Group):
    """A group that imports a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"{__name__}.{COMMANDS[cmd_name][0]}")
        return getattr(module, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])


@click.group(
    cls=Lazy, epilog=f"{EXIT_CODES}\n\n{EXAMPLES}", context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option(
    "--db", metavar="PATH", help="The ledger's file (AGENT_METER_DB; default ~/.agent-meter/meter.db)."
)
@click.version_option(__version__, prog_name="agent-meter")
def program(db: str | None) -> None:
    """A budget for every agent, a kill switch for every API: one ledger in one file."""
    if db is not None:
        os.environ["AGENT_METER_DB"] = db


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; answers its exit code."""
    try:
        code = program.main(args=arguments, prog_name="agent-meter", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.exceptions.Exit as done:
        return done.exit_code
    except MeterError as error:
        from agent_meter_mcp.faces.errors import shape_of, text_of

        click.echo(f"agent-meter: {text_of(error)}", err=True)
        return shape_of(error).exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("agent-meter: stopped", err=True)
        return 130
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
        return 0
    return code if isinstance(code, int) else 0
