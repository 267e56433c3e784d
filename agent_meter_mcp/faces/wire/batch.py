"""What is sent to and answered by the routes that upstream's clients use."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, TypeAdapter

from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.windows import check_zone

from .arguments import RecordUsage
from .attesting import day_of
from .fields import Arguments, Moment, Part, parse_time
from .results import Number
from .sessions import SESSION
from .upstream import ADAPTER

if TYPE_CHECKING:
    from collections.abc import Mapping


class Rejected(Part):
    """A record that was not stored, and why."""

    index: int
    id: str | None
    error: str


class RecordResult(Part):
    """What became of one record."""

    index: int
    id: str | None
    status: Literal["recorded", "duplicate", "corrected", "rejected"]
    outcome: Literal["accepted", "over_limit", "rejected"] | None = None
    cost_usd: Number | None = None
    cost_source: Literal["reported", "computed", "unpriced"] | None = None
    code: str | None = None
    error: str | None = None
    field: str | None = None


class BatchStored(Part):
    """What became of a batch. `accepted` counts new and corrected records."""

    accepted: int
    duplicatesIgnored: int
    rejected: list[Rejected]
    results: list[RecordResult]


class SessionsStored(Part):
    """What became of sessions. `accepted` counts new and corrected ones."""

    accepted: int
    duplicatesIgnored: int
    rejected: list[Rejected]


class SessionsStatus(Part):
    """That the key is good, and what it is."""

    ok: bool
    role: str
    agent: str | None


class VerifyReceipt(Arguments):
    """A receipt, and the signature of the request that it was given for."""

    receipt: str
    request_signature: Annotated[
        str, Field(validation_alias=AliasChoices("requestSignature", "request_signature"))
    ]


class ReceiptVerified(Part):
    valid: bool


class Attest(Arguments):
    """Which usage of a service: that with these ids, of a day, or in [since, until)."""

    service: str
    ids: list[str] | None = None
    day: str | None = None
    since: Moment | None = None
    until: Moment | None = None
    timezone: str | None = None

    def span(self, timezone: str) -> tuple[int | None, int | None]:
        """`timezone` is the one in which a day is meant if none is given. Raises InvalidInput."""
        given = [field for field in ("ids", "day", "since") if getattr(self, field) is not None]
        if len(given) != 1 or (self.until is not None and given != ["since"]):
            raise InvalidInput(
                given[1] if len(given) > 1 else "until" if self.until is not None else "day",
                "give one of ids, day, and since (with until)",
            )
        if self.day is not None:
            return day_of(self.day, check_zone(self.timezone or timezone))
        if self.timezone is not None:
            raise InvalidInput("timezone", "is for a day: leave it out")
        return (
            None if self.since is None else parse_time(self.since, "since"),
            None if self.until is None else parse_time(self.until, "until"),
        )


class AttestedRecord(BaseModel):
    """One of upstream's records, as it was signed."""

    model_config = ConfigDict(extra="allow", defer_build=True)
    id: str


class Attestation(Part):
    """`records` are what the root was made of; a client verifies them with the service's secret."""

    batchId: str
    timestamp: str
    serviceId: str
    recordCount: int
    merkleRoot: str
    signature: str
    records: list[AttestedRecord]


def body_schema(field: str, entry: "Mapping[str, Any]", maximum: int, *beside: str) -> dict[str, Any]:
    """The OpenAPI of a body that is read without FastAPI: an object with a list of entries."""
    properties: dict[str, Any] = {
        field: {"type": "array", "items": entry, "minItems": 1, "maxItems": maximum},
        **{name: {"type": "string"} for name in beside},
    }
    return _body({"type": "object", "required": [field, *beside], "properties": properties})


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """The OpenAPI of a body that is read without FastAPI."""
    return _body(_inlined(model.model_json_schema()))


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def records_schema() -> dict[str, Any]:
    """A record in either shape."""
    return {"anyOf": [_inlined(ADAPTER.json_schema()), _inlined(TypeAdapter(RecordUsage).json_schema())]}


def session_schema() -> dict[str, Any]:
    return _inlined(SESSION.json_schema())


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """Without references, which would lead nowhere inside another document."""
    definitions = schema.pop("$defs", {})

    def resolved(part: Any) -> Any:
        if isinstance(part, dict):
            found: dict[str, Any] = part  # pyright: ignore[reportUnknownVariableType] - it comes from JSON
            name = str(found.get("$ref", "")).rpartition("/")[2]
            if name in definitions:
                return resolved(definitions[name])
            return {key: resolved(value) for key, value in found.items()}
        if isinstance(part, list):
            entries: list[Any] = part  # pyright: ignore[reportUnknownVariableType] - it comes from JSON
            return [resolved(one) for one in entries]
        return part

    return resolved(schema)
