"""The meter, as a program uses it."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from agent_meter_mcp.core import check
from agent_meter_mcp.core.errors import InvalidInput
from agent_meter_mcp.core.keys import can_be_sent
from agent_meter_mcp.settings import FOLDER, load_settings

from .errors import UNAVAILABLE
from .fields import (
    CheckFields,
    RecordFields,
    ReserveFields,
    refuse_unknown,
    report_of,
    usage_of,
    who_of,
)
from .hold import Hold, without_meter
from .results import Decided, UsageRecorded

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from agent_meter_mcp.core.models import Source
    from agent_meter_mcp.ledger import Ledger

    from .hold import OnError
    from .place import Place

SPOOL_BYTES_MAX = 64 * 1024 * 1024
TIMEOUT_S = 5.0


class Meter:
    """`async with Meter() as meter`: the ledger in a local file, as the environment says, or the file `db`.

    `Meter(url="http://...", key="am_...")`: the one behind a URL. What is recorded there while it cannot be
    reached is kept in the folder `spool`, up to `spool_bytes_max`, and sent later, each once and with the
    same key; a call waits `timeout_s` seconds at most.
    `Meter(ledger=...)`: one that this process has open already.

    `on_error` says what check and reserve answer when the meter cannot be asked; it is logged, and counted in
    `counters`:

    - `recorded`, `spooled`, `drained`: what became of records (of a remote meter);
    - `rejected`: what the meter refused of what was kept on disk: there it is put aside, in `refused.txt`;
    - `lost`: what neither of them took;
    - `allowed_without_meter`, `denied_without_meter`; `unsettled`: holds that could not be ended;
    - `retries`: requests that were repeated.

    `source` is what usage is labelled with where a call does not say: who measured it. Several meters may
    share `counters`.
    """

    def __init__(
        self,
        *,
        url: str | None = None,
        key: str | None = None,
        db: str | os.PathLike[str] | None = None,
        ledger: Ledger | None = None,
        spool: str | os.PathLike[str] | None = None,
        spool_bytes_max: int = SPOOL_BYTES_MAX,
        on_error: OnError = "allow",
        timeout_s: float = TIMEOUT_S,
        source: Source = "self",
        counters: Counter[str] | None = None,
    ) -> None:
        if (url is not None) + (db is not None) + (ledger is not None) > 1:
            raise InvalidInput("url", "give at most one of url, db and ledger: each says where the meter is")
        if on_error not in ("allow", "deny"):
            raise InvalidInput("on_error", 'must be "allow" or "deny"')
        if url is None and (key is not None or spool is not None):
            raise InvalidInput("key" if key is not None else "spool", "is for a remote meter: give its url")
        self._on_error: OnError = on_error
        self._source: Source = source
        self.is_local = url is None
        """Whether it is a file, and not behind a URL."""
        self.counters: Counter[str] = Counter() if counters is None else counters
        if url is None:
            self._place = self._local(db, ledger)
        else:
            self._place = self._remote(url, key, timeout_s, spool, spool_bytes_max)

    async def record(self, **usage: Unpack[RecordFields]) -> UsageRecorded:
        """Usage that happened: it counts in any case, over a limit as well.

        Raises MeterError: it was not recorded, and the error says why.
        """
        refuse_unknown(usage, RecordFields)
        return await self._place.record(report_of(usage, self._place.default_agent, self._source))

    async def check(self, **asked: Unpack[CheckFields]) -> Decided:
        """Would this be allowed now? Nothing is changed, and nothing held. Raises InvalidInput, Forbidden."""
        refuse_unknown(asked, CheckFields)
        who, usage = who_of(asked, self._place.default_agent), usage_of(asked)
        try:
            return await self._place.check(who, usage)
        except UNAVAILABLE as error:
            return Decided(**without_meter(error, self._on_error, self.counters))

    def reserve(self, *, raise_on_denial: bool = True, **estimate: Unpack[ReserveFields]) -> Hold:
        """Budget to hold around work: `async with meter.reserve(...) as hold`. Raises InvalidInput."""
        refuse_unknown(estimate, ReserveFields)
        return Hold(
            self._place,
            report_of(estimate, self._place.default_agent, self._source),
            check.ttl_of(estimate.get("ttl", check.TTL_DEFAULT)),
            raise_on_denial=raise_on_denial,
            on_error=self._on_error,
            counters=self.counters,
        )

    def adopt(self, hold: Hold) -> None:
        """It was made by another meter of the same ledger, which may be closed by now: it ends here."""
        hold.place = self._place

    async def __aenter__(self) -> Self:
        """Raises StoreError when a local file cannot be opened. A remote meter need not be there yet."""
        await self._place.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Everything is written, or kept on disk."""
        await self._place.close()

    def _local(self, db: str | os.PathLike[str] | None, ledger: Ledger | None) -> Place:
        from .local import LocalPlace

        changed = {} if db is None else {"AGENT_METER_DB": os.fspath(db)}
        return LocalPlace(load_settings({**os.environ, **changed}), ledger)

    def _remote(
        self,
        url: str,
        key: str | None,
        timeout_s: float,
        spool: str | os.PathLike[str] | None,
        spool_bytes_max: int,
    ) -> Place:
        from .remote import RemotePlace, spool_name
        from .spool import Spool

        if not url.startswith(("http://", "https://")):
            raise InvalidInput("url", "must begin with http:// or https://, such as http://127.0.0.1:8787")
        if key is not None:
            key = key.strip()  # a file that it was read from ends with a line break
            if not can_be_sent(key):
                raise InvalidInput("key", "is no key: it is empty, or has characters that no key has")
        if not 0 < timeout_s <= 600:
            raise InvalidInput("timeout_s", "must be a number of seconds above 0, at most 600")
        folder = Path(f"{FOLDER}/spool" if spool is None else spool).expanduser()
        return RemotePlace(
            url, key, timeout_s, self.counters, Spool(folder / spool_name(url, key), spool_bytes_max)
        )
