"""What the routes give, and how the OpenAPI document tells it."""

from __future__ import annotations

from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin
from urllib.parse import urlencode

from fastapi import Response
from pydantic import BaseModel, WithJsonSchema, create_model

from agent_meter_mcp.faces.wire.problems import MEDIA_TYPE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import Request

JSON = "application/json"
PROBLEM = "Problem"
PROBLEM_SCHEMA = {"$ref": f"#/components/schemas/{PROBLEM}"}
_PROBLEMS = {
    400: "The request cannot be read: malformed JSON or gzip, or another character set than UTF-8",
    401: "No valid key: `Authorization: Bearer <key>` is missing, wrong, revoked or expired",
    403: "The key's role may not do this, or a kill switch is engaged (`code` is `kill_switch`)",
    404: "There is no such thing",
    408: "The request's body did not arrive in time",
    409: "It contradicts what is there already",
    413: "The request's body is too large",
    415: "The request's body is not JSON, or encoded otherwise than by gzip",
    422: "A field is wrong; `field` names it",
    429: "Over a limit: `violated-policies` names the limits, `Retry-After` says when to come back",
    500: "The meter failed; its log says why",
    503: "The ledger is busy; nothing was written. Try again after `Retry-After` seconds",
    507: "The disk is full; nothing was written",
}
EVERYWHERE = (400, 401, 403, 408, 413, 415, 422, 500, 503)
"""What any route may answer."""
_UNION: Any = Union
_LIST: Any = list
_told: dict[type[BaseModel], type[BaseModel]] = {}


def answer(result: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(result.model_dump_json(), status, headers, media_type=JSON)


def next_page(request: Request, cursor: str | None) -> dict[str, str]:
    """A `Link` to the page after this one, as a header; none where this is the last.

    Only its query is told: who follows it stays at the address that was asked, also behind a proxy's prefix.
    """
    if cursor is None:
        return {}
    kept = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    query = urlencode([*kept, ("cursor", cursor)])
    return {"Link": f'<?{query}>; rel="next"'}


LINKED: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            "Link": {
                "description": 'The next page, as `<?query>; rel="next"`: the same address with this query;'
                " left out on the last one",
                "schema": {"type": "string"},
            }
        }
    }
}
"""What a paged route says of its answer."""


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route says of the problems that it may answer with."""
    return {
        status: {"description": _PROBLEMS[status], "content": {MEDIA_TYPE: {"schema": PROBLEM_SCHEMA}}}
        for status in statuses
    }


def told(model: type[BaseModel]) -> type[BaseModel]:
    """`model` for the OpenAPI document, with everything spelled out that the tools' schemas leave to each
    other (`wire.fields.ListElsewhere`)."""
    if model not in _told:
        fields: dict[str, Any] = {
            name: (_spelled_out(field.annotation), ... if field.is_required() else field.default)
            for name, field in model.model_fields.items()
            if not field.exclude
        }
        _told[model] = create_model(model.__name__, __doc__=model.__doc__, **fields)
    return _told[model]


def _spelled_out(kind: Any) -> Any:
    """A type, with the models in it told."""
    origin: Any = get_origin(kind)
    inner: tuple[Any, ...] = get_args(kind)
    if origin is Annotated:
        kept = [hint for hint in inner[1:] if not isinstance(hint, WithJsonSchema)]
        spelled = _spelled_out(inner[0])
        return Annotated[(spelled, *kept)] if kept else spelled
    if origin in (Union, UnionType):
        return _UNION[tuple(_spelled_out(option) for option in inner)]
    if origin is list:
        return _LIST[_spelled_out(inner[0])]
    return told(kind) if BaseModel in getattr(kind, "__mro__", ()) else kind
