"""A few words on the screen: only the lines that are others than before are painted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.geometry import Region
from textual.strip import Strip
from textual.widgets import Static

from .painted import Painted
from .table import fitted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.geometry import Size
    from textual.selection import Selection
    from textual.visual import VisualType


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


class Words(Painted):
    """Lines that do not wrap. The screen is laid out again only when there are more of them, or fewer.

    Textual's own `Static` makes all of its lines anew when a letter changes, which is a seventh of a look.
    """

    DEFAULT_CSS = "Words { height: auto; }"

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._lines: list[Text] = []
        self._base: Style | None = None
        self._styles: dict[str | Style, Style] = {}

    @property
    def plain(self) -> str:
        return "\n".join(line.plain for line in self._lines)

    def update(self, words: Text | str | Sequence[Text | str]) -> None:
        """A text of several lines, or line by line."""
        before, self._lines = self._lines, _lines(words, self._lines)
        if len(before) != len(self._lines):
            # Who is laid out between two requests, before its own loop has run, would keep the size it had.
            self._box_model_cache.clear()  # Textual forgets to
            self.refresh(layout=True)
            return
        width, both = self.content_size.width, enumerate(zip(before, self._lines, strict=True))
        changed = [number for number, (old, new) in both if old is not new]
        if changed:
            self.refresh(*[Region(0, number, width, 1) for number in changed])

    def get_content_width(self, container: Size, viewport: Size) -> int:
        return max((line.cell_len for line in self._lines), default=0)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._lines)

    def notify_style_update(self) -> None:
        self._base = None
        self._styles.clear()
        super().notify_style_update()

    def paint(self, y: int) -> Strip:
        line = self._lines[y] if y < len(self._lines) else Text()
        padding, base = self.styles.padding, self._style("")
        if line.spans or self.text_selection:
            strip = super().paint(y)
        else:  # what there is most of
            width, style = self.content_size.width, self._style(line.style)
            strip = Strip([Segment(fitted(line.plain, width), style)], width).apply_offsets(0, y)
        if not padding.width:
            return strip
        left, right = Segment(" " * padding.left, base), Segment(" " * padding.right, base)
        return Strip([left, *strip, right], strip.cell_length + padding.width)

    def _style(self, name: str | Style) -> Style:
        """Of a line in one style, as the terminal is to show it."""
        style = self._styles.get(name)
        if style is None:
            own = Style.parse(name) if isinstance(name, str) else name
            style = self._styles[name] = self.filtered(self.rich_style + own)
        return style

    def render_line(self, y: int) -> Strip:
        width = self.content_size.width
        if self._base is None:  # Textual works it out anew after each change
            self._base = self.rich_style
        base = self._base
        if y >= len(self._lines):
            return Strip.blank(width, base)
        line = self._lines[y].copy()
        line.stylize_before(line.style)  # Rich forgets it where nothing else is in it
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


def _lines(words: Text | str | Sequence[Text | str], before: list[Text]) -> list[Text]:
    """Line by line; one that is as it was is the same object."""
    if not words:
        return []
    # To make a text of a line costs more than to see that it is as it was.
    made: Iterable[Text | str]
    if isinstance(words, str):
        made = words.split("\n")
    else:
        made = words.split("\n", allow_blank=True) if isinstance(words, Text) else words
    return [_kept(line, *before[number : number + 1]) for number, line in enumerate(made)]


def _kept(line: Text | str, before: Text | None = None) -> Text:
    if isinstance(line, str):
        same = before is not None and before.plain == line and not before.spans and not before.style
        return before if before is not None and same else Text(line)
    # Two texts are equal in spite of their styles.
    return before if before is not None and before == line and before.style == line.style else line
