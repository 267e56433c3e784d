"""What is done about limits: made, changed, raised, removed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from agent_meter_mcp.core.text import shown

from . import limit_preview, limit_view, undo
from .choose import Choose
from .dialogs import Confirm
from .limit_dialog import LimitDialog, RaiseDialog
from .limit_form import Typed, Wish, exact, typed_of, wish_of
from .table import Column
from .view import BAR_WIDTH, Cell, Row, what_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent_meter_mcp.core.models import Limit
    from agent_meter_mcp.core.queries import LimitView
    from agent_meter_mcp.sources.base import Operator

    from .acting import Acting
    from .limit_preview import Preview

COLUMNS = (
    Column("Limit", 0, least=30),
    Column("Used", 24, right=True),
    Column("", BAR_WIDTH, drop=4),
    Column("Full", 6, right=True),
    Column("Resets", 9, right=True, drop=3),
    Column("Burn", 10, right=True, drop=5),
    Column("Runs out", 11, right=True, drop=2),
    Column("Beyond", 6, drop=6),
)
"""Those of `limit_view.row`."""
_NEW = "new"


class LimitActs:
    def __init__(self, acting: Acting) -> None:
        self._acting = acting

    def new(self, agent_id: str | None = None) -> None:
        """A limit for whom the dialog says; for this agent to begin with."""
        self._acting.start(lambda: self._new(agent_id))

    def edit(self, view: LimitView) -> None:
        limit = view.limit
        self._acting.start(lambda: self._ask_and_set(typed_of(limit), wish_of(limit), limit))

    def raise_(self, view: LimitView) -> None:
        self._acting.start(lambda: self._raise(view))

    def remove(self, view: LimitView) -> None:
        self._acting.start(lambda: self._remove(view.limit))

    def of_agent(self, agent_id: str) -> None:
        """The limits that bind the agent, tightest first: one of them to raise, or a new one."""
        self._acting.start(lambda: self._of_agent(agent_id))

    def choose_to_edit(self) -> None:
        self._choose("Change which limit?", self.edit)

    def choose_to_raise(self) -> None:
        self._choose("Raise which limit?", self.raise_)

    def choose_to_remove(self) -> None:
        self._choose("Remove which limit?", self.remove)

    def _choose(self, title: str, act: Callable[[LimitView], None]) -> None:
        async def choose() -> None:
            views = await self._acting.reader.limits()
            chosen = await self._chosen(title, views)
            for view in views:
                if view.limit.limit_id == chosen:
                    act(view)

        self._acting.start(choose)

    async def _chosen(self, title: str, views: Sequence[LimitView], *more: Row) -> str | None:
        dashboard, now_us = self._acting.dashboard, self._acting.reader.now_us()
        found = limit_view.ordered(views, "tightness", False, now_us)
        rows = [limit_view.row(view, now_us, dashboard.zone) for view in found]
        return await self._acting.answer(Choose(title, limit_view.columns_for(COLUMNS, rows), [*rows, *more]))

    async def _of_agent(self, agent_id: str) -> None:
        dashboard, name = self._acting.dashboard, shown(agent_id, width=40)
        detail = await self._acting.reader.detail(agent_id, dashboard.range)
        binding = [view for view in detail.limits if not view.is_replaced]
        new = Row(_NEW, (Cell(f"a new limit for {name} ...", "good"), *[Cell("")] * (len(COLUMNS) - 1)))
        chosen = await self._chosen(f"What binds {name}: raise one, or make one", binding, new)
        if chosen == _NEW:
            await self._new(agent_id)
        for view in binding:
            if view.limit.limit_id == chosen:
                await self._raise(view)

    # Asking

    async def _new(self, agent_id: str | None) -> None:
        zone = str(self._acting.dashboard.zone)
        whom = {} if agent_id is None else {"whom": "one agent", "name": agent_id}
        await self._ask_and_set(Typed(zone=zone).replace(**whom), None, None)

    async def _ask_and_set(self, typed: Typed, edited: Wish | None, seen: Limit | None) -> None:
        dialog = LimitDialog(self.preview, typed, self._known, edited=edited)
        found = await self._acting.answer(dialog)
        if found is not None:
            await self._set(found.wish, seen if edited is not None else found.before)

    async def _known(self) -> dict[str, list[str]]:
        return {**self._acting.who.seen(), **await self._acting.who.used()}

    async def _raise(self, view: LimitView) -> None:
        most = await self._acting.answer(RaiseDialog(view))
        if most is not None:
            await self._set(wish_of(view.limit).replace(max=most), view.limit)

    async def _remove(self, limit: Limit) -> None:
        name, most = what_of(limit.key), exact(limit.key.metric, limit.max)
        words = f"Remove the limit {name} ({most})? Whomever it binds may go on without it."
        if await self._acting.answer(Confirm(words, "Remove", grave=True)) is not None:
            await self._acting.do(
                f"{name} is removed",
                lambda operator: operator.remove_limit(limit.limit_id),
                undo.set_again(self._acting.reader, limit, None),
            )

    async def preview(self, wish: Wish) -> Preview:
        """Whom it would bind now, and how they stand. Raises MeterError."""
        reader, agents, key = self._acting.reader, self._acting.known.agents, wish.key
        limits = await reader.limits()
        usage = await reader.usage(
            key.window, *limit_preview.dimensions(key.subject), service=key.service, zone=wish.zone
        )
        return await asyncio.to_thread(limit_preview.preview, wish, agents, limits, usage)

    # Doing

    async def _set(self, wish: Wish, seen: Limit | None) -> None:
        """`seen` is the limit that the person has seen: only that one is changed, none made since."""
        name, most = what_of(wish.key), exact(wish.key.metric, wish.max)
        reader = self._acting.reader
        before = await undo.limit_as(reader, wish.key, None if seen is None else wish_of(seen))
        if before is not None and wish_of(before) == wish:
            self._acting.dashboard.say(f"{name} is {most} already: nothing was changed")
            return

        async def act(operator: Operator) -> None:
            await operator.set_limit(
                wish.key, wish.max, action=wish.action, zone=wish.zone, thresholds=wish.thresholds
            )

        back = undo.remove_again(reader, wish) if before is None else undo.set_again(reader, before, wish)
        was = "" if before is None or before.max == wish.max else f"{exact(wish.key.metric, before.max)} → "
        await self._acting.do(f"{name}: {was}{most}", act, back)
