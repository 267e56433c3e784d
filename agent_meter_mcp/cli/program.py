"""The commands, each imported when it is called, and the one place where failures become lines and codes."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import import_module
from keyword import iskeyword
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click.exceptions import Exit, NoArgsIsHelpError

from agent_meter_mcp import __version__
from agent_meter_mcp.core.errors import InvalidInput, MeterError
from agent_meter_mcp.core.text import shown
from agent_meter_mcp.faces.errors import SHAPES, shape_of, text_of
from agent_meter_mcp.runtime import collect_seldom

from .exits import DONE, INTERRUPTED, READER_GONE, exit_codes
from .options import FILE, HELP_NAMES, Failed, choose_db, examples

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "agent-meter"
USAGE = 2
WORD_MAX = 120


class Entry(NamedTuple):
    """Where a command is, and what it says of itself in one line.

    One that `stays` imports a lot first, and lets garbage be collected when it has done that.
    """

    module: str
    about: str
    stays: bool = False


SECTIONS = {
    "Metering": {
        "record": Entry("metering", "Record usage that has happened."),
        "check": Entry("metering", "Ask whether work fits the budget now."),
        "import": Entry("importing", "Take over what upstream's hooks have written."),
    },
    "Reports": {
        "summary": Entry("reports", "Totals of usage: today by agent, or as you like."),
        "events": Entry("listing", "The usage events themselves, newest first."),
        "agents": Entry("listing", "Who uses, and how they stand."),
        "reservations": Entry("reports", "Budget that is held for work in progress."),
        "alerts": Entry("alerting", "The thresholds that were reached, newest first."),
        "audit": Entry("auditing", "Who changed what, newest first."),
        "export": Entry("exporting", "All events as JSON lines or CSV."),
        "reconcile": Entry("reconciling", "Compare an agent's records with a service's."),
        "attest": Entry("attesting", "Sign usage for others, and verify what they signed."),
    },
    "Watching": {
        "dashboard": Entry("dashboard", "All agents live in the terminal; stop one with two keys.", True),
        "demo": Entry("demo", "Fill a new file with an invented month, to look around in."),
    },
    "Control": {
        "limit": Entry("control", "Set, list and remove limits."),
        "agent": Entry("control", "Say who an agent is: tier, owner, parent."),
        "kill": Entry("switches", "Stop an agent, a service or everything."),
        "resume": Entry("switches", "Let them go on."),
    },
    "Upkeep": {
        "verify": Entry("upkeep", "Compare every total with the events it came from."),
        "doctor": Entry("doctor", "Look for problems of this installation."),
    },
    "Servers": {
        "mcp": Entry("serving", "Serve MCP on stdin and stdout.", True),
        "serve": Entry("serving", "Serve MCP and the API over HTTP.", True),
        "keys": Entry("keys", "Make, list and revoke the keys that let callers in."),
        "completion": Entry("serving", "Print the completion script of a shell."),
    },
}
COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}
OTHER_WORDS = {
    "summary": "usage stats report spend cost costs",
    "events": "log logs history tail",
    "agents": "status who",
    "reservations": "holds",
    "dashboard": "top watch tui",
    "limit": "budget quota",
    "kill": "block stop pause",
    "resume": "unblock unkill allow",
    "keys": "tokens",
}
"""What people call a command who come from other programs."""


class Program(click.Group):
    """A group that imports a command when it is needed, and never shows a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        # Python has words that no function can have as its name.
        name = f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name
        module = import_module(f"{__package__}.{entry.module}")
        if not entry.stays:
            collect_seldom()
        return getattr(module, name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            meant = {name: name for name in COMMANDS} | {"version": "--version", "help": "--help"}
            meant |= {word: name for name, words in OTHER_WORDS.items() for word in words.split()}
            for close in get_close_matches(args[0], meant, 1):
                raise click.UsageError(f"{error.message} Did you mean {meant[close]!r}?", ctx) from None
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, section in SECTIONS.items():
            with formatter.section(title):
                rows = [(name, entry.about) for name, entry in section.items()]
                formatter.write_dl([(name.ljust(12), about) for name, about in rows])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code).rjust(3), meaning) for code, meaning in exit_codes()])
        super().format_epilog(ctx, formatter)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            _drop_output()
            raise Exit(READER_GONE) from None

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        if standalone_mode:
            sys.exit(self.run(args))
        return super().main(args, prog_name, complete_var, False, **extra)

    def run(self, arguments: Sequence[str] | None = None) -> int:
        """The exit code of one command. What went wrong is a line on stderr, and a document for --json."""
        _never_fail_to_encode()
        as_json = "--json" in (sys.argv[1:] if arguments is None else arguments)
        try:
            code = self.main(arguments, NAME, standalone_mode=False)
            if sys.stdout is not None:
                sys.stdout.flush()
            return code if isinstance(code, int) else DONE
        except NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            return USAGE
        except click.ClickException as error:
            cause = error.__cause__ if isinstance(error, Failed) else None
            code = cause.code if isinstance(cause, MeterError) else InvalidInput.code
            text = _usage_text(error)
            return _print_error(as_json, code, text, _say(text, error.exit_code, getattr(error, "ctx", None)))
        except MeterError as error:
            text = text_of(error)
            return _print_error(as_json, error.code, text, _say(text, shape_of(error).exit_code))
        except (KeyboardInterrupt, click.Abort) as error:
            if error.__cause__ is None and sys.stderr.isatty():
                click.echo(err=True)  # after the ^C
            return _say("interrupted", INTERRUPTED)
        except BrokenPipeError:
            _drop_output()
            return READER_GONE
        except OSError as error:
            _drop_output()
            return _say(f"the output failed: {error.strerror or error}", SHAPES["store_error"].exit_code)
        except Exception as error:  # the top of this face: a person is told in a line, and where it was
            notes = "".join(f" {note}" for note in getattr(error, "__notes__", ()))
            told = f"internal error: {_where(error)}. Please report it.{notes}"
            return _print_error(as_json, "error", told, _say(told, SHAPES["error"].exit_code))


