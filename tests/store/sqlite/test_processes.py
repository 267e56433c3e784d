"""Many processes, many callers, one file: every limit holds in every window, nothing that fits is refused."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent_meter_mcp.core.commands import Recorded, SetAgent, SetLimit
from agent_meter_mcp.core.models import Who
from agent_meter_mcp.store.sqlite import SqliteStore, open_store

from .callers import CHILD_OF, LIMITS, Log
from .judge import NEVER, ledger_of, most_admitted, timeline, wrong_verdicts
from .processes import PROOF, Process, now_us
from .roles import one_event

PROCESSES = 8
CALLERS = 4
SECONDS = 3.0 * PROOF


def configure(path: Path) -> None:
    store = open_store(str(path))
    links = [SetAgent(child, (("parent", parent),), "test") for child, parent in CHILD_OF.items()]
    limits = [
        SetLimit(f"limit-{number}", key, maximum, "test", zone=zone)
        for number, (key, maximum, zone) in enumerate(LIMITS)
    ]
    store.apply([*links, *limits], now_us())
    store.close()


def let_loose(path: Path, through: str) -> Log:
    """The logs of all callers of all processes, who start at the same moment."""
    with ExitStack() as stack:
        crowd = [
            stack.enter_context(
                Process(
                    "callers",
                    str(path),
                    {"name": f"p{number}", "callers": CALLERS, "seconds": SECONDS, "through": through},
                )
            )
            for number in range(PROCESSES)
        ]
        for process in crowd:
            assert process.hear() == "ready"
        start_us = now_us()
        for process in crowd:
            process.tell(start_us)
        log = [entry for process in crowd for entry in process.hear(within_s=60 + 3 * SECONDS)]
        for process in crowd:
            process.end()
    return log


def check_once(log: Log, ids: list[str]) -> None:
    """Every acknowledged id is in the ledger, once; one caller made it, all others were told the same."""
    assert len(ids) == len(set(ids))
    told = [entry for entry in log if entry["did"] in ("record", "settle")]
    assert {entry["id"] for entry in told} == set(ids)
    makers = Counter(entry["id"] for entry in told if entry["status"] == "recorded")
    assert set(makers) == set(ids)
    assert max(makers.values()) == 1
    answers = {(entry["id"], entry["seq"], entry["outcome"], entry["booked"]) for entry in told}
    assert len(answers) == len(ids)
    assert {entry["status"] for entry in told} == {"recorded", "duplicate"}
    holders = Counter(entry["id"] for entry in log if entry.get("status") == "reserved")
    assert max(holders.values()) == 1


def fill_up(store: SqliteStore, room: int) -> None:
    """Where only single requests are recorded, exactly as many as are left can still be accepted."""
    outcomes: list[str] = []
    while "over_limit" not in outcomes:
        (result,) = store.apply([one_event(f"last-{len(outcomes)}", Who("ada", "full"))], now_us()).results
        assert isinstance(result, Recorded)
        outcomes.append(result.outcome)
    assert outcomes == ["accepted"] * room + ["over_limit"]


@pytest.mark.slow
@pytest.mark.timeout(60 + 200 * PROOF)
@pytest.mark.parametrize("through", ["store", "ledger"])
def test_no_limit_is_passed_and_nothing_that_fits_is_refused(through: str, tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    configure(path)
    log = let_loose(path, through)

    store = open_store(str(path))
    ledger = ledger_of(store)
    items, holds = timeline(store, log, now_us())
    check_once(log, [stored.event.id for stored in ledger])
    assert wrong_verdicts(items, holds) == []
    most = most_admitted(items, holds)
    assert {place: used for place, used in most.items() if used > LIMITS[place[0]][1]} == {}
    fill_up(store, LIMITS[0][1] - most[0, ""])
    assert list(store.verify()) == []
    store.close()

    seen = Counter(f"{item.kind} {'yes' if item.admitted else 'no'}" for item in items)
    seen.update(f"{entry['did']} {entry.get('status', '')}" for entry in log)
    peaks = [
        f"{LIMITS[number][0].metric} per {LIMITS[number][0].window} {scope} {used}/{LIMITS[number][1]}"
        for (number, scope), used in sorted(most.items())
    ]
    sys.stdout.write(f"{dict(seen)}\n{', '.join(peaks)}\n")
    assert all(seen[kind] for kind in ("event yes", "event no", "hold yes", "denial no", "record duplicate"))
    assert {entry["late"] for entry in log if entry["did"] == "settle"} == {True, False}
    assert any(hold.settled != NEVER for hold in holds)
    assert any(hold.release_call != NEVER for hold in holds)
