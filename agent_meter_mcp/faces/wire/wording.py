"""The sentences for a model: what happened, the numbers, the next step. One or two each.

Names in them come from agents, so they are shown with `core.text.shown`: no control codes, nothing invisible,
not long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_meter_mcp.core.decide import LimitState, tightest
from agent_meter_mcp.core.figures import (
    counted,
    during,
    exact_amount,
    exact_cost_of,
    exact_number,
    length,
    per,
    stopped,
    whom,
)
from agent_meter_mcp.core.text import NAME_WIDTH, shown
from agent_meter_mcp.core.times import optional_time, time_text
from agent_meter_mcp.core.windows import zone_of

if TYPE_CHECKING:
    from agent_meter_mcp.core import models, queries
    from agent_meter_mcp.core.commands import LimitSet, Recorded, Reserved, Switched
    from agent_meter_mcp.core.decide import Decision, Reason
    from agent_meter_mcp.core.models import Limit
    from agent_meter_mcp.ledger.looking import Shut

SHUT_TOLD = 3


def quoted(name: str) -> str:
    """A name as it may stand in a sentence."""
    return f"'{shown(name, width=NAME_WIDTH)}'"


def moment(at_us: int) -> str:
    """A time, to the second."""
    return time_text(at_us - at_us % 1_000_000)


def wait(length_us: int) -> str:
    """ "in 40 s", "in 3 h 12 min", "in 2 d 4 h": who waits that long has waited long enough."""
    return f"in {length(length_us)}"


def subject(limit: Limit) -> str:
    """Whom a limit is for."""
    together = " together" if limit.key.subject.kind == "pool" else ""
    at = "" if limit.key.service is None else f" at {quoted(limit.key.service)}"
    return f"{whom(limit.key.subject, quoted)}{together}{at}"


def standing(state: LimitState) -> str:
    """ "$4.20 of $10 used today (42 %)", "7 of 20 requests used in any 1m (35 %)"."""
    limit, metric = state.limit, state.limit.key.metric
    held = f" and {exact_amount(metric, state.held)} held" if state.held else ""
    used = f"{exact_number(metric, state.used)} of {exact_amount(metric, limit.max)} used"
    percent = f"{state.percent:,.1f}".removesuffix(".0")
    return f"{used}{held} {during(limit.key.window)} ({percent} %)"


def reason(why: Reason, at_us: int) -> str:
    """Why not: which limit, used, held, asked, max, who holds it, when enough comes back."""
    if why.switch is not None:
        return f"{stopped(why.switch, quoted)}. Only an operator can release it"
    if why.state is None:
        return "a limit is in the way"
    state, metric = why.state, why.state.limit.key.metric
    asked = "" if why.asked is None else f", {exact_amount(metric, why.asked)} asked"
    text = f"limit for {subject(state.limit)}: {standing(state)}{asked}"
    if why.holders:
        holder = why.holders[0]
        more = f" and {len(why.holders) - 1} more" if len(why.holders) > 1 else ""
        text += f"; {quoted(holder.agent)} holds {exact_amount(metric, holder.amount)}{more}"
    return (
        text if why.retry_at_us is None else f"{text}; enough is back {wait(max(why.retry_at_us - at_us, 1))}"
    )


def decision(decided: Decision, at_us: int) -> str:
    """Whether it is allowed, why not, and what to do."""
    hard = [why for why in decided.reasons if why.code != "soft_limit"]
    soft = [why for why in decided.reasons if why.code == "soft_limit"]
    if hard:
        more = f" (and {len(hard) - 1} more: see reasons)" if len(hard) > 1 else ""
        return f"Not allowed: {reason(hard[0], at_us)}{more}. {_next_step(decided)}"
    if soft:
        more = f" (and {len(soft) - 1} more)" if len(soft) > 1 else ""
        return f"Allowed, but mind the {reason(soft[0], at_us)}{more}. Prefer cheaper steps."
    closest = tightest(decided.limits)
    if closest is None:
        return "Allowed: no limit applies here. Usage is metered all the same."
    runs_out = closest.runs_out_at_us
    outlook = (
        ""
        if runs_out is None or closest.exceeded
        else f" At this rate it runs out {wait(max(runs_out - at_us, 1))}."
    )
    return f"Allowed. Tightest limit, for {subject(closest.limit)}: {standing(closest)}.{outlook}"


def shut(services: Shut) -> str:
    """After a sentence that allows it: where it would be refused. "" where there is nothing."""
    told = [
        f"{quoted(name)}: {standing(why) if isinstance(why, LimitState) else stopped(why, quoted)}"
        for name, why in services[:SHUT_TOLD]
    ]
    if len(services) > SHUT_TOLD:
        told.append(f"{len(services) - SHUT_TOLD} more")
    return f" But not at {'; nor at '.join(told)}." if told else ""


def _next_step(denied: Decision) -> str:
    if any(why.code == "kill_switch" for why in denied.reasons):
        return "Stop this work and tell the person you work for."
    left = [exact_amount(metric, most) for metric, most in denied.would_fit]
    fits = (
        f"At most {' and '.join(left)} would fit now: ask for less" if left else "Nothing more fits now: stop"
    )
    if denied.retry_after_us is None:
        return f"{fits}, or ask an operator for a higher limit; waiting alone does not help."
    return f"{fits}, or try again {wait(denied.retry_after_us)}."


def recorded(answer: Recorded, usage: models.Usage | None) -> str:
    """What was counted, and whether some limit is exceeded now. `usage` is what was said to be used."""
    cost = _cost(answer, usage)
    what = {"recorded": "Recorded", "duplicate": "Already recorded", "corrected": "Corrected"}[answer.status]
    late = "; the reservation had ended, so it counts now" if answer.late else ""
    text = f"{what} ({cost}{late})."
    if answer.switch is not None:
        return f"{text} But {stopped(answer.switch, quoted)}. Stop working now."
    full = [state for state in answer.limits if state.exceeded]
    # One that refuses comes before a fuller one that only warns: it is what stops the next step.
    stops = tightest(state for state in full if state.limit.action == "reject")
    closest = stops or tightest(full) or tightest(answer.limits)
    if answer.outcome == "over_limit":
        if stops is not None:
            return (
                f"{text} This is over the limit for {subject(stops.limit)}: {standing(stops)}. "
                f"{_pause(answer.retry_after_us)}"
            )
        text = f"{text} It was over a limit at the time it counts at; there is room again."
    if closest is None:
        return f"{text} No limit applies."
    text = f"{text} Tightest limit, for {subject(closest.limit)}: {standing(closest)}."
    if not closest.exceeded:
        return text
    if closest.limit.action != "reject":
        return f"{text} Prefer cheaper steps."
    return f"{text} {_pause(answer.retry_after_us)}"


def _cost(answer: Recorded, usage: models.Usage | None) -> str:
    """The cost; where a model has no price, who can change that."""
    if answer.cost_nano_usd is not None:
        return exact_amount("cost_usd", answer.cost_nano_usd)
    # What was recorded before keeps its cost, also where there is a price by now.
    if usage is None or usage.model is None or not usage.tokens or answer.status == "duplicate":
        return "cost unknown"
    return f"cost unknown: {quoted(usage.model)} has no price here; an operator can add one to prices.toml"


def _pause(retry_after_us: int | None) -> str:
    if retry_after_us is None:
        return "Stop, or ask an operator for a higher limit."
    return f"Use no more until budget comes back {wait(retry_after_us)}."


def reserved(answer: Reserved, at_us: int) -> str:
    """The hold and what to do with it, or why there is none."""
    held = answer.reservation
    if held is None:
        return decision(answer.decision, at_us)
    if held.state != "open":
        ended = f"has {held.state}" if held.state == "expired" else f"was {held.state}"
        return (
            f"This id was reserved before, and that hold {ended}: nothing is held. New work needs a new id."
        )
    again = " (the same as before)" if answer.status == "duplicate" else ""
    counts_cost = any(state.limit.key.metric == "cost_usd" for state in answer.decision.limits)
    unknown = (
        " Its cost is not known, so no dollars are held: to hold some give cost_usd, or a model with a price."
        if counts_cost and held.usage.cost_nano_usd is None
        else ""
    )
    return (
        f"Reserved{again} until {moment(held.expires_at_us)}. Do the work, then call settle_reservation with "
        f"reservation_id={held.reservation_id!r} and what was really used.{unknown}"
    )


def hold(held: models.Reservation) -> str:
    """A reservation that was released or extended."""
    if held.state == "open":
        return f"The hold now lasts until {moment(held.expires_at_us)}. Settle it before then."
    if held.state == "expired":
        return "The hold had expired already; nothing is held. Usage can still be settled, and counts late."
    return "Released: nothing is held and nothing was counted."


def summary(query: queries.SummaryQuery, answer: queries.Summary) -> str:
    """Over which time, the totals, and the largest group."""
    total = answer.total
    parts = [
        counted(total.events, "event"),
        exact_cost_of(total),
        exact_amount("tokens", total.tokens),
    ]
    if total.unpriced:
        parts.append(f"{total.unpriced:,} without a known price (not in the cost)")
    if total.rejected:
        parts.append(f"{total.rejected:,} refused")
    text = f"{_over(query)}: {', '.join(parts)}"
    if query.group_by and answer.groups:
        largest = answer.groups[0]
        named = group_name(query, largest.key)
        spent = exact_cost_of(largest.totals)
        groups = len(answer.groups) + answer.groups_left_out
        which = "All" if groups == 1 else f"First of {groups} groups"
        text += f". {which}: {named} with {spent}"
    if answer.groups_left_out:
        text += (
            f". {counted(answer.groups_left_out, 'more group')} left out: raise limit, or narrow the filters"
        )
    return f"{text}."


def _over(query: queries.SummaryQuery) -> str:
    """ "From 2026-01-31T00:00:00Z to 2026-02-01T00:00:00Z": who named no time is told which one it was."""
    ends = [("from", query.filter.since_us), ("to", query.filter.until_us)]
    told = [(word, optional_time(at_us and at_us - at_us % 1_000_000)) for word, at_us in ends]
    text = " ".join(f"{word} {time}" for word, time in told if time is not None) or "over all time"
    return text[0].upper() + text[1:]


def group_name(query: queries.SummaryQuery, key: tuple[str | int | None, ...]) -> str:
    """ "agent 'coder', day 2026-01-31T00:00:00Z"."""
    return ", ".join(
        f"{dimension} {_key_text(value, query.zone)}"
        for dimension, value in zip(query.group_by, key, strict=True)
    )


def _key_text(value: str | int | None, zone: str) -> str:
    if isinstance(value, int):
        return time_text(value, zone_of(zone))
    return "(none)" if value is None else quoted(value)


def events(page: queries.EventsPage) -> str:
    """How many, and how to get more."""
    if not page.events:
        return "No usage matches. Widen since/until or drop a filter."
    newest = moment(page.events[0].recorded_at_us)
    return f"{counted(len(page.events), 'event')}, newest first, from {newest} back.{_more(page.next_seq)}"


def agents(page: queries.AgentsPage) -> str:
    """How many, who is stopped or over."""
    if not page.agents:
        return "No agent matches."
    text = counted(len(page.agents), "agent")
    for status, words in (("stopped", "stopped"), ("over_limit", "over a limit"), ("active", "active")):
        names = [view.agent.agent_id for view in page.agents if view.status == status]
        if names:
            text += f"; {words}: {_names(names)}"
    return f"{text}.{_more(page.next_agent)}"


def _more(cursor: str | int | None) -> str:
    return "" if cursor is None else f" More exist: pass cursor='{shown(str(cursor))}'."


def _names(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(quoted(name) for name in names[:3]) + more


def agent_set(agent: models.Agent) -> str:
    """An agent as it is now."""
    known = {"name": agent.name, "tier": agent.tier, "owner": agent.owner, "parent": agent.parent}
    told = ", ".join(f"{field} {quoted(value)}" for field, value in known.items() if value is not None)
    return f"Agent {quoted(agent.agent_id)}: {told or 'no name, tier, owner or parent'}."


def limit_set(answer: LimitSet, state: LimitState | None) -> str:
    """A limit that was set, and what it means now."""
    limit = answer.limit
    done = {"created": "Created", "changed": "Changed", "unchanged": "Unchanged"}[answer.status]
    kind = "is refused" if limit.action == "reject" else "is allowed but warned about"
    text = f"{done}: at most {_maximum(limit)} for {subject(limit)}; more {kind}."
    return text if state is None else f"{text} Now: {standing(state)}."


def limit_removed(limit: Limit) -> str:
    """A limit that is gone."""
    return f"Removed: at most {_maximum(limit)} for {subject(limit)}. Usage stays metered."


def _maximum(limit: Limit) -> str:
    zone = "" if limit.zone == "UTC" else f" ({shown(limit.zone)})"
    return f"{exact_amount(limit.key.metric, limit.max)} {per(limit.key.window)}{zone}"


def limits(views: list[queries.LimitView]) -> str:
    """How many limits, how many bind, and the tightest."""
    if not views:
        return "No limit applies: everything is allowed and metered. set_limit makes one."
    text = counted(len(views), "limit")
    replaced = sum(view.is_replaced for view in views)
    if replaced:
        text += f", {replaced} of them replaced by a more specific one"
    closest = tightest(view.state for view in views if view.state is not None and not view.is_replaced)
    return (
        f"{text}."
        if closest is None
        else f"{text}. Tightest, for {subject(closest.limit)}: {standing(closest)}."
    )


def switched(answer: Switched, kind: models.SwitchKind, name: str | None, *, known: bool) -> str:
    """A kill switch that was engaged or released. `known`: somebody has heard of whom it stops."""
    what = "Everything" if kind == "everything" else f"{kind.capitalize()} {quoted(name or '')}"
    if answer.engaged:
        again = "" if answer.changed else " (it was already)"
        refused = "checks, reservations and gates are refused until an operator releases it"
        doubt = "" if known else f" No usage of this {kind} is known yet: is the name right?"
        return f"{what} is stopped{again}: {refused}.{doubt}"
    if answer.changed:
        text = f"{what} is released."
    else:
        text = f"{what} was not stopped{' by its name' if answer.still else ''}; nothing changed."
    if answer.still is None:
        return text
    return f"{text} It stays stopped all the same: {stopped(answer.still, quoted)}."
