"""The requests that carry usage to a remote meter, and what their answers mean."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from agent_meter_mcp.core.errors import MeterError, Unreachable

from .errors import error_of
from .fields import SettleFields
from .results import UsageRecorded, members_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .connection import Connection

RECORDS_MAX = 1000
BYTES_MAX = 3 * 1024 * 1024
"""Of one request. The server takes 4 MiB."""
NO_METER = "this is not the answer of a meter."
SETTLED = frozenset(SettleFields.__annotations__)


async def record_all(
    connection: Connection, lines: Sequence[str], *, probing: bool = False
) -> list[UsageRecorded | MeterError]:
    """What became of each. A 429 is an answer too: all is stored, and somebody is over a limit."""
    body = f'{{"records":[{",".join(lines)}]}}'
    status, document = await connection.call(
        "POST", "/v1/usage/batch", body, refusals=(429,), probing=probing
    )
    results = members_of(document).get("results")
    if not isinstance(results, list) or len(cast("list[Any]", results)) != len(lines):
        raise (error_of(status, document) if status == 429 else Unreachable(NO_METER))
    return [answer_in(result) for result in cast("list[Any]", results)]


async def settle_over(connection: Connection, members: dict[str, Any], *, probing: bool = False) -> Any:
    """The JSON of a ReservationSettled. `members` are the arguments of settle_reservation.

    Raises Unreachable for what no meter says: the hold has not ended by that."""
    rest = dict(members)
    reservation_id = str(rest.pop("reservation_id"))
    path = f"/v1/reservations/{quote(reservation_id, safe='')}/settle"
    _, document = await connection.call("POST", path, json.dumps(rest), probing=probing)
    if members_of(document).get("reservation_id") != reservation_id:
        raise Unreachable(NO_METER)
    return document


async def settle_asked(
    connection: Connection, asked: dict[str, Any], record: dict[str, Any], *, probing: bool = False
) -> Any:
    """As `settle_over`, for a reservation whose answer got lost: asked for again, it is the same one.

    Raises Conflict when there is another thing under its id."""
    body = json.dumps(asked)
    status, document = await connection.call(
        "POST", "/v1/reservations", body, refusals=(403, 429), probing=probing
    )
    reservation_id = members_of(document).get("reservation_id")
    if not isinstance(reservation_id, str):
        if "allowed" in members_of(document):  # just now it has expired, so the record will be taken
            raise Unreachable(f"the hold of {asked['id']!r} has ended in this moment; try again.")
        raise error_of(status, document) if status >= 400 else Unreachable(NO_METER)
    actual = {field: value for field, value in record.items() if field in SETTLED}
    return await settle_over(connection, {"reservation_id": reservation_id, **actual}, probing=probing)


STORED = ("recorded", "duplicate", "corrected")
"""What can have become of a record that is in the ledger."""


def answer_in(result: object) -> UsageRecorded | MeterError:
    """What became of one record. Raises Unreachable for what no meter says."""
    members = members_of(result)
    if members.get("status") not in STORED:
        return error_of(
            422, {"code": members.get("code"), "field": members.get("field"), "detail": _said(members)}
        )
    event_id = members.get("id")
    if not isinstance(event_id, str):
        raise Unreachable(NO_METER)
    known = {
        field: members[field] for field in ("cost_usd", "cost_source", "retry_after_s") if field in members
    }
    return UsageRecorded(
        str(members.get("message") or "Recorded."),
        event_id,
        members["status"],
        members.get("outcome"),
        **known,
    )


def _said(members: dict[str, Any]) -> str:
    error = members.get("error")
    told = members_of(error)
    return str(told.get("detail") or told.get("message") or error or "the meter refused this record")
