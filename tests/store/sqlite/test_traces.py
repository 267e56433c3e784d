"""Errors go to other threads, and their traces with them: no cursor may be in those.

A cursor that ends in one thread resets its statement while another one uses it. Then SQLite refuses the next
parameter (`Error binding parameter 0`), and a whole batch fails that had nothing to do with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from agent_meter_mcp.core.commands import Record, Recorded, Reserve
from agent_meter_mcp.core.errors import Conflict
from agent_meter_mcp.core.models import Usage
from agent_meter_mcp.store.sqlite import SqliteStore, driver, open_store

from .processes import now_us
from .roles import WHO, one_event


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = open_store(str(tmp_path / "usage.db"))
    yield store
    store.close()


def frames_of(error: BaseException) -> Iterator[FrameType]:
    """All frames that an error keeps: its own, and those of the errors before it."""
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next
    for before in (error.__cause__, error.__context__):
        if before is not None:
            yield from frames_of(before)


@pytest.mark.parametrize(
    "again",
    [one_event("1", tokens=1), Reserve("r", "1", WHO, Usage(), 1_000_000, is_new=True)],
    ids=["record", "reserve"],
)
def test_a_conflict_that_the_insert_has_found_keeps_no_cursor(
    store: SqliteStore, again: Record | Reserve
) -> None:
    store.apply([one_event("1", tokens=2), one_event("2")], now_us())
    conflict, repeated = store.apply([again, one_event("2")], now_us()).results
    assert isinstance(conflict, Conflict)
    assert isinstance(repeated, Recorded) and repeated.status == "duplicate"
    kept = [value for frame in frames_of(conflict) for value in frame.f_locals.values()]
    assert not any(isinstance(value, driver.sqlite3.Cursor) for value in kept)
    assert conflict.__context__ is None
