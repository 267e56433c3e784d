"""Everything that can go wrong, once, with a stable code. Being over a limit is not here: that is a value.

MeterError
├── InvalidInput          invalid_input        a field is wrong; `field` names it
│   └── PricesUnusable    invalid_input        the operator's price file, so what is asked has no known cost
├── NotFound              not_found            an id that does not exist
├── Conflict              conflict             same key, other content; or a state that forbids it
├── Forbidden             forbidden            the caller's role may not do this
├── Unauthorized          unauthorized         no key, or none that is in force
├── StoreError
│   ├── StoreBusy         store_busy           another process holds the file; nothing was written; retry
│   ├── StoreFull         store_full           disk full; nothing was written
│   ├── StoreReadOnly     store_read_only      the file or its folder cannot be written
│   ├── StoreUnusable     store_unusable       not a database, not ours, or damaged
│   └── StoreTooNew       store_too_new        written by a newer version of this program
├── Overloaded            overloaded           the queue is full; nothing was written; retry
└── Unreachable           unreachable          a meter behind a URL does not answer; retry
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Self


class MeterError(Exception):
    """Base of all anticipated failures. `str(error)` says what is wrong, where, and how to put it right."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def alone(self) -> Self:
        """Itself, for who keeps it as an answer: its trace would keep all that was in reach, itself too."""
        self.__traceback__ = self.__context__ = self.__cause__ = None
        return self


class InvalidInput(MeterError):
    """A value that cannot be accepted; nothing was changed."""

    code = "invalid_input"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class PricesUnusable(InvalidInput):
    """The operator's price file is wrong: what has happened is recorded without a cost all the same."""


class NotFound(MeterError):
    code = "not_found"


class Conflict(MeterError):
    """`fields` names what differs when the same key came with other content."""

    code = "conflict"

    def __init__(self, message: str, fields: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.fields = fields


class Forbidden(MeterError):
    code = "forbidden"


class Unauthorized(MeterError):
    code = "unauthorized"


class StoreError(MeterError):
    code = "store_error"


class StoreBusy(StoreError):
    code = "store_busy"
    retryable = True


class StoreFull(StoreError):
    code = "store_full"
    retryable = True


class StoreReadOnly(StoreError):
    code = "store_read_only"


class StoreUnusable(StoreError):
    code = "store_unusable"


class StoreTooNew(StoreError):
    code = "store_too_new"


class Overloaded(MeterError):
    code = "overloaded"
    retryable = True


class Unreachable(MeterError):
    """Whether it was written is not known; a retry with the same id counts once."""

    code = "unreachable"
    retryable = True
