"""What a meter raises: OverBudget, and the tree of MeterError, from wherever the meter is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_meter_mcp.core.errors import (
    Forbidden,
    InvalidInput,
    MeterError,
    Overloaded,
    StoreError,
    Unreachable,
)

from .results import members_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .results import Decided

UNAVAILABLE = (Unreachable, StoreError, Overloaded)
"""The meter cannot answer now, whatever is asked: `on_error` says what to do then."""


class Failed(Unreachable):
    """The meter is there, or a proxy before it, and fails at what it was sent: the next may be another
    matter, and so may half of it."""


class OverBudget(Exception):
    """Work that was not admitted: nothing failed, so it is no MeterError. `decision` explains it."""

    def __init__(self, decision: Decided) -> None:
        super().__init__(decision.message)
        self.decision = decision

    @property
    def retry_after_s(self) -> int | None:
        """When enough comes back; None: waiting alone does not help."""
        return self.decision.retry_after_s


def error_of(status: int, document: object) -> MeterError:
    """The error that a problem document tells of, or the same members of a tool's answer. What no meter says,
    such as the 404 of a proxy while it is set up anew, or its page for who has to log in, is that there is
    none: nothing is refused for good by that."""
    members = members_of(document)
    detail = str(members.get("detail") or members.get("title") or f"the meter answered HTTP {status}")
    code, field = members.get("code"), members.get("field")
    if code == InvalidInput.code:
        name = field if isinstance(field, str) else "request"
        return InvalidInput(name, detail.removeprefix(f"{name}: "))
    if code == "internal_error" or status == 408 or (code is None and status in (400, 413, 422)):
        return Failed(detail)
    kind = next((kind for kind in _kinds(MeterError) if kind.code == code), None)
    if kind is not None and kind is not MeterError:
        return kind(detail)
    if status in (401, 403) and code is not None:
        return Forbidden(detail)
    is_a_meters = status < 300 or (status < 500 and status != 429 and code is not None)
    return MeterError(detail) if is_a_meters else Unreachable(detail)


def _kinds(kind: type[MeterError]) -> Iterator[type[MeterError]]:
    yield kind
    for special in kind.__subclasses__():
        yield from _kinds(special)
