"""The one shape of an error: `application/problem+json` (RFC 9457), on every route."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from agent_meter_mcp.faces.errors import members_of, shape_of, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent_meter_mcp.core.errors import MeterError

MEDIA_TYPE = "application/problem+json"
_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}
"""What goes with a failure of that status."""


class Refused(Exception):
    """A request is answered with this, and with nothing else."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


def problem(
    status: int,
    title: str,
    detail: str,
    *,
    type_: str = "about:blank",
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> Response:
    """`members` are extensions of the problem: JSON, beside type, title, status and detail."""
    body = {"type": type_, "title": title, "status": status, "detail": detail, **members}
    return Response(
        json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"),
        status,
        headers,
        media_type=MEDIA_TYPE,
    )


def problem_of(error: MeterError) -> Response:
    """What a failure of the ledger is here."""
    headers = _HEADERS.get(shape_of(error).http_status)
    return problem(
        shape_of(error).http_status,
        error.code.replace("_", " ").capitalize(),
        text_of(error),
        headers=headers,
        **members_of(error),
    )
