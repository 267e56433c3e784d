"""Options that several commands share, under the names that the tools' arguments have.

What an option may hold is decided by the core, as for every face. Here its name is put back into the error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from agent_meter_mcp.core import check
from agent_meter_mcp.core.errors import InvalidInput, MeterError
from agent_meter_mcp.core.models import OUTCOMES, SOURCES, Usage, Who
from agent_meter_mcp.core.money import micro_units, nano_usd
from agent_meter_mcp.core.queries import UsageFilter
from agent_meter_mcp.faces.errors import shape_of, text_of

from .session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.shell_completion import CompletionItem

    from agent_meter_mcp.core.roles import Caller

F = TypeVar("F", bound="Callable[..., Any]")

HELP_NAMES = ["-h", "--help"]
COMPLETIONS_MAX = 50

pass_session = click.make_pass_decorator(Session, ensure=True)


class Failed(click.ClickException):
    """A command could not be done. `ctx` is whose."""

    def __init__(self, text: str, exit_code: int, ctx: click.Context) -> None:
        super().__init__(text)
        self.exit_code = exit_code  # pyright: ignore[reportAttributeAccessIssue] - of this one, not of the class
        self.ctx = ctx


class Command(click.Command):
    """A command that takes --db as well, and whose errors name its options."""

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.params.append(click.Option(["--db"], type=FILE, metavar="PATH", expose_value=False,
                                        callback=choose_db, help="The ledger's file."))  # fmt: skip

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MeterError as error:
            raise Failed(self._told(error), shape_of(error).exit_code, ctx) from error

    def _told(self, error: MeterError) -> str:
        text = text_of(error)
        if isinstance(error, InvalidInput):
            for parameter in self.params:
                if parameter.name == error.field:
                    is_option = isinstance(parameter, click.Option)
                    name = parameter.opts[0] if is_option else error.field.upper()
                    return name + text.removeprefix(error.field)
        return text


def choose_db(ctx: click.Context, _parameter: click.Parameter, path: str | None) -> None:
    """The callback of --db."""
    session = ctx.ensure_object(Session)
    if path is not None:
        if not path:
            raise click.BadParameter("must not be empty", ctx=ctx)
        session.options["AGENT_METER_DB"] = path


def examples(*lines: str) -> str:
    """Examples of use, for the end of a help page."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def command(name: str, *lines: str) -> Callable[[Callable[..., Any]], Command]:
    """A command whose help page ends with these examples."""
    return click.command(
        name, cls=Command, epilog=examples(*lines), context_settings={"help_option_names": HELP_NAMES}
    )


def command_of(group: click.Group, name: str, *lines: str) -> Callable[[Callable[..., Any]], Command]:
    """As `command`, in a group."""

    def decorate(function: Callable[..., Any]) -> Command:
        made = command(name, *lines)(function)
        group.add_command(made)
        return made

    return decorate


class Known(click.ParamType):  # pyright: ignore[reportMissingTypeArgument] - older clicks have none
    """A name. The shell completes it from those in the ledger."""

    name = "name"

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        import os

        from click.shell_completion import CompletionItem

        session = ctx.ensure_object(Session)
        try:
            if not os.path.exists(session.settings.db):
                return []
            store = session.open_store()
            try:
                names = store.names(self._kind, incomplete, COMPLETIONS_MAX)
            finally:
                store.close()
        except MeterError:
            return []
        return [CompletionItem(name) for name in names if name.isprintable() and " " not in name]


class File(click.ParamType):  # pyright: ignore[reportMissingTypeArgument] - older clicks have none
    """The name of a file, which the shell completes. Whoever opens it says what is wrong with it."""

    name = "file"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type="file")]


FILE = File()


