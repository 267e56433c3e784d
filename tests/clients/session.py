"""What a client does in a whole session, and what it must get back. Plain Python: it runs beside any SDK.

A step is (tool, arguments, expectations); an expectation is a path into the structured result and its value.
An argument "$reservation" stands for the id that the last reservation was given.
"""

from __future__ import annotations

from typing import Any

TOOLS = frozenset(
    {
        "record_usage",
        "check_budget",
        "reserve_budget",
        "settle_reservation",
        "gate",
        "get_usage_summary",
        "list_usage_events",
        "list_agents",
        "set_agent",
        "set_limit",
        "list_limits",
        "remove_limit",
        "set_kill_switch",
    }
)

LIMIT = {"metric": "requests", "window": "total", "agent": "session-bot"}
WORK = {"service": "search", "agent": "session-bot"}

STEPS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("set_limit", {**LIMIT, "max": 3}, {}),
    ("record_usage", {**WORK, "id": "one", "cost_usd": 0.25}, {"outcome": "accepted", "cost_usd": 0.25}),
    ("record_usage", {**WORK, "id": "two", "cost_usd": 0.25}, {"outcome": "accepted"}),
    ("record_usage", {**WORK, "id": "two", "cost_usd": 0.25}, {"status": "duplicate"}),
    ("reserve_budget", {**WORK}, {"allowed": True}),
    ("check_budget", {**WORK}, {"allowed": False}),
    ("reserve_budget", {**WORK}, {"allowed": False}),
    (
        "settle_reservation",
        {"reservation_id": "$reservation", "cost_usd": 0.5},
        {"outcome": "accepted", "late": False},
    ),
    ("record_usage", {**WORK, "id": "four"}, {"outcome": "over_limit"}),
    (
        "get_usage_summary",
        {"group_by": ["agent"]},
        {"total.requests": 4, "total.cost_usd": 1, "total.rejected": 1, "groups.0.key.agent": "session-bot"},
    ),
    ("set_limit", {**LIMIT, "max": 10}, {}),
    ("check_budget", {**WORK}, {"allowed": True}),
    ("set_kill_switch", {"engaged": True, "agent": "session-bot", "reason": "drill"}, {}),
    ("reserve_budget", {**WORK}, {"allowed": False}),
    ("set_kill_switch", {"engaged": False, "agent": "session-bot"}, {}),
    ("reserve_budget", {**WORK}, {"allowed": True}),
    ("settle_reservation", {"reservation_id": "$reservation", "action": "release"}, {}),
]


def filled(arguments: dict[str, Any], reservation_id: str | None) -> dict[str, Any]:
    """The arguments of a step, with the last reservation's id in them."""
    return {name: reservation_id if value == "$reservation" else value for name, value in arguments.items()}


def failures(step: int, result: dict[str, Any], is_error: bool, text: str) -> list[str]:
    """What of a step's expectations did not come true."""
    tool, arguments, expected = STEPS[step]
    place = f"step {step + 1}, {tool} {arguments}"
    if is_error:
        return [f"{place}: {text}"]
    found = [f"{place}: no text for the model"] if not text.strip() else []
    for path, value in expected.items():
        part: Any = result
        for name in path.split("."):
            part = part[int(name)] if name.isdigit() else part.get(name)
        if part != value:
            found.append(f"{place}: {path} is {part!r}, not {value!r}")
    return found
