"""The configuration: agents, limits, kill switches (rules 22 to 24)."""

from __future__ import annotations

from agent_meter_mcp.core.commands import LimitSet, RemoveLimit, SetAgent, SetLimit, SetSwitch, Switched
from agent_meter_mcp.core.errors import InvalidInput, NotFound
from agent_meter_mcp.core.models import LIMITS_MAX, Agent, AuditEntry, KillSwitch, Limit, audited

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent_meter_mcp.core.value import Value

    from .memory_book import Book


def set_agent(book: Book, command: SetAgent) -> Agent:
    before = book.agents.get(command.agent_id)
    after = (before or Agent(command.agent_id)).replace(**dict(command.changes))
    if after == before:
        return after
    if after.parent is not None and (before is None or before.parent != after.parent):
        book.policy().check_parent(after.agent_id, after.parent)
    seq = audit(book, command.actor, "set_agent", f"agent {after.agent_id}", before, after)
    book.keep_agent(after, seq)
    return after


def set_limit(book: Book, command: SetLimit) -> LimitSet:
    same = [limit for limit in book.limits if limit.key == command.key]
    if not same:
        if len(book.limits) >= LIMITS_MAX:
            raise InvalidInput("limit", f"there are {LIMITS_MAX} limits already; remove one first")
        created = command.applied_to(None, book.at_us)
        book.limits.append(created)
        audit(book, command.actor, "set_limit", str(command.key), None, created)
        return LimitSet(created, "created")
    before, after = same[0], command.applied_to(same[0], book.at_us)
    if after == before:
        return LimitSet(after, "unchanged")
    book.limits[book.limits.index(before)] = after
    audit(book, command.actor, "set_limit", str(command.key), before, after)
    return LimitSet(after, "changed")


def remove_limit(book: Book, command: RemoveLimit) -> Limit:
    for limit in book.limits:
        if limit.key == command.key if command.limit_id is None else limit.limit_id == command.limit_id:
            book.limits.remove(limit)
            audit(book, command.actor, "remove_limit", str(limit.key), limit, None)
            return limit
    raise NotFound("there is no such limit. list_limits shows them with their ids.")


def set_switch(book: Book, command: SetSwitch) -> Switched:
    same = [switch for switch in book.switches if (switch.kind, switch.name) == (command.kind, command.name)]
    if bool(same) == command.engaged:
        return Switched(same[0] if same else None, command.engaged, False, _still(book, command))
    if command.engaged:
        switch = KillSwitch(command.kind, command.name, command.reason or "", command.actor, book.at_us)
        book.switches.append(switch)
        audit(book, command.actor, "engage_kill_switch", str(switch), None, switch, command.reason)
    else:
        switch = same[0]
        book.switches.remove(switch)
        audit(book, command.actor, "release_kill_switch", str(switch), switch, None, command.reason)
    return Switched(switch, command.engaged, True, _still(book, command))


def _still(book: Book, command: SetSwitch) -> KillSwitch | None:
    return None if command.engaged else book.policy().still_stopped(command.kind, command.name)


def audit(
    book: Book,
    actor: str,
    action: str,
    target: str,
    before: Value | None,
    after: Value | None,
    reason: str | None = None,
) -> int:
    seq = book.take_seq()
    book.audit.append(AuditEntry(seq, actor, action, target, audited(before), audited(after), reason))
    return seq
