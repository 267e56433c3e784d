"""Run the official MCP conformance suite against this server: `python -m tests.conformance.run`.

Every server scenario of the suite, for each protocol version, against our server with the suite's fixtures
in it (`everything.py`); with `--plain` against our server as it is, those scenarios that need no fixture.
What is known not to pass stands with its reason in `expected.json`, check by check. The exit code is 0 if all
came out as written there, 1 if not (an unexpected pass counts too), 2 if the suite could not be run at all.

`--bare` puts the fixtures on the SDK's own empty server: what cannot pass there cannot pass here.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from tests.conformance.suite import Suite, SuiteError, find_suite
from tests.conformance.verdict import Expected, Row

ROOT = Path(__file__).parent.parent.parent
SPECS = ("2025-11-25", "2026-07-28")
HOST = "127.0.0.1"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0


@contextmanager
def serving(options: argparse.Namespace, db: Path, log: Path) -> Generator[str]:
    """Our server in a process of its own, on a new ledger and a free loopback port; yields its address.

    Raises:
        SuiteError: it did not start.
    """
    with socket.socket() as free:
        free.bind((HOST, 0))
        port: int = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.conformance.server", "--port", str(port), "--db", str(db)]
    command += ["--plain"] * options.plain + ["--bare"] * options.bare
    environment = {name: text for name, text in os.environ.items() if not name.startswith("AGENT_METER_")}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=stream, stderr=stream
        )
    try:
        _wait_until_up(process, port, log)
        yield f"http://{HOST}:{port}/mcp"
    finally:
        _stop(process)


def _wait_until_up(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < end:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SuiteError(f"the server did not start:\n{log.read_text(errors='replace')[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin is not None:
        process.stdin.close()


def run_spec(suite: Suite, spec: str, url: str, options: argparse.Namespace, results: Path) -> Iterator[Row]:
    """Run the chosen scenarios of one spec version: all in one process of the suite, chosen ones in one each.

    Raises:
        SuiteError: expected.json names a scenario that the suite does not have.
    """
    known = Expected.read().known(spec, plain=options.plain)
    listed = suite.scenarios(spec)
    if gone := sorted(set(known) - set(listed)):
        raise SuiteError(f"the suite has no {', '.join(gone)} at {spec}; put expected.json right")
    chosen = set(options.scenario or listed) & set(known if options.plain else listed)
    ran = suite.run_all(spec, url, results) if chosen == set(listed) else {}
    for scenario in filter(chosen.__contains__, listed):
        checks = ran.get(scenario) or suite.run(scenario, spec, url, results)
        yield Row(spec, scenario, checks, known.get(scenario))


def _report(rows: Sequence[Row]) -> None:
    for row in rows:
        if row.known is not None and row.expected and row.known.reason:
            print(f"{row.scenario} at {row.spec}: {row.outcome}, as expected: {row.known.reason}")
    unexpected = [row for row in rows if not row.expected]
    for row in unexpected:
        print("\n".join(row.details()))
    counts = ", ".join(
        f"{sum(row.outcome == kind for row in rows)} {kind}" for kind in ("pass", "fail", "skip")
    )
    print(f"{len(rows)} runs: {counts}; {len(unexpected)} unexpected")
    if unexpected:
        print("(--results FOLDER keeps the suite's files and the server's log)")


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance.run", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--node", type=Path, help="a Node.js of version 22 or later (default: found or installed)"
    )
    parser.add_argument("--spec", choices=(*SPECS, "all"), default="all", help="the protocol version to test")
    parser.add_argument("--scenario", action="append", help="run only this one; may be repeated")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/agent-meter-conformance"))
    parser.add_argument(
        "--results", type=Path, help="keep the suite's results and the server's log in this folder"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--plain", action="store_true", help="our server as it is, without fixtures")
    which.add_argument(
        "--bare", action="store_true", help="the fixtures on the SDK's own server, without ours"
    )
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace, temporary: Path) -> bool:
    suite = find_suite(options.cache, Expected.read().suite, options.node)
    results = temporary if options.results is None else options.results.expanduser().resolve()
    results.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    with serving(options, temporary / "ledger.db", results / "server.log") as url:
        print(f"{'scenario':<46} {'spec':<10}  result passed failed")
        for spec in SPECS if options.spec == "all" else (options.spec,):
            for row in run_spec(suite, spec, url, options, results):
                rows.append(row)
                print(row.line(), flush=True)
    if not rows:
        raise SuiteError("no scenario was run")
    _report(rows)
    return all(row.expected for row in rows)


def _terminated(*_: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)  # so that what was started is ended on the way out


def main(arguments: Sequence[str] | None = None) -> int:
    options = _arguments(arguments)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        with tempfile.TemporaryDirectory(prefix="agent-meter-conformance-") as temporary:
            return 0 if _run(options, Path(temporary)) else 1
    except SuiteError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
