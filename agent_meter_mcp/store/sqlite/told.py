"""The groups of a summary, as they were told last.

Whoever looks again and again is told the very same objects where nothing has changed, and sees by that what
is new. Of thousands few change from look to look: the others are passed over without a step of Python.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import compress
from operator import attrgetter, is_not

from agent_meter_mcp.core.queries import Group, Totals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent_meter_mcp.core.queries import Dimension

    Key = tuple[str | int | None, ...]
    Figures = Sequence[int]

GROUPS_MAX = 60_000
"""So many are kept, of all summaries together. One of more is made anew each time."""
SUMMARIES_MAX = 4
_FIGURES = len(Totals.fields)
_KEY = attrgetter("key")


class Told:
    """What one reading connection has told, by what it was grouped by."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Dimension, ...], _Groups] = {}

    def groups(
        self, group_by: tuple[Dimension, ...], sums: Mapping[Key, Figures]
    ) -> tuple[Figures, list[Group]]:
        """The figures of all together, and the groups that have any, in the order of their keys.

        `sums` has the figures by key; a list of figures that was given here is not to be changed any more.
        """
        keys, figures = [*sums], [*sums.values()]
        before = self._kept.pop(group_by, None)
        groups = None if before is None else before.renewed(keys, figures)
        if groups is None:
            groups = _Groups(keys, figures, {} if before is None else before.known())
        if len(keys) <= GROUPS_MAX:
            self._kept[group_by] = groups
        while len(self._kept) > SUMMARIES_MAX or sum(map(len, self._kept.values())) > GROUPS_MAX:
            del self._kept[next(iter(self._kept))]
        return groups.total, [*groups.found]


class _Groups:
    __slots__ = ("_figures", "_has_gaps", "_keys", "found", "total")

    def __init__(
        self, keys: list[Key], figures: list[Figures], known: dict[Key, tuple[Figures, Group]]
    ) -> None:
        self._keys = keys
        self._figures = figures
        self.total = [sum(column) for column in zip(*figures, strict=True)] or [0] * _FIGURES
        self.found: list[Group] = []
        for key, now in zip(keys, figures, strict=True):
            before = known.get(key)
            if before is not None and before[0] == now:
                self.found.append(before[1])
            elif any(now):
                self.found.append(Group(key, Totals(*now)))
        self._has_gaps = any(None in key for key in keys)
        self.found.sort(key=_sortable if self._has_gaps else _KEY)

    def __len__(self) -> int:
        return len(self._keys)

    def known(self) -> dict[Key, tuple[Figures, Group]]:
        """Each group with its figures."""
        figures = dict(zip(self._keys, self._figures, strict=True))
        return {group.key: (figures[group.key], group) for group in self.found}

    def renewed(self, keys: list[Key], figures: list[Figures]) -> _Groups | None:
        """With these figures, where no more has happened than that some have changed and others have come.

        Otherwise None.
        """
        before = len(self._keys)
        new = keys[before:]
        if self._has_gaps or keys[:before] != self._keys or any(None in key for key in new):
            return None
        total = self.total
        changed = compress(range(before), map(is_not, self._figures, figures))
        for number in (*changed, *range(before, len(keys))):
            now = figures[number]
            was = self._figures[number] if number < before else (0,) * _FIGURES
            if was != now:
                self._put(keys[number], now)
                total = [one + more - less for one, more, less in zip(total, now, was, strict=True)]
        self._keys, self._figures, self.total = keys, figures, total
        return self

    def _put(self, key: Key, figures: Figures) -> None:
        """The group of that key is this one from now on, or none if it has nothing."""
        place = bisect_left(self.found, key, key=_KEY)
        end = place + (place < len(self.found) and self.found[place].key == key)
        self.found[place:end] = [Group(key, Totals(*figures))] if any(figures) else []


def _sortable(group: Group) -> tuple[tuple[bool, str | int], ...]:
    return tuple((part is not None, "" if part is None else part) for part in group.key)
