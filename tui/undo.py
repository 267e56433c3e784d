"""What puts back what the last action changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_meter_mcp.core.errors import Conflict
from agent_meter_mcp.core.figures import target
from agent_meter_mcp.core.text import shown
from agent_meter_mcp.core.value import Value

from .limit_form import exact, wish_of
from .view import what_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agent_meter_mcp.core.models import Limit, LimitKey, SwitchKind
    from agent_meter_mcp.sources.base import Operator, Reader

    from .limit_form import Wish


class Undo(Value):
    """`question` says what comes back, `done` that it has. `resumed` is what it lets go on, if it does."""

    question: str
    done: str
    act: Callable[[Operator], Awaitable[object]]
    resumed: tuple[SwitchKind, str | None] | None = None


async def limit_as(reader: Reader, key: LimitKey, seen: Wish | None) -> Limit | None:
    """The limit with this key, which is still as it was seen (None: it is not there). Raises Conflict."""
    limits = [view.limit for view in await reader.limits()]
    now = next((limit for limit in limits if limit.key == key), None)
    if (None if now is None else wish_of(now)) != seen:
        raise changed_meanwhile(f"the limit {what_of(key)}")
    return now


def changed_meanwhile(what: str) -> Conflict:
    return Conflict(f"{what} was changed by somebody else meanwhile, so nothing was done; look again")


def set_again(reader: Reader, limit: Limit, after: Wish | None) -> Undo:
    """It was changed to what is `after` it, or (None) removed."""
    name, most = what_of(limit.key), exact(limit.key.metric, limit.max)

    async def act(operator: Operator) -> None:
        await limit_as(reader, limit.key, after)
        await operator.set_limit(
            limit.key, limit.max, action=limit.action, zone=limit.zone, thresholds=limit.thresholds
        )

    return Undo(f"Set {name} to {most} again, as it was before?", f"{name}: {most} again", act)


def remove_again(reader: Reader, made: Wish) -> Undo:
    """After it was made."""
    name = what_of(made.key)

    async def act(operator: Operator) -> None:
        limit = await limit_as(reader, made.key, made)
        if limit is not None:
            await operator.remove_limit(limit.limit_id)

    return Undo(f"Remove the limit {name}, which was made just now?", f"{name} is removed again", act)


def stop_again(kind: SwitchKind, name: str | None, reason: str) -> Undo:
    what = target(kind, name, shown)
    return Undo(
        f"Stop {what} again ({shown(reason)})?",
        f"{what} is stopped again",
        lambda operator: operator.stop(kind, name, reason),
    )


def resume_again(kind: SwitchKind, name: str | None) -> Undo:
    what = target(kind, name, shown)
    return Undo(
        f"Let {what} go on, which was stopped just now?",
        f"{what} goes on",
        lambda operator: operator.resume(kind, name),
        (kind, name),
    )


def agent_again(agent_id: str, before: dict[str, str | None]) -> Undo:
    """`before` are the fields that were changed, as they were."""
    words = ", ".join(f"{field} {shown(value) if value else 'none'}" for field, value in before.items())
    return Undo(
        f"Set {shown(agent_id)} back to: {words}?",
        f"{shown(agent_id)} is as it was",
        lambda operator: operator.set_agent(agent_id, before),
    )
