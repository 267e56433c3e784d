"""What the environment sets. Read once, at the start of a process.

Light on purpose: a hook that records one event reads it too.
"""

from __future__ import annotations

import os

from .core.errors import InvalidInput
from .core.models import EACH
from .core.text import NAME_MAX, name
from .core.value import Value
from .core.windows import check_zone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Literal, TypeVar

    Synchronous = Literal["FULL", "NORMAL"]
    T = TypeVar("T")

FOLDER = "~/.agent-meter"
BUSY_TIMEOUT_S_MAX = 600


class Settings(Value):
    """Paths have their `~` expanded. `busy_timeout_s` is how long a write waits for other processes.

    `secrets` "" is no file.
    """

    db: str
    prices: str
    agent: str | None = None
    synchronous: Synchronous = "FULL"
    host: str = "127.0.0.1"
    port: int = 8787
    timezone: str = "UTC"
    busy_timeout_s: float = 10.0
    allowed_hosts: tuple[str, ...] = ()
    secrets: str = ""


class Variable(Value):
    """A row of the table of settings. `default` is None where there is none."""

    name: str
    default: str | None
    meaning: str


VARIABLES = (
    Variable("AGENT_METER_DB", f"{FOLDER}/meter.db", "the SQLite file that is the ledger"),
    Variable(
        "AGENT_METER_AGENT",
        None,
        "binds this process to one agent: it may act for that agent and those it spawned, for nobody else",
    ),
    Variable(
        "AGENT_METER_SYNCHRONOUS",
        "FULL",
        "`FULL`: what was acknowledged survives a power cut; `NORMAL`: it survives a crash of the process",
    ),
    Variable(
        "AGENT_METER_PRICES",
        f"{FOLDER}/prices.toml",
        "your own prices, which come before the built-in list; the file need not exist",
    ),
    Variable(
        "AGENT_METER_SECRETS",
        f"{FOLDER}/secrets.toml",
        "secrets of signed usage, receipts and attestations, in a file that only you can read",
    ),
    Variable("AGENT_METER_HOST", "127.0.0.1", "the address that the HTTP server listens on"),
    Variable("AGENT_METER_PORT", "8787", "the port that the HTTP server listens on; 0 takes a free one"),
    Variable(
        "AGENT_METER_ALLOWED_HOSTS",
        None,
        "further names of the HTTP server, separated by commas; pages of these sites may call it, too",
    ),
    Variable("AGENT_METER_TIMEZONE", "UTC", "the IANA time zone of reports that name none"),
    Variable(
        "AGENT_METER_BUSY_TIMEOUT", "10", "how many seconds a write waits while other processes are writing"
    ),
)


def settings_table() -> list[tuple[str, str, str]]:
    """Name, default and meaning of every variable, for the documentation."""
    return [(variable.name, variable.default or "", variable.meaning) for variable in VARIABLES]


def load_settings(
    environment: Mapping[str, str] | None = None, options: Mapping[str, str] | None = None
) -> Settings:
    """From the variables of `environment`, by default the process's own. An empty one counts as not set.

    `options` are those that the command line has set: they come first, and none of them is empty, so that
    `--agent "$BOT"` does not mean nobody where BOT is not set.

    Raises:
        InvalidInput: a variable has a value that it cannot have; names it, and what it can be.
    """
    settings, wrong = sound_settings(environment, options)
    if wrong:
        raise wrong[0]
    return settings


def sound_settings(
    environment: Mapping[str, str] | None = None, options: Mapping[str, str] | None = None
) -> tuple[Settings, tuple[InvalidInput, ...]]:
    """As `load_settings`, with what is wrong in the environment: in such a variable's place is its default.

    Raises:
        InvalidInput: an option has a value that it cannot have.
    """
    given = os.environ if environment is None else environment
    said = options or {}
    wrong: list[InvalidInput] = []
    defaults = {variable.name: variable.default for variable in VARIABLES}

    def read(variable: str, parse: Callable[[str, str], T]) -> T:
        if variable in said:
            option = "--" + variable.removeprefix("AGENT_METER_").lower().replace("_", "-")
            if not said[variable]:
                raise InvalidInput(option, "must not be empty")
            return parse(said[variable], option)
        default = defaults[variable] or ""
        try:
            return parse(given.get(variable) or default, variable)
        except InvalidInput as error:
            wrong.append(error)
            return parse(default, variable)

    settings = Settings(
        db=read("AGENT_METER_DB", _path),
        prices=read("AGENT_METER_PRICES", _path),
        agent=read("AGENT_METER_AGENT", _agent),
        synchronous=read("AGENT_METER_SYNCHRONOUS", _synchronous),
        host=read("AGENT_METER_HOST", _host),
        port=read("AGENT_METER_PORT", _port),
        timezone=read("AGENT_METER_TIMEZONE", _zone),
        busy_timeout_s=read("AGENT_METER_BUSY_TIMEOUT", _seconds),
        allowed_hosts=read("AGENT_METER_ALLOWED_HOSTS", _hosts),
        secrets=read("AGENT_METER_SECRETS", _path),
    )
    return settings, tuple(wrong)


def _path(text: str, variable: str) -> str:
    if text == ":memory:" or text.startswith("file:") or "\0" in text:
        raise InvalidInput(variable, "must be the path of a file, such as ~/.agent-meter/meter.db")
    return os.path.expanduser(text)


def _agent(text: str, variable: str) -> str | None:
    if text == EACH:
        raise InvalidInput(variable, '"*" means each agent in a limit; it is nobody\'s name')
    return name(text, variable, maximum=NAME_MAX) if text else None


def _synchronous(text: str, variable: str) -> Synchronous:
    wanted = text.upper()
    if wanted == "FULL" or wanted == "NORMAL":
        return wanted
    raise InvalidInput(variable, "must be FULL or NORMAL")


def _host(text: str, variable: str) -> str:
    if not text.isprintable() or " " in text or "/" in text:
        raise InvalidInput(variable, "must be an address or a host name, such as 127.0.0.1, without a port")
    return text


def _hosts(text: str, variable: str) -> tuple[str, ...]:
    hosts = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    for host in hosts:
        if not host.isprintable() or " " in host or "/" in host or "*" in host or host.count(":") == 1:
            raise InvalidInput(
                variable,
                "must be host names or addresses without a scheme or port: meter.example.com,10.0.0.7",
            )
    return hosts


def _port(text: str, variable: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65_535):
        raise InvalidInput(variable, "must be a whole number from 0 to 65535, such as 8787")
    return int(text)


def _zone(text: str, variable: str) -> str:
    return check_zone(text, field=variable)


def _seconds(text: str, variable: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= BUSY_TIMEOUT_S_MAX:
        raise InvalidInput(
            variable, f"must be a number of seconds from 0 to {BUSY_TIMEOUT_S_MAX}, such as 10"
        )
    return seconds
