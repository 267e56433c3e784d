"""A ledger with something of everything in it, as SQL: `python -m tests.store.sqlite.freeze`.

What that prints is kept as `versions/N.sql`, for every version of the file format, when it is released, and
never changed afterwards: `test_migrations.py` opens them all. The times are fixed, so that the same code
writes the same text.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from agent_meter_mcp.core.commands import (
    CreateKey,
    Record,
    Refusal,
    Refuse,
    Release,
    Reserve,
    RevokeKey,
    SetAgent,
    SetLimit,
    SetSwitch,
    Settle,
    TouchKeys,
)
from agent_meter_mcp.core.models import LimitKey, Subject, Usage, UsageEvent, Who
from agent_meter_mcp.store.sqlite import SqliteStore, driver, open_store
from agent_meter_mcp.store.sqlite.schema import APPLICATION_ID, VERSION

NOON_US = 1_767_268_800_000_000
"""1 January 2026, 12:00 UTC."""
ADA = Who("ada", "api", None, "project", "session")
BOB = Who("bob", "api")
UUID = "0198c0de-0000-7000-8000-000000000001"
SPENT = Usage(
    2, 1_500_000, "pages", 100, 20, 300, 40, 5, model="large", cost_nano_usd=7_000, cost_source="reported"
)
FIRST = UsageEvent(UUID, ADA, SPENT, "read", "sdk", NOON_US - 5_000_000, 200, 31, '{"a": [1, "\N{ABACUS}"]}')


def fill(store: SqliteStore) -> None:
    """One thing of each kind, in transactions one second apart."""
    partial = SPENT.replace(output_tokens=10)
    last_week = UsageEvent(
        "past", BOB, Usage(input_tokens=9), source="import", occurred_at_us=NOON_US - 7 * 86_400_000_000
    )
    transactions = (
        (
            SetAgent("bob", (("tier", "gold"), ("owner", "eve"), ("parent", "ada")), "operator"),
            SetLimit("l1", LimitKey(Subject(), "api", "tokens", "total"), 1_000, "operator"),
            SetLimit(
                "l2",
                LimitKey(Subject("agent", "ada"), None, "cost_usd", "day"),
                9_000,
                "operator",
                zone="Asia/Tokyo",
            ),
            SetLimit("l3", LimitKey(Subject("agent", "*"), None, "requests", "1h"), 4, "operator"),
        ),
        (
            Record(FIRST.replace(usage=partial)),
            Record(UsageEvent("plain text", BOB, Usage())),
            Record(last_week),
        ),
        (Record(FIRST), SetSwitch("service", "bad", True, "it leaks", "operator")),
        (
            Reserve("r1", "held", BOB, Usage(input_tokens=50), 3_600_000_000),
            Reserve("r2", "settled", BOB, Usage(input_tokens=50), 60_000_000),
            Reserve("r3", "released", BOB, Usage(input_tokens=50), 60_000_000),
        ),
        (Settle("r2", Usage(input_tokens=60)), Release("r3")),
        (
            Reserve("r4", "denied", BOB, Usage(input_tokens=5_000), 60_000_000),
            Refuse((Refusal(ADA, "read", "self", Usage(), "l1", NOON_US, 3),)),
        ),
        (
            CreateKey("k1", "am_11111111", bytes([1] * 32), "agent", "ada", "Ada's", None, "operator"),
            CreateKey("k2", "am_22222222", bytes([2] * 32), "viewer", None, None, 2 * NOON_US, "operator"),
        ),
        (TouchKeys((("k1", NOON_US),)), RevokeKey("k2", "operator")),
    )
    for number, commands in enumerate(transactions):
        store.apply(commands, NOON_US + number * 1_000_000)


def frozen(folder: Path) -> str:
    """The text."""
    path = str(folder / "usage.db")
    store = open_store(path)
    fill(store)
    store.close()
    connection = driver.connect(path, synchronous="FULL", busy_timeout_s=10.0)
    lines = [
        *_statements(connection),
        f"PRAGMA application_id={APPLICATION_ID}",
        f"PRAGMA user_version={VERSION}",
    ]
    connection.close()
    return ";\n".join([*lines, "PRAGMA journal_mode=WAL", ""])


def _statements(connection: driver.Connection) -> Iterator[str]:
    """What makes the tables, fills them, and makes the indexes."""
    made = connection.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
        " ORDER BY type DESC, name"
    ).fetchall()
    for kind, name, sql in made:
        yield sql
        if kind == "table":
            columns = [column for (_, column, *_) in connection.execute(f"PRAGMA table_info({name})")]
            listed = ", ".join(f'"{column}"' for column in columns)
            quoted = " || ', ' || ".join(f'quote("{column}")' for column in columns)
            for (values,) in connection.execute(f"SELECT {quoted} FROM {name} ORDER BY 1"):
                if name == "_sqlite_migrations":
                    values = re.sub(r"'20\d\d-[^']*'", "'2026-01-01'", values)  # when it really was
                yield f"INSERT INTO {name} ({listed}) VALUES ({values})"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(frozen(Path(folder)))
