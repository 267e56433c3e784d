"""The stream: what happens as it happens, resumed without a gap and without a repeat."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import httpx2
import pytest

from agent_meter_mcp.core.models import Usage, Who
from agent_meter_mcp.core.queries import AgentsQuery
from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.faces.http import CALLER
from agent_meter_mcp.faces.http.stream import TOGETHER_BYTES
from agent_meter_mcp.ledger import Ledger
from agent_meter_mcp.ledger.feed import Subscription
from agent_meter_mcp.prices import PriceBook
from agent_meter_mcp.runtime import new_id
from agent_meter_mcp.store.sqlite import open_store
from tests.faces.conftest import BOT, OPERATOR, VIEWER

from .conftest import Site, problem_in, use
from .serving import served_site

SECONDS = 30


class Told(NamedTuple):
    """A message of the stream. `kind` is "" for one that only says where it begins, ":" for a heartbeat."""

    kind: str
    id: str
    data: dict[str, Any]


def read(text: str) -> Told:
    if text.startswith(":"):
        return Told(":", "", {})
    fields = dict(line.split(": ", 1) for line in text.strip().splitlines())
    return Told(fields.get("event", ""), fields["id"], json.loads(fields.get("data", "{}")))


class Watcher:
    """A client of the stream that reads when it is asked to, and leaves when it wants to."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.largest = 0
        """Bytes of the largest piece: as much is kept of it while it is not read."""
        self._told = asyncio.Queue[str](1)
        self._left = anyio.Event()
        self.ended = anyio.Event()
        self._asked = False

    async def receive(self) -> dict[str, Any]:
        if self._asked:
            await self._left.wait()
            return {"type": "http.disconnect"}
        self._asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        elif message["body"]:
            self.largest = max(self.largest, len(message["body"]))
            for told in message["body"].decode().split("\n\n")[:-1]:
                await self._told.put(f"{told}\n\n")
        elif not message["more_body"]:
            self.ended.set()

    async def next(self) -> Told:
        with anyio.fail_after(SECONDS):
            return read(await self._told.get())

    async def several(self, count: int) -> list[Told]:
        return [await self.next() for _ in range(count)]

    def leave(self) -> None:
        self._left.set()


@asynccontextmanager
async def watching(site: Site, caller: Caller = OPERATOR, last: str | None = None) -> AsyncGenerator[Watcher]:
    """A watcher, after the message that says where it begins."""
    watcher = Watcher()
    headers = [] if last is None else [(b"last-event-id", last.encode())]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": "/v1/stream", "raw_path": b"/v1/stream", "query_string": b"", "root_path": "",
        "headers": headers, "server": ("meter", 80), "client": ("127.0.0.1", 1), CALLER: caller,
    }  # fmt: skip
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(site.api, scope, watcher.receive, watcher.send)
        begin = await watcher.next()
        assert (begin.kind, watcher.status) == ("", 200)
        yield watcher
        watcher.leave()


async def until_nobody_watches(site: Site) -> None:
    feed = site.meter.ledger._engine.feed  # pyright: ignore[reportPrivateUsage]  there is no other way to see it
    with anyio.fail_after(SECONDS):
        while feed.watched or site.api.state.streams:
            await anyio.lowlevel.checkpoint()


async def test_what_happens_is_told_in_the_shapes_of_the_reports(site: Site) -> None:
    async with watching(site, VIEWER) as watcher, site.client() as client:
        assert watcher.headers["content-type"].startswith("text/event-stream")
        assert "content-length" not in watcher.headers
        limit = {"agent": "bot", "metric": "requests", "window": "day", "max": 2}
        await client.put("/v1/limits", json=limit)
        audit = await watcher.next()
        assert (audit.kind, audit.data["action"], audit.data["after"]["max"]) == ("audit", "set_limit", 2)
        await use(site.meter, id="one")
        told = {message.kind: message for message in await watcher.several(2)}
        (listed,) = (await client.get("/v1/usage")).json()["events"]
        assert told["usage"].data == listed
        (alert,) = (await client.get("/v1/alerts")).json()["alerts"]
        assert told["alert"].data == alert
        await client.post("/v1/reservations", json={"agent": "bot", "service": "openai", "requests": 5})
        refused = await watcher.next()
        assert (refused.kind, refused.data["agent"], refused.data["requests"]) == ("refusal", "bot", 5)


