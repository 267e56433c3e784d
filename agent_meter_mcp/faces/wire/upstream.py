"""Upstream's `UsageRecord`, turned into what the ledger takes, and back.

What the ledger has no field for (how and where a request was made, its signature, what the agent calls
itself, the caller's own metadata, and whatever a newer client adds) is kept in the event's metadata under one
key, so that the record can be given back. Its objects are kept with their keys sorted: a client whose maps
have no order sends the same record twice in two orders, and that is one record.
"""

from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, cast

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import to_json
from typing_extensions import TypedDict

from agent_meter_mcp.core.attest import js_text, parse
from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.models import Usage, Who
from agent_meter_mcp.core.money import MICRO_PER_UNIT, UNITS_MAX, micro_units, number_of
from agent_meter_mcp.core.times import time_text_ms
from agent_meter_mcp.intake import Report

from .fields import Several, parse_time
from .mistakes import first_mistake

if TYPE_CHECKING:
    from agent_meter_mcp.core.attest import Json
    from agent_meter_mcp.core.models import Source, StoredEvent

KEPT = "upstream"
"""The key of an event's metadata under which a record is kept."""
DOUBLE_BITS = 1023
"""Integers that have more become Infinity in JavaScript."""
DIGITS_MAX = 300
"""A text that is no longer has no such integer in it."""

# TypedDicts and not models: a batch has a thousand of these, and nothing but their values is of use.
_TOLERANT = ConfigDict(strict=True, extra="allow")


class UpstreamAgent(TypedDict):
    """Who used it. `shepherdId` is the human or team that it acts for, our `owner`."""

    __pydantic_config__ = _TOLERANT  # pyright: ignore[reportGeneralTypeIssues] - pydantic's way to configure one
    agentId: str
    name: NotRequired[str | None]
    shepherdId: NotRequired[str | None]
    tier: NotRequired[str | None]


class UpstreamRecord(TypedDict):
    """Usage as upstream's SDKs report it."""

    __pydantic_config__ = _TOLERANT  # pyright: ignore[reportGeneralTypeIssues] - pydantic's way to configure one
    id: str
    timestamp: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    serviceId: str
    agent: UpstreamAgent
    operation: str
    units: int | float
    unitType: str
    pricingModel: Literal["per-call", "per-unit", "per-minute", "tiered", "custom"]
    method: str
    path: str
    statusCode: int
    durationMs: int | float
    requestSignature: NotRequired[str | None]
    metadata: NotRequired[dict[str, Any] | None]


class _Batch(TypedDict):
    __pydantic_config__ = _TOLERANT  # pyright: ignore[reportGeneralTypeIssues] - pydantic's way to configure one
    records: Several[UpstreamRecord]


ADAPTER = TypeAdapter(UpstreamRecord)
_validate = ADAPTER.validate_python
_read_batch = TypeAdapter(_Batch).validate_json
_OPTIONAL = ("requestSignature", "metadata")
_AGENT = ("name", "shepherdId", "tier")
_SIMPLE = frozenset((str, int, float, bool, type(None)))
_KNOWN = frozenset(UpstreamRecord.__annotations__)
_KNOWN_AGENT = frozenset(UpstreamAgent.__annotations__)
_REQUIRED = len(_KNOWN) - 2
FIELDS = {
    "agent": "agent.agentId",
    "duration_ms": "durationMs",
    "metadata": "metadata",
    "occurred_at": "timestamp",
    "service": "serviceId",
    "status_code": "statusCode",
    "unit_type": "unitType",
}
"""What the ledger's fields are called in a record."""


def is_upstream(record: Any) -> bool:
    """Whether it is meant to be such a record; ours have other names."""
    if not isinstance(record, dict):
        return False
    return (
        "serviceId" in record
        or "timestamp" in record
        or isinstance(cast("dict[str, Any]", record).get("agent"), dict)
    )


