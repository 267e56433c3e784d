"""The kinds of values at the edge, and how they become the ledger's integers and back.

Decimals are JSON numbers. One that comes in is read by its decimal text, so 0.1 is one tenth; one that goes
out is the nearest JSON number to the exact decimal, and the same number wherever it has at most 15 digits.
Times are ISO 8601 with an offset.
"""

from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, Strict, WithJsonSchema, model_validator
from pydantic.functional_validators import BeforeValidator, PlainValidator
from pydantic_core import PydanticCustomError

from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.money import number_of
from agent_meter_mcp.core.times import us_of

if TYPE_CHECKING:
    from agent_meter_mcp.core.models import Metric

TIME_CHARACTERS_MAX = 64
ARGUMENTS_MAX = 100
"""More than anything takes. Of more the first are looked at: each that is unknown is a mistake by itself."""
T = TypeVar("T")


def problem(text: str) -> PydanticCustomError:
    """What a validator raises. `text` completes the sentence that the field's name begins."""
    return PydanticCustomError("refused", "{text}", {"text": text})


def _whole(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise problem("must be a whole number")
    return value


def _number(value: Any) -> int | float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise problem("must be a number")
    return value


Count = Annotated[int, BeforeValidator(_whole), WithJsonSchema({"type": "integer"})]
"""A whole number. The core says how large it may be."""
Decimals = Annotated[int | float, PlainValidator(_number), WithJsonSchema({"type": "number"})]
"""A decimal number, not converted yet."""
Flag = Annotated[bool, Strict()]
Several = Annotated[list[T], Field(fail_fast=True)]
"""A list of which the first mistake is told: there may be as many as it has entries."""
Moment = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
"""An ISO 8601 time with an offset, not read yet."""
ListElsewhere = WithJsonSchema({"type": "array"}, mode="serialization")
ObjectElsewhere = WithJsonSchema({"type": "object"}, mode="serialization")
OptionalElsewhere = WithJsonSchema({"type": ["object", "null"]}, mode="serialization")
"""What another tool's schema spells out: 14 KB is all there is for 13 tools."""


def beside(*names: str) -> WithJsonSchema:
    """A list of objects that have `names` beside what another tool's schema spells out."""
    return WithJsonSchema(
        {"type": "array", "items": {"properties": {name: {} for name in names}}}, mode="serialization"
    )


def up_to(maximum: int) -> WithJsonSchema:
    """A whole number with a maximum."""
    return WithJsonSchema({"type": "integer", "maximum": maximum})


class Arguments(BaseModel):
    """What a caller sends. An argument that is not known is an error; null is an argument left out."""

    model_config = ConfigDict(extra="forbid", defer_build=True)
    clearable: ClassVar[tuple[str, ...]] = ()
    """Where null is a value of its own."""

    @model_validator(mode="before")
    @classmethod
    def _leave_out_null(cls, sent: Any) -> Any:
        if not isinstance(sent, dict):
            return sent
        arguments = cast("dict[str, Any]", sent)
        return {
            field: value
            for field, value in islice(arguments.items(), ARGUMENTS_MAX)
            if value is not None or field in cls.clearable
        }


class Part(BaseModel):
    """Something inside a result."""

    # Pydantic makes the validator of a model when it is first used: a server's start needs none of them.
    model_config = ConfigDict(defer_build=True)


class Result(Part):
    """What a caller gets. `message` says the same in a sentence or two."""

    message: str

    def text(self) -> str:
        """What a model reads."""
        return self.message


def parse_time(text: str, field: str) -> int:
    """An ISO 8601 time with an offset, in microseconds since 1970.

    Raises:
        InvalidInput: it is none, or has no offset; names `field`.
    """
    try:
        if len(text) > TIME_CHARACTERS_MAX:
            raise ValueError
        time = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(field, 'must be an ISO 8601 time such as "2026-01-31T18:00:00Z"') from None
    if time.tzinfo is None:
        utc = f"{time.isoformat()}Z"
        raise InvalidInput(field, f'has no offset from UTC: write "{utc}", or one such as "+01:00" for the Z')
    return us_of(time)


def optional_number(metric: "Metric", value: int | None) -> int | float | None:
    return None if value is None else number_of(metric, value)
