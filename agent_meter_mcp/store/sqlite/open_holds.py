"""The open holds of the file, as the connection that writes knows them.

Nothing here costs more where thousands are open: what others have made since is read, and no more than that.
"""

from __future__ import annotations

from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.models import LEDGER_MAX

from .sums import EVENT_METRIC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent_meter_mcp.core.models import Amounts, Reservation

    from .driver import Connection

    Key = tuple[str, str | bytes]
    """The service and the key of the event that a hold will become."""

NEWEST_MAX = 1024
FEW = 256
"""So many open holds are read anew rather than looked through for what is new."""
SPARE = 256
"""So many that are over, beside as many as are open, and all are read anew."""
ALWAYS_FIT = 4096
"""So many open holds of the most that a face lets in are below the largest integer by far."""
NOTHING_KNOWN = -1
LONG_US = 10_000_000
"""What others have made in so long may be more than what is open."""
_OPEN = "SELECT service, key FROM reservation WHERE state = 0"
_SINCE = "SELECT service, key FROM reservation WHERE id > ? AND +state = 0"
"""The plus keeps SQLite from searching by the index of what is open."""
_SUMS = ", ".join(f"coalesce(sum({metric}), 0)" for metric in EVENT_METRIC.values())


class OpenHolds:
    """`newest`: those that were made here last, by their ids, as long as nobody else writes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.newest: dict[str, Reservation] = {}
        self._keys: set[Key] = set()
        """Of all that are open, and some that were."""
        self._keys_max = NOTHING_KNOWN
        self._upto = 0
        """All that were made until then are among them."""
        self._most: list[int] | None = None
        """What all of them hold, per metric, and some that are open no longer."""
        self._summed_upto = -1

    def refresh(self, last_seq: int) -> None:
        """Somebody else has written. `last_seq` is the newest seq in the file."""
        self.newest.clear()
        known, upto = len(self._keys), self._upto
        if known < FEW or known > self._keys_max or last_seq - upto > LONG_US:
            self._keys = set(self._connection.execute(_OPEN).fetchall())
            self._keys_max = 2 * len(self._keys) + SPARE
            self._most = None
        else:
            self._keys.update(self._connection.execute(_SINCE, (upto,)).fetchall())
        self._upto = last_seq

    def forget(self) -> None:
        """After a ROLLBACK: what was opened may not exist, and what was closed be open."""
        self.newest.clear()
        self._keys.clear()
        self._keys_max = NOTHING_KNOWN

    def opened(self, held: Reservation, key: str | bytes) -> None:
        """It is in the file."""
        self._keys.add((held.who.service or "", key))
        self._upto = held.reserved_at_us
        self.newest[held.reservation_id] = held
        if len(self.newest) > NEWEST_MAX:
            del self.newest[next(iter(self.newest))]

    def closed(self, held: Reservation, key: str | bytes) -> None:
        self._keys.discard((held.who.service or "", key))
        self.newest.pop(held.reservation_id, None)

    def may_have(self, keys: set[Key]) -> bool:
        """Whether an open hold may become an event with one of these keys."""
        return not keys.isdisjoint(self._keys)

    def has(self, service: str, key: str | bytes) -> bool:
        """Whether an open hold will become that event."""
        if (service, key) not in self._keys:
            return False
        found = self._connection.execute(f"{_OPEN} AND key = ? AND service = ?", (key, service)).fetchone()
        return found is not None

    def check_room(self, amounts: Amounts) -> None:
        """Raises InvalidInput when all open holds and this one would pass the largest integer (rule 9)."""
        if len(self._keys) < ALWAYS_FIT:
            return
        if self._most is not None:
            self._add_new(self._most)
        if self._most is None or not _fit(self._most, amounts):
            self._most = list(
                self._connection.execute(f"SELECT {_SUMS} FROM reservation x WHERE x.state = 0").fetchone()
            )
            self._summed_upto = self._upto
        for field, total, amount in zip(EVENT_METRIC, self._most, amounts, strict=True):
            if total + amount > LEDGER_MAX:
                raise InvalidInput(field, "the sum of all open holds would pass the ledger's largest number")

    def _add_new(self, most: list[int]) -> None:
        new = self._connection.execute(
            f"SELECT {_SUMS} FROM reservation x WHERE x.id > ? AND +x.state = 0", (self._summed_upto,)
        ).fetchone()
        for index, amount in enumerate(new):
            most[index] += amount
        self._summed_upto = self._upto


def _fit(most: list[int], amounts: Amounts) -> bool:
    return all(total + amount <= LEDGER_MAX for total, amount in zip(most, amounts, strict=True))
