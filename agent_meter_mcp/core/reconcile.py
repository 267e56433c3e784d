"""Two accounts of the same requests, an agent's and a service's: what only one of them has, and what differs.

Records belong together when they have the same request signature, which both sides know of; where there is
none, the same id. Upstream's own clients let several records with one signature collapse into one; here all
of them count, and are compared by their sums.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from .errors import InvalidInput
from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .attest import Json

DIGITS_MAX = 40


class Account(Value):
    """What one side says about one request: the sums over its records, and what the first of them says."""

    records: int
    units: Decimal
    id: str
    timestamp: str
    agent: str
    service: str
    operation: str


class Compared(Value):
    """By what makes them one request. In `different` the agent's account comes first."""

    matched: int
    agent_only: tuple[tuple[str, Account], ...]
    service_only: tuple[tuple[str, Account], ...]
    different: tuple[tuple[str, Account, Account], ...]

    @property
    def agree(self) -> bool:
        return not (self.agent_only or self.service_only or self.different)


def compare(agents: Iterable[Json], services: Iterable[Json]) -> Compared:
    """Records as `attest.parse` reads them. Raises InvalidInput, names the record."""
    ours, theirs = _accounts(agents, "agent_records"), _accounts(services, "service_records")
    both = [key for key in ours if key in theirs]
    return Compared(
        len(both),
        tuple((key, account) for key, account in ours.items() if key not in theirs),
        tuple((key, account) for key, account in theirs.items() if key not in ours),
        tuple(
            (key, ours[key], theirs[key])
            for key in both
            if (ours[key].units, ours[key].records) != (theirs[key].units, theirs[key].records)
        ),
    )


def records_in(sent: Json, field: str) -> Sequence[Json]:
    """The records of a bare list, of a batch, or of an attestation. Raises InvalidInput."""
    found = sent.get("records") if isinstance(sent, dict) else sent
    if not isinstance(found, list):
        raise InvalidInput(field, 'must be a JSON list of records, an object with "records", or JSON lines')
    return found


def _accounts(records: Iterable[Json], field: str) -> dict[str, Account]:
    accounts: dict[str, Account] = {}
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise InvalidInput(field, f"record {number} is no object")
        key = _text(record, "requestSignature") or _text(record, "id")
        if not key:
            raise InvalidInput(field, f"record {number} has neither a requestSignature nor an id")
        units = _units(record.get("units"), field, number)
        known = accounts.get(key)
        if known is not None:
            accounts[key] = known.replace(records=known.records + 1, units=known.units + units)
            continue
        agent = record.get("agent")
        accounts[key] = Account(
            1,
            units,
            _text(record, "id"),
            _text(record, "timestamp"),
            _text(agent, "agentId") if isinstance(agent, dict) else "",
            _text(record, "serviceId"),
            _text(record, "operation"),
        )
    return accounts


def _text(record: dict[str, Json], field: str) -> str:
    value = record.get(field)
    return value if isinstance(value, str) else ""


def _units(value: Json, field: str, number: int) -> Decimal:
    try:
        written = str(value)
        units = Decimal(written)
        if len(written) > DIGITS_MAX or not units.is_finite() or abs(units.adjusted()) > DIGITS_MAX:
            raise ValueError
    except (InvalidOperation, ValueError):
        raise InvalidInput(field, f"the units of record {number} are no number") from None
    return units
