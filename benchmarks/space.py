"""(j): what an event takes on disk, against its row alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from . import filled, plain
from .measure import Options, Row, at_most


def run_space(options: Options) -> Iterator[Row]:
    """A ledger of 90 days with 76 bytes of metadata an event: all of its file, by its number of events."""
    sizes = [filled.LARGE, *([filled.HUGE] if options.full else [])]
    for size in sizes:
        yield _bytes_per_event(options, size)


def _bytes_per_event(options: Options, size: int) -> Row:
    path = filled.ledger(options, size)
    with closing(plain.connect(path)) as ledger:
        (events,) = ledger.execute("SELECT count(*) FROM event").fetchone()
        ours = _bytes(ledger) / events
    floor = _rows_alone(options.folder / f"rows-{size}.db", path) / events
    what = f"bytes per event, {size // 1_000_000}M / its row without any index"
    return Row("j", what, f"{ours:.0f} B", f"{floor:.0f} B", (ours / floor,), at_most(1.5))


def _rows_alone(path: Path, ledger: Path) -> int:
    """The size of a file that has the same rows and no index."""
    bare = plain.new_table(path, synchronous="OFF", unique=False)
    bare.execute("PRAGMA journal_mode=DELETE")
    plain.copy_events(bare, ledger)
    size = _bytes(bare)
    bare.close()
    path.unlink()
    return size


def _bytes(connection: plain.driver.Connection) -> int:
    (size,) = connection.execute(
        "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
    ).fetchone()
    return size
