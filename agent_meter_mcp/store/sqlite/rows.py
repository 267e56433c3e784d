"""Values of the core as columns, and back; and the rows that both writer and readers look for."""

from __future__ import annotations

from agent_meter_mcp.core.errors import InvalidInput, StoreUnusable
from agent_meter_mcp.core.limits import Policy
from agent_meter_mcp.core.models import (
    Agent,
    KillSwitch,
    Limit,
    LimitKey,
    Reservation,
    StoredEvent,
    Subject,
    Usage,
    UsageEvent,
    Who,
)
from agent_meter_mcp.core.windows import check_zone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from agent_meter_mcp.core.models import Outcome, ReservationState

    from .driver import Connection

    Row = tuple[Any, ...]

AMOUNTS = "requests, units, input, output, cache_read, cache_write, cache_write_1h, cost"
EVENT_COLUMNS = f"id, key, service, dim, {AMOUNTS}, price, booked, occurred, status, duration, metadata"
RESERVATION_COLUMNS = (
    "id, reservation_id, key, service, agent, project, session, operation, source, model, unit_type, "
    f"{AMOUNTS}, price, expires, state"
)
_NULLABLE = {*f"{AMOUNTS}, price, booked, occurred, status, duration, metadata".split(", ")} - {"requests"}


def _insert(table: str, columns: str) -> str:
    """Takes a row that is `bound`."""
    marks = ", ".join("nullif(?, '')" if column in _NULLABLE else "?" for column in columns.split(", "))
    return f"INSERT INTO {table} ({columns}) VALUES ({marks})"


EVENT_INSERT = f"{_insert('event', EVENT_COLUMNS)} ON CONFLICT (key, service) DO NOTHING"
RESERVATION_INSERT = _insert("reservation", RESERVATION_COLUMNS)
REFUSAL_INSERT = _insert("refusal", f"id, second, agent, service, limit_id, dim, count, {AMOUNTS}, price")
HEAD_UPSERT = (
    "INSERT INTO head (counter, bucket, used, held, version) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (counter) DO UPDATE"
    " SET bucket = excluded.bucket, used = excluded.used, held = excluded.held, version = excluded.version"
)
ONE_MORE = "INSERT INTO meta (k, v) VALUES (?, 1) ON CONFLICT (k) DO UPDATE SET v = v + 1"
CELL_UPSERT = (
    "INSERT INTO cell (counter, slot, bucket, used, held) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (counter, slot) DO UPDATE"
    " SET bucket = excluded.bucket, used = excluded.used, held = excluded.held"
)
EVENT_SELECT = """
SELECT e.id, e.key, d.service, d.agent, d.operation, d.model, d.project, d.session, d.source, d.unit_type,
    d.outcome,
    e.requests, e.units, e.input, e.output, e.cache_read, e.cache_write, e.cache_write_1h, e.cost, p.version,
    e.booked, e.occurred, e.status, e.duration, e.metadata
FROM event e CROSS JOIN dim d ON d.id = e.dim LEFT JOIN price p ON p.id = e.price"""
REFUSAL_SELECT = """
SELECT r.id, d.service, d.agent, d.operation, d.model, d.project, d.session, d.source, d.unit_type,
    r.requests, r.units, r.input, r.output, r.cache_read, r.cache_write, r.cache_write_1h, r.cost, r.price,
    r.count, r.limit_id
FROM refusal r CROSS JOIN dim d ON d.id = r.dim"""
STATES: tuple[ReservationState, ...] = ("open", "settled", "released", "expired")
OPEN, SETTLED, RELEASED, EXPIRED = range(4)
OF_METRIC = (slice(1, 2), slice(2, 3), slice(3, 8), slice(8, 9))
"""Where the metrics are among the figures of a sum."""


def key_of(event_id: str) -> str | bytes:
    """The id as it is stored: of a canonical lower-case UUID its 16 bytes (a third of the size), else the
    text."""
    if len(event_id) == 36 and event_id[8:24:5] == "----":
        digits = event_id.replace("-", "")
        try:
            key = bytes.fromhex(digits)
        except ValueError:
            return event_id
        if key.hex() == digits and len(key) == 16:
            return key
    return event_id


def id_of(key: str | bytes) -> str:
    """The inverse of `key_of`."""
    if isinstance(key, str):
        return key
    digits = key.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def bound(row: Row) -> list[Any]:
    """A row as it is bound: NULL as '', bytes as a bytearray.

    Of None and bytes pysqlite3 asks whether they adapt themselves, and raises and drops errors on the way: a
    microsecond each, where the rest of the row takes four."""
    return ["" if value is None else bytearray(value) if type(value) is bytes else value for value in row]


def amount_columns(usage: Usage) -> Row:
    """The eight columns of `AMOUNTS`; NULL where nothing was stated."""
    return (
        usage.requests,
        usage.units_micro,
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.cache_write_1h_tokens,
        usage.cost_nano_usd,
    )


def usage_of(amounts: Row, model: str, unit_type: str, price_version: str | None) -> Usage:
    cost = amounts[7]
    source = "unpriced" if cost is None else ("reported" if price_version is None else "computed")
    requests, units_micro, inputs, outputs, cache_reads, cache_writes, cache_writes_1h, _ = amounts
    return Usage(
        requests,
        units_micro,
        unit_type or None,
        inputs,
        outputs,
        cache_reads,
        cache_writes,
        cache_writes_1h,
        model or None,
        cost,
        source,
        None if cost is None else price_version,
    )


