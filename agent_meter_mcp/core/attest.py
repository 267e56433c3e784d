"""Signed requests, receipts, and attestations of usage, in the bytes of upstream's SDKs.

A request is signed with the hex HMAC-SHA256 of its raw body; a receipt is that of the signature's text. An
attestation is a Merkle tree over records. A leaf is the HMAC of a record's JSON text, a node the SHA-256 of
its two children's hex digits; where a level is odd, its last node stands twice. The signature is the HMAC of
`batchId:timestamp:merkleRoot`.

The JSON text of a record is what JavaScript's `JSON.stringify` writes, or, for records that another language
has written, the text as it was received without its blanks. The two differ in how numbers are spelled and in
where keys such as "1" stand."""

from __future__ import annotations

import hashlib
import hmac
from math import isfinite

from .errors import InvalidInput
from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    Json: TypeAlias = "str | int | float | list[Json] | dict[str, Json] | None"

_HEX = frozenset("0123456789abcdef")
_SAFE = 2**53
_INDEX_MAX = 2**32 - 2


class Numeral(str):
    """A number as it was spelled in JSON."""

    __slots__ = ()


class Checked(Value):
    """What became of verifying an attestation. No problems: it is what was signed."""

    service: str
    records: int
    problems: tuple[str, ...]


def signature_of(secret: str, body: bytes) -> str:
    """The signature of a request."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def is_signed(secret: str, body: bytes, signature: str) -> bool:
    """Whether it is the signature of that body. TypeScript signs an empty body as a pair of quotes."""
    good = is_same(signature_of(secret, body), signature)
    return good or (not body and is_same(signature_of(secret, b'""'), signature))


def is_signature(text: str) -> bool:
    """Whether it is written as a signature is."""
    return len(text) == 64 and _HEX.issuperset(text)


def receipt_of(receipt_secret: str, signature: str) -> str:
    """What a service answers to a signed request."""
    return signature_of(receipt_secret, signature.encode("utf-8", "surrogatepass"))


def is_same(one: str, other: str) -> bool:
    """Whether both are the same, in a time that does not tell how much of them is."""
    return hmac.compare_digest(one.encode(), other.encode("utf-8", "surrogatepass"))


def leaf_of(secret: str, record: str) -> str:
    """The leaf of a record, whose exact JSON text `record` is."""
    return signature_of(secret, record.encode())


def root_of(leaves: Sequence[str]) -> str:
    """The root over at least one leaf."""
    level = list(leaves)
    while len(level) > 1:
        if len(level) % 2:
            level.append(level[-1])
        pairs = zip(level[::2], level[1::2], strict=True)
        level = [hashlib.sha256((left + right).encode()).hexdigest() for left, right in pairs]
    return level[0]


def attest(secret: str, batch_id: str, timestamp: str, service: str, records: Sequence[str]) -> str:
    """The attestation's JSON text. `records` are those of `js_text`.

    Raises:
        InvalidInput: there are none.
    """
    if not records:
        raise InvalidInput("records", "there are none, so there is nothing to attest")
    root = root_of([leaf_of(secret, record) for record in records])
    signature = signature_of(secret, f"{batch_id}:{timestamp}:{root}".encode())
    head = js_text(
        {
            "batchId": batch_id,
            "timestamp": timestamp,
            "serviceId": service,
            "recordCount": len(records),
            "merkleRoot": root,
            "signature": signature,
        }
    )
    return f'{head[:-1]},"records":[{",".join(records)}]}}'


def verify(secret: str, attestation: str | bytes) -> Checked:
    """Whether the records are those that were signed with this secret.

    Raises:
        InvalidInput: it is no attestation; names the field that is missing or cannot be read.
    """
    parts = _parts(attestation)
    batch_id, timestamp, service, root, signature = (
        _text_of(parts, field) for field in ("batchId", "timestamp", "serviceId", "merkleRoot", "signature")
    )
    records = parts.get("records")
    if not isinstance(records, list) or not records:
        raise InvalidInput("records", "must be a list with at least one record")
    problems: list[str] = []
    if str(parts.get("recordCount")) != str(len(records)):
        problems.append(f"recordCount is not {len(records)}, the number of records")
    try:
        has_twice = len({source_text(record) for record in records}) < len(records)
        is_root = any(is_same(_root(secret, records, spelled), root) for spelled in (js_text, source_text))
    except RecursionError:
        raise InvalidInput("records", "has one that is nested too deeply") from None
    if has_twice:
        # An odd level's last node stands twice, so the root does not tell how often the last record was.
        problems.append("records has one of them twice")
    if not is_root:
        problems.append("merkleRoot is not that of the records: one was changed, or the secret is another")
    try:
        signed = f"{batch_id}:{timestamp}:{root}".encode()
    except UnicodeEncodeError:
        raise InvalidInput("attestation", "has a text that is no Unicode") from None
    if not is_same(signature_of(secret, signed), signature):
        problems.append("signature is not that of batchId, timestamp and merkleRoot under this secret")
    return Checked(service, len(records), tuple(problems))


def service_of(attestation: str | bytes) -> str:
    """The service that it says it is of. Raises InvalidInput."""
    return _text_of(_parts(attestation), "serviceId")


def _parts(attestation: str | bytes) -> dict[str, Json]:
    parts = parse(attestation, "attestation")
    if not isinstance(parts, dict):
        raise InvalidInput("attestation", "must be a JSON object")
    return parts


def _root(secret: str, records: list[Json], spelled: Callable[[Json], str]) -> str:
    return root_of([leaf_of(secret, spelled(record)) for record in records])


def _text_of(parts: dict[str, Json], field: str) -> str:
    value = parts.get(field)
    if not isinstance(value, str) or isinstance(value, Numeral):
        raise InvalidInput(field, "must be a text: this is no attestation")
    return value


def parse(text: str | bytes, field: str) -> Json:
    """JSON with its numbers as they are spelled. Raises InvalidInput, names `field`."""
    import json  # slow, for a process that only records

    try:
        return json.loads(text, parse_float=Numeral, parse_int=Numeral, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise InvalidInput(field, "must be JSON: finite numbers, not nested deeply, all of it") from None


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def source_text(value: Json) -> str:
    """Without blanks, and with the numbers as they were spelled."""
    return _text(value, as_js=False)


def js_text(value: Json) -> str:
    """What `JSON.stringify` makes of what `JSON.parse` reads."""
    return _text(value, as_js=True)


def _text(value: Json, *, as_js: bool) -> str:
    if isinstance(value, str):
        if isinstance(value, Numeral):
            return _number(float(value)) if as_js else str(value)
        return _string(value)
    if isinstance(value, dict):
        keys = _ordered(value) if as_js else value
        return "{" + ",".join(f"{_string(key)}:{_text(value[key], as_js=as_js)}" for key in keys) + "}"
    if isinstance(value, list):
        return "[" + ",".join([_text(one, as_js=as_js) for one in value]) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and -_SAFE <= value <= _SAFE:
        return str(value)
    return _number(float(value))


def _string(text: str) -> str:
    """JSON.stringify escapes what has to be, and half a surrogate pair."""
    from json import dumps

    quoted = dumps(text, ensure_ascii=False)
    if quoted.isascii():
        return quoted
    return "".join(f"\\u{ord(char):04x}" if "\ud800" <= char <= "\udfff" else char for char in quoted)


def _ordered(value: dict[str, Json]) -> list[str]:
    """The order in which JavaScript has an object's keys: array indexes first, by their number."""
    indexes = [key for key in value if _is_index(key)]
    if not indexes:
        return list(value)
    return [*sorted(indexes, key=int), *(key for key in value if key not in indexes)]


def _is_index(key: str) -> bool:
    return key.isascii() and key.isdigit() and (key[0] != "0" or key == "0") and _up_to(key, _INDEX_MAX)


def _up_to(digits: str, maximum: int) -> bool:
    return len(digits) <= 10 and int(digits) <= maximum


def _number(value: float) -> str:
    """A double as JavaScript writes it: the shortest digits, an exponent from 1e21 on and below 1e-6."""
    if not isfinite(value):
        return "null"
    if not value:
        return "0"
    sign = "-" if value < 0 else ""
    written, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = written.partition(".")
    digits = (whole + fraction).lstrip("0")
    leading = len(whole + fraction) - len(digits)
    point = len(whole) - leading + int(exponent or 0)
    digits = digits.rstrip("0")
    count = len(digits)
    if count <= point <= 21:
        return sign + digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    power = f"{'+' if point > 0 else '-'}{abs(point - 1)}"
    return f"{sign}{digits[0]}{'.' if count > 1 else ''}{digits[1:]}e{power}"
