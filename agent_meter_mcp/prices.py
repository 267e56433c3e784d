"""What usage costs: reported by its caller, priced by the operator's own file, or by genai-prices' list.

The list comes with the installed package; nothing here touches the network. Importing it takes 0.4 s, so that
waits until usage needs it, or until `PriceBook.preload`. A model's prices are turned into integers when they
are first needed, and kept; after that, to price an event takes microseconds.
"""

from __future__ import annotations

import os
import time
from threading import Lock

from .core.errors import InvalidInput, PricesUnusable
from .core.models import Usage
from .core.money import COST_USD_MAX, NANO_PER_USD
from .core.pricing import MODEL_NAME_MAX, OwnPrices
from .price_list import PriceList

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .core.models import CostSource
    from .price_list import ListedModel

CHECK_INTERVAL_S = 1.0
"""How long the override file is believed before it is looked at again."""
FILE_BYTES_MAX = 1_048_576
MODELS_KEPT = 4096
"""How many pairs of model and service stay resolved; past it, all are resolved anew."""

_COST_MAX = COST_USD_MAX * NANO_PER_USD


class PriceBook:
    """Fills in what usage costs. Safe to use from many threads.

    Nothing is read or imported before it is needed. `problem` says what is wrong with a change of the
    override file that cannot be used; its last good prices stay in force then, and it is logged once. If
    there were none, what needs the file raises it. `clock` answers seconds that only grow.
    """

    def __init__(self, override_path: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.problem: InvalidInput | None = None
        self._path = override_path
        self._lock = Lock()
        self._own: OwnPrices | None = None
        self._own_version = ""
        self._signature: tuple[int, ...] | None = None
        self._was_good = False
        self._clock = clock
        self._checked_s: float | None = None
        self._list: PriceList | None = None
        self._models: dict[tuple[str, str], ListedModel | None] = {}

    def price(self, usage: Usage, at_us: int, service: str) -> Usage:
        """The usage with its cost, the source and the version of that filled in, at the prices of `at_us`.

        A cost that is given stays: as reported, or as computed if this did it before. It looks at the
        override file at most once a second, and imports genai_prices the first time.

        Raises:
            PricesUnusable: the override file cannot be used.
            InvalidInput: the cost would pass $1,000,000.
        """
        if usage.cost_nano_usd is not None:
            return usage if usage.cost_source == "computed" else _with_source(usage, "reported")
        cost, version = self._cost(usage, at_us, service)
        if cost is None:
            return _with_source(usage, "unpriced")
        if cost > _COST_MAX:
            raise InvalidInput(
                "cost_usd",
                f"computed from the amounts, it passes {COST_USD_MAX}; record them as several events",
            )
        return usage.replace(cost_nano_usd=cost, cost_source="computed", price_version=version)

    def preload(self) -> None:
        """Does now what the first `price` would: reads the override file and imports genai_prices.

        Raises:
            PricesUnusable: the override file cannot be used.
        """
        self.check_own()
        self._loaded_list()

    def check_own(self) -> None:
        """Reads the override file. Raises as `preload`."""
        self._own_prices()

    def known(self, model: str) -> bool:
        """Whether there is a price for a model of this name. Raises as `preload`."""
        own = self._own_prices()
        if own is not None and own.has_model(model):
            return True
        listed = self._listed(model, "")
        return listed is not None and listed.has_price()

    @property
    def version(self) -> str:
        """Which price lists are in force. Raises as `preload`."""
        from importlib.metadata import version

        built_in = f"genai-prices {version('genai-prices')}"
        own = self._own_prices()
        return built_in if own is None else f"{self._own_version}, {built_in}"

    @property
    def models_kept(self) -> int:
        return len(self._models)

    def _cost(self, usage: Usage, at_us: int, service: str) -> tuple[int | None, str | None]:
        own = self._own_prices()
        if own is not None:
            cost = own.cost_of(usage, at_us, service)
            if cost is not None:
                return cost, self._own_version
        if usage.model is None or usage.tokens is None:
            return None, None
        listed = self._listed(usage.model, service)
        return (None, None) if listed is None else (listed.cost_of(usage, at_us), listed.version)

    def _listed(self, model: str, service: str) -> ListedModel | None:
        if len(model) > MODEL_NAME_MAX:
            return None
        key = (model, service)
        try:
            return self._models[key]
        except KeyError:
            prices = self._loaded_list()
        with self._lock:
            if len(self._models) >= MODELS_KEPT:
                self._models.clear()
                prices.forget()
            found = self._models[key] = prices.find(model, service)
        return found

    def _loaded_list(self) -> PriceList:
        if self._list is None:
            with self._lock:
                if self._list is None:
                    self._list = PriceList()
        return self._list

    def _own_prices(self) -> OwnPrices | None:
        if self._path is None:
            return None
        now_s, checked_s = self._clock(), self._checked_s
        if checked_s is None or now_s - checked_s >= CHECK_INTERVAL_S:
            with self._lock:
                self._refresh(self._path)
                self._checked_s = now_s
        problem = self.problem
        if problem is not None and not self._was_good:
            raise PricesUnusable(problem.field, problem.problem)
        return self._own

    def _refresh(self, path: Path) -> None:
        try:
            signature = _signature(path)
            if signature != self._signature:
                self._own, self._own_version = (None, "") if signature is None else _own_prices_in(path)
                self._signature = signature
            self.problem, self._was_good = None, True
        except InvalidInput as error:
            known, self.problem = self.problem, PricesUnusable(error.field, error.problem)
            if self._was_good and str(known) != str(error):
                import logging  # which a process that records once need not pay for

                told = "%s. Until that is put right, the last good prices stay in force."
                logging.getLogger(__name__).warning(told, error)


def _with_source(usage: Usage, source: CostSource) -> Usage:
    if usage.cost_source == source and usage.price_version is None:
        return usage
    return usage.replace(cost_source=source, price_version=None)


def _signature(path: Path) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(path, error) from None
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def _own_prices_in(path: Path) -> tuple[OwnPrices, str]:
    """The prices of a file, and their version."""
    import hashlib
    import tomllib
    from decimal import Decimal

    try:
        with open(path, "rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise _unreadable(path, error) from None
    if len(content) > FILE_BYTES_MAX:
        raise InvalidInput(
            str(path), f"is larger than {FILE_BYTES_MAX} bytes; keep only the models that you use"
        )
    try:
        document = tomllib.loads(content.decode("utf-8-sig"), parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise InvalidInput(str(path), f"is not valid TOML ({error}); correct it or remove the file") from None
    return OwnPrices(document, str(path)), f"override:{hashlib.sha256(content).hexdigest()[:12]}"


def _unreadable(path: Path, error: OSError) -> InvalidInput:
    return InvalidInput(
        str(path), f"cannot be read ({error.strerror}); make it a file that this user may read"
    )
