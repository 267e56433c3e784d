"""Who is let in over HTTP. Pure ASGI, in front of every route.

`KnownHosts` looks at where a request wants to go and which page made it: a web page can make a browser send
requests to this machine, but it cannot choose the browser's Host and Origin. `Authentication` finds out who
asks. Both only look at headers, and hand everything else through as it is.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple

import anyio
from starlette.datastructures import Headers

from agent_meter_mcp.core.errors import MeterError, Unauthorized
from agent_meter_mcp.core.text import shown

from .wire.problems import problem, problem_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from agent_meter_mcp.core.roles import Caller
    from agent_meter_mcp.ledger import Ledger

CALLER = "agent_meter.caller"
"""The key of an ASGI scope under which the authentication has put who asks."""

OPEN_PATHS = ("/healthz", "/readyz")
"""Where nobody needs a key: they say whether the server lives, and nothing else."""
STREAM = "text/event-stream"
LOOK_EVERY_S = 1.0
"""How long a stream goes on at most without asking whether its key is still valid."""

REMEMBERED_S = 60.0
REMEMBERED_MAX = 1000
WAITING_MAX = 100
WAIT_FIRST_S, WAIT_MAX_S = 0.1, 5.0
ADDRESS_WIDTH = 64

_MISSING = Unauthorized(
    "this needs a key: send it as `Authorization: Bearer am_...`. `agent-meter keys create` makes one."
)
_WRONG = Unauthorized("this key is not valid. `agent-meter keys list` shows those that are.")
_log = logging.getLogger(__name__)


class KnownHosts:
    """Lets requests through that are meant for one of `names`, and that no page of another site has sent.

    A name stands for all its ports, in the URL's form: "localhost", "[::1]". `refused` is told the status of
    each answer that is given here.
    """

    def __init__(
        self, app: ASGIApp, names: Iterable[str], *, refused: Callable[[int], None] = lambda _: None
    ) -> None:
        self._app = app
        self._names = frozenset(name.lower() for name in names)
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = None
        if scope["type"] == "http":
            scope, refusal = self._looked_at(scope)
        if refusal is not None:
            self._refused(refusal.status_code)
            return await refusal(scope, receive, send)
        await self._app(scope, receive, send)

    def _looked_at(self, scope: Scope) -> tuple[Scope, Response | None]:
        """The scope of a request for a path, and what refuses it."""
        headers = Headers(scope=scope)
        hosts = [_without_port(host) for host in headers.getlist("host")]
        if not scope["path"].startswith("/"):
            found = _parted(scope)
            if found is None:
                detail = "what is asked for is neither a path nor a URL: begin it with a slash."
                return scope, problem(400, "Bad request", detail, code="malformed")
            host, scope = found
            hosts = [_without_port(host)]  # whatever the header says, as HTTP has it
        if len(hosts) != 1 or hosts[0] not in self._names:
            return scope, problem(
                421,
                "Misdirected request",
                "this server does not go by the name in the Host header. The names of others than this "
                "machine are listed in AGENT_METER_ALLOWED_HOSTS.",
                code="unknown_host",
            )
        if not all(_site(origin) in self._names for origin in headers.getlist("origin")):
            return scope, problem(
                403,
                "Forbidden",
                "a page of another site has sent this. Sites that may are listed in "
                "AGENT_METER_ALLOWED_HOSTS.",
                code="unknown_origin",
            )
        return scope, None


def _parted(scope: Scope) -> tuple[str, Scope] | None:
    """The host of a request for a whole URL, and the scope of a request for its path; None: it is no URL."""
    scheme, _, rest = scope["path"].partition("://")
    host, _, path = rest.partition("/")
    if scheme.lower() not in ("http", "https") or not host:
        return None
    raw = scope["raw_path"].partition(b"://")[2].partition(b"/")[2]
    return host, {**scope, "path": f"/{path}", "raw_path": b"/" + raw}


def _without_port(place: str) -> str | None:
    """The host of "host" or "host:port", in lower case; None for what is neither."""
    end = place.find("]") + 1 if place.startswith("[") else place.find(":")
    host, port = (place, "") if end < 0 else (place[:end], place[end:])
    is_port = port == "" or (port[0] == ":" and port[1:].isdecimal())
    return host.lower() if host and is_port else None


def _site(origin: str) -> str | None:
    """The host of an Origin header; None for one that names none."""
    scheme, _, place = origin.partition("://")
    return _without_port(place) if scheme in ("http", "https") else None


class Authentication:
    """Puts who asks into `scope[CALLER]`, or answers 401.

    `owner` is for whom requests are taken as long as no key has ever been made; None: for nobody. Whoever
    sends wrong keys waits for the answer, longer and longer; others never do. `refused` is told the status of
    each answer that is given here. `sleep` and `clock` are anyio's and the system's.
    """

    def __init__(
        self,
        app: ASGIApp,
        ledger: Ledger,
        owner: Caller | None = None,
        *,
        refused: Callable[[int], None] = lambda _: None,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._ledger = ledger
        self._owner = owner
        self._refused = refused
        self._sleep = sleep
        self._failures = Failures(clock)
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in OPEN_PATHS):
            return await self._app(scope, receive, send)
        if scope["type"] != "http":  # there is no route for it, and a browser may open one to any site
            return await send({"type": "websocket.close", "code": 1008, "reason": "not served here"})
        sent = Headers(scope=scope).getlist("authorization")
        try:
            caller = await self._caller(sent)
        except MeterError as error:
            if not error.retryable:  # what has to be mended is said to whoever can
                _log.error("nobody can be let in: %s", error)
            return await self._answer(problem_of(error), scope, receive, send)
        if caller is None:
            return await self._refuse(bool(sent), scope, receive, send)
        guarded = _Stream(send, lambda: self._is_still(caller, sent))
        await self._app({**scope, CALLER: caller}, receive, guarded)

    async def _caller(self, sent: list[str]) -> Caller | None:
        """Who sends these Authorization headers. Raises MeterError when that cannot be found out."""
        if not sent:
            if self._owner is None or await self._ledger.has_keys():
                return None
            return self._owner
        scheme, _, token = sent[0].partition(" ")
        is_bearer = len(sent) == 1 and scheme.lower() == "bearer"
        return await self._ledger.caller_of(token.strip()) if is_bearer else None

    async def _is_still(self, caller: Caller, sent: list[str]) -> bool:
        try:
            return await self._caller(sent) == caller
        except MeterError:  # whoever comes again is told what it is
            return False

    async def _refuse(self, with_key: bool, scope: Scope, receive: Receive, send: Send) -> None:
        if not with_key:
            return await self._answer(problem_of(_MISSING), scope, receive, send)
        address = place_of(scope["client"][0]) if scope.get("client") else "somewhere"
        wait_s = self._failures.note(address)
        if self._waiting >= WAITING_MAX:
            refusal = problem(
                429,
                "Too many requests",
                "too many wrong keys were sent. Wait before you try again.",
                headers={"Retry-After": str(round(WAIT_MAX_S))},
                code="too_many_wrong_keys",
            )
            return await self._answer(refusal, scope, receive, send)
        self._waiting += 1
        try:
            await self._sleep(wait_s)
        finally:
            self._waiting -= 1
        await self._answer(problem_of(_WRONG), scope, receive, send)

    async def _answer(self, refusal: Response, scope: Scope, receive: Receive, send: Send) -> None:
        self._refused(refusal.status_code)
        await refusal(scope, receive, send)


def place_of(address: str) -> str:
    """Where an address is, as far as one caller can be told from another: who has an IPv6 address has all of
    its /64."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return shown(address, width=ADDRESS_WIDTH)
    if isinstance(found, IPv6Address):
        return str(found.ipv4_mapped or ip_network((found, 64), strict=False))
    return str(found)


