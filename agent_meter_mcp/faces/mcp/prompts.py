"""Three prompts that a person picks from a menu."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, cast

from mcp import MCPError
from mcp.server import MCPServer
from mcp.types import INVALID_PARAMS
from pydantic import Field

from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.text import name
from agent_meter_mcp.core.windows import parse_window
from agent_meter_mcp.faces.wire.wording import quoted

if TYPE_CHECKING:
    from mcp.server.context import CallNext, HandlerResult, ServerMiddleware

    from .callers import Request

WindowArgument = Annotated[str, Field(description='"day", "week", "month", "24h", "total", …')]
AgentArgument = Annotated[str, Field(description="the agent; everybody if left out")]

REPORT = """\
Write a usage report. Call get_usage_summary with window={window!r}{whose} three times, with
group_by ["agent"], ["service", "model"] and ["day"]. Say the total cost, tokens and events first, then who
and what accounts for most of it, then what stands out: usage without a known price (unpriced), refusals
(rejected), usage over a limit. Use the figures as they are: the cost of unpriced usage is unknown, not zero.
Close with at most three suggestions."""

REVIEW = """\
Review the budgets. Call list_limits{asked}, list_agents, and get_usage_summary with
window="30d" and group_by ["agent"]. Name the limits that are nearly used up, those that are hardly used,
agents without any limit, and limits that another one replaced. Propose changes as set_limit calls with the
reason for each, and make none before I agree."""

STAY = """\
Stay within your budget while you work. Before each expensive step call reserve_budget with
{named}{at}and an estimate: model and tokens, or cost_usd. When it is denied, do not do the step: take a
cheaper one that fits `affordable`, or wait retry_after_s. After the step call settle_reservation with what
was really used, or with action="release" if nothing was. Report other usage with record_usage. When an answer
says to stop, stop, and say why to the person you work for."""


def guard_prompts(server_of: Callable[[], MCPServer[Any]]) -> ServerMiddleware[Any]:
    """Middleware: names an unknown prompt or argument, which to the SDK is an internal error with a trace."""

    async def guard(ctx: Request, call_next: CallNext) -> HandlerResult:
        if ctx.method == "prompts/get" and ctx.params is not None:
            known = {
                prompt.name: [argument.name for argument in prompt.arguments or ()]
                for prompt in await server_of().list_prompts()
            }
            _check_known(known, ctx.params.get("name"), ctx.params.get("arguments") or {})
        return await call_next(ctx)

    return guard


def _check_known(known: dict[str, list[str]], prompt: object, arguments: object) -> None:
    """What is no text and no object is refused by the SDK afterwards."""
    if isinstance(prompt, str) and prompt not in known:
        said = f"there is no prompt {quoted(prompt)}: use {', '.join(known)}"
        raise MCPError(INVALID_PARAMS, said)
    if isinstance(prompt, str) and isinstance(arguments, dict):
        for argument in cast("dict[str, object]", arguments):
            if argument not in known[prompt]:
                takes = ", ".join(known[prompt])
                said = f"{quoted(argument)} is not an argument of {prompt}: it takes {takes}"
                raise MCPError(INVALID_PARAMS, said)


def add_prompts(server: MCPServer[Any]) -> None:
    @server.prompt(title="Usage report")
    async def usage_report(window: WindowArgument = "day", agent: AgentArgument = "") -> str:
        """Who used what, where it went, and what stands out."""
        whose = f", agent={_agent(agent)!r}, include_children=true" if agent else ""
        return REPORT.format(window=_window(window), whose=whose)

    @server.prompt(title="Budget review")
    async def budget_review(agent: AgentArgument = "") -> str:
        """Which limits fit what is used, which are too tight, too wide or missing."""
        return REVIEW.format(asked=f" with agent={_agent(agent)!r}" if agent else "")

    @server.prompt(title="Stay within your budget")
    async def stay_within_budget(
        agent: Annotated[str, Field(description="what you are called in the ledger")] = "",
        service: Annotated[str, Field(description="where you spend")] = "",
    ) -> str:
        """How an agent works with a budget."""
        named = f"agent={_agent(agent)!r}, " if agent else ""
        at = f"service={_named(service, 'service')!r}, " if service else "the service, "
        return STAY.format(named=named, at=at)


def _window(text: str) -> str:
    try:
        return parse_window(text).text
    except InvalidInput as error:
        raise MCPError(INVALID_PARAMS, str(error)) from error


def _agent(text: str) -> str:
    return _named(text, "agent")


def _named(text: str, field: str) -> str:
    try:
        return name(text, field)
    except InvalidInput as error:
        raise MCPError(INVALID_PARAMS, str(error)) from error