async def test_a_stream_is_resumed_without_a_gap_or_a_repeat(site: Site) -> None:
    async with watching(site) as watcher:
        for number in range(3):
            await use(site.meter, id=f"a{number}")
        first = await watcher.several(2)
    for number in range(3):
        await use(site.meter, id=f"b{number}")
    async with watching(site, last=first[-1].id) as watcher:
        await use(site.meter, id="c0")
        rest = await watcher.several(5)
        seen = [told.data["id"] for told in (*first, *rest)]
        assert seen == ["a0", "a1", "a2", "b0", "b1", "b2", "c0"]
    async with watching(site, last=rest[-1].id) as watcher:
        await use(site.meter, id="c1")
        assert (await watcher.next()).data["id"] == "c1"


async def test_usage_during_the_resumption_comes_once(site: Site) -> None:
    """While the watcher has not read what it missed, new usage comes: both, each once, in order."""
    async with watching(site) as watcher:
        await use(site.meter, id="a")
        last = (await watcher.next()).id
    for number in range(20):
        await use(site.meter, id=f"b{number}")
    async with watching(site, last=last) as watcher:
        seen: list[str] = []
        for number in range(20):
            await use(site.meter, id=f"c{number}")
            seen += [told.data["id"] for told in await watcher.several(2)]
        assert seen == [f"b{number}" for number in range(20)] + [f"c{number}" for number in range(20)]


async def test_alerts_and_control_actions_are_resumed_too(site: Site) -> None:
    async with watching(site) as watcher, site.client() as client:
        await client.put("/v1/limits", json={"agent": "bot", "metric": "requests", "window": "day", "max": 1})
        last = (await watcher.next()).id
    async with site.client() as client:
        await use(site.meter, id="one")
        await client.put("/v1/agents/bot", json={"tier": "gold"})
    async with watching(site, last=last) as watcher:
        kinds = [told.kind for told in await watcher.several(5)]
        assert sorted(kinds) == ["alert", "alert", "alert", "audit", "usage"]
        await use(site.meter, id="two")
        assert (await watcher.next()).data["id"] == "two"


async def test_who_comes_from_another_ledger_is_told_the_alerts_and_corrections_of_this_one(
    site: Site,
) -> None:
    """One begun anew, or an older copy, has come to none of the numbers that a browser sends back."""
    await use(site.meter, id="one", requests=1)
    async with watching(site) as watcher, site.client() as client:
        await client.put("/v1/limits", json={"agent": "bot", "metric": "requests", "window": "day", "max": 4})
        event, _, action, *refused, _ = (await watcher.next()).id.split("-")
    await use(site.meter, id="one", requests=2)
    elsewhere = "-".join((event, "57", action, *refused, "1000"))
    async with watching(site, last=elsewhere) as watcher:
        missed = await watcher.several(2)
        assert sorted(told.kind for told in missed) == ["alert", "usage"]  # half of the limit; the correction
        await use(site.meter, id="two", requests=2)
        assert sorted(told.kind for told in await watcher.several(3)) == ["alert", "alert", "usage"]
        await use(site.meter, id="one", requests=3)
        assert (await watcher.next()).data["requests"] == 3


async def test_who_comes_from_a_ledger_whose_clock_was_ahead_is_told_what_happens_in_this_one(
    site: Site,
) -> None:
    """An older copy was put back, with the clock: until that came to the same time again, all was silent."""
    async with watching(site) as watcher, site.client() as client:
        await use(site.meter, id="one")
        (event, alert, _, *_, correction) = (await watcher.next()).id.split("-")
        hour_us = 3600 * 1_000_000
        later_us = int(event) + hour_us
        elsewhere = f"{later_us}-{alert}-{later_us}-{later_us // 1_000_000}-3-{correction}"
        async with watching(site, last=elsewhere) as back:
            await use(site.meter, id="two")
            told = await back.next()
            assert (told.kind, told.data["id"]) == ("usage", "two")
            await client.put("/v1/agents/bot", json={"tier": "gold"})
            audit = await back.next()
            assert audit.kind == "audit"
        await use(site.meter, id="three")
        async with watching(site, last=audit.id) as back:
            assert (await back.next()).data["id"] == "three"


async def test_an_agent_is_not_told_again_what_it_was_told_of_a_limit_that_is_gone(site: Site) -> None:
    """It no longer sees those alerts, which have the highest numbers."""
    async with site.client() as client:
        for maximum, window in ((2, "day"), (2, "60s")):
            limit = {"agent": "bot", "metric": "requests", "window": window, "max": maximum}
            (await client.put("/v1/limits", json=limit)).raise_for_status()
    async with watching(site, BOT) as watcher:
        await use(site.meter, id="one", requests=2)
        last = (await watcher.several(7))[-1].id  # three alerts of each limit, and the usage
    ledger = site.meter.ledger
    await ledger.remove_limit(OPERATOR, (await ledger.alerts(OPERATOR, limit=1))[0].alert.limit_id)
    async with watching(site, BOT, last) as watcher:
        await use(site.meter, id="two")
        assert (await watcher.next()).kind == "usage"


