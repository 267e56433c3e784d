"""Agents, limits and kill switches. A change takes effect at once and is audited, and every counter that it
touches is computed anew."""

from __future__ import annotations

from agent_meter_mcp.core.commands import LimitSet, RemoveLimit, SetAgent, SetLimit, SetSwitch, Switched
from agent_meter_mcp.core.errors import InvalidInput, NotFound
from agent_meter_mcp.core.models import LIMITS_MAX, Agent, KillSwitch, Limit, LimitKey, Who, audited

from .book import NEW_AGENTS
from .rows import ONE_MORE, limit_columns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent_meter_mcp.core.limits import Policy
    from agent_meter_mcp.core.value import Value

    from .writer import Writer


def set_agent(writer: Writer, command: SetAgent) -> Agent:
    """Raises InvalidInput for a parent that is impossible."""
    before = _known_agent(writer, command.agent_id)
    after = (before or Agent(command.agent_id)).replace(**dict(command.changes))
    if after == before:
        return after
    if after.parent is not None and (before is None or before.parent != after.parent):
        unlinked = writer.book.policy.with_agent(Agent(command.agent_id))
        unlinked.check_parent(command.agent_id, after.parent)
    seq = audit(writer, command.actor, "set_agent", f"agent {command.agent_id}", before, after)
    _keep_agent(writer, before, after, seq)
    return after


def link_parent(writer: Writer, who: Who) -> None:
    """Rule 5: the first word about an agent's parent counts. Raises InvalidInput."""
    if writer.book.policy.linked(who) is None:
        return
    before = _known_agent(writer, who.agent)  # the policy does not know its name and owner
    after = (before or Agent(who.agent)).replace(parent=who.parent)
    at_us = writer.at_us
    _keep_agent(writer, before, after, at_us)
    writer.book.make_final(at_us)  # nothing of those who are heard of now has a lower seq


def _known_agent(writer: Writer, agent_id: str) -> Agent | None:
    row = writer.connection.execute(
        "SELECT agent_id, name, tier, owner, parent FROM agent WHERE agent_id = ?", (agent_id,)
    ).fetchone()
    return None if row is None else Agent(*row)


def _keep_agent(writer: Writer, before: Agent | None, after: Agent, at_us: int) -> None:
    writer.put_down()
    for agent_id in (after.agent_id, after.parent):
        if agent_id is not None:
            writer.names.know_agent(agent_id, at_us)
    execute = writer.connection.execute
    execute(
        "UPDATE agent SET name = ?, tier = ?, owner = ?, parent = ? WHERE agent_id = ?",
        (after.name, after.tier, after.owner, after.parent, after.agent_id),
    )
    # Of one that nobody has heard of before, no counter could have counted anything.
    if before is not None and before.tier != after.tier:
        _drop_counters(
            writer,
            "scope = ? AND limit_id IN (SELECT limit_id FROM quota WHERE subject IN ('agent', 'tier'))",
            (after.agent_id,),
        )
    if before is not None and before.parent != after.parent:
        above = {*writer.book.policy.lineage(after.agent_id)}
        if after.parent is not None:
            above.update(writer.book.policy.lineage(after.parent))
        marks = ", ".join("?" * len(above))
        _drop_counters(
            writer,
            f"limit_id IN (SELECT limit_id FROM quota WHERE subject = 'agent' AND name IN ({marks}))",
            tuple(above),
        )
    _changed(writer, writer.book.policy.with_agent(after), is_new_agent=before is None)


def set_limit(writer: Writer, command: SetLimit) -> LimitSet:
    """Rule 23."""
    key = command.key
    before = _limit_with(writer, key)
    if before is None and len(writer.book.policy.limits) >= LIMITS_MAX:
        raise InvalidInput("limit", f"there are {LIMITS_MAX} limits already; remove one first")
    after = command.applied_to(before, writer.at_us)
    if after == before:
        return LimitSet(after, "unchanged")
    audit(writer, command.actor, "set_limit", str(key), before, after)
    writer.put_down()
    columns = limit_columns(after)
    writer.connection.execute(
        f"INSERT INTO quota VALUES ({', '.join('?' * len(columns))}) ON CONFLICT (limit_id) DO UPDATE"
        " SET max = excluded.max, action = excluded.action, zone = excluded.zone, thresholds ="
        " excluded.thresholds",
        columns,
    )
    if before is None or before.zone != after.zone:
        _drop_family(writer, key)
    _changed(writer)
    return LimitSet(after, "created" if before is None else "changed")


