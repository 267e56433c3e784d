"""All that can be done here, as the palette and the help page tell it: from the keys themselves."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from textual.app import SystemCommand
from textual.binding import Binding

from agent_meter_mcp.sources.base import RANGES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from textual.binding import BindingType
    from textual.screen import Screen

    from .app import Dashboard

NOT_OURS = ("move(", "page(", "edge(", "scroll_", "page_", "screen.", "app.focus_")
"""What is of no use without a key: moving, and what Textual binds for itself."""
_NAMES = {
    **{"enter": "Enter", "escape": "Esc", "delete": "Del", "space": "Space", "tab": "Tab"},
    **{"home": "Home", "end": "End", "pageup": "PgUp", "pagedown": "PgDn"},
    **{"up": "↑", "down": "↓", "left": "←", "right": "→"},
    **{"slash": "/", "question_mark": "?", "plus": "+", "minus": "-"},
}

Keys = dict[str, str]


def all_of(app: Dashboard, screen: Screen[Any]) -> Iterator[SystemCommand]:
    """What the keys do here, and what has none."""
    told: set[str] = set()
    for key, active in screen.active_bindings.items():
        binding = active.binding
        title = binding.description
        if not title or title in told or binding.action.startswith(NOT_OURS):
            continue
        told.add(title)
        about = f"{binding.tooltip or title} ({name_of(key)})"
        yield SystemCommand(title, about, partial(app.run_action, binding.action, active.node))
    for one in RANGES:
        yield SystemCommand(f"Range: {one.name}", "What the totals are about", partial(app.take_range, one))
    yield SystemCommand("Theme", "Choose other colours", app.action_change_theme)
    yield from app.acting.commands()


def open_palette(app: Dashboard) -> None:
    """What Textual's own action does."""
    from .palette import Palette

    if not Palette.is_open(app):  # pyright: ignore[reportArgumentType] - of any app
        app.push_screen(Palette(id="--command-palette"))


def help_of(*sections: tuple[str, Sequence[BindingType]]) -> dict[str, Keys]:
    """Titles with their keys, and what each does. Keys that do the same share a line."""
    return {title: _keys(bindings) for title, bindings in sections}


def _keys(bindings: Iterable[BindingType]) -> Keys:
    named: dict[str, list[str]] = {}
    for binding in Binding.make_bindings(bindings):
        if meaning := binding.tooltip or binding.description:
            named.setdefault(meaning, []).append(name_of(binding.key))
    return {" ".join(dict.fromkeys(names)): meaning for meaning, names in named.items()}


def name_of(key: str) -> str:
    """As it is written on the keyboard."""
    *modifiers, last = key.split("+") if len(key) > 1 else [key]
    return "".join(f"{modifier.capitalize()}+" for modifier in modifiers) + (
        _NAMES.get(last) or (last.upper() if modifiers else last)
    )
