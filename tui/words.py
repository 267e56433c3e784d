"""A few words on the screen, which cost nothing while they stay what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text
from textual.widgets import Static

if TYPE_CHECKING:
    from textual.visual import VisualType


class Words(Static):
    """Lines that do not wrap. The screen is laid out again only when there are more of them, or fewer."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id, markup=False)

    def update(self, content: VisualType = "", *, layout: bool = True) -> None:
        before, after = _told(self.content), _told(content)
        if before != after:
            super().update(content, layout=layout and before[0].count("\n") != after[0].count("\n"))


def _told(content: VisualType) -> tuple[str, object]:
    return (
        (content.plain, (content.spans, content.style)) if isinstance(content, Text) else (str(content), "")
    )