class _Failed(NamedTuple):
    times: int
    last_s: float


class Failures:
    """How many wrong keys came from which address, lately: a minute is forgotten, and so are the oldest of
    more than a thousand addresses."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._by_address: OrderedDict[str, _Failed] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_address)

    def note(self, address: str) -> float:
        """Counts one, logs it now and then, and answers how many seconds its answer shall wait."""
        now_s = self._clock()
        before = self._by_address.pop(address, None)
        count = 1 if before is None or now_s - before.last_s > REMEMBERED_S else before.times + 1
        self._by_address[address] = _Failed(count, now_s)
        if len(self._by_address) > REMEMBERED_MAX:
            self._by_address.popitem(last=False)
        if count & (count - 1) == 0:  # at the first, and whenever it has doubled
            _log.warning("a key that is not valid came from %s (%d lately)", address, count)
        return 0.0 if count == 1 else min(WAIT_FIRST_S * 2.0 ** min(count - 2, 10), WAIT_MAX_S)


class _Stream:
    """The way back of a request: an event stream ends when its key has ended, at its next message.

    The server then tells the application that its client is gone.
    """

    def __init__(self, send: Send, is_valid: Callable[[], Awaitable[bool]]) -> None:
        self._send = send
        self._is_valid = is_valid
        self._streams = False
        self._ended = False
        self._looked_s = 0.0

    async def __call__(self, message: Message) -> None:
        if self._ended:
            return
        if message["type"] == "http.response.start":
            self._streams = Headers(raw=message["headers"]).get("content-type", "").startswith(STREAM)
            self._looked_s = anyio.current_time()
        elif self._streams and anyio.current_time() - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = anyio.current_time()
            if not await self._is_valid():
                self._ended = True
                message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)
