"""A form: fields with what is wrong with them beside, and what is behind it."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.suggester import SuggestFromList
from textual.widget import Widget
from textual.widgets import Button, Checkbox, Input, Select, Static

from agent_meter_mcp.core.text import shown

from .dialogs import Answer, Dialog


class Field(Horizontal):
    """A label, what is typed or chosen, and a word about it."""

    DEFAULT_CSS = """
    Field { height: 1; }
    Field > .label { width: 12; color: $text-muted; }
    Field > Input, Field > Select { width: 5fr; max-width: 28; }
    Field > Input, Field > Select > SelectCurrent { background: $foreground 10%; }
    Field > Input:focus, Field > Select:focus > SelectCurrent { background: $primary 40%; }
    Field > Input:disabled { background: $surface; }
    Field > .hint { width: 6fr; height: 1; padding-left: 1; color: $text-muted; }
    Field > .hint { text-wrap: nowrap; text-overflow: ellipsis; }
    Field > .hint.-wrong { color: $text-error; }
    """

    def __init__(self, label: str, widget: Widget, hint: str = "") -> None:
        super().__init__()
        self._label = label
        self._widget = widget
        self._hint = Static(hint, classes="hint", markup=False)

    def compose(self) -> ComposeResult:
        yield Static(self._label, classes="label", markup=False)
        yield self._widget
        yield self._hint

    def tell(self, text: str, *, wrong: bool = False) -> None:
        self._hint.set_class(wrong, "-wrong")
        self._hint.update(shown(text))


class Form(Dialog[Answer]):
    """Escape leaves it, and nothing is done. Enter in a field goes on to the button that does it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Cancel", show=False),
        Binding("ctrl+s", "send", "Do it", show=False),
    ]
    DEFAULT_CSS = """
    Form { align: center middle; }
    Form > VerticalScroll {
        width: 80; max-width: 98%; height: auto; max-height: 100%; padding: 0 1; border: round $primary;
        background: $surface;
    }
    Form .title { width: 1fr; text-style: bold; margin-bottom: 1; }
    Form .told { width: 1fr; height: auto; margin-top: 1; }
    Form .buttons { height: auto; align-horizontal: right; margin-top: 1; }
    Form Button { margin-left: 2; }
    """

    def text(self, name: str) -> str:
        """What stands in a field."""
        return self.query_one(f"#{name}", Input).value

    def chosen(self, name: str) -> str:
        return str(self.query_one(f"#{name}", Select).value)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType] - of any values

    def suggest(self, name: str, known: list[str]) -> None:
        """What could stand in a field, completed by the right arrow."""
        self.query_one(f"#{name}", Input).suggester = SuggestFromList(known, case_sensitive=True)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "send":
            self.action_send()
        elif event.button.id == "leave":
            self.action_leave()

    def on_input_submitted(self) -> None:
        self.query_one("#send").focus()

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_send(self) -> None:
        """Answers, if all that was typed is right."""


class Tick(Checkbox):
    """One that is empty while it is off, so that it can be read without colours."""

    BUTTON_INNER = " "
    DEFAULT_CSS = """
    Tick > .toggle--button, Tick.-on > .toggle--button { color: $foreground; background: $foreground 25%; }
    """

    def watch_value(self) -> None:
        mark = "✔" if self.value else " "
        self.BUTTON_INNER = mark  # pyright: ignore[reportConstantRedefinition] - it is read at each paint
        super().watch_value()


def field_input(name: str, value: str = "", *, example: str = "", longest: int = 256) -> Input:
    return Input(value, placeholder=example, max_length=longest, compact=True, select_on_focus=False, id=name)


def choice(name: str, options: list[str], value: str) -> Select[str]:
    return Select([(one, one) for one in options], value=value, allow_blank=False, compact=True, id=name)


def buttons(what: str, *more: Button) -> Horizontal:
    return Horizontal(
        *more,
        Button("Cancel", id="leave", compact=True),
        Button(what, id="send", variant="primary", compact=True),
        classes="buttons",
    )
