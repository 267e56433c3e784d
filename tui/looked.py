"""What the last look found. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_meter_mcp.core.queries import Totals
from agent_meter_mcp.core.value import Value
from agent_meter_mcp.sources.base import RANGES, Snapshot

if TYPE_CHECKING:
    from agent_meter_mcp.sources.base import Range

_NOTHING = Snapshot(0, (), {}, Totals(), (), (), (), ())


class Looked(Value):
    """`range` is what the snapshot's totals are about. With trouble (`code` names it) the snapshot is that of
    the look before it."""

    snapshot: Snapshot | None = None
    trouble: str = ""
    at_s: float = 0.0
    code: str = ""
    range: Range = RANGES[0]

    @property
    def known(self) -> Snapshot:
        """The snapshot; where there is none yet, one in which there is nothing."""
        return self.snapshot or _NOTHING