def remove_limit(writer: Writer, command: RemoveLimit) -> Limit:
    """Raises NotFound."""
    if command.limit_id is not None:
        limit = writer.book.policy.limits.get(command.limit_id)
    else:
        limit = None if command.key is None else _limit_with(writer, command.key)
    if limit is None:
        raise NotFound("there is no such limit. list_limits shows them with their ids.")
    audit(writer, command.actor, "remove_limit", str(limit.key), limit, None)
    writer.put_down()
    _drop_family(writer, limit.key)
    writer.connection.execute("DELETE FROM quota WHERE limit_id = ?", (limit.limit_id,))
    _changed(writer)
    return limit


def set_switch(writer: Writer, command: SetSwitch) -> Switched:
    """Rule 23."""
    named = (command.kind, command.name)
    switches = writer.book.policy.switches
    before = next((switch for switch in switches if (switch.kind, switch.name) == named), None)
    if (before is not None) == command.engaged:
        return Switched(before, command.engaged, False, _still(writer, command))
    after = None
    if command.engaged:
        after = KillSwitch(command.kind, command.name, command.reason or "", command.actor, writer.at_us)
    action = "engage_kill_switch" if command.engaged else "release_kill_switch"
    audit(writer, command.actor, action, str(after or before), before, after, command.reason)
    execute = writer.connection.execute
    if after is not None:
        execute(
            "INSERT INTO switch (kind, name, reason, engaged_by, engaged_at) VALUES (?, ?, ?, ?, ?)",
            (after.kind, after.name or "", after.reason, after.engaged_by, after.engaged_at_us),
        )
    else:
        execute("DELETE FROM switch WHERE kind = ? AND name = ?", (command.kind, command.name or ""))
    writer.put_down()
    _changed(writer)
    return Switched(after or before, command.engaged, True, _still(writer, command))


def _still(writer: Writer, command: SetSwitch) -> KillSwitch | None:
    return None if command.engaged else writer.book.policy.still_stopped(command.kind, command.name)


def _limit_with(writer: Writer, key: LimitKey) -> Limit | None:
    return next((limit for limit in writer.book.policy.limits.values() if limit.key == key), None)


def _drop_family(writer: Writer, key: LimitKey) -> None:
    """Counters of all limits that may replace, or be replaced by, a limit with this key."""
    _drop_counters(
        writer,
        "limit_id IN (SELECT limit_id FROM quota WHERE service = ? AND metric = ? AND window = ?)",
        (key.service or "", key.metric, key.window),
    )


def _drop_counters(writer: Writer, condition: str, values: tuple[str, ...]) -> None:
    """They are worked out anew when they are needed."""
    dropped = writer.connection.execute(
        f"DELETE FROM counter WHERE {condition} RETURNING id", values
    ).fetchall()
    for table in ("head", "cell"):
        writer.connection.executemany(f"DELETE FROM {table} WHERE counter = ?", dropped)


def _changed(writer: Writer, policy: Policy | None = None, *, is_new_agent: bool = False) -> None:
    """Every process reads the configuration anew, or only the agents that are new, if there is no more to it.
    Ours does so now, unless it is told the new `policy`."""
    writer.connection.execute("UPDATE meta SET v = v + 1 WHERE k = 'epoch'")
    if is_new_agent:
        writer.connection.execute(ONE_MORE, (NEW_AGENTS,))
    writer.reload(policy)


def audit(
    writer: Writer,
    actor: str,
    action: str,
    target: str,
    before: Value | None,
    after: Value | None,
    reason: str | None = None,
) -> int:
    seq = writer.take_seq()
    writer.connection.execute(
        "INSERT INTO audit (id, actor, action, target, before, after, reason) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (seq, actor, action, target, audited(before), audited(after), reason),
    )
    return seq
