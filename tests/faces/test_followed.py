"""Whoever watches one server hears what others have recorded in the same file."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx2

from tests.clients.serving import running_server

SECONDS = 60
EACH = 150


async def usage_in(lines: AsyncIterator[str], count: int) -> tuple[list[dict[str, Any]], str]:
    """So many pieces of usage, and the id of the last message."""
    found: list[dict[str, Any]] = []
    kind = last = ""
    while len(found) < count:
        line = await anext(lines)
        field, _, value = line.partition(": ")
        if field == "event":
            kind = value
        elif field == "id":
            last = value
        elif field == "data":
            assert kind == "usage", line
            found.append(json.loads(value))
    return found, last


async def record(url: str, who: str, first: int = 0) -> None:
    async with httpx2.AsyncClient(base_url=url, timeout=SECONDS) as client:
        for number in range(first, EACH, 10):
            records = [
                {"id": f"{who}-{number + one}", "agent": who, "service": "search", "requests": 1}
                for one in range(10)
            ]
            assert (await client.post("/v1/usage/batch", json={"records": records})).status_code == 200


async def test_usage_of_two_servers_comes_to_the_watchers_of_either_once_and_in_order(tmp_path: Path) -> None:
    with running_server(tmp_path / "meter.db") as here, running_server(tmp_path / "meter.db") as there:
        writers = (here.url, "ann"), (there.url, "bob")
        wanted = sorted(f"{who}-{number}" for _, who in writers for number in range(EACH))
        heard: list[list[str]] = []
        begun = [anyio.Event(), anyio.Event(), anyio.Event()]

        async def watch(number: int, url: str, patience: int) -> None:
            """Leaves after so many, and comes again until it has heard of all."""
            seen: list[dict[str, Any]] = []
            headers: dict[str, str] = {}
            async with httpx2.AsyncClient(base_url=url, timeout=SECONDS) as client:
                while len(seen) < len(wanted):
                    async with client.stream("GET", "/v1/stream", headers=headers) as answer:
                        lines = answer.aiter_lines()
                        assert (await anext(lines)).startswith("retry: ")
                        begun[number].set()
                        found, last = await usage_in(lines, min(patience, len(wanted) - len(seen)))
                    seen += found
                    headers = {"last-event-id": last}
            at = [one["recorded_at"] for one in seen]
            assert at == sorted(at)
            heard.append([one["id"] for one in seen])

        with anyio.fail_after(SECONDS):
            async with anyio.create_task_group() as tasks:
                for number, (url, patience) in enumerate(
                    ((here.url, 10_000), (there.url, 10_000), (here.url, 7))
                ):
                    tasks.start_soon(watch, number, url, patience)
                for event in begun:
                    await event.wait()
                for writer in writers:
                    tasks.start_soon(record, *writer)
        assert [sorted(ids) for ids in heard] == [wanted] * 3


async def test_a_correction_by_another_process_is_told(tmp_path: Path) -> None:
    with running_server(tmp_path / "meter.db") as here, running_server(tmp_path / "meter.db") as there:
        one = {"id": "one", "agent": "ann", "service": "search", "requests": 1}
        async with httpx2.AsyncClient(base_url=here.url, timeout=SECONDS) as client:
            async with client.stream("GET", "/v1/stream") as answer:
                lines = answer.aiter_lines()
                assert (await anext(lines)).startswith("retry: ")
                for requests in (1, 3):
                    body = {"records": [one | {"requests": requests}]}
                    sent = await client.post(f"{there.url}/v1/usage/batch", json=body)
                    assert sent.status_code == 200
                    (told,), _ = await usage_in(lines, 1)
                    assert (told["id"], told["requests"]) == ("one", requests)
