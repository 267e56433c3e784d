"""Who an agent is: its name, tier, owner and parent."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Input, Static

from agent_meter_mcp.core import check
from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.models import Agent, Who
from agent_meter_mcp.core.text import NAME_MAX, optional_name, shown

from .fields import Field, Form, buttons, field_input

FIELDS = {
    "name": "what people call it",
    "tier": "limits of this tier bind it",
    "owner": "who answers for it",
    "parent": "whose limits and stops it shares",
}
"""The fields of an agent that an operator sets, and what they are for."""


class AgentDialog(Form["dict[str, str | None] | None"]):
    """Answers the fields that were changed; an empty one is cleared."""

    def __init__(self, agent: Agent, known: dict[str, list[str]]) -> None:
        super().__init__()
        self._agent = agent
        self._known = known
        self._fields: dict[str, Field] = {}

    def compose(self) -> ComposeResult:
        with VerticalScroll(can_focus=False):
            yield Static(f"Agent {shown(self._agent.agent_id)}", classes="title", markup=False)
            for name, hint in FIELDS.items():
                value = getattr(self._agent, name) or ""
                self._fields[name] = Field(
                    name.capitalize(), field_input(name, value, longest=NAME_MAX), hint
                )
                yield self._fields[name]
            yield Static("An empty field is cleared.", classes="told")
            yield buttons("Set (Ctrl+S)")

    def on_mount(self) -> None:
        for name, kind in (("tier", "tier"), ("owner", "owner"), ("parent", "agent")):
            self.suggest(name, self._known.get(kind, []))
        self.query_one("#name").focus()

    @property
    def wrong(self) -> dict[str, str]:
        """By field, what is wrong with it."""
        found: dict[str, str] = {}
        for name in FIELDS:
            value = self.text(name).strip() or None
            try:
                optional_name(value, name)
                if name == "parent":
                    check.who(Who(self._agent.agent_id, parent=value))
            except InvalidInput as error:
                found[name] = error.problem
        return found

    @on(Input.Changed)
    def changed(self) -> None:
        wrong = self.wrong
        for name, field in self._fields.items():
            field.tell(wrong.get(name, FIELDS[name]), wrong=name in wrong)

    def action_send(self) -> None:
        wrong = self.wrong
        if wrong:
            self.query_one(f"#{next(iter(wrong))}").focus()
            return
        typed = {name: self.text(name).strip() or None for name in FIELDS}
        self.dismiss({name: value for name, value in typed.items() if value != getattr(self._agent, name)})
