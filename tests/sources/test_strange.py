"""What a meter elsewhere tells is another program's: what is of no kind that it should be is not shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from agent_meter_mcp.core import models
from agent_meter_mcp.core.decide import LimitState
from agent_meter_mcp.core.queries import AgentView, AlertView, LimitView, Totals
from agent_meter_mcp.faces.wire import controls, records, reports
from agent_meter_mcp.sources import remote_words as words

AT_US = 1_795_521_600_000_000
MISREAD = (KeyError, TypeError, ValueError, ArithmeticError, AttributeError)
"""What `Link.reading` makes a sentence of."""
CLEAR = "\x1b[2J"
MAY_BE_ANY = {"max", "used", "held", "units", "cost_usd", "percent", "metadata", "before", "after", "binds"}
"""A number of any kind, an object, or what is only asked for being there."""

who = models.Who("ann", "api", None, "web", "s1")
usage = models.Usage(units_micro=5, unit_type="page", input_tokens=3, model="gpt", cost_nano_usd=7)
key = models.LimitKey(models.Subject("agent", "ann"), "api", "cost_usd", "day")
limit = models.Limit("id", key, 10**9, "reject", "UTC", (50,))
state = LimitState(limit, "ann", 10**8, 0, AT_US, AT_US + 10**9, None, AT_US)
used = models.UsageEvent("e", who, usage, "chat", "sdk", AT_US, 200, 12, "{}")
agent = models.Agent("ann", "Ann", "pro", "olga", "boss")
Made = tuple[Callable[[Any], object], Any]
MADE: dict[str, Made] = {
    "switch": (words.switch, records.KillSwitch.of(models.KillSwitch("agent", "ann", "why", "olga", AT_US))),
    "alert": (
        words.alert_view,
        controls.Alert.of(AlertView(models.Alert(1, AT_US, "id", "ann", AT_US, 80, 8, 10), key)),
    ),
    "action": (
        words.audit_entry,
        records.AuditEntry.of(
            models.AuditEntry(AT_US, "olga", "set_limit", "cost", None, models.audited(limit), "dear")
        ),
    ),
    "hold": (
        words.hold,
        records.Hold.of(models.Reservation("r", "e", who, usage, "chat", "sdk", AT_US, AT_US + 1)),
    ),
    "event": (
        words.event,
        reports.Event.of(models.StoredEvent(AT_US, used, "rejected", AT_US, 2, "id")),
    ),
    "limit": (
        lambda told: words.limit_view(told, AT_US),
        controls.ListedLimit.of_view(LimitView(limit, state)),
    ),
    "agent": (
        lambda told: words.agent_view(told, {}, AT_US),
        reports.Agent.of(AgentView(agent, "active", AT_US, AT_US, Totals(requests=1), state)),
    ),
}


def told_of(name: str) -> tuple[Callable[[Any], object], dict[str, Any]]:
    read, part = MADE[name]
    return read, json.loads(part.model_dump_json())


@pytest.mark.parametrize("strange", [7.5, ["x"], {"x": 1}], ids=repr)
@pytest.mark.parametrize("name", MADE)
def test_no_member_may_be_of_another_kind(name: str, strange: object) -> None:
    """It ended the dashboard, when that was shown."""
    read, told = told_of(name)
    right = read(told)
    for member in told.keys() - MAY_BE_ANY:
        try:
            found = read({**told, member: strange})
        except MISREAD:
            continue
        assert found == right, f"{member} is read, whatever it is"


@pytest.mark.parametrize(
    ("name", "member"),
    [
        ("limit", "window"),
        ("limit", "metric"),
        ("limit", "action"),
        ("limit", "subject"),
        ("alert", "window"),
        ("alert", "subject"),
        ("event", "outcome"),
        ("agent", "status"),
    ],
)
def test_a_word_that_is_none_of_ours_is_not_shown(name: str, member: str) -> None:
    """Those are on the screen as they are: what a terminal would obey could be among them."""
    read, told = told_of(name)
    with pytest.raises(MISREAD):
        read({**told, member: CLEAR})
