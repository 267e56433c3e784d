"""Keys: who is let in over HTTP, and as whom.

A key is a secret token. Its holder alone has it; a ledger keeps its SHA-256, by which it is found again. The
token has 256 random bits, so that a plain hash will do: there is nothing that could be guessed.
"""

from __future__ import annotations

from .check import who as check_who
from .errors import InvalidInput
from .models import EACH, LEDGER_MAX, Who
from .roles import Caller
from .text import name, optional_name
from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .roles import Role

START = "am_"
ENTROPY_BYTES = 32
PREFIX_CHARACTERS = len(START) + 8
ROLES: tuple[Role, ...] = ("agent", "service", "viewer", "operator")
BOUND_ROLES = ("agent", "service")
"""The roles that are for one name."""
KEYS_MAX = 1000
"""How many keys may be in force at once."""
LISTED_MAX = 2 * KEYS_MAX
TOUCH_EVERY_US = 60_000_000
"""A key's last use is written at most so often, so that reading is not writing."""


class Key(Value):
    """What is known of a key: all but the secret. `prefix` is how its token begins, to tell keys apart.

    `last_used_us` can be a minute too early.
    """

    key_id: str
    prefix: str
    role: Role
    bound_to: str | None
    name: str | None
    created_at_us: int
    expires_at_us: int | None = None
    revoked_at_us: int | None = None
    last_used_us: int | None = None

    def is_valid(self, at_us: int) -> bool:
        """Whether it lets anybody in at that moment."""
        return self.revoked_at_us is None and (self.expires_at_us is None or at_us < self.expires_at_us)

    @property
    def holder(self) -> str:
        """Whom it lets in: "agent bot", "viewer"."""
        return self.role if self.bound_to is None else f"{self.role} {self.bound_to}"

    @property
    def caller(self) -> Caller:
        """Its holder, as others are told of them."""
        agent = self.bound_to if self.role == "agent" else None
        return Caller(self.role, f"{self.name or self.holder} ({self.prefix})", self.bound_to, agent)


def new_token(entropy: bytes) -> str:
    """A token of 32 random bytes: `am_` and 43 letters, digits, `-` and `_`."""
    from base64 import urlsafe_b64encode

    return START + urlsafe_b64encode(entropy).decode("ascii").rstrip("=")


def prefix_of(token: str) -> str:
    """The part of a token that may be shown."""
    return token[:PREFIX_CHARACTERS]


def digest_of(token: str) -> bytes:
    """What a ledger keeps of a token, and knows it by."""
    from hashlib import sha256

    return sha256(token.encode("utf-8", "surrogatepass")).digest()


def can_be_sent(token: str) -> bool:
    """Whether a header can hold it, as it can every key. It need not be one."""
    return token != "" and token.isascii() and token.isprintable() and " " not in token


def same(digest: bytes, other: bytes) -> bool:
    """Whether both are of one token; it takes as long either way."""
    from hmac import compare_digest

    return compare_digest(digest, other)


def check(role: str, bound_to: str | None, title: str | None, expires_at_us: int | None, now_us: int) -> None:
    """Raises InvalidInput unless there can be a key with these properties; names the field."""
    if role not in ROLES:
        raise InvalidInput("role", f"must be one of {', '.join(ROLES)}")
    for field in BOUND_ROLES:
        if role == field and bound_to is None:
            raise InvalidInput(field, f"is required: a key in the role {role} is for one {field}")
    if role not in BOUND_ROLES and bound_to is not None:
        raise InvalidInput("bound_to", f"a key in the role {role} is for no agent or service: leave it out")
    if role == "agent":
        check_who(Who(bound_to or ""))
    elif role == "service" and name(bound_to or "", "service") == EACH:
        raise InvalidInput("service", "must name one service")
    optional_name(title, "name")
    if expires_at_us is not None and not now_us < expires_at_us <= LEDGER_MAX:
        raise InvalidInput("expires", "must be in the future")
