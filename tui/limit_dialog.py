"""Setting a limit: what it shall be, and whom that would hit, before it is set."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.css.query import NoMatches
from textual.widgets import Button, Input, Select, Static

from agent_meter_mcp.core.decide import percent_of
from agent_meter_mcp.core.errors import InvalidInput, MeterError
from agent_meter_mcp.core.figures import number, percent
from agent_meter_mcp.core.models import ACTIONS, METRICS
from agent_meter_mcp.core.money import typed_maximum
from agent_meter_mcp.core.text import shown

from . import limit_form, limit_preview
from .fields import Field, Form, Tick, buttons, choice, field_input
from .limit_form import RAISES, WHOM, Typed, exact, plain
from .themes import colour_of
from .view import what_of
from .words import Told

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agent_meter_mcp.core.queries import LimitView

    from .limit_form import Wish
    from .limit_preview import Preview

    Look = Callable[[Wish], Awaitable[Preview]]
    Known = Callable[[], Awaitable[dict[str, list[str]]]]

TYPING_S = 0.15
"""Nothing is looked up while somebody is still typing."""
_LABELS = {
    "whom": "For",
    "name": "Named",
    "service": "At service",
    "metric": "Counts",
    "window": "Per",
    "max": "At most",
    "action": "Beyond",
    "zone": "Timezone",
    "thresholds": "Thresholds",
}
_HINTS = {
    "name": "→ completes it",
    "service": "empty: all services together",
    "window": "day, month, 1h, 7d, total, ...",
    "zone": "where its days begin",
    "thresholds": "%, at which alerts are raised",
}


class LimitDialog(Form["Preview | None"]):
    """Answers what was last looked at and agreed to. `edited`: the limit is there, and stays what it counts.

    `look` tells whom a limit would bind, `known` which names there are, by kind (agent, tier, service, ...).
    What they answer may come when it is being left: it has no fields any more (NoMatches) but still works.
    """

    DEFAULT_CSS = "LimitDialog #told { min-height: 4; }"

    def __init__(self, look: Look, typed: Typed, known: Known, *, edited: Wish | None = None) -> None:
        super().__init__()
        self._look = look
        self._typed = typed
        self._known = known
        self._names: dict[str, list[str]] = {}
        self._edited = edited
        self._fields: dict[str, Field] = {}

    def compose(self) -> ComposeResult:
        typed = self._typed
        with VerticalScroll(can_focus=False):
            if self._edited is not None:
                yield Static(f"Change {what_of(self._edited.key)}", classes="title", markup=False)
            else:
                yield Static("A new limit", classes="title")
                yield self._field(choice("whom", list(WHOM), typed.whom))
                yield self._field(field_input("name", typed.name))
                yield self._field(field_input("service", typed.service))
                yield self._field(choice("metric", list(METRICS), typed.metric))
                yield self._field(field_input("window", typed.window))
            yield self._field(field_input("max", typed.max, example="5, 0.25, 1.5M"))
            yield self._field(choice("action", list(ACTIONS), typed.action))
            yield self._field(field_input("zone", typed.zone))
            yield self._field(field_input("thresholds", typed.thresholds))
            yield Told(id="told", classes="told")
            yield Tick("I want that all the same", id="tick", compact=True)
            yield buttons("Set (Ctrl+S)")

    def _field(self, widget: Input | Select[str]) -> Field:
        name = widget.id or ""
        self._fields[name] = Field(_LABELS[name], widget, _HINTS.get(name, ""))
        return self._fields[name]

    def on_mount(self) -> None:
        self.query_one("#tick").display = False
        if self._edited is None:
            self.know()
        self.query_one("#max" if self._edited is not None or self._typed.name else "#whom").focus()

    @work
    async def know(self) -> None:
        """Completion comes when the names are there; typing need not wait for it."""
        try:
            self._names = await self._known()
        except MeterError:
            return
        with suppress(NoMatches):
            self.suggest("service", self._names["service"])
            self._enable(self.typed)

    # While it is typed

    @property
    def typed(self) -> Typed:
        """The fields as they stand."""
        texts: dict[str, Any] = {name: self.text(name) for name in ("max", "zone", "thresholds")}
        texts["action"] = self.chosen("action")
        if self._edited is None:
            texts |= {name: self.text(name) for name in ("name", "service", "window")}
            texts |= {name: self.chosen(name) for name in ("whom", "metric")}
        return self._typed.replace(**texts)

    @on(Input.Changed)
    @on(Select.Changed)
    def changed(self) -> None:
        """Says at once what is wrong, and a moment later what it would do."""
        typed = self.typed
        wish, wrong = limit_form.read(typed)
        self.query_one("#tick", Tick).value = False
        self.query_one("#tick").display = False
        self._enable(typed)
        self._tell_fields(typed, wrong)
        if wish is None:
            self._stop_looking()
            name, problem = next(iter(wrong.items()))
            if getattr(typed, name):
                self._tell([(f"{_LABELS[name]}: {problem}", "alarm")])
            else:
                self._tell([(f"{_LABELS[name]}: is needed", "dim")])
        else:
            self.look(wish)

    def _enable(self, typed: Typed) -> None:
        self.query_one("#zone").disabled = not typed.has_calendar
        if self._edited is None:
            self.query_one("#name").disabled = not typed.has_name
            kind = WHOM[typed.whom][0]
            self.suggest("name", self._names.get(kind, []))

    def _tell_fields(self, typed: Typed, wrong: dict[str, str]) -> None:
        for name, field in self._fields.items():
            if name in wrong:
                is_empty = not getattr(typed, name).strip()
                field.tell("is needed" if is_empty else wrong[name], wrong=not is_empty)
            elif name == "max":
                value = typed_maximum(typed.metric, typed.max)
                counted = "" if typed.metric == "cost_usd" else f" {typed.metric}"
                field.tell(f"{exact(typed.metric, value)}{counted}")
            elif name == "name" and not typed.has_name:
                field.tell("nobody is named")
            elif name == "zone" and not typed.has_calendar:
                field.tell("this window has no calendar")
            else:
                field.tell(_HINTS.get(name, ""))

    def _stop_looking(self) -> None:
        self.workers.cancel_group(self, "preview")  # pyright: ignore[reportUnknownMemberType] - of any result

    @work(exclusive=True, group="preview")
    async def look(self, wish: Wish) -> None:
        await asyncio.sleep(TYPING_S)
        with suppress(NoMatches):
            await self._seen(wish)

    async def _seen(self, wish: Wish) -> Preview | None:
        """What it would do, told; None: it cannot be told."""
        try:
            found = await self._look(wish)
        except MeterError as error:
            self._tell([(shown(str(error)), "alarm")])
            return None
        self._tell(limit_preview.lines(found, is_edit=self._edited is not None))
        self.query_one("#tick").display = found.refuses
        return found

    def _tell(self, lines: list[tuple[str, Any]]) -> None:
        variables: dict[str, str] = self.app.theme_variables  # pyright: ignore[reportUnknownMemberType] - of any app
        words = Text()
        for number_, (line, style) in enumerate(lines):
            styled = "dim" if style == "dim" else colour_of(style, variables)
            words.append(("\n" if number_ else "") + line, styled)
        self.query_one("#told", Told).update(words)

    # Setting it

    def action_send(self) -> None:
        wish, wrong = limit_form.read(self.typed)
        if wish is None:
            self.query_one(f"#{next(iter(wrong))}").focus()
        else:
            self.send(wish)

    @work(exclusive=True, group="preview")
    async def send(self, wish: Wish) -> None:
        """Looks once more: what it would do now is what counts."""
        with suppress(NoMatches):
            found = await self._seen(wish)
            tick = self.query_one("#tick", Tick)
            if found is not None and found.refuses and not tick.value:
                tick.focus()
            elif found is not None:
                self.dismiss(found)


class RaiseDialog(Form["int | None"]):
    """Answers a higher maximum of a limit."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "send", "Raise", show=False)]
    DEFAULT_CSS = "RaiseDialog.-narrow Button { min-width: 8; margin-left: 1; }"

    def __init__(self, view: LimitView) -> None:
        super().__init__()
        self._limit = view.limit
        self._used = 0 if view.state is None else view.state.used + view.state.held
        self._scope = "" if view.state is None else view.state.scope

    def compose(self) -> ComposeResult:
        limit, metric = self._limit, self._limit.key.metric
        whose = f" (by {shown(self._scope, width=40)})" if self._scope else ""
        with VerticalScroll(can_focus=False):
            yield Static(f"Raise {what_of(limit.key)}?", classes="title", markup=False)
            yield Static(
                f"Now at most {exact(metric, limit.max)}, of which {number(metric, self._used)} is used or"
                f" held{whose}.",
                classes="told",
                markup=False,
            )
            yield Field("At most", field_input("max", plain(metric, limit.max)), "or choose below")
            yield Told(id="told", classes="told")
            more = [Button(f"+{by} %", id=f"more-{by}", compact=True) for by in RAISES]
            yield buttons("Raise (y)", *more)

    def on_mount(self) -> None:
        self.query_one(f"#more-{RAISES[0]}").focus()

    @on(Button.Pressed)
    def add(self, event: Button.Pressed) -> None:
        by = next((by for by in RAISES if event.button.id == f"more-{by}"), None)
        if by is not None:
            more = limit_form.raised(self._limit.max, by)
            self.query_one("#max", Input).value = plain(self._limit.key.metric, more)

    @property
    def wanted(self) -> int:
        """Raises InvalidInput."""
        key, most = self._limit.key, self._limit.max
        value = typed_maximum(key.metric, self.text("max"))
        if value <= most:
            raise InvalidInput("max", f"must be more than {exact(key.metric, most)}; e changes it otherwise")
        return value

    @on(Input.Changed)
    def changed(self) -> None:
        limit = self._limit
        told = self.query_one("#told", Told)
        try:
            wanted = self.wanted
        except InvalidInput as error:
            told.update(error.problem if self.text("max") != plain(limit.key.metric, limit.max) else "")
            return
        before, after = percent_of(self._used, limit.max), percent_of(self._used, wanted)
        told.update(
            f"{exact(limit.key.metric, limit.max)} → {exact(limit.key.metric, wanted)}"
            f"    {percent(before)} → {percent(after)} used" + ("; still over" if after >= 100 else "")
        )

    def action_send(self) -> None:
        try:
            self.dismiss(self.wanted)
        except InvalidInput:
            self.query_one("#max").focus()
