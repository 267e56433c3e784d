"""The bounds of what is said of usage."""

from __future__ import annotations

import pytest

from agent_meter_mcp.core import check
from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.models import Usage, Who
from agent_meter_mcp.core.text import ID_MAX, NAME_MAX

GOOD = Who("ann", "llm", "bob", "p", "s")


@pytest.mark.parametrize(
    ("who", "usage", "operation", "field"),
    [
        (GOOD.replace(agent=""), Usage(), "chat", "agent"),
        (GOOD.replace(agent="*"), Usage(), "chat", "agent"),
        (GOOD.replace(service=" llm"), Usage(), "chat", "service"),
        (GOOD.replace(parent="ann"), Usage(), "chat", "parent"),
        (GOOD.replace(project="p" * (ID_MAX + 1)), Usage(), "chat", "project"),
        (GOOD.replace(session="\u202e"), Usage(), "chat", "session"),
        (GOOD, Usage(), "chat\n", "operation"),
        (GOOD, Usage(unit_type="u" * (check.UNIT_TYPE_MAX + 1)), "chat", "unit_type"),
        (GOOD, Usage(model="m" * (NAME_MAX + 1)), "chat", "model"),
    ],
)
def test_a_name_that_cannot_be_is_refused_each_time(
    who: Who, usage: Usage, operation: str, field: str
) -> None:
    for _ in range(2):
        check.texts(GOOD, Usage(unit_type="page", model="m"), "chat")
        with pytest.raises(InvalidInput) as refused:
            check.texts(who, usage, operation)
        assert refused.value.field == field


def test_names_are_checked_whatever_was_seen_before() -> None:
    for number in range(2 * check.SEEN_MAX):
        check.texts(GOOD.replace(agent=f"agent-{number}"), Usage())
    with pytest.raises(InvalidInput):
        check.texts(GOOD.replace(agent="agent-1\x1b"), Usage())
