"""Refusals that were decided without the writer: who was refused lately, and what is still to be written.

Refusals within one second, agent, service and limit are one fold, one row in the ledger. The first refusal of
a fold is written before it is answered; later ones are counted here, and written within about a second.

Who asks again at once, again and again, waits a little longer for each further no, so that a flood does not
take the processor from everybody else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_meter_mcp.core.commands import Refusal
from agent_meter_mcp.core.models import SECOND_US, Who

if TYPE_CHECKING:
    from collections.abc import Iterable

    Fold = tuple[int, str, str | None, str | None]
    Asker = tuple[str, str | None, str | None]

FOLDS_MAX = 4096
RECENT_US = SECOND_US
PAUSE_S, PAUSE_MAX_S = 0.000_1, 0.1
"""The second no within a second waits so long, each further one so much longer."""


def _fold(refusal: Refusal) -> Fold:
    return (refusal.first_at_us // SECOND_US, refusal.who.agent, refusal.who.service, refusal.limit_id)


def _asker(who: Who) -> Asker:
    return (who.agent, who.service, who.parent)


class Refusals:
    """Belongs to one thread. Holds at most 4096 folds and as many askers."""

    def __init__(self) -> None:
        self._refused: dict[Asker, tuple[int, int, int]] = {}
        """When last, when the second began in which that was, and how often in it."""
        self._folds: dict[Fold, Refusal] = {}
        self._uncounted: dict[Fold, int] = {}
        self.lost = 0
        """Refusals that could not be written for so long that there was no room to remember them."""

    def refused_lately(self, who: Who, now_us: int) -> bool:
        """Whether this agent was refused at this service within the last second."""
        known = self._refused.get(_asker(who))
        return known is not None and abs(now_us - known[0]) < RECENT_US

    def note(self, who: Who, now_us: int) -> None:
        """Somebody was refused just now."""
        refused, asker = self._refused, _asker(who)
        _, since_us, count = refused.get(asker, (0, 0, 0))
        if count == 0 and len(refused) >= FOLDS_MAX:
            refused.clear()  # it only says what to try first, and who waits
        if not 0 <= now_us - since_us < SECOND_US:
            since_us, count = now_us, 0
        refused[asker] = now_us, since_us, count + 1

    def pause_s(self, who: Who) -> float:
        """How long the last no waits."""
        _, _, count = self._refused.get(_asker(who), (0, 0, 1))
        return min((count - 1) * PAUSE_S, PAUSE_MAX_S)

    def add(self, refusal: Refusal) -> bool:
        """Counts a refusal. False: the first of its fold, not counted here: it has to be written now."""
        fold = _fold(refusal)
        if fold in self._folds:
            self._uncounted[fold] = self._uncounted.get(fold, 0) + refusal.count
            return True
        if len(self._folds) < FOLDS_MAX:
            self._folds[fold] = refusal
        return False

    @property
    def unwritten(self) -> int:
        """How many refusals are counted here and not in the ledger."""
        return self.lost + sum(self._uncounted.values())

    def take(self, now_us: int) -> tuple[Refusal, ...]:
        """The counts that are to be written, which are given back with `put_back` if they cannot be."""
        taken = tuple(self._folds[fold].replace(count=count) for fold, count in self._uncounted.items())
        self._uncounted.clear()
        second = now_us // SECOND_US
        self._folds = {fold: first for fold, first in self._folds.items() if fold[0] == second}
        return taken

    def put_back(self, refusals: Iterable[Refusal]) -> None:
        for refusal in refusals:
            if not self.add(refusal):
                fold = _fold(refusal)
                if fold in self._folds:
                    self._uncounted[fold] = refusal.count
                else:
                    self.lost += refusal.count