async def test_whoever_leaves_between_alerts_of_one_moment_gets_the_others(site: Site) -> None:
    async with watching(site) as watcher, site.client() as client:
        await client.put("/v1/limits", json={"agent": "bot", "metric": "requests", "window": "day", "max": 1})
        last = (await watcher.next()).id
    await use(site.meter, id="one")
    async with watching(site, last=last) as watcher:
        assert (await watcher.next()).kind == "usage"
        first = await watcher.next()
    async with watching(site, last=first.id) as watcher:
        others = await watcher.several(2)
    assert [told.data["threshold"] for told in (first, *others)] == [50, 80, 100]


async def test_refusals_are_resumed_by_their_count(site: Site) -> None:
    step = {"agent": "bot", "service": "openai", "requests": 5}
    limit = {"agent": "bot", "metric": "requests", "window": "day", "max": 2, "thresholds": [100]}
    async with site.client() as client:
        await client.put("/v1/limits", json=limit)

        async def refused(times: int) -> None:
            for _ in range(times):
                assert (await client.post("/v1/reservations", json=step)).status_code == 429

        async with watching(site) as watcher:
            await refused(1)
            seen = await watcher.next()
            assert (seen.kind, seen.data["count"]) == ("refusal", 1)
        async with watching(site, last=seen.id) as watcher:
            await use(site.meter, id="a", requests=1)
            assert (await watcher.next()).data["id"] == "a"  # nothing is told again
        await refused(3)
        site.meter.clock.advance(2)
        await refused(1)
        async with watching(site, last=seen.id) as watcher:
            counts: dict[str, int] = {}
            while counts.get("refusal", 0) < 4 or "usage" not in counts:
                message = await watcher.next()  # in how many pieces depends on when they were written
                counts[message.kind] = counts.get(message.kind, 0) + message.data["count"]
            assert counts == {"refusal": 4, "usage": 1}


async def test_refusals_of_before_are_not_told_to_who_has_heard_of_none(site: Site) -> None:
    step = {"agent": "bot", "service": "openai", "requests": 5}
    async with site.client() as client:
        await client.put("/v1/limits", json={"agent": "bot", "metric": "requests", "window": "day", "max": 2})
        assert (await client.post("/v1/reservations", json=step)).status_code == 429
        site.meter.clock.advance(2)
        async with watching(site) as watcher:
            await use(site.meter, id="a", requests=1)
            while (told := await watcher.next()).kind == "alert":  # it may be found before its usage
                continue
            assert (told.kind, told.data["id"]) == ("usage", "a")
        async with watching(site, last=told.id) as watcher:
            site.meter.clock.advance(2)
            await use(site.meter, agent="other", id="b", requests=1)
            while (message := await watcher.next()).kind == "alert":
                continue
            assert (message.kind, message.data["id"]) == ("usage", "b")


async def test_refusals_by_other_processes_are_told_each_once(site: Site, tmp_path: Path) -> None:
    """As by an agent's own server on stdio: live, and to whoever comes back in between."""
    async with site.client() as client:
        await client.put("/v1/limits", json={"agent": "bot", "metric": "requests", "window": "day", "max": 2})
        ledger = Ledger(
            open_store(str(tmp_path / "usage.db")), PriceBook(tmp_path / "none"), site.meter.clock, new_id
        )
        asked = Who("bot", "openai"), Usage(requests=5)
        async with ledger as theirs, watching(site) as first:
            seen, counts = "", list[int]()

            async def heard(watcher: Watcher, upto: int) -> None:
                nonlocal seen
                while sum(counts) < upto:
                    message = await watcher.next()
                    assert (message.kind, message.data["agent"]) == ("refusal", "bot")
                    counts.append(message.data["count"])
                    seen = message.id

            await theirs.gate(OPERATOR, *asked)
            await heard(first, 1)
            for number in range(10):
                await theirs.gate(OPERATOR, *asked)
                await site.meter.ledger.gate(OPERATOR, *asked)
                if number % 3 == 2:
                    await theirs.agents(OPERATOR, AgentsQuery())  # has what is folded written
                    async with watching(site, last=seen) as back:
                        await client.get("/v1/agents")
                        await heard(back, len(counts) + 1)
            await theirs.agents(OPERATOR, AgentsQuery())
            await client.get("/v1/agents")
            async with watching(site, last=seen) as last:
                await heard(last, 21)
                site.meter.clock.advance(2)
                await use(site.meter, agent="other", id="b", requests=1)
                assert ((await last.next()).kind, sum(counts)) == ("usage", 21)