def read_batch(body: bytes) -> list[dict[str, Any]] | None:
    """The records of a batch, if all of them are upstream's and none is wrong: in one go, as it mostly is."""
    try:
        return cast("dict[str, Any]", _read_batch(body))["records"]
    except ValidationError:
        return None


class Reports:
    """Makes reports of a batch's records. Who uses, and how much, is mostly the same again, and made once."""

    def __init__(self, source: "Source") -> None:
        self._source: Source = source
        self._whos: dict[tuple[str, str], Who] = {}
        self._usages: dict[tuple[int, str], Usage] = {}

    def of(self, sent: object) -> Report:
        """Raises InvalidInput, names the field as the record does."""
        try:
            record = cast("dict[str, Any]", _validate(sent))
        except ValidationError as error:
            raise first_mistake(error) from None
        return self.checked(record)

    def checked(self, record: dict[str, Any]) -> Report:
        """Of a record whose fields are of the right types. Raises InvalidInput as `of`."""
        agent = record["agent"]
        units_micro, duration_ms = _units_micro(record["units"]), _milliseconds(record["durationMs"])
        names = (agent["agentId"], record["serviceId"])
        who = self._whos.get(names)
        if who is None:
            who = self._whos[names] = Who(*names)
        amounts = (units_micro, record["unitType"])
        usage = self._usages.get(amounts)
        if usage is None:
            usage = self._usages[amounts] = Usage(1, *amounts)
        return Report(
            who,
            usage,
            record["id"],
            record["operation"],
            None,
            parse_time(record["timestamp"], "timestamp"),
            record["statusCode"],
            duration_ms,
            kept_text(_kept(record, agent, units_micro, duration_ms)),
            self._source,
        )


def _kept(
    record: dict[str, Any], agent: dict[str, Any], units_micro: int, duration_ms: int
) -> dict[str, Any]:
    """What the ledger has no field for, or none that is exact."""
    kept: dict[str, Any] = {
        "method": record["method"],
        "path": record["path"],
        "pricingModel": record["pricingModel"],
    }
    others = len(record) - _REQUIRED
    if others and others > _keep(kept, record, _OPTIONAL):
        kept["extra"] = {name: record[name] for name in record.keys() - _KNOWN}
    others = len(agent) - 1
    if others and others > _keep(kept, agent, _AGENT):
        kept["agentExtra"] = {name: agent[name] for name in agent.keys() - _KNOWN_AGENT}
    if not _is_usual(record["timestamp"]):
        kept["timestamp"] = record["timestamp"]
    if units_micro / MICRO_PER_UNIT != record["units"]:
        kept["units"] = record["units"]
    if duration_ms != record["durationMs"]:
        kept["durationMs"] = record["durationMs"]
    return kept


def _keep(kept: dict[str, Any], sent: dict[str, Any], fields: tuple[str, ...]) -> int:
    """Keeps those of the fields that say something; answers how many there are."""
    there = 0
    for field in fields:
        if field in sent:
            there += 1
            if (value := sent[field]) is not None:
                kept[field] = value
    return there


def _is_usual(timestamp: str) -> bool:
    """Whether it is written as `Date.toISOString` does, if it is a time at all."""
    return (
        len(timestamp) == 24
        and timestamp[10] == "T"
        and timestamp[19] == "."
        and timestamp[23] == "Z"
        and timestamp[5] != "W"
    )


def _units_micro(units: float) -> int:
    if 0 <= units <= UNITS_MAX:
        if isinstance(units, int):
            return units * MICRO_PER_UNIT
        micro = round(units * MICRO_PER_UNIT)
        if micro / MICRO_PER_UNIT == units:
            return micro
    return micro_units(units)


def _milliseconds(duration: float) -> int:
    if isinstance(duration, int):
        return duration
    if not isfinite(duration):
        raise InvalidInput("durationMs", "must be a finite number")
    return round(duration)


