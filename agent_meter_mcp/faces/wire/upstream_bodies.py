"""What is sent to and answered by the routes that upstream's clients use."""

from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.windows import check_zone

from .attesting import day_of
from .fields import Arguments, Moment, Part, Several, parse_time
from .results import Number


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
    ids: Several[str] | None = None
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
