"""A batch of usage in either shape: upstream's records, or the arguments of `record_usage`, also mixed.

What is wrong with one record is its own answer; all others are stored.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from agent_meter_mcp.core.commands import Recorded
from agent_meter_mcp.core.errors import InvalidInput, MeterError
from agent_meter_mcp.core.models import Usage
from agent_meter_mcp.core.text import ID_MAX
from agent_meter_mcp.core.windows import seconds
from agent_meter_mcp.faces.wire.arguments import RecordUsage
from agent_meter_mcp.faces.wire.fields import optional_number
from agent_meter_mcp.faces.wire.mistakes import first_mistake
from agent_meter_mcp.faces.wire.problems import Refused, problem
from agent_meter_mcp.faces.wire.upstream import Reports, is_upstream, read_batch, renamed

from .parameters import usual_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent_meter_mcp.core.decide import Reason
    from agent_meter_mcp.core.models import Source
    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.intake import Report
    from agent_meter_mcp.ledger import Ledger

    from .signing import Signing

M = TypeVar("M", bound=BaseModel)

RECORDS_MAX = 1000
RETRY_MAX_S = 60


def read_json(body: bytes) -> object:
    """Raises Refused."""
    try:
        return from_json(body, allow_inf_nan=False, cache_strings="keys")
    except ValueError:
        # JavaScript writes half a surrogate pair where its text has one, which costs one record, not all.
        try:
            return json.loads(body.decode())
        except (ValueError, RecursionError):
            raise Refused(
                problem(
                    400,
                    "Malformed JSON",
                    "The body is no JSON, or not all of it: it is cut off, nested deeply, or not UTF-8."
                    " Nothing was written.",
                    code="malformed",
                )
            ) from None


def read_as(kind: type[M], body: bytes) -> M:
    """Raises Refused, InvalidInput."""
    try:
        return kind.model_validate(read_json(body))
    except ValidationError as error:
        raise first_mistake(error, "body") from None


def list_in(sent: object, field: str, maximum: int) -> list[Any]:
    """The list of 1 to `maximum` entries that a body consists of. Raises InvalidInput."""
    found = cast("dict[str, Any]", sent).get(field) if isinstance(sent, dict) else None
    if not isinstance(found, list):
        raise InvalidInput(field, f'is required: send {{"{field}": [...]}}')
    entries = cast("list[Any]", found)
    if not 1 <= len(entries) <= maximum:
        raise InvalidInput(field, f"has {len(entries)} entries; 1 to {maximum} are allowed")
    return entries


class Batch:
    """The records of a body, each a report or what is wrong with it. Raises Refused, InvalidInput."""

    def __init__(self, body: bytes, caller: Caller, signing: Signing) -> None:
        checked = read_batch(body)
        records = list_in({"records": checked} if checked else read_json(body), "records", RECORDS_MAX)
        self._caller = caller
        self._source: Source = usual_source(caller)
        self._upstream = Reports(self._source)
        make = self._upstream.checked if checked else self._report
        must_be_signed = signing.agent is not None or bool(signing.secrets.agents)
        self.reports: list[Report] = []
        self._answers: list[MeterError | None] = []
        self._ours: set[int] = set()
        """Which of them have our shape."""
        self._ids = records
        for index, record in enumerate(records):
            # Of all that is in it only the id is needed again: the garbage collector finds no thousand dicts.
            self._ids[index] = id_in(record)
            if not checked and not is_upstream(record):
                self._ours.add(index)
            try:
                report = make(record)
                if must_be_signed:
                    signing.check(caller, report)
            except MeterError as error:
                self._answers.append(error.alone())
            else:
                self._answers.append(None)
                self.reports.append(report)

    def _report(self, record: Any) -> Report:
        if not isinstance(record, dict):
            raise InvalidInput("record", "must be an object")
        sent = cast("dict[str, Any]", record)
        if is_upstream(sent):
            return self._upstream.of(sent)
        try:
            return RecordUsage.model_validate(sent).report(self._caller, self._source)
        except ValidationError as error:
            raise first_mistake(error) from None

    def answer(self, recorded: Sequence[Recorded | MeterError]) -> dict[str, Any]:
        """What became of each record: what the ledger has answered, or why it never got there."""
        stored = iter(recorded)
        accepted = duplicates = 0
        results: list[dict[str, Any]] = []
        rejected: list[dict[str, Any]] = []
        for index in range(len(self._answers)):
            answer = self._answers[index] or next(stored)
            if isinstance(answer, Recorded):
                if answer.status == "duplicate":
                    duplicates += 1
                else:
                    accepted += 1
                results.append(
                    {
                        "index": index,
                        "id": answer.event_id,
                        "status": answer.status,
                        "outcome": answer.outcome,
                        "cost_usd": optional_number("cost_usd", answer.cost_nano_usd),
                        "cost_source": answer.cost_source,
                    }
                )
                continue
            refused = self._refused(index, answer)
            rejected.append({name: refused[name] for name in ("index", "id", "error")})
            results.append(refused)
        return {
            "accepted": accepted,
            "duplicatesIgnored": duplicates,
            "rejected": rejected,
            "results": results,
        }

    def _refused(self, index: int, error: MeterError) -> dict[str, Any]:
        if isinstance(error, InvalidInput) and index not in self._ours:
            error = renamed(error)
        refused = {
            "index": index,
            "id": shown_id(self._ids[index]),
            "status": "rejected",
            "code": error.code,
            "error": str(error),
        }
        return refused | ({"field": error.field} if isinstance(error, InvalidInput) else {})

    async def over(self, ledger: Ledger, recorded: Sequence[Recorded | MeterError]) -> list[Reason]:
        """The hard limits over which agents in the batch are now, after it has been stored."""
        whose = {
            report.who
            for report, answer in zip(self.reports, recorded, strict=True)
            if isinstance(answer, Recorded) and answer.outcome == "over_limit"
        }
        if not whose:
            return []
        asked = [ledger.check(self._caller, who.replace(parent=None), Usage()) for who in whose]
        decisions = await asyncio.gather(*asked, return_exceptions=True)
        return [
            reason
            for decision in decisions
            # All is stored: that somebody cannot be asked about changes nothing.
            if not isinstance(decision, BaseException)
            for reason in decision.reasons
            if reason.code == "limit"
        ]


def retry_s(reasons: Sequence[Reason], now_us: int) -> int:
    """After how many seconds to send more: who is over for long need not wait so long to say what it used."""
    waits = [RETRY_MAX_S if one.retry_at_us is None else seconds(one.retry_at_us - now_us) for one in reasons]
    return min(max(1, *(wait or 1 for wait in waits)), RETRY_MAX_S)


def id_in(record: Any) -> Any:
    """What a record says that its id is."""
    return cast("dict[str, Any]", record).get("id") if isinstance(record, dict) else None


def shown_id(found: Any) -> str | None:
    """An id, if it can be one."""
    return found if isinstance(found, str) and len(found) <= ID_MAX and found.isprintable() else None