async def test_more_than_can_be_sent_again_is_counted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_meter_mcp.faces.http.position.CAUGHT_UP_MAX", 3)
    async with watching(site) as watcher:
        await use(site.meter, id="a")
        last = (await watcher.next()).id
    for number in range(5):
        await use(site.meter, id=f"b{number}")
    async with watching(site, last=last) as watcher:
        lost, *rest = await watcher.several(4)
        assert (lost.kind, lost.data) == ("lost", {"count": 2})
        assert [told.data["id"] for told in rest] == ["b2", "b3", "b4"]


async def test_a_watcher_that_does_not_read_loses_the_oldest_and_learns_how_many(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscribed = site.meter.ledger.subscribe(maximum=2)

    def subscribe(_: Caller) -> Subscription:
        return subscribed

    monkeypatch.setattr(site.meter.ledger, "subscribe", subscribe)
    async with watching(site) as watcher:
        await use(site.meter, id="a0")
        assert (await watcher.next()).data["id"] == "a0"
        for number in range(1, 9):
            await use(site.meter, id=f"a{number}")
        with anyio.fail_after(SECONDS):
            while not subscribed.dropped:  # they are told of after their COMMIT, at their own pace
                await anyio.lowlevel.checkpoint()
        told = [await watcher.next()]
        while told[-1].data.get("id") != "a8":
            told.append(await watcher.next())
        lost = [message.data["count"] for message in told if message.kind == "lost"]
        assert lost
        assert sum(lost) + len(told) - len(lost) == 8


async def test_whoever_is_far_behind_is_told_in_pieces_that_a_server_can_keep(site: Site) -> None:
    """A thousand streams whose clients do not read would have kept a hundred messages each."""
    count, metadata = 40, {"text": "y" * 8000}
    async with watching(site) as resumed, watching(site) as live:
        for number in range(count):
            await use(site.meter, id=f"{number}", metadata=metadata)
        last = (await resumed.next()).id
        told = await live.several(count)
    async with watching(site, last=last) as again:
        missed = await again.several(count - 1)
    assert [one.data["id"] for one in told] == [f"{number}" for number in range(count)]
    assert missed == told[1:]
    piece = TOGETHER_BYTES + 2 * len(json.dumps(told[-1].data))
    assert TOGETHER_BYTES <= again.largest <= piece and live.largest <= piece


async def test_an_agent_hears_of_itself_only(site: Site) -> None:
    async with watching(site, BOT) as watcher, site.client() as client:
        await client.put("/v1/agents/ann", json={"name": "Ann"})
        await use(site.meter, id="a", agent="ann")
        await use(site.meter, id="b", agent="bot")
        told = await watcher.next()
        assert told.data["id"] == "b"
    await use(site.meter, id="c", agent="ann")
    await use(site.meter, id="d", agent="bot")
    async with watching(site, BOT, told.id) as watcher:
        assert (await watcher.next()).data["id"] == "d"


async def test_an_agent_hears_which_limit_of_a_child_it_was(site: Site) -> None:
    async with watching(site, BOT) as watcher, site.client() as client, site.client(BOT) as bot:
        await client.put("/v1/agents/pup", json={"parent": "bot"})
        await client.put("/v1/limits", json={"agent": "pup", "metric": "requests", "window": "day", "max": 2})
        await use(site.meter, id="a", agent="pup")
        told = {message.kind: message.data for message in await watcher.several(2)}
        assert (told["alert"]["subject"], told["alert"]["used"]) == ("agent pup", 1)
        assert (await bot.get("/v1/alerts")).json()["alerts"] == [told["alert"]]


async def test_silence_is_broken_by_heartbeats_that_lose_nothing(site: Site) -> None:
    site.api.state.heartbeat_s = 0.01
    async with watching(site, BOT) as watcher:
        assert (await watcher.next()).kind == ":"
        await use(site.meter, id="a")
        told = [await watcher.next()]
        while told[-1].kind == ":":
            told.append(await watcher.next())
        assert told[-1].data["id"] == "a"


async def test_whoever_leaves_leaves_nothing_behind(site: Site) -> None:
    async with watching(site) as first:
        async with watching(site) as second:
            await use(site.meter, id="a")
            assert (await first.next()).data == (await second.next()).data
        await use(site.meter, id="b")
        assert (await first.next()).data["id"] == "b"
    await until_nobody_watches(site)


async def test_many_watchers_that_come_and_go_hear_everything_once(site: Site) -> None:
    wanted = [f"{writer}-{number}" for writer in range(4) for number in range(25)]
    begun = [anyio.Event() for _ in range(12)]

    async def follow(number: int) -> None:
        patience, last, heard = 1 + number, None, list[str]()
        while len(heard) < len(wanted):
            async with watching(site, last=last) as watcher:
                begun[number].set()
                for _ in range(min(patience, len(wanted) - len(heard))):
                    told = await watcher.next()
                    last = told.id
                    heard.append(told.data["id"])
        assert sorted(heard) == sorted(wanted)

    async def write(writer: int) -> None:
        for number in range(25):
            await use(site.meter, id=f"{writer}-{number}")

    async with anyio.create_task_group() as tasks:
        for number in range(len(begun)):
            tasks.start_soon(follow, number)
        for event in begun:
            await event.wait()
        for writer in range(4):
            tasks.start_soon(write, writer)
    await until_nobody_watches(site)


async def test_streams_are_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_meter_mcp.faces.http.stream.STREAMS_MAX", 1)
    async with watching(site), site.client() as client:
        problem_in(await client.get("/v1/stream"), 503, "overloaded")
    await until_nobody_watches(site)
    async with watching(site):
        pass


async def test_a_stream_ends_with_its_ledger(site: Site) -> None:
    async with watching(site) as watcher:
        await site.meter.ledger.__aexit__(None, None, None)
        with anyio.fail_after(SECONDS):
            await watcher.ended.wait()
    await until_nobody_watches(site)


@pytest.mark.parametrize("last", ["x", "1-2-3-4-5", "1-2-3-4-5-x", "-1-2-3-4-5-6", "1-2-3-4-5-" + "6" * 19])
async def test_a_place_that_is_none_is_refused(client: httpx2.AsyncClient, last: str) -> None:
    told = problem_in(await client.get("/v1/stream", headers={"last-event-id": last}), 422, "invalid_input")
    assert told["field"] == "Last-Event-ID"


async def test_over_a_real_connection(tmp_path: Path) -> None:
    with served_site(tmp_path) as url:
        async with httpx2.AsyncClient(base_url=url, timeout=SECONDS) as client:
            async with client.stream("GET", "/v1/stream") as answer:
                lines = answer.aiter_lines()
                assert (await anext(lines)).startswith("retry: ")
                await client.put("/v1/agents/bot", json={"tier": "gold"})
                while (line := await anext(lines)) != "event: audit":
                    continue
                last = (await anext(lines)).removeprefix("id: ")
                assert json.loads((await anext(lines)).removeprefix("data: "))["target"] == "agent bot"
            await client.put("/v1/agents/bot", json={"tier": "lead"})
            async with client.stream("GET", "/v1/stream", headers={"last-event-id": last}) as answer:
                lines = answer.aiter_lines()
                while not (line := await anext(lines)).startswith("data: "):
                    continue
                assert json.loads(line.removeprefix("data: "))["after"]["tier"] == "lead"


async def test_a_correction_is_told_and_one_that_was_missed_is_resumed(site: Site) -> None:
    async with watching(site) as watcher:
        for number in range(3):
            await use(site.meter, id=f"a{number}", requests=1)
        await watcher.several(3)
        await use(site.meter, id="a1", requests=2)
        told = await watcher.next()
        assert (told.kind, told.data["id"], told.data["requests"]) == ("usage", "a1", 2)
    await use(site.meter, id="a0", requests=5)
    await use(site.meter, id="b0", requests=1)
    await use(site.meter, id="b0", requests=4)  # nobody has heard of it as it was
    await use(site.meter, id="a0", requests=6)
    async with watching(site, last=told.id) as watcher:
        missed = await watcher.several(2)
        assert [(one.data["id"], one.data["requests"]) for one in missed] == [("b0", 4), ("a0", 6)]
        await use(site.meter, id="c0")
        assert (await watcher.next()).data["id"] == "c0"
    async with watching(site, last=missed[-1].id) as watcher:
        assert (await watcher.next()).data["id"] == "c0"
    async with watching(site) as watcher:  # and nothing of all that is news to who comes now
        await use(site.meter, id="c1")
        assert (await watcher.next()).data["id"] == "c1"
