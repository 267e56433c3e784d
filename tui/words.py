"""A few words on the screen: only the lines that are others than before are painted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Static

from .table import fitted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.style import Style
    from textual.geometry import Size
    from textual.selection import Selection
    from textual.visual import VisualType


NARROWEST = 10


class Told(Static):
    """A text that changes, in as many lines as it takes. What agents chose in it is shown as it is."""

    def __init__(
        self, content: Text | str = "", *, id: str | None = None, classes: str | None = None
    ) -> None:
        super().__init__(content, id=id, classes=classes, markup=False)

    def update(self, content: VisualType = "", *, layout: bool = True) -> None:
        """Who changes again before its own loop has run, but was laid out meanwhile, would keep that size."""
        self._box_model_cache.clear()  # Textual forgets to
        super().update(content, layout=layout)


class Pairs(Static):
    """Names and what they are, line by line; what is long goes on beneath where it began."""

    def __init__(self, pairs: Sequence[tuple[str, str]], name_width: int, *, name_style: str = "") -> None:
        super().__init__()
        self._pairs = pairs
        self._name_width = name_width
        self._name_style = name_style

    def on_resize(self) -> None:
        room = max(self.content_size.width - self._name_width, NARROWEST)
        words = Text()
        for name, told in self._pairs:
            words.append(fitted(name, self._name_width - 1), self._name_style).append(" ")
            lines = Text(told).wrap(self.app.console, room)  # pyright: ignore[reportUnknownMemberType] - of any app
            words.append(("\n" + " " * self._name_width).join(line.plain.rstrip() for line in lines) + "\n")
        words.rstrip()
        self.update(words)


class Words(Widget):
    """Lines that do not wrap. The screen is laid out again only when there are more of them, or fewer.

    Textual's own `Static` makes all of its lines anew when a letter changes, which is a seventh of a look.
    """

    DEFAULT_CSS = "Words { height: auto; }"

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._lines: list[Text] = []
        self._base: Style | None = None

    @property
    def plain(self) -> str:
        return "\n".join(line.plain for line in self._lines)

    def update(self, words: Text | str) -> None:
        text = Text(words) if isinstance(words, str) else words
        before, self._lines = self._lines, list(text.split("\n", allow_blank=True)) if text else []
        if len(before) != len(self._lines):
            # Who is laid out between two requests, before its own loop has run, would keep the size it had.
            self._box_model_cache.clear()  # Textual forgets to
            self.refresh(layout=True)
            return
        for number, (old, new) in enumerate(zip(before, self._lines, strict=True)):
            if old != new or old.style != new.style:  # two texts are equal in spite of their styles
                self.refresh(Region(0, number, self.content_size.width, 1))

    def get_content_width(self, container: Size, viewport: Size) -> int:
        return max((line.cell_len for line in self._lines), default=0)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._lines)

    def notify_style_update(self) -> None:
        self._base = None
        super().notify_style_update()

    def render_line(self, y: int) -> Strip:
        width = self.content_size.width
        if self._base is None:  # Textual works it out anew after each change
            self._base = self.rich_style
        base = self._base
        if y >= len(self._lines):
            return Strip.blank(width, base)
        line = self._lines[y].copy()
        selected = self.text_selection and self.text_selection.get_span(y)
        if selected:
            start, end = selected
            style = self.screen.get_component_rich_style("screen--selection")
            line.stylize(style, start, len(line) if end < 0 else end)
        line.truncate(width, overflow="ellipsis", pad=True)
        segments = line.render(self.app.console)  # pyright: ignore[reportUnknownMemberType] - of any app
        return Strip(segments, width).apply_style(base).apply_offsets(0, y)

    def get_selection(self, selection: Selection) -> tuple[str, str]:
        return selection.extract(self.plain), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh()