def kept_text(kept: dict[str, Any]) -> str:
    """An event's metadata that keeps these. Raises InvalidInput."""
    try:
        for name, value in kept.items():
            if type(value) not in _SIMPLE:
                kept[name] = _sorted(value)
        text = to_json({KEPT: kept}).decode()
        if len(text) > DIGITS_MAX or "NaN" in text or "Infinity" in text:
            _check_numbers(kept)
    except (ValueError, RecursionError):
        raise InvalidInput(
            "metadata", "must be JSON: finite numbers, valid Unicode, not nested deeply"
        ) from None
    return text


def _sorted(value: Any) -> Any:
    """With its objects' keys in order."""
    if type(value) is dict:
        parts = cast("dict[str, Any]", value)
        in_order: dict[str, Any] = {}
        for name in sorted(parts):
            part = parts[name]
            in_order[name] = part if type(part) in _SIMPLE else _sorted(part)
        return in_order
    if type(value) is list:
        return [_sorted(one) for one in cast("list[Any]", value)]
    return value


def _check_numbers(value: Any) -> None:
    """Raises ValueError for one that no double can be."""
    if isinstance(value, dict):
        for part in cast("dict[str, Any]", value).values():
            _check_numbers(part)
    elif isinstance(value, list):
        for part in cast("list[Any]", value):
            _check_numbers(part)
    elif isinstance(value, float) and not isfinite(value):
        raise ValueError(value)
    elif isinstance(value, int) and value.bit_length() > DOUBLE_BITS:
        raise ValueError


def renamed(error: InvalidInput) -> InvalidInput:
    """As the record calls the field."""
    name = FIELDS.get(error.field, error.field)
    return error if name == error.field else InvalidInput(name, error.problem)


# -- and back ------------------------------------------------------------------------------------------------


def record_text(stored: "StoredEvent") -> str:
    """The record's JSON text, as `JSON.stringify` writes it. Usage of other origin becomes one as well."""
    event, usage = stored.event, stored.event.usage
    metadata = None if event.metadata is None else parse(event.metadata, "metadata")
    kept: Json = metadata.get(KEPT) if isinstance(metadata, dict) else None
    if not isinstance(kept, dict):
        kept = {} if metadata is None else {"metadata": metadata}
    agent: dict[str, Json] = {"agentId": event.who.agent}
    agent |= {field: kept[field] for field in _AGENT if field in kept}
    units, unit_type = _units_of(usage)
    record: dict[str, Json] = {
        "id": event.id,
        "timestamp": kept.get("timestamp", time_text_ms(event.occurred_at_us or stored.booked_at_us)),
        "serviceId": event.who.service or "",
        "agent": agent | _extra(kept.get("agentExtra"), _KNOWN_AGENT),
        "operation": event.operation or "",
        "units": kept.get("units", units),
        "unitType": unit_type,
        "pricingModel": kept.get("pricingModel", "per-call"),
        "method": kept.get("method", ""),
        "path": kept.get("path", ""),
        "statusCode": event.status_code or 0,
        "durationMs": kept.get("durationMs", event.duration_ms or 0),
    }
    record |= {field: kept[field] for field in ("requestSignature", "metadata") if field in kept}
    return js_text(record | _extra(kept.get("extra"), _KNOWN))


def signature_in(report: Report) -> str | None:
    """The signature of the request that the record is about, if it names one."""
    metadata = None if report.metadata is None else parse(report.metadata, "metadata")
    kept = metadata.get(KEPT) if isinstance(metadata, dict) else None
    found = kept.get("requestSignature") if isinstance(kept, dict) else None
    return found if isinstance(found, str) else None


def _extra(value: "Json", known: frozenset[str]) -> "dict[str, Json]":
    """What a newer client added. It replaces nothing."""
    if not isinstance(value, dict):
        return {}
    return {name: added for name, added in value.items() if name not in known}


def _units_of(usage: Usage) -> tuple[int | float, str]:
    """Units, else tokens, else requests; and which."""
    if usage.units_micro is not None:
        return number_of("units", usage.units_micro), usage.unit_type or "unit"
    if usage.tokens is not None:
        return usage.tokens, "token"
    return usage.requests, "request"
