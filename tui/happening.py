"""What happens, as rows: usage, refusals, control actions, alerts; and all of one of them. Pure."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from agent_meter_mcp.core.figures import UNKNOWN, amount, cost_of, counted, dollars, number, of_metric
from agent_meter_mcp.core.models import METRICS, AuditEntry, LimitKey, StoredEvent, Subject
from agent_meter_mcp.core.text import shown
from agent_meter_mcp.core.value import Value
from agent_meter_mcp.sources.base import EVENTS_SHOWN

from .filters import Facts, wanted
from .format import age, brief, brief_dollars, short_count
from .view import (
    NAME_WIDTH,
    TIME_IN_FULL,
    Cell,
    Row,
    counted_by,
    dollars_in_full,
    moment,
    name_cell,
    time_cell,
    what_of,
    whom_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import tzinfo

    from agent_meter_mcp.core.models import KillSwitch, Limit, Metric, SubjectKind
    from agent_meter_mcp.core.queries import AlertView, Group, Summary
    from agent_meter_mcp.sources.base import Snapshot

    from .view import Style

REPEATS_US = 90_000_000
"""Refusals of the same are one row as long as no more time than this is between them: who waits as long as it
is told tries again within a minute."""
TEXT_MAX = 10_000
COST_WIDTH = 7
"""What the feed has for it."""
_DONE = {
    "engage_kill_switch": "stopped",
    "release_kill_switch": "let go on",
    "set_limit": "set limit",
    "remove_limit": "removed limit",
    "set_agent": "changed",
    "create_key": "made",
    "revoke_key": "revoked",
}


_TELLING = {
    **dict.fromkeys(("set_limit", "remove_limit"), ("max",)),
    "set_agent": ("tier", "owner", "parent", "name"),
}
"""Fields that say what it is which comes or goes."""


class Happening(Value):
    """A row of the feed. Of refusals that are folded: the newest, how many, and since when."""

    newest: StoredEvent | AuditEntry
    count: int
    since_seq: int

    @property
    def key(self) -> str:
        """That of the first, so that it stays while repeats come in."""
        return str(self.since_seq)


def happenings(snapshot: Snapshot, *, only_refused: bool = False, typed: str = "") -> list[Happening]:
    """Newest first; actions only as far back as there are events, and only among all that happens."""
    events = snapshot.events
    if only_refused:
        events = [event for event in events if event.outcome == "rejected"]
    oldest_seq = events[-1].seq if events else 0
    actions = [] if only_refused else [one for one in snapshot.actions if one.seq >= oldest_seq]
    has = wanted(typed)
    items: Sequence[StoredEvent | AuditEntry] = events
    if actions:
        items = sorted([*events, *actions], key=lambda one: -one.seq)
    return folded(items if has is None else [item for item in items if has(_facts(item))])


def folded(items: Iterable[StoredEvent | AuditEntry]) -> list[Happening]:
    """Refusals of the same agent, for the same reason, are one; all else stays as it is."""
    found: list[Happening] = []
    open_at: dict[tuple[object, ...], int] = {}
    for item in items:
        if isinstance(item, AuditEntry) or item.outcome != "rejected":
            found.append(Happening(item, 1 if isinstance(item, AuditEntry) else item.count, item.seq))
            continue
        what = (item.event.who.agent, item.event.who.service, item.event.operation, item.limit_id)
        at = open_at.get(what)
        if at is not None and found[at].since_seq - item.seq <= REPEATS_US:
            found[at] = found[at].replace(count=found[at].count + item.count, since_seq=item.seq)
            continue
        open_at[what] = len(found)
        found.append(Happening(item, item.count, item.seq))
    return found


def newer_in(snapshot: Snapshot, seen: Snapshot) -> str:
    """How many events there are that were not seen: at least so many, where no more than these are told."""
    newest = seen.events[0].seq if seen.events else 0
    count = sum(event.seq > newest for event in snapshot.events)
    return f"{count}+" if count >= EVENTS_SHOWN else str(count)


def _facts(item: StoredEvent | AuditEntry) -> Facts:
    if isinstance(item, AuditEntry):
        words = {"agent": item.target, "who": item.actor, "outcome": "adm"}
        return Facts(f"ADM {item.actor} {item.action} {item.target} {item.reason or ''}", words)
    made, who = item.event, item.event.who
    state = {"accepted": "ok", "over_limit": "over"}.get(
        item.outcome, "403 stopped" if item.limit_id is None else "429 over budget"
    )
    words = {
        "agent": who.agent, "service": who.service, "project": who.project, "session": who.session,
        "operation": made.operation, "model": made.usage.model, "source": made.source,
        "outcome": f"{item.outcome} {state}", "state": f"{item.outcome} {state}",
    }  # fmt: skip
    told = [word or "" for word in words.values()]
    cost = Decimal(made.usage.cost_nano_usd or 0).scaleb(-9)
    return Facts("\n".join(told), words, {"cost": cost, "tokens": made.usage.tokens or 0})


# Rows


def feed_row(one: Happening, zone: tzinfo, limits: Mapping[str, Limit]) -> Row:
    """When, what became of it, who, what, what it cost, with which model, in which session."""
    if isinstance(one.newest, AuditEntry):
        entry = one.newest
        whom, what = _concerns(entry)
        did = " ".join(part for part in (_done(entry), what, "by", entry.actor) if part)
        when = time_cell(entry.seq, zone, "%H:%M:%S")
        told = (
            Cell("ADM", "held"),
            name_cell(whom),
            Cell(shown(did, width=TEXT_MAX)),
            Cell(""),
            Cell(""),
            Cell(""),
        )
        return Row(one.key, (when, *told))
    usage, who = one.newest.event.usage, one.newest.event.who
    when, code, what, cost = event_row(one, zone, limits).cells
    style: Style = code.style if one.newest.outcome == "rejected" else ""
    model = Cell(shown(usage.model or "", width=NAME_WIDTH), "dim")
    session = Cell(shown(who.session or who.project or "", width=NAME_WIDTH), "dim")
    if len(cost.text) > COST_WIDTH:
        cost = cost.replace(text=brief_dollars(usage.cost_nano_usd or 0, COST_WIDTH))
    cells = (when, code, name_cell(who.agent, style), what, cost, model, session)
    return Row(one.key, cells, one.newest.event.id)


def event_row(one: Happening, zone: tzinfo, limits: Mapping[str, Limit]) -> Row:
    """When, what became of it, what, and what it cost; of refusals first how many, and why."""
    event = one.newest
    assert isinstance(event, StoredEvent)
    when = time_cell(event.seq, zone, "%H:%M:%S")
    usage = event.event.usage
    what = " ".join(part for part in (event.event.who.service, event.event.operation) if part)
    what = shown(what, width=NAME_WIDTH)
    if event.outcome == "rejected":
        stopped, within_us = event.limit_id is None, event.seq - one.since_seq
        code = Cell("403" if stopped else "429", "held" if stopped else "alarm")
        times = f"×{short_count(one.count)} " if one.count > 1 else ""
        within = f" in {age(within_us)}" if within_us >= 1_000_000 else ""
        cells = (when, code, Cell(f"{times}{_by(event, limits)} {what}{within}", code.style), Cell(""))
        return Row(one.key, cells, event.event.id)
    over = event.outcome == "over_limit"
    tokens = f" {short_count(usage.tokens)} tok" if usage.tokens else ""
    code = Cell("over" if over else "ok", "warn" if over else "good")
    nano_usd = usage.cost_nano_usd
    cost = Cell(UNKNOWN) if nano_usd is None else Cell(dollars(nano_usd), full=dollars_in_full(nano_usd))
    cells = (when, code, Cell(f"{what}{tokens}", "warn" if over else ""), cost)
    return Row(one.key, cells, event.event.id)


def _by(event: StoredEvent, limits: Mapping[str, Limit]) -> str:
    """Why it was refused, in the few cells of a row: "over $8.00/24h"."""
    if event.limit_id is None:
        return "stopped"
    limit = limits.get(event.limit_id)
    if limit is None:
        return "over budget"
    metric, window = limit.key.metric, limit.key.window
    most = of_metric(metric, brief(metric, limit.max))
    return f"over {most} in total" if window == "total" else f"over {most}/{window}"


def limits_by_id(limits: Iterable[Limit]) -> dict[str, Limit]:
    return {limit.limit_id: limit for limit in limits}


def alert_line(view: AlertView, zone: tzinfo) -> Cell:
    """When, which limit, whom, and how far it is used."""
    alert, key = view.alert, view.key
    style: Style = "alarm" if alert.threshold >= 100 else "warn"
    sign = "✖" if alert.threshold >= 100 else "▲"
    when = moment(alert.raised_at_us, zone, "%d %b %H:%M")
    if key is None:
        return Cell(f"{sign} {when}  {alert.threshold} % of a limit that is gone", style)
    whom = shown(alert.scope or key.subject.name or "everyone", width=NAME_WIDTH)
    used = f"{number(key.metric, alert.used)} of {amount(key.metric, alert.max)}"
    return Cell(f"{sign} {when}  {whom} {alert.threshold} %: {used}  ({what_of(key)})", style)


def why_refused(event: StoredEvent, limits: Mapping[str, Limit], switches: Iterable[KillSwitch] = ()) -> str:
    """In words: by which limit, or that it was stopped: by whom, if the switch is still engaged."""
    times = f", {event.count} times within a second" if event.count > 1 else ""
    if event.limit_id is None:
        who = event.event.who
        for switch in switches:
            if (switch.kind, switch.name) in (
                ("everything", None),
                ("service", who.service),
                ("agent", who.agent),
            ):
                by = shown(f"{switch} is stopped by {switch.engaged_by}: {switch.reason}", width=NAME_WIDTH)
                return f"{by}{times}"
        return f"it, an agent above it, the service or everything was stopped{times}"
    limit = limits.get(event.limit_id)
    if limit is None:
        return f"over a limit that was removed since, or is not yours to see{times}"
    return f"over the limit of {amount(limit.key.metric, limit.max)} ({what_of(limit.key)}){times}"


def measured(sources: Summary) -> str:
    """What an agent said of itself, against what was measured without asking it."""
    own = [group for group in sources.groups if group.key[0] == "self"]
    others = [group for group in sources.groups if group.key[0] != "self"]
    parts = [_source(group) for group in others] or ["nothing"]
    said = _source(own[0]) if own else "nothing"
    return f"measured: {', '.join(parts)}   self-reported: {said}"


def _source(group: Group) -> str:
    name = "" if group.key[0] == "self" else f"{shown(str(group.key[0]))} "
    return f"{name}{cost_of(group.totals)} in {counted(group.totals.requests, 'request')}"


# All of one


def heading_of(one: Happening) -> str:
    """What it is, in a few words."""
    if isinstance(one.newest, AuditEntry):
        return shown(f"{one.newest.action}: {one.newest.target}", width=80)
    who = one.newest.event.who
    parts = (who.agent, who.service, one.newest.event.operation, one.newest.outcome.replace("_", " "))
    return " · ".join(shown(part, width=40) for part in parts if part)


def facts_of(
    one: Happening, limits: Mapping[str, Limit], zone: tzinfo, switches: Iterable[KillSwitch] = ()
) -> list[tuple[str, str]]:
    """Everything that the ledger has of it."""
    stored = one.newest
    if isinstance(stored, AuditEntry):
        return audit_facts(stored, zone)
    made, who, usage = stored.event, stored.event.who, stored.event.usage
    source = f" ({usage.cost_source})" if usage.cost_nano_usd is not None else ""
    prices = f", prices {usage.price_version}" if usage.price_version else ""
    facts: list[tuple[str, object]] = [
        ("what became of it", stored.outcome.replace("_", " ")),
        ("why", why_refused(stored, limits, switches) if stored.outcome == "rejected" else None),
        ("how often", f"{one.count} times in {age(stored.seq - one.since_seq)}" if one.count > 1 else None),
        ("recorded", moment(stored.seq, zone, "%Y-%m-%d %H:%M:%S.%f %Z")),
        ("counts at", moment(stored.booked_at_us, zone, "%Y-%m-%d %H:%M:%S.%f %Z")),
        ("agent", who.agent), ("parent", who.parent), ("service", who.service),
        ("operation", made.operation), ("project", who.project), ("session", who.session),
        ("model", usage.model), ("id", made.id), ("told by", made.source),
        ("requests", f"{usage.requests:,}"),
        ("input tokens", usage.input_tokens), ("output tokens", usage.output_tokens),
        ("cache read tokens", usage.cache_read_tokens), ("cache write tokens", usage.cache_write_tokens),
        ("cache write 1 h tokens", usage.cache_write_1h_tokens),
        ("units", None if usage.units_micro is None
            else f"{number('units', usage.units_micro)} {usage.unit_type or ''}"),
        ("cost", f"{dollars(usage.cost_nano_usd)}{source}{prices}" if source else "unknown (unpriced)"),
        ("status code", made.status_code),
        ("duration", None if made.duration_ms is None else f"{made.duration_ms:,} ms"),
        ("metadata", made.metadata),
    ]  # fmt: skip
    return _told(facts)


def audit_facts(entry: AuditEntry, zone: tzinfo) -> list[tuple[str, str]]:
    """Everything that the ledger has of a control action."""
    return _told(
        [
            ("when", moment(entry.seq, zone, TIME_IN_FULL)),
            ("who", entry.actor),
            ("did", entry.action),
            ("to what", entry.target),
            ("why", entry.reason),
            *[(f"before: {name}", _readable(name, told, zone)) for name, told in fields_of(entry.before)],
            *[(f"after: {name}", _readable(name, told, zone)) for name, told in fields_of(entry.after)],
        ]
    )


def _readable(name: str, told: str, zone: tzinfo) -> str:
    """A moment as one."""
    is_moment = name.endswith("_at_us") and told.isdigit()
    return moment(int(told), zone, TIME_IN_FULL) if is_moment else told


def _told(facts: Sequence[tuple[str, object]]) -> list[tuple[str, str]]:
    return [
        (shown(name), f"{value:,}" if isinstance(value, int) else shown(str(value), width=TEXT_MAX))
        for name, value in facts
        if value is not None
    ]


def fields_of(text: str | None) -> list[tuple[str, str]]:
    """What an audit entry has before or after, field by field; what is in a field stands behind a dot."""
    if text is None:
        return []
    try:
        value: object = json.loads(text)
    except ValueError:
        return [("", text)]
    found: list[tuple[str, str]] = []

    def walk(name: str, value: object) -> None:
        if isinstance(value, dict):
            for field, part in cast("dict[str, Any]", value).items():
                walk(f"{name}.{field}" if name else field, part)
        elif value is not None:
            found.append((name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))

    walk("", value)
    metric = dict(found).get("key.metric")
    if metric in METRICS:  # an amount is kept in the metric's integer unit
        found = [(name, number(metric, int(told)) if name == "max" else told) for name, told in found]
    return found


def what_changed(entry: AuditEntry) -> str:
    """ "max 10 → 20": only what is another than before; of what comes or goes, what is told of it."""
    before, after = dict(fields_of(entry.before)), dict(fields_of(entry.after))
    is_other = bool(before and after)
    names = [
        name
        for name in {**before, **after}
        if before.get(name) != after.get(name) and (is_other or name in _TELLING.get(entry.action, ()))
    ]
    return ", ".join(f"{name} {before.get(name, UNKNOWN)} → {after.get(name, UNKNOWN)}" for name in names)


def audit_row(entry: AuditEntry, zone: tzinfo) -> Row:
    """When, who, what, to what, what was changed, and why."""
    when = time_cell(entry.seq, zone, "%d %b %H:%M")
    words = (entry.actor, _done(entry), _target(entry), what_changed(entry), entry.reason or "")
    return Row(str(entry.seq), (when, *(Cell(shown(word, width=NAME_WIDTH)) for word in words)))


def _done(entry: AuditEntry) -> str:
    return _DONE.get(entry.action, entry.action.replace("_", " "))


def _concerns(entry: AuditEntry) -> tuple[str, str]:
    """For the feed, in whose column it stands: whom it is about, and which limit of his."""
    key = _limit_key(entry)
    whom = entry.target if key is None else whom_of(key.subject)
    return whom.removeprefix("agent "), "" if key is None else counted_by(key)


def _target(entry: AuditEntry) -> str:
    """A limit by the name that it has on all pages, which begins with whom it is for."""
    key = _limit_key(entry)
    return shown(entry.target, width=NAME_WIDTH) if key is None else what_of(key)


def _limit_key(entry: AuditEntry) -> LimitKey | None:
    told = dict(fields_of(entry.after or entry.before))
    if told.get("key.metric") not in METRICS:
        return None
    subject = Subject(cast("SubjectKind", told.get("key.subject.kind", "pool")), told.get("key.subject.name"))
    metric, window = cast("Metric", told["key.metric"]), told.get("key.window", UNKNOWN)
    return LimitKey(subject, told.get("key.service"), metric, window)
