"""Two columns of words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text
from textual.widgets import Static

from .table import fitted

if TYPE_CHECKING:
    from collections.abc import Sequence

NARROWEST = 10


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
