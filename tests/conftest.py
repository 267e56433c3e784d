from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from blockbuster import BlockBusterFunction, blockbuster_ctx
from hypothesis import settings
from sqlite_utils.utils import sqlite3  # pyright: ignore[reportPrivateImportUsage] - the one it took, sqlite3 or pysqlite3

settings.register_profile(
    "meter", settings(), deadline=None
)  # time is measured by benchmarks, not by examples
settings.load_profile("meter")

# A shell starts what it puts into the background with SIGINT ignored; so would be every process of a test.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def nothing_blocks() -> Iterator[None]:
    """A call of ours that blocks the event loop (a query, a file, a sleep) raises `BlockingError`."""
    with blockbuster_ctx("agent_meter_mcp") as guard:
        for method in ("execute", "executemany", "commit"):
            name = f"{sqlite3.__name__}.{method}"
            guard.functions[name] = BlockBusterFunction(
                sqlite3.Connection, method, scanned_modules="agent_meter_mcp"
            )
        # Of a local file, and twice a second.
        guard.functions["os.stat"].can_block_in("sources/local.py", {"_mark"})
        guard.activate()
        yield
