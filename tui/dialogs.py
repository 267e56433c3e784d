"""What asks before something is done, and what explains the keys."""

from __future__ import annotations

from typing import ClassVar, TypeVar

from textual.app import ComposeResult
from textual.await_complete import AwaitComplete
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from agent_meter_mcp.core.text import REASON_MAX

from .pairs import Pairs

KEYS_WIDTH = 26
LEAVE = ("leave", "no")
Answer = TypeVar("Answer")


class Dialog(ModalScreen[Answer]):
    """Asks something, and takes one answer: the second of a moment would close what is beneath.

    As long as its fields are not there yet, or not any more, no key but that which leaves it does anything.
    """

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        is_there = self.is_mounted and bool(self.children)
        return (is_there or action in LEAVE) and super().check_action(action, parameters)

    def dismiss(self, result: Answer | None = None) -> AwaitComplete:
        return super().dismiss(result) if self.is_active else AwaitComplete.nothing()


class Confirm(Dialog[str | None]):
    """Answers the reason that was typed (or "" where none is asked for); None: it is not to be done.

    `must_type` are words that have to be typed first, for what cannot be meant for somebody else. What asks
    for a reason is grave.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "yes", "Yes", show=False),
        Binding("n,escape", "no", "No", show=False),
    ]
    DEFAULT_CSS = """
    Confirm { align: center middle; }
    Confirm > Vertical {
        width: 64; max-width: 95%; height: auto; padding: 1 2; border: round $error; background: $surface;
    }
    Confirm.calm > Vertical { border: round $success; }
    Confirm Static { width: 1fr; margin-bottom: 1; }
    Confirm Horizontal { height: auto; align-horizontal: right; }
    Confirm Button { margin-left: 2; min-width: 12; }
    """

    def __init__(
        self,
        question: str,
        what: str,
        *,
        reason: str | None = None,
        must_type: str = "",
        grave: bool = False,
    ) -> None:
        self._grave = grave or reason is not None
        super().__init__(classes="" if self._grave else "calm")
        self._question = question
        self._what = what
        self._reason = reason
        self._must_type = must_type

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(self._question, markup=False)
            if self._must_type:
                yield Input(placeholder=f"type: {self._must_type}", id="typed")
            if self._reason is not None:
                yield Input(self._reason, placeholder="why", max_length=REASON_MAX, id="reason")
            with Horizontal():
                yield Button("Cancel", id="no")
                yield Button(f"{self._what} (y)", variant="error" if self._grave else "success", id="yes")

    def on_mount(self) -> None:
        self.query_one("#typed" if self._must_type else "#no").focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "yes":
            self.action_yes()
        else:
            self.action_no()

    def on_input_submitted(self) -> None:
        self.query_one("#no").focus()

    def action_yes(self) -> None:
        if self._must_type and self.query_one("#typed", Input).value.strip() != self._must_type:
            self.query_one("#typed").focus()
            return
        reason = "" if self._reason is None else self.query_one("#reason", Input).value.strip()
        if self._reason is not None and not reason:
            self.query_one("#reason").focus()
            return
        self.dismiss(reason)

    def action_no(self) -> None:
        self.dismiss(None)


class Help(ModalScreen[None]):
    """All keys: `keys` has them by what they are for."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q", "app.pop_screen", "Close", show=False)
    ]
    DEFAULT_CSS = """
    Help { align: center middle; }
    Help > VerticalScroll {
        width: 78; max-width: 100%; height: auto; max-height: 100%; padding: 0 2; border: round $primary;
        background: $surface;
    }
    Help Pairs { width: 1fr; }
    """

    def __init__(self, keys: dict[str, dict[str, str]]) -> None:
        super().__init__()
        self._keys = keys

    def compose(self) -> ComposeResult:
        lines: list[tuple[str, str]] = []
        for title, keys in self._keys.items():
            lines.append((title, ""))
            lines += [(f"  {key}", meaning) for key, meaning in keys.items()]
        lines.append(("States", "✖ over a hard limit   ▲ near one   ■ stopped   ● in use   ○ idle"))
        with VerticalScroll():
            yield Pairs(lines, KEYS_WIDTH)
