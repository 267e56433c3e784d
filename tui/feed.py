"""The newest events, as they come. Whoever reads further down finds it standing still until he goes up."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from .happening import COST_WIDTH, Happening, feed_row, happenings, limits_by_id, newer_in
from .table import Column, LineTable
from .view import Rows

if TYPE_CHECKING:
    from datetime import tzinfo

    from agent_meter_mcp.sources.base import Snapshot

COLUMNS = (
    Column("Time", 8),
    Column("", 4),
    Column("Agent", 12),
    Column("What", 0, least=24),
    Column("Cost", COST_WIDTH, right=True, drop=1),
    Column("Model", 12, drop=2),
    Column("Session", 10, drop=3),
)
_TOLD = 3
"""The column in whose title it says what is not shown."""


class Feed(LineTable):
    """`typed` filters it, `only_refused` leaves out what went well."""

    def __init__(self, *, id: str) -> None:
        super().__init__(COLUMNS, gap=1, empty="Nothing has happened.", id=id)
        self.typed = ""
        self.only_refused = False
        self._zone: tzinfo = UTC
        self._latest: Snapshot | None = None
        self._shown: Snapshot | None = None
        self._found: list[Happening] = []

    @property
    def follows(self) -> bool:
        """Whether new events come in at the top."""
        return self.cursor == 0 and self.scroll_offset.y == 0

    def happening(self, key: str) -> Happening | None:
        return next((one for one in self._found if one.key == key), None)

    def take(self, snapshot: Snapshot, zone: tzinfo) -> None:
        self._latest, self._zone = snapshot, zone
        if self.follows or self._shown is None:
            self._shown = snapshot
            self.refilter()
        self._tell()

    def refilter(self) -> None:
        """Other words are wanted, or all outcomes again."""
        if self._shown is None:
            return
        follows = self.follows
        self.is_filtered = self.only_refused or bool(self.typed)
        self._found = found = happenings(self._shown, only_refused=self.only_refused, typed=self.typed)
        limits, zone = limits_by_id(self._shown.limits), self._zone
        self.show(Rows([one.key for one in found], lambda place: feed_row(found[place], zone, limits)))
        if follows:
            self._move_to(0)
        self._tell()

    def _move_to(self, place: int) -> None:
        super()._move_to(place)
        self._catch_up()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._catch_up()

    def _catch_up(self) -> None:
        if self.follows and self._latest is not None and self._shown is not self._latest:
            self._shown = self._latest
            self.refilter()

    def _tell(self) -> None:
        """In the title: how many are new, and what is left out."""
        told: list[str] = []
        if self._shown is not None and self._latest is not None and self._shown is not self._latest:
            told += [f"{newer_in(self._latest, self._shown)} new ↑"]
        told += ["refusals"] if self.only_refused else []
        told += [f"/{self.typed}"] if self.typed else []
        column = COLUMNS[_TOLD].replace(told=" · ".join(told))
        if column != self.columns[_TOLD]:
            self.retitle([*COLUMNS[:_TOLD], column, *COLUMNS[_TOLD + 1 :]])
