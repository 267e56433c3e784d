"""The tables, and how a file gets from any older version to this one.

`PRAGMA user_version` is the number of migrations applied, so that opening a file that is up to date needs
neither a lock nor sqlite-utils. The migrations themselves are sqlite-utils', append-only, recorded in
`_sqlite_migrations`. They raise `meta.epoch`: whoever has the file open reads the configuration anew, and
does not go on if the format is newer than it knows.

- `event.id` is the sequence (microseconds): order, clock and cursor in one. `booked` is NULL where it equals
  `id`.
- An id that is a canonical UUID is stored as its 16 bytes; any other is text. `key` is unique per service.
- `dim` interns what events have in common; '' stands for not given. Refusals have dims of their own. One
  without a source is broad: it stands for all that its agent did at its service, with its outcome.
- `counter`, `head` and `cell` are cached answers: a counter without a row is computed from the events when it
  is needed.
- `rollup` holds sums per hour (grain 0), day (1) and all time (2), over events up to `meta.rolled`, and all
  refusals; and the same by broad dims (3, 4, 5), for whoever does not ask for more."""

from __future__ import annotations

import os

from agent_meter_mcp.core.errors import StoreBusy, StoreReadOnly, StoreTooNew, StoreUnusable

from . import driver
from .turnstile import alone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlite_utils import Database, Migrations

    from .driver import Connection

APPLICATION_ID = 0x414D4554
"""'AMET', in the file's header: says whose file it is."""

VERSION = 3
GRAIN_US = (3_600_000_000, 86_400_000_000, 0)
HOUR, DAY, ALL = 0, 1, 2
BROAD = 3
"""Added to a grain: by broad dims."""

_AMOUNTS = """
    requests INTEGER NOT NULL, units INTEGER, input INTEGER, output INTEGER, cache_read INTEGER,
    cache_write INTEGER,
    cache_write_1h INTEGER, cost INTEGER"""

