"""The envelope of OpenTelemetry's JSON (OTLP 1.x): resources, scopes, and in them log records or spans.

What is not known in it is not looked at, as OTLP has it. A null in a list is nothing, and passed over; among
records or spans it is one that is wrong. Numbers come as JSON numbers from some programs and as text from
others, and times are nanoseconds since 1970.
"""

from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agent_meter_mcp.core.errors import InvalidInput

from .fields import Part, Several
from .mistakes import first_mistake

Plain = str | int | float | bool
Attributes = dict[str, Plain]
M = TypeVar("M", bound=BaseModel)

PARTS_MAX = 200_000
"""Resources, scopes, records and attributes of a body: to read a million empty ones took seconds."""
DIGITS_MAX = 20
"""An integer of 64 bits has no more."""
Loose = Annotated[
    list[Any] | None, Field(description="each looked at for itself: one that is wrong spoils no other")
]


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", defer_build=True)


class KeyValue(_Lenient):
    key: str = ""
    value: dict[str, Any] | None = None


class Resource(_Lenient):
    """Which program says it."""

    attributes: Several[KeyValue | None] | None = None


class ScopeLogs(_Lenient):
    logRecords: Loose = None


class ResourceLogs(_Lenient):
    resource: Resource | None = None
    scopeLogs: Several[ScopeLogs | None] | None = None


class Logs(_Lenient):
    """A body of `POST /v1/logs`. Raises InvalidInput where it has too many parts."""

    resourceLogs: Several[ResourceLogs | None] | None = None

    @model_validator(mode="before")
    @classmethod
    def _has_few_parts(cls, sent: Any) -> Any:
        return few_parts(sent, "resourceLogs", "scopeLogs", "logRecords")


class ScopeSpans(_Lenient):
    spans: Loose = None


class ResourceSpans(_Lenient):
    resource: Resource | None = None
    scopeSpans: Several[ScopeSpans | None] | None = None


class Traces(_Lenient):
    """A body of `POST /v1/traces`. Raises InvalidInput where it has too many parts."""

    resourceSpans: Several[ResourceSpans | None] | None = None

    @model_validator(mode="before")
    @classmethod
    def _has_few_parts(cls, sent: Any) -> Any:
        return few_parts(sent, "resourceSpans", "scopeSpans", "spans")


class MeterReadings(_Lenient):
    """A body of `POST /v1/metrics`."""

    resourceMetrics: Loose = None


class LogRecord(_Lenient):
    timeUnixNano: int | str | None = None
    observedTimeUnixNano: int | str | None = None
    eventName: Any = None
    body: Any = None
    attributes: Several[KeyValue | None] | None = None


class SpanStatus(_Lenient):
    code: int | str | None = None


class Span(_Lenient):
    traceId: str = ""
    spanId: str = ""
    startTimeUnixNano: int | str | None = None
    endTimeUnixNano: int | str | None = None
    status: SpanStatus | None = None
    attributes: Several[KeyValue | None] | None = None


class RejectedLogs(Part):
    """How many records were not taken, as text, and what is wrong with the first one."""

    rejectedLogRecords: str
    errorMessage: str


class LogsTaken(Part):
    """`{}`: all of it was taken."""

    partialSuccess: RejectedLogs | None = None


class RejectedSpans(Part):
    """How many spans were not taken, as text, and what is wrong with the first one."""

    rejectedSpans: str
    errorMessage: str


class TracesTaken(Part):
    """`{}`: all of it was taken."""

    partialSuccess: RejectedSpans | None = None


class MetricsTaken(Part):
    """`{}`, always."""


def few_parts(sent: Any, resources: str, scopes: str, records: str) -> Any:
    """What was sent, when it has not too many parts. Raises InvalidInput as soon as that is known."""
    parts = 0
    for more in _sizes(sent, resources, scopes, records):
        parts += more
        if parts > PARTS_MAX:
            what = "resources, scopes, records and attributes"
            raise InvalidInput("body", f"has more than {PARTS_MAX:,} {what}: export fewer at a time")
    return sent


def _sizes(sent: Any, resources: str, scopes: str, records: str) -> Iterator[int]:
    for resource in _within(sent, resources):
        yield 1 + len(_within(_member(resource, "resource"), "attributes"))
        for scope in _within(resource, scopes):
            yield 1
            for record in _within(scope, records):
                yield 1 + len(_within(record, "attributes"))


def _member(sent: Any, field: str) -> Any:
    return sent.get(field) if isinstance(sent, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - it comes from JSON


def _within(sent: Any, field: str) -> list[Any]:
    """A list in what was sent; nothing where that is something else, which is found later."""
    found = _member(sent, field)
    return found if isinstance(found, list) else []  # pyright: ignore[reportUnknownVariableType] - it comes from JSON


class Said(NamedTuple):
    """A record or a span as it was sent, and the attributes of the program that says it."""

    sent: Any
    of_resource: Attributes


def records_in(logs: Logs) -> Iterator[Said]:
    for resource in _given(logs.resourceLogs):
        of_resource = attributes_in(resource.resource.attributes if resource.resource else None)
        for scope in _given(resource.scopeLogs):
            for sent in scope.logRecords or ():
                yield Said(sent, of_resource)


def spans_in(traces: Traces) -> Iterator[Said]:
    for resource in _given(traces.resourceSpans):
        of_resource = attributes_in(resource.resource.attributes if resource.resource else None)
        for scope in _given(resource.scopeSpans):
            for sent in scope.spans or ():
                yield Said(sent, of_resource)


def _given(sent: list[M | None] | None) -> Iterator[M]:
    return (one for one in sent or () if one is not None)


def read_one(kind: type[M], sent: Any) -> M:
    """A record or a span. Raises InvalidInput."""
    try:
        return kind.model_validate(sent)
    except ValidationError as error:
        raise first_mistake(error) from None


def attributes_in(sent: list[KeyValue | None] | None) -> Attributes:
    """Those that are text, a number or a truth value."""
    found: Attributes = {}
    for attribute in _given(sent):
        value = plain(attribute.value)
        if value is not None:
            found[attribute.key] = value
    return found


def plain(value: Any) -> Plain | None:
    """What an AnyValue holds; None for nothing, lists, maps and bytes."""
    if not isinstance(value, dict):
        return None
    for kind in ("stringValue", "intValue", "doubleValue", "boolValue"):
        held: Any = value.get(kind)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - it comes from JSON
        if isinstance(held, str | int | float):
            return held
    return None


def nanoseconds(sent: int | str | None, field: str) -> int:
    """A time; 0 where there is none. Raises InvalidInput."""
    if sent is None:
        return 0
    value = whole(sent)
    if value is None or value >= 2**64:
        raise InvalidInput(field, "must be nanoseconds since 1970")
    return value


def whole(value: Plain) -> int | None:
    """A whole number of at least 0, also one that is written as text; None if it is none."""
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) <= DIGITS_MAX else None
    if isinstance(value, bool) or value < 0 or (isinstance(value, float) and not value.is_integer()):
        return None
    return int(value)
