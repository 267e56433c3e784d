"""What paints its own lines keeps them until they change.

Textual asks a widget for all of its lines when one has changed, and spends most of its time on looking for
borders, padding, tints and filters of each: two fifths of what a look at the dashboard would cost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.segment import Segment
from textual.containers import Vertical
from textual.geometry import Region
from textual.style import Style as Look
from textual.widget import Widget

if TYPE_CHECKING:
    from typing import Self

    from rich.style import Style
    from textual.color import Color
    from textual.strip import Strip


class Painted(Widget):
    """A widget without borders, and with no padding above or below its lines.

    A line is asked for again when its region, or the whole widget, was refreshed, or when the width changed.
    """

    def __init__(
        self,
        *children: Widget,
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
        disabled: bool = False,
    ) -> None:
        super().__init__(*children, name=name, id=id, classes=classes, disabled=disabled)
        self._painted: dict[int, Strip] = {}
        self._painted_width = 0
        self._background: Color | None = None

    def paint(self, y: int) -> Strip:
        """That line over the whole width, as the terminal is to show it: without colours, maybe."""
        strip = self.render_line(y)
        for each in self.get_line_filters():
            strip = strip.apply_filter(each, self._behind)
        return strip

    @property
    def line_width(self) -> int:
        return self.outer_size.width

    @property
    def _behind(self) -> Color:
        if self._background is None:  # Textual works it out anew each time
            self._background = self.background_colors[1]
        return self._background

    def written(self, how: str) -> Style:
        """How something on it is written: "bold $text-error", in the words and colours of the theme.

        Textual would work out a class of CSS for each way, in every widget, before one of them is needed.
        """
        colours = self.app.theme_variables  # pyright: ignore[reportUnknownMemberType] - of any app
        words = [colours[word[1:]] if word.startswith("$") else word for word in how.split()]
        return (self.visual_style + Look.parse(" ".join(words))).rich_style

    def filtered(self, style: Style) -> Style:
        """A style of a line that is painted in one, as the terminal is to show it."""
        segments = [Segment(" ", style)]
        for each in self.get_line_filters():
            segments = each.apply(segments, self._behind)
        shown = segments[0].style
        return style if shown is None else shown

    def notify_style_update(self) -> None:
        self._background = None
        self.refresh()  # what is `written` may be so in other colours now
        super().notify_style_update()

    def refresh(
        self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False
    ) -> Self:
        if repaint:
            if not regions:
                self._painted.clear()
            for region in regions:
                for y in region.line_range:
                    self._painted.pop(y, None)
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)

    def render_lines(self, crop: Region) -> list[Strip]:
        """As Textual does it; where something shines through, it does."""
        if self.opacity != 1:
            return super().render_lines(crop)
        width, painted = self.line_width, self._painted
        if width != self._painted_width:
            self._painted_width = width
            painted.clear()
        strips: list[Strip] = []
        for y in crop.line_range:
            strip = painted.get(y)
            if strip is None:
                strip = painted[y] = self.paint(y)
            strips.append(strip if crop.x == 0 and crop.right == width else strip.crop(crop.x, crop.right))
        return strips


def ground(self: Widget, crop: Region) -> list[Strip]:
    """`render_lines` of what others cover: between its borders one line does for all. Textual makes each."""

    def line(y: int) -> Strip:
        return Widget.render_lines(self, Region(crop.x, y, crop.width, 1))[0]

    first, end = self.gutter.top, self.outer_size.height - self.gutter.bottom
    one = line(first)
    return [one if first <= y < end else line(y) for y in crop.line_range]


class Ground(Vertical):
    """A container of which only the borders are seen."""

    render_lines = ground
