"""What a model asks about under a mistyped name: an answer of nothing would tell it that all is well."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from agent_meter_mcp.core.models import EACH
from agent_meter_mcp.ledger.alike import alike

from .wording import quoted

if TYPE_CHECKING:
    from .calls import Call
    from .fields import Result

    ResultT = TypeVar("ResultT", bound=Result)


async def doubted(call: Call, answer: ResultT, agent: str | None, service: str | None) -> ResultT:
    """The answer; its message asks about a name that is not known and looks like one that is."""
    for kind, name in (("agent", agent), ("service", service)):
        # Who is bound to a service may ask for any agent, and see none.
        if name in (None, EACH) or call.caller.role == "service":
            continue
        if await call.ledger.knows(call.caller, kind, name):
            continue
        if (meant := await alike(call.ledger, call.caller, kind, name)) is not None:
            answer.message += (
                f" No usage of {kind} {quoted(name)} is known yet: did you mean {quoted(meant)}?"
            )
    return answer