def _say(text: str, exit_code: int, context: click.Context | None = None) -> int:
    click.echo(f"{NAME if context is None else context.command_path}: {shown(text)}", err=True)
    return exit_code


def _print_error(as_json: bool, code: str, text: str, exit_code: int) -> int:
    """Whoever asked for JSON reads JSON, whatever happens."""
    if as_json:
        from .document import print_document

        with suppress(OSError):
            print_document({"error": {"code": code, "message": shown(text), "exit_code": exit_code}})
    return exit_code


def _usage_text(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    # Whoever pastes a file where a number belongs still sees what is wrong with it.
    text = " ".join(shown(word, width=WORD_MAX) for word in error.format_message().split())
    if context is None or isinstance(error, Failed):
        return text
    return f"{text.removesuffix('.')} (see {context.command_path} --help)"


def _where(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = (
        ""
        if trace is None
        else f" at {os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
    )
    return f"{type(error).__name__}: {error}{place}"


def _never_fail_to_encode() -> None:
    """A terminal that lacks a character gets its escape."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType] - a text stream of a terminal or pipe has it


def _drop_output() -> None:
    """What is still in the buffer has nowhere to go: without this the interpreter complains when it ends."""
    with suppress(AttributeError, ValueError, OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


@click.group(
    NAME,
    cls=Program,
    context_settings={"help_option_names": HELP_NAMES},
    epilog=examples(
        "agent-meter limit set --agent coder --metric cost_usd --window day --max 5",
        "agent-meter record --agent coder --service openai --cost-usd 0.12",
        "agent-meter check --agent coder --cost-usd 0.50 && ./next-step",
        "agent-meter summary --window month --group-by agent --group-by model",
        'agent-meter kill agent coder --reason "runs in circles"',
    ),
)
@click.option(
    "--db",
    type=FILE,
    metavar="PATH",
    expose_value=False,
    callback=choose_db,
    help="The ledger's file, before or after the command. [AGENT_METER_DB; default ~/.agent-meter/meter.db]",
)
@click.version_option(__version__, message="%(prog)s %(version)s", prog_name=NAME)
def program() -> None:
    """Budgets, usage metering and a kill switch for AI agents, on one SQLite file.

    Times are ISO 8601 (2026-01-31, 2026-01-31T18:00:00Z), a length of time that has passed (90m, 7d), or now,
    today, yesterday. Windows are rolling (90s, 5m, 24h, 7d) or hour, day, week, month, year, total.
    Every report takes --json.
    """
