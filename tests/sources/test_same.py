"""What a file tells, and what a meter on that file tells from elsewhere, is the same."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from agent_meter_mcp import Settings, load_settings, open_ledger
from agent_meter_mcp import runtime as composition
from agent_meter_mcp.core.errors import Forbidden
from agent_meter_mcp.core.queries import AlertView
from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.sources.base import RANGES, Range, Reader, Snapshot
from agent_meter_mcp.sources.local import LocalSource
from agent_meter_mcp.sources.remote import RemoteSource
from agent_meter_mcp.sources.remote_link import Key
from tests.faces.door import listening, site_of

from .ledgers import OPERATOR, Clock, Step, build, steps

if TYPE_CHECKING:
    from agent_meter_mcp.core.queries import Dimension
    from agent_meter_mcp.core.roles import Role

ROLES: dict[Role, Caller] = {
    "operator": OPERATOR,
    "viewer": Caller("viewer", "vera"),
    "agent": Caller("agent", "agent ann", "ann"),
}
GROUPINGS: list[tuple[Dimension, ...]] = [
    (),
    ("agent",),
    ("hour",),
    ("day", "service", "model"),
    ("project", "session"),
    ("tier", "owner", "outcome", "source"),
]


@pytest.mark.slow
# An example takes most of a second; to shrink one takes minutes, so whoever needs that adds the phase.
@settings(
    max_examples=20,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    steps,
    st.sampled_from(sorted(ROLES)),
    st.sampled_from(RANGES),
    st.sampled_from(["UTC", "Europe/Berlin"]),
    st.sampled_from(GROUPINGS),
)
@example([], "operator", RANGES[0], "UTC", ())
def test_a_meter_elsewhere_tells_what_its_file_tells(
    monkeypatch: pytest.MonkeyPatch,
    does: list[Step],
    role: Role,
    wanted: Range,
    zone: str,
    group_by: tuple[Dimension, ...],
) -> None:
    clock = Clock()
    monkeypatch.setattr(composition, "system_clock_us", clock)
    with tempfile.TemporaryDirectory() as folder:
        chosen = load_settings(
            {"AGENT_METER_DB": f"{folder}/meter.db", "AGENT_METER_PRICES": str(Path(folder) / "p")}
        )
        anyio.run(compare, chosen, clock, does, role, wanted, zone, group_by)


async def compare(
    chosen: Settings,
    clock: Clock,
    does: list[Step],
    role: Role,
    wanted: Range,
    zone: str,
    group_by: tuple[Dimension, ...],
) -> None:
    async with open_ledger(chosen) as ledger:
        await build(ledger, clock, does)
        _, token = await ledger.create_key(OPERATOR, role, ROLES[role].bound_to)
    clock.now_us += 1003
    async with open_ledger(chosen) as served, listening(site_of(served)) as url:
        local = LocalSource(chosen, ROLES[role], zone)
        remote = RemoteSource(url, Key(token), zone)
        failed: AssertionError | None = None
        try:
            await same(local, remote, wanted, group_by)
        except AssertionError as error:  # as it is, not in a group of one
            failed = error
        finally:
            await local.close()
            await remote.close()
    if failed is not None:
        raise failed


async def same(local: Reader, remote: Reader, wanted: Range, group_by: tuple[Dimension, ...]) -> None:
    here, there = await local.snapshot(wanted), await remote.snapshot(wanted)
    for field in Snapshot.fields:
        if field != "alerts":
            assert getattr(here, field) == getattr(there, field), field
    assert await local.limits() == await remote.limits()
    assert [told(view) for view in here.alerts] == [told(view) for view in there.alerts]
    for agent in [view.agent.agent_id for view in here.agents[:3]]:
        assert await local.detail(agent, wanted) == await remote.detail(agent, wanted)
    for service in (None, "api"):
        sums = await local.usage(wanted.window, *group_by, service=service, zone="Asia/Kathmandu")
        assert sums == await remote.usage(wanted.window, *group_by, service=service, zone="Asia/Kathmandu")
    try:
        entries = await local.audit()
    except Forbidden:
        with pytest.raises(Forbidden):
            await remote.audit()
    else:
        assert entries == await remote.audit()


def told(view: AlertView) -> tuple[AlertView, float]:
    """Of a limit that is gone the amounts have no unit any more: what is told is the percentage."""
    alert = view.alert
    percent = round(100 * alert.used / alert.max, 1) if alert.max else 100.0
    return view if view.key is not None else view.replace(alert=alert.replace(used=0, max=0)), percent
