"""Who asks, and whom: what every route begins with."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from fastapi import Depends, Request

from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.text import NAME_WIDTH, from_header, shown
from agent_meter_mcp.faces.wire.calls import Call

from . import CALLER

REPEATED = ("group_by",)
"""Query parameters that are lists."""


async def _call_of(request: Request) -> Call:
    """Raises InvalidInput for what would be lost: a query parameter given twice, or beside a body."""
    if request.method in ("PUT", "POST"):
        for name in request.query_params:
            raise InvalidInput(
                shown(name, width=NAME_WIDTH), "this route takes its arguments in the body, as JSON"
            )
    times = Counter(name for name, _ in request.query_params.multi_items() if name not in REPEATED)
    for name in times:
        if times[name] > 1:
            raise InvalidInput(shown(name, width=NAME_WIDTH), "is given twice in the query: give it once")
    state = request.app.state
    return Call(state.ledger, request.scope[CALLER], state.timezone)


Asked = Annotated[Call, Depends(_call_of)]
"""What a route takes to know who asks."""


def header_text(header: str | None) -> str | None:
    """What a header says. Starlette reads all of them as Latin-1."""
    return None if header is None else from_header(header.encode("latin-1"))