_FIRST = (
    "CREATE TABLE meta (k TEXT PRIMARY KEY, v INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE service (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT",
    "CREATE TABLE price (id INTEGER PRIMARY KEY, version TEXT NOT NULL UNIQUE) STRICT",
    """CREATE TABLE dim (id INTEGER PRIMARY KEY, service TEXT NOT NULL, agent TEXT NOT NULL,
    operation TEXT NOT NULL,
    model TEXT NOT NULL, project TEXT NOT NULL, session TEXT NOT NULL, source TEXT NOT NULL,
    unit_type TEXT NOT NULL, outcome TEXT NOT NULL,
    UNIQUE (agent, service, operation, model, project, session, source, unit_type, outcome)) STRICT""",
    f"""CREATE TABLE event (id INTEGER PRIMARY KEY, key ANY NOT NULL,
    service INTEGER NOT NULL REFERENCES service,
    dim INTEGER NOT NULL REFERENCES dim, {_AMOUNTS}, price INTEGER REFERENCES price, booked INTEGER,
    occurred INTEGER, status INTEGER, duration INTEGER, metadata TEXT) STRICT""",
    "CREATE UNIQUE INDEX event_key ON event (key, service)",
    "CREATE INDEX event_booked ON event (booked) WHERE booked IS NOT NULL",
    """CREATE TABLE correction (id INTEGER PRIMARY KEY, event INTEGER NOT NULL REFERENCES event,
    at INTEGER NOT NULL,
    older TEXT NOT NULL) STRICT""",
    f"""CREATE TABLE reservation (id INTEGER PRIMARY KEY, reservation_id TEXT NOT NULL UNIQUE,
    key ANY NOT NULL,
    service TEXT NOT NULL, agent TEXT NOT NULL, project TEXT NOT NULL, session TEXT NOT NULL,
    operation TEXT NOT NULL, source TEXT NOT NULL, model TEXT NOT NULL, unit_type TEXT NOT NULL, {_AMOUNTS},
    price TEXT, expires INTEGER NOT NULL, state INTEGER NOT NULL, UNIQUE (key, service)) STRICT""",
    "CREATE INDEX reservation_open ON reservation (expires) WHERE state = 0",
    f"""CREATE TABLE refusal (id INTEGER PRIMARY KEY, second INTEGER NOT NULL, agent TEXT NOT NULL,
    service TEXT NOT NULL, limit_id TEXT NOT NULL, dim INTEGER NOT NULL REFERENCES dim,
    count INTEGER NOT NULL,
    {_AMOUNTS}, price TEXT, UNIQUE (second, agent, service, limit_id)) STRICT""",
    """CREATE TABLE rollup (grain INTEGER NOT NULL, bucket INTEGER NOT NULL, dim INTEGER NOT NULL,
    n INTEGER NOT NULL,
    requests INTEGER NOT NULL, units INTEGER NOT NULL, input INTEGER NOT NULL, output INTEGER NOT NULL,
    cache_read INTEGER NOT NULL, cache_write INTEGER NOT NULL, cache_write_1h INTEGER NOT NULL,
    cost INTEGER NOT NULL, unpriced INTEGER NOT NULL, last INTEGER NOT NULL,
    PRIMARY KEY (grain, bucket, dim)) STRICT, WITHOUT ROWID""",
    """CREATE TABLE quota (limit_id TEXT PRIMARY KEY, subject TEXT NOT NULL, name TEXT NOT NULL,
    service TEXT NOT NULL,
    metric TEXT NOT NULL, window TEXT NOT NULL, max INTEGER NOT NULL, action TEXT NOT NULL,
    zone TEXT NOT NULL,
    thresholds TEXT NOT NULL, created INTEGER NOT NULL,
    UNIQUE (subject, name, service, metric, window)) STRICT""",
    """CREATE TABLE counter (id INTEGER PRIMARY KEY, limit_id TEXT NOT NULL, scope TEXT NOT NULL,
    first INTEGER,
    UNIQUE (limit_id, scope)) STRICT""",
    """CREATE TABLE head (counter INTEGER PRIMARY KEY, bucket INTEGER NOT NULL, used INTEGER NOT NULL,
    held INTEGER NOT NULL, version INTEGER NOT NULL) STRICT""",
    """CREATE TABLE cell (counter INTEGER NOT NULL, slot INTEGER NOT NULL, bucket INTEGER NOT NULL,
    used INTEGER NOT NULL, held INTEGER NOT NULL, PRIMARY KEY (counter, slot)) STRICT, WITHOUT ROWID""",
    """CREATE TABLE agent (agent_id TEXT PRIMARY KEY, name TEXT, tier TEXT, owner TEXT, parent TEXT,
    created INTEGER NOT NULL) STRICT, WITHOUT ROWID""",
    """CREATE TABLE switch (kind TEXT NOT NULL, name TEXT NOT NULL, reason TEXT NOT NULL,
    engaged_by TEXT NOT NULL,
    engaged_at INTEGER NOT NULL, PRIMARY KEY (kind, name)) STRICT, WITHOUT ROWID""",
    """CREATE TABLE alert (number INTEGER PRIMARY KEY, limit_id TEXT NOT NULL, scope TEXT NOT NULL,
    period_start INTEGER NOT NULL, threshold INTEGER NOT NULL, used INTEGER NOT NULL, max INTEGER NOT NULL,
    raised_at INTEGER NOT NULL, UNIQUE (limit_id, scope, period_start, threshold)) STRICT""",
    """CREATE TABLE key (key_id TEXT PRIMARY KEY, prefix TEXT NOT NULL UNIQUE, digest BLOB NOT NULL UNIQUE,
    role TEXT NOT NULL, bound_to TEXT, name TEXT, created INTEGER NOT NULL, expires INTEGER, revoked INTEGER,
    last_used INTEGER) STRICT, WITHOUT ROWID""",
    """CREATE TABLE audit (id INTEGER PRIMARY KEY, actor TEXT NOT NULL, action TEXT NOT NULL,
    target TEXT NOT NULL,
    before TEXT, after TEXT, reason TEXT) STRICT""",
    "INSERT INTO meta (k, v) VALUES ('epoch', 0), ('rolled', 0), ('swept', 0)",
)

_BROAD = (
    """INSERT INTO dim (service, agent, operation, model, project, session, source, unit_type, outcome)
    SELECT DISTINCT service, agent, '', '', '', '', '', '', outcome FROM dim""",
    f"""INSERT INTO rollup SELECT x.grain + {BROAD}, x.bucket, b.id, sum(x.n), sum(x.requests), sum(x.units),
    sum(x.input), sum(x.output), sum(x.cache_read), sum(x.cache_write), sum(x.cache_write_1h), sum(x.cost),
    sum(x.unpriced), max(x.last)
    FROM rollup x CROSS JOIN dim d ON d.id = x.dim CROSS JOIN dim b ON b.agent = d.agent
    AND b.service = d.service AND b.operation = '' AND b.model = '' AND b.project = '' AND b.session = ''
    AND b.source = '' AND b.unit_type = '' AND b.outcome = d.outcome GROUP BY x.grain, x.bucket, b.id""",
)

_FOUND_BY = (
    "CREATE INDEX dim_session ON dim (session)",
    "CREATE INDEX dim_project ON dim (project)",
)
"""A session that begins is known by it to have used nothing yet."""


def migrations() -> Migrations:
    """All migrations, oldest first. Append only: what is here has been applied to people's files."""
    from sqlite_utils import Migrations

    steps = Migrations("agent_meter")

    @steps(name="m001_ledger")
    def m001_ledger(db: Database) -> None:
        for statement in _FIRST:
            db.conn.execute(statement)

    @steps(name="m002_broad_rollups")
    def m002_broad_rollups(db: Database) -> None:
        for statement in _BROAD:
            db.conn.execute(statement)

    @steps(name="m003_found_by_session")
    def m003_found_by_session(db: Database) -> None:
        for statement in _FOUND_BY:
            db.conn.execute(statement)

    return steps


