"""Batches of a thousand records, while the whole server is killed, while two send the same, and cut off."""

from __future__ import annotations

import json
import random
import select
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.clients.serving import Server, running_server

RECORDS = 1000
ROUNDS = 6
SECONDS = 30


def batch(name: str) -> list[dict[str, Any]]:
    """Each with an id and an amount of its own, of four agents, at moments that are not in order."""
    at = random.Random(name)
    return [
        {
            "id": f"{name}-{number}",
            "agent": f"agent-{number % 4}",
            "service": "search",
            "units": number,
            "cost_usd": 0.001,
            "occurred_at": f"2026-01-31T18:{at.randrange(60):02}:00Z",
        }
        for number in range(RECORDS)
    ]


def sent_raw(server: Server, records: list[dict[str, Any]], upto: float = 1.0) -> socket.socket:
    """A connection on which that part of a batch has been sent. No answer was waited for."""
    body = json.dumps({"records": records}).encode()
    place = urlsplit(server.url)
    head = (
        f"POST /v1/usage/batch HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    connection = socket.create_connection((place.hostname, place.port), timeout=SECONDS)
    connection.sendall(head.encode() + body[: int(len(body) * upto)])
    return connection


def send(url: str, records: list[dict[str, Any]]) -> dict[str, Any]:
    answer = httpx2.post(f"{url}/v1/usage/batch", json={"records": records}, timeout=SECONDS)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert [one["id"] for one in told["results"]] == [record["id"] for record in records]
    assert {one["outcome"] for one in told["results"]} == {"accepted"}
    return told


def total(url: str) -> tuple[int, float, float]:
    """Events, units and dollars."""
    told = httpx2.get(f"{url}/v1/summary", params={"window": "total"}, timeout=SECONDS).json()["total"]
    return told["events"], told["units"], told["cost_usd"]


def of_batches(count: int) -> tuple[int, float, float]:
    return count * RECORDS, count * RECORDS * (RECORDS - 1) // 2, count


def verified(database: Path) -> None:
    words = [sys.executable, "-m", "agent_meter_mcp", "--db", str(database), "verify"]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS)
    assert (ran.returncode, ran.stdout) == (0, "every total agrees with its events\n"), ran.stderr


def begun(connection: socket.socket, within_s: float) -> bool:
    """Whether a good answer begins so soon."""
    readable, _, _ = select.select((connection,), (), (), within_s)
    return bool(readable) and connection.recv(12) == b"HTTP/1.1 200"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_server_that_is_killed_has_a_batch_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    database = tmp_path / "meter.db"
    with running_server(database) as server:
        send(server.url, batch("to warm up"))
        began = time.monotonic()
        send(server.url, batch("to measure"))
        usual_s = time.monotonic() - began
    moments = [0.0, *(random.uniform(0, usual_s) for _ in range(ROUNDS)), SECONDS]
    new: list[int] = []
    answered = False
    for number, moment_s in enumerate((*moments, None)):
        with running_server(database) as server:
            if number:  # what came when the last one was killed comes again, to a server that has just begun
                before = batch(f"round-{number - 1}")
                told = send(server.url, before)
                new.append(told["accepted"])
                assert told["accepted"] in (0, RECORDS)
                assert told["accepted"] + told["duplicatesIgnored"] == RECORDS
                assert not (answered and told["accepted"])
                assert send(server.url, before)["accepted"] == 0
            assert total(server.url) == of_batches(number + 2)
            verified(database)
            if moment_s is not None:
                with sent_raw(server, batch(f"round-{number}")) as connection:
                    answered = begun(connection, moment_s)
                    server.process.kill()
                    server.process.wait(SECONDS)
    assert (new[0], new[-1]) == (RECORDS, 0), moments


def test_the_same_batch_from_two_at_once_counts_once(tmp_path: Path) -> None:
    database = tmp_path / "meter.db"
    with running_server(database) as first, running_server(database) as second, ThreadPoolExecutor(4) as pool:
        for number in range(3):
            records = batch(f"both-{number}")
            places = (first.url, first.url, second.url, second.url)
            told = list(pool.map(send, places, [records] * len(places)))
            assert sum(one["accepted"] for one in told) == RECORDS
            assert sum(one["duplicatesIgnored"] for one in told) == 3 * RECORDS
        assert total(first.url) == total(second.url) == of_batches(3)
    verified(database)


def test_a_batch_that_is_cut_off_is_as_if_it_had_not_been_sent(tmp_path: Path) -> None:
    database, records = tmp_path / "meter.db", batch("cut")
    with running_server(database) as server:
        for part in (0.001, 0.5, 0.999):
            with sent_raw(server, records, part) as connection:
                connection.shutdown(socket.SHUT_WR)
                assert connection.recv(65536) == b""
        sent_raw(server, records, 0.7).close()
        assert total(server.url)[0] == 0
        assert send(server.url, records)["accepted"] == RECORDS
        assert total(server.url) == of_batches(1)
    verified(database)