def stacked(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, in this order."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def name_option(flag: str, kind: str, about: str) -> Callable[[F], F]:
    """An option that takes a name of that kind."""
    return click.option(flag, type=Known(kind), metavar="NAME", help=about)


def _count(flag: str, about: str) -> Callable[[F], F]:
    return click.option(flag, type=int, metavar="N", help=about)


as_json = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
timezone = click.option(
    "--timezone",
    metavar="ZONE",
    help="IANA zone of days and of times without an offset. [AGENT_METER_TIMEZONE; UTC]",
)
model = name_option("--model", "model", "The model; with token counts it gives the cost.")
who = stacked(
    name_option("--agent", "agent", "Who uses. [AGENT_METER_AGENT]"),
    name_option("--service", "service", "What is used: an API, a tool server, an LLM provider."),
    name_option("--parent", "agent", "The agent that spawned it."),
    name_option("--project", "project", "The project that it is for."),
    name_option("--session", "session", "The session that it belongs to."),
)
amounts = stacked(
    click.option(
        "--requests", type=int, metavar="N", default=1, show_default=True, help="How many requests."
    ),
    click.option("--units", metavar="NUMBER", help="Units of the service's own."),
    click.option("--unit-type", metavar="NAME", help="What one unit is: page, image, minute."),
    _count("--input-tokens", "Tokens read, without cached ones."),
    _count("--output-tokens", "Tokens written."),
    _count("--cache-read-tokens", "Tokens read from the cache."),
    _count("--cache-write-tokens", "Tokens cached for 5 minutes."),
    _count("--cache-write-1h-tokens", "Tokens cached for an hour."),
    model,
    click.option("--cost-usd", metavar="DOLLARS", help="The cost; left out, it comes from the price list."),
)
span = stacked(
    click.option("--since", metavar="TIME", help="From then on."),
    click.option("--until", metavar="TIME", help="Up to then, exclusive."),
    click.option("--window", metavar="WINDOW", help="Instead of these: 90m, 7d, day, week, month, total."),
    timezone,
)
filters = stacked(
    name_option("--agent", "agent", "Of this agent."),
    click.option("--include-children", is_flag=True, help="And of those that it spawned."),
    name_option("--service", "service", "At this service."),
    name_option("--operation", "operation", "Of this operation."),
    name_option("--model", "model", "With this model."),
    name_option("--project", "project", "For this project."),
    name_option("--session", "session", "In this session."),
    click.option("--tier", metavar="NAME", help="Of agents in this trust tier."),
    click.option("--source", type=click.Choice(SOURCES), metavar="SOURCE",
                 help=f"Measured by: {', '.join(SOURCES)}."),
    click.option("--outcome", type=click.Choice(OUTCOMES), metavar="OUTCOME",
                 help=f"One of {', '.join(OUTCOMES)}."),
)  # fmt: skip
cursor = click.option("--cursor", metavar="CURSOR", help="Go on where a page has ended.")


def page_limit(default: int, maximum: int) -> Callable[[F], F]:
    """The option --limit of a list that is read page by page."""
    about = f"At most so many, and at most {maximum}."
    return click.option("--limit", type=int, metavar="N", default=default, show_default=True, help=about)


def usage_of(given: dict[str, Any]) -> Usage:
    """The usage that the options `amounts` state. Raises InvalidInput."""
    units, cost = given["units"], given["cost_usd"]
    return Usage(
        given["requests"],
        None if units is None else micro_units(units),
        given["unit_type"],
        given["input_tokens"],
        given["output_tokens"],
        given["cache_read_tokens"],
        given["cache_write_tokens"],
        given["cache_write_1h_tokens"],
        given["model"],
        None if cost is None else nano_usd(cost),
        "unpriced" if cost is None else "reported",
    )


def who_of(given: dict[str, Any], caller: Caller) -> Who:
    """Whose usage the options `who` name. Raises InvalidInput."""
    agent = given["agent"] if given["agent"] is not None else caller.default_agent
    if agent is None:
        raise InvalidInput("agent", "is required: say whose usage it is")
    return Who(agent, given["service"], given["parent"], given["project"], given["session"])


def filter_of(given: dict[str, Any], since_us: int | None, until_us: int | None) -> UsageFilter:
    """The usage that the options `filters` choose. Raises InvalidInput."""
    return check.usage_filter(
        UsageFilter(
            since_us,
            until_us,
            given["agent"],
            given["include_children"],
            None,
            given["service"],
            given["operation"],
            given["model"],
            given["project"],
            given["session"],
            given["tier"],
            given["source"],
            given["outcome"],
        )
    )
