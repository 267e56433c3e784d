"""Where the parts are put together: the system's clock, new ids, the store and the ledger of a process.

Light on purpose: what an asynchronous ledger needs is imported when one is opened.
"""

from __future__ import annotations

import os
import time

from .core.errors import StoreReadOnly
from .core.roles import Caller
from .core.text import NAME_MAX, shown
from .settings import FOLDER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from .ledger import Ledger
    from .prices import PriceBook
    from .settings import Settings
    from .store.sqlite import SqliteStore

_RANDOM = (1 << 62) - 1
_VARIANT = 1 << 63
GARBAGE_AFTER = 5_000
"""So many new objects are there before they are looked through. With Python's 700, a dashboard spends an
eighth of its time looking for garbage; with more, it keeps what it should have dropped."""
GARBAGE_AFTER_BATCHES = 20_000
"""The same for a server: what a batch of 1000 needs is not looked through while that is under way."""
_OLDER_AFTER = (5, 10)
"""How often what is new is looked through before what is older is."""


def collect_seldom(after: int = GARBAGE_AFTER) -> None:
    """For a process that stays, when it has imported what it needs.

    That is not searched for garbage any more, and what is new only when there is so much of it.
    """
    import gc

    gc.freeze()
    gc.set_threshold(after, *_OLDER_AFTER)
    gc.enable()


def system_clock_us() -> int:
    """Microseconds since 1970 in UTC, as the system says."""
    return time.time_ns() // 1000


def new_id(now_us: int) -> str:
    """A UUID of version 7: those made later sort later, to about a quarter of a microsecond.

    The `uuid` module is as slow to import as all else that a hook needs.
    """
    return id_of(now_us, int.from_bytes(os.urandom(8), "big"))


def id_of(at_us: int, noise: int) -> str:
    """As `new_id`, with 62 bits of somebody's own randomness."""
    milliseconds, rest_us = divmod(at_us, 1000)
    digits = f"{milliseconds:012x}7{(rest_us << 12) // 1000:03x}{noise & _RANDOM | _VARIANT:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def open_store(settings: Settings) -> SqliteStore:
    """Opens the ledger's file, and makes it (and its default folder) the first time. Blocks.

    Raises:
        StoreError: it cannot be opened; the text says how to put that right.
    """
    from .store.sqlite import open_store as open_sqlite

    folder = os.path.dirname(settings.db)
    if folder == os.path.expanduser(FOLDER) and not os.path.isdir(folder):
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
        except OSError as error:
            raise StoreReadOnly(
                f"{folder} cannot be made ({error.strerror}). Name another file with AGENT_METER_DB."
            ) from error
    return open_sqlite(settings.db, synchronous=settings.synchronous, busy_timeout_s=settings.busy_timeout_s)


def price_book(settings: Settings) -> PriceBook:
    """The prices in force: the operator's own, then the built-in list. Nothing is read until it is needed."""
    from pathlib import Path

    from .prices import PriceBook

    return PriceBook(Path(settings.prices))


def process_caller(settings: Settings) -> Caller:
    """Who this process acts for: the agent it is bound to, else its owner, the operator."""
    if settings.agent is not None:
        return Caller(
            "agent", f"agent {settings.agent}", bound_to=settings.agent, default_agent=settings.agent
        )
    user = os.environ.get("USER") or os.environ.get("USERNAME") or "operator"
    return Caller("operator", shown(user, width=NAME_MAX))


def open_ledger(settings: Settings) -> AbstractAsyncContextManager[Ledger]:
    """`async with open_ledger(settings) as ledger`: on leaving, all is written and closed.

    Entering it raises StoreError as `open_store`.
    """
    return _OpenLedger(settings)


class _OpenLedger:
    """A class, because importing `contextlib` would be felt by a one-shot process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ledger: Ledger | None = None

    async def __aenter__(self) -> Ledger:
        from anyio import to_thread

        from .ledger import Ledger

        store = await to_thread.run_sync(open_store, self._settings)
        self._ledger = Ledger(store, price_book(self._settings), system_clock_us, new_id)
        return await self._ledger.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ledger is not None:
            await self._ledger.__aexit__(kind, error, trace)