def parts() -> set[str]:
    """The tables and indexes of a ledger, such as "index event_key"."""
    words = [statement.replace("UNIQUE INDEX", "INDEX", 1).split() for statement in (*_FIRST, *_FOUND_BY)]
    return {f"{kind.lower()} {name}" for create, kind, name, *_ in words if create == "CREATE"}


def opened(path: str, connect: Callable[[], Connection], wait_s: float) -> Connection:
    """A connection that has read the file, which is made or brought up to date first where that is needed.

    Raises:
        StoreTooNew, StoreUnusable, StoreReadOnly, StoreBusy, StoreFull: the file is as it was.
    """
    refuse_missing_folder(path)
    if os.path.exists(path):
        refuse_other_than_file(path)
        connection = connect()
        if _is_current(connection, path):
            return connection if _has_log(connection) else _with_log(connection, path, connect, wait_s)
        connection.close()
    alone(path, wait_s, lambda: _migrate(path, connect))
    connection = connect()
    _is_current(connection, path)
    return connection


def is_up_to_date(path: str, connect: Callable[[], Connection]) -> bool:
    """Whether opening the file changes nothing in it. Raises StoreError."""
    refuse_other_than_file(path)
    connection = connect()
    try:
        return _is_current(connection, path)
    finally:
        connection.close()


def _is_current(connection: Connection, path: str) -> bool:
    """Whether the file has had all migrations. Raises StoreError; then the connection is closed."""
    try:
        version, owner, tables = connection.execute(
            "SELECT user_version, application_id, (SELECT count(*) FROM sqlite_master)"
            " FROM pragma_user_version, pragma_application_id"
        ).fetchone()
    except driver.Error as error:
        connection.close()
        raise driver.meter_error(error, path) from error
    if not tables:  # whatever its numbers say
        return False
    if owner != APPLICATION_ID:
        connection.close()
        raise StoreUnusable(
            f"{path} is a database of another program. Name another file with AGENT_METER_DB."
        )
    if version > VERSION:
        connection.close()
        raise StoreTooNew(
            f"{path} was written by a newer version of agent-meter (format {version}, this one knows"
            f" {VERSION}). Upgrade agent-meter-mcp, or name another file with AGENT_METER_DB."
        )
    return version == VERSION


def _has_log(connection: Connection) -> bool:
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    return mode == "wal"


def _with_log(
    connection: Connection, path: str, connect: Callable[[], Connection], wait_s: float
) -> Connection:
    """A connection to a file that somebody has taken the log from, as `VACUUM INTO` does with a copy: without
    one, each read would be in the way of whoever writes. Where it cannot have one it is used as it is."""
    connection.close()
    try:
        alone(path, wait_s, lambda: _give_log(connect))
    except (driver.Error, StoreBusy):
        pass
    connection = connect()
    _is_current(connection, path)
    return connection


def _give_log(connect: Callable[[], Connection]) -> None:
    connection = connect()
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()


def refuse_missing_folder(path: str) -> None:
    """Raises StoreUnusable."""
    if not os.path.isdir(os.path.dirname(os.path.abspath(path))):
        raise StoreUnusable(
            f"the folder of {path} does not exist. Make it, or name another file with AGENT_METER_DB."
        )


def refuse_other_than_file(path: str) -> None:
    """Raises StoreUnusable for a folder, a device or a pipe: our files would lie beside it for nothing."""
    if not os.path.isfile(path):
        what = "a folder" if os.path.isdir(path) else "a device or a pipe"
        raise StoreUnusable(f"{path} is {what}. Name a file with AGENT_METER_DB or --db.")


def refuse_orphaned_log(path: str) -> None:
    """Raises StoreUnusable when making the file would delete what was acknowledged: SQLite empties the log
    that it finds beside a new file, and after a kill that log may be all there is of the usage."""
    log = f"{os.path.realpath(path)}-wal"
    if not os.path.exists(path) and os.path.exists(log) and os.path.getsize(log):
        raise StoreUnusable(
            f"{path} is not there, but {log} is, and has usage that belongs to it. Put the file back beside"
            " it; or move that one away as well, to begin anew."
        )


def _migrate(path: str, connect: Callable[[], Connection]) -> None:
    refuse_orphaned_log(path)
    try:
        # Only a new file: closing a descriptor of one that SQLite has open here would drop its locks.
        os.close(os.open(os.path.realpath(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        pass
    except OSError as error:
        raise StoreReadOnly(
            f"{path} cannot be written ({error.strerror}). Check the rights of its folder, or name another "
            f"file with AGENT_METER_DB."
        ) from error
    connection = connect()
    if _is_current(connection, path):
        connection.close()
        return
    from sqlite_utils import Database

    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("BEGIN IMMEDIATE")
        migrations().apply(Database(connection))
        connection.execute("UPDATE meta SET v = v + 1 WHERE k = 'epoch'")
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={VERSION}")
        connection.execute("COMMIT")
    except driver.Error as error:
        raise driver.meter_error(error, path) from error
    finally:
        connection.close()