def event_of(row: Row) -> StoredEvent:
    """From a row of `EVENT_SELECT`."""
    seq, key, service, agent, operation, model, project, session, source, unit_type, outcome = row[:11]
    booked, occurred, status, duration, metadata = row[20:]
    who = Who(agent, service, None, project or None, session or None)
    usage = usage_of(row[11:19], model, unit_type, row[19])
    event = UsageEvent(
        id_of(key), who, usage, operation or None, source, occurred, status, duration, metadata
    )
    return StoredEvent(seq, event, outcome, seq if booked is None else booked)


def stored_event(connection: Connection, service: str, key: str | bytes) -> StoredEvent | None:
    """The event under this key."""
    row = connection.execute(
        f"{EVENT_SELECT} WHERE e.key = ? AND e.service = (SELECT id FROM service WHERE name = ?)",
        (key, service),
    ).fetchone()
    return None if row is None else event_of(row)


def refusal_of(row: Row) -> StoredEvent:
    """From a row of `REFUSAL_SELECT`."""
    seq, service, agent, operation, model, project, session, source, unit_type = row[:9]
    who = Who(agent, service or None, None, project or None, session or None)
    usage = usage_of(row[9:17], model, unit_type, row[17])
    event = UsageEvent(f"refused-{seq}", who, usage, operation or None, source)
    outcome: Outcome = "rejected"
    return StoredEvent(seq, event, outcome, seq, row[18], row[19] or None)


def reservation_of(row: Row, at_us: int) -> Reservation:
    """From a row of `RESERVATION_COLUMNS`; one that is over at `at_us` is reported as expired."""
    seq, reservation_id, key, service, agent, project, session, operation, source, model, unit_type = row[:11]
    price, expires, state = row[19:]
    if state == OPEN and expires <= at_us:
        state = EXPIRED
    return Reservation(
        reservation_id,
        id_of(key),
        Who(agent, service, None, project or None, session or None),
        usage_of(row[11:19], model, unit_type, price),
        operation or None,
        source,
        seq,
        expires,
        STATES[state],
    )


def stored_reservation(connection: Connection, reservation_id: str, at_us: int) -> Reservation | None:
    """As it stands at `at_us`."""
    row = connection.execute(
        f"SELECT {RESERVATION_COLUMNS} FROM reservation WHERE reservation_id = ?", (reservation_id,)
    ).fetchone()
    return None if row is None else reservation_of(row, at_us)


def reservation_columns(held: Reservation, key: str | bytes) -> Row:
    """`key` is that of its event."""
    who, usage = held.who, held.usage
    return (
        held.reserved_at_us,
        held.reservation_id,
        key,
        who.service or "",
        who.agent,
        who.project or "",
        who.session or "",
        held.operation or "",
        held.source,
        usage.model or "",
        usage.unit_type or "",
        *amount_columns(usage),
        usage.price_version,
        held.expires_at_us,
        STATES.index(held.state),
    )


def limit_of(row: Row) -> Limit:
    """From limit_id, subject, name, service, metric, window, max, action, zone, thresholds, created."""
    limit_id, kind, name, service, metric, window, maximum, action, zone, thresholds, created = row
    key = LimitKey(Subject(kind, name or None), service or None, metric, window)
    percents = tuple(int(part) for part in thresholds.split(",") if part)
    return Limit(limit_id, key, maximum, action, zone, percents, created)


def stored_policy(connection: Connection) -> Policy:
    """The configuration."""
    limits = [
        limit_of(row)
        for row in connection.execute(
            "SELECT limit_id, subject, name, service, metric, window, max, action, zone, thresholds,"
            " created FROM quota ORDER BY created, limit_id"
        )
    ]
    switches = [
        KillSwitch(kind, name or None, reason, by, at)
        for kind, name, reason, by, at in connection.execute(
            "SELECT kind, name, reason, engaged_by, engaged_at FROM switch"
        )
    ]
    return Policy(agents_since(connection, -1), limits, switches)


def agents_since(connection: Connection, seq: int) -> list[Agent]:
    """Those with a tier or a parent that nobody had heard of before or at that seq."""
    rows = connection.execute(
        "SELECT agent_id, name, tier, owner, parent FROM agent"
        " WHERE created > ? AND (tier IS NOT NULL OR parent IS NOT NULL)",
        (seq,),
    )
    return [Agent(*row) for row in rows]


def check_zone_of(limit: Limit) -> None:
    """Raises StoreUnusable where the list of time zones is older than the one by which the limit was set: it
    is not the usage that is wrong, and whoever keeps that for later is to go on doing so."""
    try:
        check_zone(limit.zone)
    except InvalidInput:
        raise StoreUnusable(
            f"the limit of {limit.key} counts in the time zone {limit.zone!r}, which is not known here."
            " Nothing was changed; install a newer tzdata, or set the limit in another zone."
        ) from None


def limit_columns(limit: Limit) -> Row:
    key = limit.key
    return (
        limit.limit_id,
        key.subject.kind,
        key.subject.name or "",
        key.service or "",
        key.metric,
        key.window,
        limit.max,
        limit.action,
        limit.zone,
        ",".join(str(percent) for percent in limit.thresholds),
        limit.created_at_us,
    )
