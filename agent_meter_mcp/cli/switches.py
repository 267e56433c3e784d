"""`kill` and `resume`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
from click.exceptions import Exit

from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.figures import stopped, target

from . import options
from .doubts import doubt, say
from .exits import INTERRUPTED
from .figures import named

if TYPE_CHECKING:
    from agent_meter_mcp.core.commands import Switched
    from agent_meter_mcp.core.models import KillSwitch, SwitchKind
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.ledger import Ledger

    from .session import Session

STILL_SHOWN = 10
_agent = click.argument("agent", type=options.Known("agent"))
_service = click.argument("service", type=options.Known("service"))
_reason = click.option("--reason", metavar="TEXT", help="Why. Everybody who is stopped reads it.")
_yes = click.option("--yes", is_flag=True, help="Do not ask.")


class Switches(click.Group):
    """Whoever is in a hurry writes it as with all other commands, or leaves out what kind of thing it is."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """`--agent NAME` and `--service NAME` are as good as `agent NAME` and `service NAME`."""
        option, *value = args[0].split("=", 1) if args else ("",)
        if option in ("--agent", "--service"):
            args = [option.removeprefix("--"), *value, *args[1:]]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            from shlex import quote

            name = quote(args[0])
            raise click.UsageError(
                f"Say what {name} is: {ctx.command_path} agent {name}, or: service {name}."
                " Nothing was changed",
                ctx,
            ) from None


@click.group("kill", cls=Switches, context_settings={"help_option_names": options.HELP_NAMES})
def kill() -> None:
    """Stop an agent (and those it spawned), a service or everything, at once.

    Checks, reservations and gates are refused until you resume. What happens all the same is still recorded.
    """


@options.command_of(kill, "agent", 'agent-meter kill agent coder --reason "runs in circles"')
@_agent
@_reason
@options.as_json
@options.pass_session
def kill_agent(session: Session, as_json: bool, agent: str, reason: str | None) -> None:
    """Stop an agent and those that it spawned."""
    _switch(session, as_json, "agent", agent, engaged=True, reason=reason)


@options.command_of(kill, "service", 'agent-meter kill service openai --reason "key leaked"')
@_service
@_reason
@options.as_json
@options.pass_session
def kill_service(session: Session, as_json: bool, service: str, reason: str | None) -> None:
    """Stop the use of a service, for all agents."""
    _switch(session, as_json, "service", service, engaged=True, reason=reason)


@options.command_of(kill, "everything", 'agent-meter kill everything --reason "incident 17" --yes')
@_reason
@_yes
@options.as_json
@options.pass_session
def kill_everything(session: Session, as_json: bool, reason: str | None, yes: bool) -> None:
    """Stop all agents at all services."""
    _confirm("Stop every agent at every service?", yes)
    _switch(session, as_json, "everything", None, engaged=True, reason=reason)


@click.group("resume", cls=Switches, context_settings={"help_option_names": options.HELP_NAMES})
def resume() -> None:
    """Release a kill switch. What limits and other switches forbid stays forbidden."""


@options.command_of(resume, "agent", "agent-meter resume agent coder")
@_agent
@options.as_json
@options.pass_session
def resume_agent(session: Session, as_json: bool, agent: str) -> None:
    """Let an agent go on, and those that it spawned."""
    _switch(session, as_json, "agent", agent, engaged=False)


@options.command_of(resume, "service", "agent-meter resume service openai")
@_service
@options.as_json
@options.pass_session
def resume_service(session: Session, as_json: bool, service: str) -> None:
    """Let a service be used again."""
    _switch(session, as_json, "service", service, engaged=False)


@options.command_of(resume, "everything", "agent-meter resume everything --yes")
@_yes
@options.as_json
@options.pass_session
def resume_everything(session: Session, as_json: bool, yes: bool) -> None:
    """Release the switch for everything. Agents and services that were stopped by name stay stopped."""
    _confirm("Let every agent go on?", yes)
    _switch(session, as_json, "everything", None, engaged=False)


def _confirm(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidInput("yes", "is needed where nobody can be asked")
    if not click.confirm(question, err=True):
        click.echo("Nothing was changed.", err=True)
        raise Exit(INTERRUPTED)


def _switch(
    session: Session,
    as_json: bool,
    kind: SwitchKind,
    name: str | None,
    *,
    engaged: bool,
    reason: str | None = None,
) -> None:
    if engaged and reason is None and sys.stdin.isatty():
        reason = click.prompt("Reason", err=True)

    async def work(ledger: Ledger, caller: Caller) -> tuple[Switched, str, list[KillSwitch]]:
        done = await ledger.set_switch(caller, kind, name, engaged, reason)
        # Who releases what was not stopped has perhaps mistyped, too.
        asks = name is not None and (engaged or not done.changed)
        others = await ledger.switches(caller) if name is None and not engaged else []
        return done, await doubt(ledger, caller, kind, name or "") if asks else "", others

    done, note, others = session.ask(work)
    what = target(kind, name, named)
    say([note] if note else [])
    if as_json:
        from agent_meter_mcp.faces.wire.controls import KillSwitchSet

        from .document import print_document

        print_document(KillSwitchSet.of(done, kind, name, known=not note))
    elif done.engaged and done.switch is not None:
        click.echo(stopped(done.switch, named) + ("" if done.changed else " (it was stopped already)"))
    else:
        by_name = " by its name" if done.still else ""
        text = f"{what} is released" if done.changed else f"{what} was not stopped{by_name}; nothing changed"
        if done.still is not None:
            text += f". It stays stopped all the same: {stopped(done.still, named)}"
        lines = [f"still stopped: {stopped(one, named)}" for one in others[:STILL_SHOWN]]
        more = [f"and {len(others) - STILL_SHOWN} more"] if len(others) > STILL_SHOWN else []
        click.echo("\n".join([text, *lines, *more]))
