"""The sentences of a meter in a local file. A remote one sends its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_meter_mcp.core import figures
from agent_meter_mcp.core.figures import exact_amount, exact_number
from agent_meter_mcp.core.text import NAME_WIDTH, shown
from agent_meter_mcp.core.windows import seconds

if TYPE_CHECKING:
    from agent_meter_mcp.core.commands import Recorded
    from agent_meter_mcp.core.decide import Decision, Reason
    from agent_meter_mcp.core.models import KillSwitch, Reservation


def _named(name: str) -> str:
    return shown(name, width=NAME_WIDTH)


def stopped(switch: KillSwitch) -> str:
    """What is stopped, by whom, why, and what ends it."""
    return f"{figures.stopped(switch, _named)}. Only an operator can release it"


def reason(why: Reason) -> str:
    """Which limit, and how it stands. Says nothing of who else holds part of it."""
    if why.switch is not None:
        return stopped(why.switch)
    if why.state is None:
        return "a limit is in the way"
    limit, metric = why.state.limit, why.state.limit.key.metric
    whom = shown(str(limit.key.subject), width=NAME_WIDTH)
    where = "" if limit.key.service is None else f" at {_named(limit.key.service)}"
    held = f" and {exact_amount(metric, why.state.held)} held" if why.state.held else ""
    asked = "" if why.asked is None else f", {exact_amount(metric, why.asked)} asked"
    used = f"{exact_number(metric, why.state.used)} of {exact_amount(metric, limit.max)} used"
    return f"limit for {whom}{where}: {used}{held} ({limit.key.window}){asked}"


def decision(decided: Decision) -> str:
    """Whether it is allowed; why not, and when it will be."""
    hard = [why for why in decided.reasons if why.code != "soft_limit"]
    if not hard:
        return "Allowed." if not decided.reasons else f"Allowed, but mind the {reason(decided.reasons[0])}."
    text = f"Not allowed: {reason(hard[0])}."
    if decided.retry_after_us is not None:
        return f"{text} Try again in {seconds(decided.retry_after_us)} s."
    return (
        text
        if hard[0].switch
        else f"{text} Waiting alone does not help: it takes a higher limit, or less work."
    )


def recorded(answer: Recorded) -> str:
    """What was counted."""
    cost = "cost unknown" if answer.cost_nano_usd is None else exact_amount("cost_usd", answer.cost_nano_usd)
    done = {"recorded": "Recorded", "duplicate": "Already recorded", "corrected": "Corrected"}[answer.status]
    over = " This is over a limit." if answer.outcome == "over_limit" else ""
    late = "; the hold had ended, so it counts now" if answer.late else ""
    return f"{done} ({cost}{late}).{over}"


def hold(held: Reservation) -> str:
    """A hold that was released or extended."""
    if held.state == "open":
        return "The hold lasts longer now."
    return "Released." if held.state == "released" else "The hold had expired already; nothing is held."
