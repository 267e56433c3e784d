"""At which moment usage counts.

Usage counts when it occurred, never in the future. Usage that an agent reports about itself counts no earlier
than 5 minutes before it was recorded, so that nobody backdates its way out of a limit."""

from __future__ import annotations

from .errors import InvalidInput
from .models import BACKDATE_MAX_US, FUTURE_MAX_US


def check_occurred(occurred_at_us: int | None, at_us: int) -> None:
    """Raises InvalidInput when usage is said to have occurred more than 5 minutes ahead, or before 1970."""
    if occurred_at_us is None:
        return
    if occurred_at_us > at_us + FUTURE_MAX_US:
        from .figures import length

        ahead, most = length(occurred_at_us - at_us), length(FUTURE_MAX_US)
        raise InvalidInput(
            "occurred_at", f"is {ahead} in the future; at most {most} is accepted. Leave it out for now"
        )
    if occurred_at_us < 0:
        raise InvalidInput("occurred_at", "is before 1970")


def booked_at(occurred_at_us: int | None, recorded_at_us: int, *, may_backdate: bool) -> int:
    """The moment at which usage counts."""
    if occurred_at_us is None or occurred_at_us >= recorded_at_us:
        return recorded_at_us
    return occurred_at_us if may_backdate else max(occurred_at_us, recorded_at_us - BACKDATE_MAX_US)
