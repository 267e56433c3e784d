"""How much of the oldest bucket of a rolling window is before it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .sums import Sums


class Edge:
    """Each event of a bucket is read once, as the edge moves over it; and again where it moves back."""

    __slots__ = ("_bucket", "_gone", "_upto_us")

    def __init__(self) -> None:
        self._bucket: int | None = None
        self._upto_us = self._gone = 0

    def changed(self, number: int) -> None:
        """There is other usage in that bucket now."""
        if number == self._bucket:
            self._bucket = None

    def gone(self, sums: Sums, number: int, grain_us: int, cutoff_us: int) -> int:
        """What was booked in that bucket before the cutoff; all of it is in the file."""
        if self._bucket != number:
            self._bucket, self._upto_us, self._gone = number, number * grain_us, 0
        if cutoff_us > self._upto_us:
            self._gone += sums.used(self._upto_us, cutoff_us)
        elif cutoff_us < self._upto_us:
            self._gone -= sums.used(cutoff_us, self._upto_us)
        self._upto_us = cutoff_us
        return self._gone
