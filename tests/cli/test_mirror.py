"""The command line takes what the tools take, by the same names and with the same meaning."""

from __future__ import annotations

from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_meter_mcp.cli.options import filter_of, usage_of, who_of
from agent_meter_mcp.cli.reports import summary_query
from agent_meter_mcp.cli.times import parse_span
from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.queries import DIMENSIONS, ORDERS
from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.faces.wire import arguments, queries

from .test_program import LEAVES

TOOLS: dict[str, type[arguments.Arguments]] = {
    "record": arguments.RecordUsage,
    "check": arguments.CheckBudget,
    "summary": queries.GetUsageSummary,
    "events": queries.ListUsageEvents,
    "agents": queries.ListAgents,
    "limit set": arguments.SetLimit,
    "limit list": queries.ListLimits,
    "limit remove": arguments.RemoveLimit,
    "agent set": arguments.SetAgent,
}
OF_THE_COMMAND_LINE = {"as_json", "db"}
MORE = {
    "events": {"window", "timezone"},
    "agents": {"timezone"},
}
NOW_US = 1_790_000_000_123_456
OPERATOR = Caller("operator", "olga")


@pytest.mark.parametrize("command", TOOLS)
def test_a_command_has_the_arguments_of_its_tool(command: str) -> None:
    options = {option.name for option in LEAVES[tuple(command.split())].params}
    assert options - OF_THE_COMMAND_LINE - MORE.get(command, set()) == set(TOOLS[command].model_fields)


@pytest.mark.parametrize("command", TOOLS)
def test_an_option_is_called_like_the_argument(command: str) -> None:
    for option in LEAVES[tuple(command.split())].params:
        if isinstance(option, click.Option):
            assert f"--{(option.name or '').replace('_', '-').removeprefix('as-')}" in option.opts


def values(command: str, *words: str) -> dict[str, Any]:
    """What click hands to the command for these words."""
    with LEAVES[tuple(command.split())].make_context(command, [*words]) as context:
        return context.params


def either(one: Any) -> Any:
    """What a call answers, or which field it refuses."""
    try:
        return one()
    except InvalidInput as error:
        return error.field


name = st.sampled_from([None, "a", "b", " x", "", "x" * 129, "x" * 257, "\x1b"])
count = st.sampled_from([None, 0, 1, 10**12, 10**13, -1])
decimal = st.sampled_from([None, "0", "0.1", "1e-9", "0.1234567891", "1000001", "-1", "nan"])
moment = st.sampled_from([None, "2026-01-01T00:00:00Z", "2026-03-29T03:00:00+02:00"])


def sent(given: dict[str, Any]) -> dict[str, Any]:
    """The same for the tool: what was left out is not sent, and decimals are numbers."""
    numbers = {field: float(given[field]) for field in ("units", "cost_usd") if given.get(field) is not None}
    return {field: value for field, value in {**given, **numbers}.items() if value not in (None, ())}


@given(
    st.fixed_dictionaries({
        "agent": name, "service": name, "parent": name, "project": name, "session": name,
        "requests": st.integers(0, 9), "units": decimal, "unit_type": name, "input_tokens": count,
        "output_tokens": count, "cache_read_tokens": count, "cache_write_tokens": count,
        "cache_write_1h_tokens": count, "model": name, "cost_usd": decimal,
    })
)  # fmt: skip
def test_who_and_how_much_mean_the_same(given: dict[str, Any]) -> None:
    tool = arguments.CheckBudget.model_validate(sent(given))
    assert either(lambda: usage_of(given)) == either(tool.usage)
    assert either(lambda: who_of(given, OPERATOR)) == either(lambda: tool.who(OPERATOR, tool.service))


filters = {
    "agent": name, "include_children": st.booleans(), "service": name, "operation": name, "model": name,
    "project": name, "session": name, "tier": name, "source": st.sampled_from([None, "sdk"]),
    "outcome": st.sampled_from([None, "rejected"]), "since": moment, "until": moment,
}  # fmt: skip


@given(
    st.fixed_dictionaries(
        {
            **filters,
            "group_by": st.lists(st.sampled_from(DIMENSIONS), min_size=1, max_size=3).map(tuple),
            "window": st.sampled_from([None, "day", "month", "5m", "total", "x"]),
            "order_by": st.sampled_from(ORDERS),
            "limit": st.sampled_from([0, 1, 100, 1000, 1001, -1]),
        }
    ),
    st.sampled_from(["UTC", "Europe/Berlin"]),
)
def test_a_summary_means_the_same(given: dict[str, Any], zone: str) -> None:
    tool = queries.GetUsageSummary.model_validate(sent({**given, "group_by": [*given["group_by"]]}))
    ours = either(lambda: summary_query(given, zone, NOW_US))
    theirs = either(lambda: tool.query(NOW_US, zone))
    # Of several wrong values each may name another one first.
    assert ours == theirs or (isinstance(ours, str) and isinstance(theirs, str))


@given(st.fixed_dictionaries(filters))
def test_filters_mean_the_same(given: dict[str, Any]) -> None:
    tool = queries.ListUsageEvents.model_validate(sent(given))
    ours = either(lambda: filter_of(given, *parse_span({**given, "window": None}, "UTC", NOW_US)))
    theirs = either(lambda: tool.query().filter)
    assert ours == theirs or (isinstance(ours, str) and isinstance(theirs, str))


def test_what_is_left_out_means_the_same() -> None:
    ours = summary_query(values("summary", "--group-by", "agent"), "UTC", NOW_US)
    assert ours == queries.GetUsageSummary(group_by=["agent"]).query(NOW_US, "UTC")
    assert usage_of(values("record", "--service", "s")) == arguments.RecordUsage(service="s").usage()
