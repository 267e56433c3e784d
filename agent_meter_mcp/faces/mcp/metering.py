"""The tools that meter: record, check, reserve, settle, gate."""

from __future__ import annotations

from agent_meter_mcp.core.check import usable
from agent_meter_mcp.core.text import ID_MAX
from agent_meter_mcp.faces.wire import arguments as take
from agent_meter_mcp.faces.wire import results as give
from agent_meter_mcp.faces.wire.calls import Call
from agent_meter_mcp.faces.wire.doubts import doubted
from agent_meter_mcp.faces.wire.hooks import gated
from agent_meter_mcp.faces.wire.settling import settled

from .tools import tool


@tool("Record usage", take.RecordUsage, give.UsageRecorded)
async def record_usage(call: Call, arguments: take.RecordUsage) -> give.UsageRecorded:
    """Report usage that has happened: it always counts, also over a limit. Before costly work use
    reserve_budget instead. cost_usd is worked out from model and tokens if left out; input_tokens are the
    uncached ones."""
    report = arguments.report(call.caller)
    return give.UsageRecorded.of(await call.ledger.record(call.caller, report), report.usage)


@tool("Check budget", take.CheckBudget, give.Decided, reads=True)
async def check_budget(call: Call, arguments: take.CheckBudget) -> give.Decided:
    """Ask if a step fits the budget and what is left. Holds nothing: when others share the budget,
    reserve_budget."""
    who = arguments.who(call.caller, arguments.service)
    decision = await call.ledger.check(call.caller, who, arguments.usage())
    shut = await call.ledger.shut(call.caller, who) if decision.allowed else ()
    answer = give.Decided.of(decision, call.ledger.now_us(), shut)
    own = [state for state in decision.limits if state.limit.key.subject.kind != "pool"]
    if decision.allowed and not any(state.used for state in own):  # as for a name that nobody has
        await doubted(call, answer, arguments.agent, arguments.service)
    return answer


@tool("Reserve budget", take.ReserveBudget, give.BudgetReserved)
async def reserve_budget(call: Call, arguments: take.ReserveBudget) -> give.BudgetReserved:
    """Hold an estimate before expensive work, or learn why not. Then settle_reservation with what was
    used."""
    reserved = await call.ledger.reserve(call.caller, arguments.report(call.caller), arguments.ttl_us())
    return give.BudgetReserved.of_reserved(reserved, call.ledger.now_us())


@tool("Settle reservation", take.SettleReservation, give.ReservationSettled, repeats=True)
async def settle_reservation(call: Call, arguments: take.SettleReservation) -> give.ReservationSettled:
    """End a hold: settle with the actual amounts (none: as estimated), release if nothing was used, or extend
    it."""
    return await settled(call, arguments)


@tool("Gate", take.Gate, give.GateAnswered)
async def gate(call: Call, arguments: take.Gate) -> give.GateAnswered:
    """For hooks of an agent harness: allow, warn or stop, as the JSON the hook prints. Agents use
    check_budget."""
    who = arguments.checked().who(call.caller, project=usable(arguments.cwd, ID_MAX))
    decision, verdict, hook = await gated(call, who, arguments.harness, arguments.event)
    return give.GateAnswered.of(decision, verdict, hook, call.ledger.now_us())
