"""What came out of a scenario beside what `expected.json` says, check by check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from tests.conformance.suite import Check

FILE = Path(__file__).with_name("expected.json")
WIRE_CHECK = "wire-schema-valid"  # the suite adds it to every scenario that sent anything

Outcome = Literal["pass", "fail", "skip"]


class Known(BaseModel):
    """What is known to come out of a scenario, and why."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    result: Outcome
    checks: frozenset[str] = frozenset()
    reason: str = ""

    @model_validator(mode="after")
    def _says_why(self) -> Self:
        if self.result != "pass" and not self.reason:
            raise ValueError("a scenario that does not pass needs its reason")
        if (self.result == "fail") != bool(self.checks):
            raise ValueError("exactly a scenario that fails names its failing checks")
        return self


PASSES = Known(result="pass")


class Expected(BaseModel):
    """The suite's version, and for each spec version the scenarios and what is known of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    suite: str
    full: dict[str, dict[str, Literal["pass"] | Known]]
    plain: dict[str, dict[str, Literal["pass"] | Known]]

    @classmethod
    def read(cls) -> Self:
        return cls.model_validate_json(FILE.read_text(encoding="utf-8"))

    def known(self, spec: str, *, plain: bool) -> dict[str, Known]:
        entries = (self.plain if plain else self.full)[spec]
        return {name: PASSES if entry == "pass" else entry for name, entry in entries.items()}


@dataclass(frozen=True)
class Row:
    """One scenario at one spec version: what came out beside what was expected."""

    spec: str
    scenario: str
    checks: Sequence[Check]
    known: Known | None

    @property
    def passed(self) -> int:
        return sum(check.status == "SUCCESS" for check in self.checks)

    @property
    def failed(self) -> list[Check]:
        """The failures, a missed SHOULD (a warning) among them."""
        return [check for check in self.checks if check.status in ("FAILURE", "WARNING")]

    @property
    def outcome(self) -> Outcome:
        if self.failed:
            return "fail"
        tested = any(check.status == "SUCCESS" and check.id != WIRE_CHECK for check in self.checks)
        return "pass" if tested else "skip"

    @property
    def expected(self) -> bool:
        failing = {check.id for check in self.failed}
        return self.known is not None and (self.outcome, failing) == (self.known.result, self.known.checks)

    def line(self) -> str:
        mark = "" if self.expected else "  <- unexpected"
        return (
            f"{self.scenario:<46} {self.spec}  {self.outcome:<6} {self.passed:>4} {len(self.failed):>4}{mark}"
        )

    def details(self) -> Iterator[str]:
        wanted = "not in expected.json" if self.known is None else f"expected: {self.known.result}"
        yield f"{self.scenario} at {self.spec}: {self.outcome} ({wanted})"
        ids = self.known.checks if self.known else frozenset[str]()
        for check in self.failed:
            yield f"  {'known  ' if check.id in ids else check.status} {check.id}: {check.message}"
        for gone in sorted(ids - {check.id for check in self.failed}):
            yield f"  {gone} is expected to fail and did not"
