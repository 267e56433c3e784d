"""`record` and `check`: what a script does around its work."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from agent_meter_mcp.core.decide import LimitState, tightest
from agent_meter_mcp.core.figures import amount, dollars, length, stopped
from agent_meter_mcp.core.models import SECOND_US, SOURCES
from agent_meter_mcp.core.text import ID_MAX, NAME_WIDTH, shown
from agent_meter_mcp.core.windows import zone_of
from agent_meter_mcp.intake import Report
from agent_meter_mcp.runtime import system_clock_us

from . import options
from .doubts import doubts, say
from .exits import DONE, NOT_ALLOWED
from .figures import named, place, standing
from .times import moment, parse_moment, zone_name

if TYPE_CHECKING:
    from agent_meter_mcp.core.commands import Recorded
    from agent_meter_mcp.core.decide import Decision, Reason
    from agent_meter_mcp.core.models import KillSwitch
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.ledger import Ledger
    from agent_meter_mcp.ledger.looking import Shut

    from .session import Session


@options.command(
    "record",
    "agent-meter record --agent coder --service maps --cost-usd 0.12 --id 17",
    "agent-meter record --agent coder --service s --model gpt-5 --output-tokens 9",
)
@options.who
@options.amounts
@options.name_option("--operation", "operation", "What was done: chat, search.")
@click.option("--id", metavar="ID", help="Your key: a repeat with the same id counts once.")
@click.option("--occurred-at", metavar="TIME", help="When it happened, if not now.")
@click.option("--status-code", type=int, metavar="N", help="The status of the answer, such as 200.")
@click.option("--duration-ms", type=int, metavar="N", help="How long it took.")
@click.option("--metadata", metavar="JSON", help="A JSON object with whatever else is to be kept.")
@click.option(
    "--source",
    type=click.Choice(SOURCES),
    metavar="SOURCE",
    show_default="self",
    help=f"Who measured it: {', '.join(SOURCES)}.",
)
@options.as_json
@options.pass_session
def record(session: Session, /, as_json: bool, **given: Any) -> None:
    """Record usage that has happened. It is counted in any case, over a limit as well."""
    from agent_meter_mcp import oneshot

    settings, caller = session.settings, session.caller
    occurred_at, metadata = given["occurred_at"], given["metadata"]
    if metadata is not None:
        from .document import read_object

        metadata = read_object(metadata, "metadata")
    report = Report(
        options.who_of(given, caller),
        options.usage_of(given),
        given["id"],
        given["operation"],
        given["source"],
        None
        if occurred_at is None
        else parse_moment(occurred_at, "occurred_at", settings.timezone, system_clock_us()),
        given["status_code"],
        given["duration_ms"],
        metadata,
    )
    session.announce_new_file()
    answer = oneshot.record(settings, report, caller)
    if as_json:
        from agent_meter_mcp.faces.wire.results import UsageRecorded

        from .document import print_document

        print_document(UsageRecorded.of(answer, report.usage))
        return
    click.echo("\n".join(_recorded(answer)))
    usage = report.usage
    if answer.cost_nano_usd is None and usage.model is not None and usage.tokens:
        name = shown(usage.model, width=NAME_WIDTH)
        told = f"{name} has no price here: give --cost-usd, or put one into {shown(settings.prices)}"
        click.echo(f"agent-meter: note: {told}", err=True)


def _recorded(answer: Recorded) -> list[str]:
    done = {"recorded": "recorded", "duplicate": "already recorded", "corrected": "corrected"}[answer.status]
    cost = (
        "unknown cost"
        if answer.cost_nano_usd is None
        else f"{dollars(answer.cost_nano_usd)} {answer.cost_source}"
    )
    lines = [f"{done} {shown(answer.event_id)}: {cost}"]
    if answer.switch is not None:
        lines.append(f"stop: {stopped(answer.switch, named)}")
    full = [state for state in answer.limits if state.exceeded]
    lines += [f"{_fullness(state)}: {standing(state)}" for state in full]
    if answer.outcome == "over_limit" and not any(state.limit.action == "reject" for state in full):
        lines.append("over a limit at the time it counts at")
    if not full and (closest := tightest(answer.limits)):
        lines.append(f"tightest limit: {standing(closest)}")
    if answer.retry_after_us is not None:
        lines.append(f"budget comes back in {length(answer.retry_after_us)}")
    return lines


def _fullness(state: LimitState) -> str:
    text = "over the limit" if state.used + state.held > state.limit.max else "used up"
    return text if state.limit.action == "reject" else f"{text} (only a warning)"


@options.command(
    "check",
    "agent-meter check --agent coder --cost-usd 0.50 && ./next-step",
    "agent-meter check --agent coder --model gpt-5 --input-tokens 9000 --json",
)
@options.who
@options.amounts
@options.as_json
@options.pass_session
def check(session: Session, /, as_json: bool, **given: Any) -> int:
    """Ask whether work fits the budget now. Nothing is changed, and nothing held.

    The exit code is 0 when it is allowed and 5 when it is not: then it says why, and when enough comes back.
    """

    who, usage = options.who_of(given, session.caller), options.usage_of(given)

    async def ask(ledger: Ledger, caller: Caller) -> tuple[Decision, int, Shut, list[str]]:
        decision, at_us = await ledger.check(caller, who, usage), ledger.now_us()
        shut = await ledger.shut(caller, who) if decision.allowed else ()
        return decision, at_us, shut, await doubts(ledger, caller, given)

    decision, at_us, shut, notes = session.ask(ask)
    say(notes)
    if as_json:
        from agent_meter_mcp.faces.wire.results import Decided

        from .document import print_document

        print_document(Decided.of(decision, at_us, shut))
    else:
        click.echo("\n".join([*_decided(decision, at_us, session.settings.timezone), *_shut(shut)]))
    return DONE if decision.allowed else NOT_ALLOWED


def _shut(services: Shut) -> list[str]:
    """Where it would be refused all the same."""
    told = [
        (service, standing(why) if isinstance(why, LimitState) else stopped(why, named))
        for service, why in services
    ]
    return [f"but not at {named(service)}: {why}" for service, why in told]


def _decided(decision: Decision, at_us: int, zone: str) -> list[str]:
    local_zone = zone_of(zone)
    hard = [reason for reason in decision.reasons if reason.code != "soft_limit"]
    lines = [f"not allowed: {_why(reason)}" for reason in hard]
    if decision.retry_after_us is not None:
        at = moment(at_us + decision.retry_after_us + SECOND_US - 1, local_zone)
        lines.append(f"enough comes back in {length(decision.retry_after_us)}, at {at} ({zone_name(zone)})")
    elif switches := [reason.switch for reason in hard if reason.switch is not None]:
        resume = " && ".join(_resume(switch) for switch in switches)
        lines.append(f"it stays so until an operator resumes it: {resume}")
    elif hard:
        lines.append("waiting alone does not bring it back: it takes a higher limit, or less work")
    if hard and all(reason.code != "kill_switch" for reason in hard):
        fits = [amount(metric, most) for metric, most in decision.would_fit]
        lines.append(f"at most {' and '.join(fits)} would fit now" if fits else "nothing more fits now")
    if not hard:
        closest = tightest(state for state in decision.limits if state.limit.action == "reject")
        lines.append(
            "allowed: no limit is in the way" if closest is None else f"allowed: {standing(closest)}"
        )
        if closest is not None and closest.runs_out_at_us is not None and closest.runs_out_at_us > at_us:
            lines.append(f"at this rate it runs out in {length(closest.runs_out_at_us - at_us)}")
    lines += [f"mind: {_why(reason)}" for reason in decision.reasons if reason.code == "soft_limit"]
    return lines


def _resume(switch: KillSwitch) -> str:
    words = ["agent-meter", "resume", switch.kind]
    if switch.name is not None:
        words += ["--"] if switch.name.startswith("-") else []  # or it would be taken for an option
        words.append(shown(switch.name, width=ID_MAX))
    return shlex.join(words)


def _why(reason: Reason) -> str:
    if reason.switch is not None:
        return stopped(reason.switch, named)
    state = reason.state
    if state is None:
        return "a limit"
    metric = state.limit.key.metric
    asked = "" if reason.asked is None else f", {amount(metric, reason.asked)} asked"
    held_by = "".join(
        f"; {shown(holder.agent, width=NAME_WIDTH)} holds {amount(metric, holder.amount)}"
        for holder in reason.holders
    )
    if not state.limit.max:
        return f"{place(state.limit.key)} may use no {metric.removesuffix('_usd')}{asked}"
    return f"{standing(state)}{asked}{held_by}"
