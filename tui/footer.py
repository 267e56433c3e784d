"""The last line: the keys that may be pressed now, and what they do.

Textual's own Footer is a widget for each key, made anew when the focus moves: a third of all that was done
until the first picture, and it holds on to every key that it has ever shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from rich.cells import cell_len
from rich.segment import Segment
from textual.strip import Strip

from .painted import Painted

if TYPE_CHECKING:
    from textual import events
    from textual.binding import Binding
    from textual.signal import Signal


KEY = "bold $footer-key-foreground on $footer-key-background"
WORDS = "$footer-description-foreground on $footer-description-background"
OFF = "$text-disabled"
STAYS = ("help", "app.quit")
"""What is never left out: the one tells of all the others, the other is the way out."""


class Keys(Painted):
    """Bindings with `show`, of the widget that has the focus and of all around it; disabled ones are grey.

    Where there is no room for all of them the last are left out, and none is cut.
    """

    ALLOW_SELECT = False
    DEFAULT_CSS = "Keys { height: 1; background: $footer-background; }"

    def on_mount(self) -> None:
        news = cast("Signal[object]", self.screen.bindings_updated_signal)  # pyright: ignore[reportUnknownMemberType] - of any screen
        news.subscribe(self, lambda _: self.refresh())

    def _shown(self) -> list[tuple[Binding, bool, str]]:
        """Each with whether it may be pressed, and its words. Of several that do the same, the first."""
        found: dict[str, tuple[Binding, bool, str]] = {}
        for active in self.screen.active_bindings.values():
            binding = active.binding
            if binding.show:
                found.setdefault(binding.action, (binding, active.enabled, f" {binding.description} "))
        return self._fitting(list(found.values()))

    def _fitting(self, shown: list[tuple[Binding, bool, str]]) -> list[tuple[Binding, bool, str]]:
        widths = {binding: cell_len(self._key(binding) + text) for binding, _, text in shown}
        for binding in [binding for binding in reversed(widths) if binding.action not in STAYS]:
            if sum(widths.values()) <= self.size.width:
                break
            del widths[binding]
        return [one for one in shown if one[0] in widths]

    def _key(self, binding: Binding) -> str:
        return f" {self.app.get_key_display(binding)}"  # pyright: ignore[reportUnknownMemberType] - of any app

    def render_line(self, y: int) -> Strip:
        segments: list[Segment] = []
        key, words, off = (self.written(how) for how in (KEY, WORDS, OFF))
        for binding, enabled, text in self._shown():
            segments.append(Segment(self._key(binding), key if enabled else off))
            segments.append(Segment(text, words if enabled else off))
        return Strip(segments).adjust_cell_length(self.size.width, self.rich_style)

    def on_click(self, event: events.Click) -> None:
        right = 0
        for binding, _, text in self._shown():
            right += cell_len(self._key(binding)) + cell_len(text)
            if event.x < right:
                self.app.simulate_key(binding.key)  # pyright: ignore[reportUnknownMemberType] - of any app
                return
