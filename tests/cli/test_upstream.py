"""`import`, `reconcile` and `attest`: what upstream's tools have written, and what others can check."""

from __future__ import annotations

import json
import os
import threading
import tracemalloc
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agent_meter_mcp.cli import reconciling
from agent_meter_mcp.core import attest

from .conftest import Run

SPEND = (
    '{"type":"api_call","ts":"2026-03-04T18:30:00.000Z","api":"api.anthropic.com","model":"claude-sonnet-4-20250514","tokens_in":1200,"tokens_out":450,"cost_usd":0.0087,"project":"oztenbot","purpose":"heartbeat-analysis","intent":["moltbook-engagement","feed-analysis"],"key_alias":"oztenbot-main","session_id":"abc123","agent_id":"oztenbot","operation":"messages.create","status":200,"duration_ms":3200,"source":"hook","meta":{}}\n'
    '{"type":"session_summary","ts":"2026-03-04T19:00:00.000Z","api":"api.anthropic.com","session_id":"abc123","agent_id":"oztenbot","total_calls":12,"tokens_in":45000,"tokens_out":8500,"cost_usd":0.285,"duration_ms":180000,"source":"hook"}\n'
    '{"type":"session_summary","ts":"2026-11-23T20:12:25.000Z","api":"api.anthropic.com","model":"claude-opus-5-5","session_id":"19892553","project":"proj","total_calls":3,"tokens_in":36,"tokens_out":477,"cache_creation":16200,"cache_read":46665,"cost_usd":0.410063,"source":"hook"}\n'
)


@pytest.fixture
def spend(home: Path) -> Path:
    path = home / "spend.jsonl"
    path.write_text(SPEND, encoding="utf-8")
    return path


def total(ok: Run) -> dict[str, Any]:
    return ok("summary", "--window", "total", "--json").data["total"]


def test_an_import_adds_up_and_its_repeat_changes_nothing(ok: Run, spend: Path) -> None:
    first = ok("import", str(spend), "--agent", "lap")
    assert first.lines == ["3 recorded, 0 corrected, 0 already there"]
    before = total(ok)
    assert (before["events"], before["requests"], before["cost_usd"]) == (3, 15, 0.695063)
    assert before["tokens"] == 45_000 + 8_500 + 36 + 477 + 16_200 + 46_665
    assert ok("import", str(spend), "--agent", "lap", "--json").data == {
        "recorded": 0, "corrected": 0, "duplicate": 3, "rejected": [],
    }  # fmt: skip
    assert total(ok) == before
    (newest, *_) = ok("events", "--json").data["events"]
    assert (newest["source"], newest["cost_source"]) == ("import", "reported")
    assert ok("verify").code == 0


def test_the_last_row_of_a_session_counts(ok: Run, spend: Path) -> None:
    row = json.loads(SPEND.splitlines()[2])
    later = {**row, "ts": "2026-11-23T21:00:00Z", "total_calls": 7, "cost_usd": 1}
    ok("import", str(spend), "--agent", "lap")
    spend.write_text(SPEND + json.dumps(later) + "\n", encoding="utf-8")
    assert ok("import", str(spend), "--agent", "lap").lines == ["0 recorded, 1 corrected, 2 already there"]
    assert total(ok)["requests"] == 19
    assert ok("import", str(spend), "--agent", "lap").lines == ["0 recorded, 0 corrected, 3 already there"]


def test_two_calls_that_say_the_same_are_two(ok: Run, home: Path) -> None:
    path = home / "calls.jsonl"
    path.write_text(
        '{"type":"api_call","ts":"2026-03-04T18:30:00Z","api":"x","agent_id":"a"}\n' * 2, encoding="utf-8"
    )
    ok("import", str(path))
    ok("import", str(path))
    assert total(ok)["events"] == 2


def test_a_row_that_cannot_be_taken_is_named_and_the_others_are_recorded(
    run: Run, ok: Run, spend: Path
) -> None:
    bad = ["{", "5", '{"type":"other","ts":"x","api":"y"}', '{"type":"session_summary","ts":"2026-01-01T00:00:00Z","api":"y"}',
           '{"type":"api_call","ts":"now","api":"y","agent_id":"a"}', "x" * 1_100_000, '{"type":"api_call","ts":"2026-01-01T00:00:00Z","api":"\x1b[31m","agent_id":"a"}']  # fmt: skip
    spend.write_text("\n".join(bad) + "\n\n" + SPEND + '{"type":"api_call","ts', encoding="utf-8")
    ran = run("import", str(spend), "--agent", "lap", "--json")
    assert ran.code == 2
    assert ran.data["recorded"] == 3
    assert [one["line"] for one in ran.data["rejected"]] == [1, 2, 3, 4, 5, 6, 7, 12]
    told = run("import", str(spend), "--agent", "lap")
    assert "line 4: session_id: is required" in told.err
    assert "\x1b" not in told.err


def test_a_file_that_is_not_there_is_one_line(run: Run, home: Path) -> None:
    gone = run("import", str(home / "none"))
    assert (gone.code, gone.err.startswith("agent-meter import: FILE: ")) == (2, True)


# Reconciling


def upstream(number: int, units: float = 1, **fields: Any) -> dict[str, Any]:
    return {
        "id": str(number),
        "timestamp": "2026-01-01T00:00:00.000Z",
        "serviceId": "api",
        "agent": {"agentId": "bot"},
        "operation": "op",
        "units": units,
        "requestSignature": f"sig{number}",
        **fields,
    }


def test_what_only_one_side_has_and_what_differs_is_named(run: Run, home: Path) -> None:
    (home / "a.json").write_text(json.dumps([upstream(1), upstream(2), upstream(3, 5)]), encoding="utf-8")
    (home / "s.json").write_text(
        json.dumps({"records": [upstream(11, requestSignature="sig1"), upstream(3, 5.5), upstream(4)]}),
        encoding="utf-8",
    )
    sides = ("--agent-records", str(home / "a.json"), "--service-records", str(home / "s.json"))
    found = run("reconcile", *sides, "--json")
    assert found.code == 6
    assert {name: [one["key"] for one in found.data[name]] for name in ("agent_only", "service_only", "unit_differences")} == {
        "agent_only": ["sig2"], "service_only": ["sig4"], "unit_differences": ["sig3"],
    }  # fmt: skip
    assert (found.data["matched"], found.data["unit_differences"][0]["service"]["units"]) == (2, 5.5)
    shown = run("reconcile", *sides)
    assert shown.lines[-1] == "1 agree, 1 agent only, 1 service only, 1 differ"


def test_records_without_a_signature_belong_together_by_their_id_and_several_add_up(
    run: Run, home: Path
) -> None:
    lines = [
        upstream(1, 0.1, requestSignature=None),
        upstream(2, 0.2),
        upstream(3, 0.1, requestSignature="sig2"),
    ]
    (home / "a.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    (home / "s.json").write_text(
        json.dumps([upstream(1, 0.1, requestSignature=None), upstream(2, 0.3)]), encoding="utf-8"
    )
    found = run(
        "reconcile",
        "--agent-records",
        str(home / "a.jsonl"),
        "--service-records",
        str(home / "s.json"),
        "--json",
    ).data
    assert [(one["key"], one["agent"]["records"]) for one in found["unit_differences"]] == [("sig2", 2)]
    same = run(
        "reconcile", "--agent-records", str(home / "a.jsonl"), "--service-records", str(home / "a.jsonl")
    )
    assert (same.code, same.out) == (0, "2 requests: both sides agree\n")


@contextmanager
def answering(pages: Mapping[str, tuple[int, bytes, str | None]], key: str | None = None) -> Generator[str]:
    """A server of these pages. With a key, that is what the Authorization header must say."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_known = key is None or self.headers["Authorization"] == key
            status, body, link = pages[self.path] if is_known else (401, b"", None)
            self.send_response(status)
            if link is not None:
                self.send_header("Link", f'<{link}>; rel="next"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: stderr is the command's."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_side_may_be_a_url_and_the_other_the_ledger(run: Run, ok: Run) -> None:
    ok("record", "--agent", "bot", "--service", "api", "--id", "mine", "--units", "2")
    ok("record", "--agent", "bot", "--service", "other", "--id", "elsewhere")
    mine = {"id": "mine", "units": 2, "serviceId": "api", "agent": {"agentId": "bot"}}
    pages = {
        "/me": (200, json.dumps([mine]).encode(), "?cursor=2"),
        "/me?cursor=2": (200, b"[]", "/older"),
        "/older": (200, json.dumps([upstream(9)]).encode(), None),
        "/broken": (200, b"<html>", None),
        "/down": (500, b"[]", None),
        "/whose": (422, b'{"detail": "agent_id: is required\\u001b[31m"}', None),
        "/told?token=very-secret": (404, b'{"detail": "nothing is at very-secret"}', None),
        "/away": (200, b"[]", "http://127.0.0.2/"),
    }
    with answering(pages) as url:
        found = run(
            "reconcile", "--service-records", f"{url}/me", "--agent", "bot", "--service", "api", "--json"
        )
        assert (found.code, found.data["matched"], len(found.data["service_only"])) == (6, 1, 1)
        assert found.data["agent_only"] == []
        for page, code, said in (
            ("broken", 2, "must be JSON"),
            ("down", 69, f"{url}/down cannot be had: it answers 500."),
            ("away", 2, "leads to another host"),
            ("whose", 2, "it answers 422 (agent_id: is required"),
            ("told?token=very-secret", 2, f"{url}/told cannot be had: it answers 404."),
        ):
            refused = run("reconcile", "--service-records", f"{url}/{page}", "--agent", "bot")
            assert (refused.code, refused.err.count("\n")) == (code, 1), refused
            assert said in refused.err
            assert "\x1b" not in refused.err
            assert "very-secret" not in refused.err
    gone = run("reconcile", "--service-records", f"{url}/me", "--agent", "bot")
    assert (gone.code, "cannot be had" in gone.err) == (69, True)


def test_what_is_too_large_is_read_once_and_no_further(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was put together by copying all that was there for each piece that came."""
    monkeypatch.setattr(reconciling, "BYTES_MAX", 2**24)
    with answering({"/me": (200, b" " * (2**24 + 2**20), None)}) as url:
        words = ("reconcile", "--service-records", f"{url}/me", "--agent", "bot")
        run(*words)  # what is imported is no part of it
        tracemalloc.start()
        try:
            refused = run(*words)
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert (refused.code, "is larger than 16777216 bytes" in refused.err) == (2, True)
    assert most < 1.5 * 2**24


def test_a_side_at_a_url_may_want_a_key(run: Run, ok: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ok("record", "--agent", "bot", "--service", "api", "--id", "mine", "--units", "2")
    mine = {"id": "mine", "units": 2, "serviceId": "api", "agent": {"agentId": "bot"}}
    pages = {"/me": (200, json.dumps([mine]).encode(), "/older"), "/older": (200, b"[]", None)}
    monkeypatch.setenv("SERVICE_KEY", "very-secret")
    with answering(pages, key="Bearer very-secret") as url:
        words = ("reconcile", "--agent", "bot", "--service-records", f"{url}/me")
        refused = run(*words)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert "it answers 401: it wants --service-header" in refused.err
        for header in ("Authorization: Bearer $SERVICE_KEY", "authorization:Bearer very-secret"):
            assert ok(*words, "--service-header", header, "--json").data["matched"] == 1
        wrong = run(*words, "--service-header", "Authorization: Bearer not-$SERVICE_KEY")
        assert wrong.code == 2
        assert "very-secret" not in wrong.out + wrong.err
        private = url.replace("http://", "http://ann:very-secret@")
        told = run("reconcile", "--agent", "bot", "--service-records", f"{private}/me?token=very-secret")
        assert told.code == 2
        assert f"{url}/me cannot be had" in told.err
        assert "very-secret" not in told.err


@pytest.mark.parametrize(
    ("place", "header", "told"),
    [
        ("http://127.0.0.1:1/", "very-secret", "must be a name, a colon and a value"),
        ("http://127.0.0.1:1/", "a b: very-secret", "must be a name, a colon and a value"),
        ("http://127.0.0.1:1/", "X: very-secret\r\nY: z", "is not printable"),
        ("http://127.0.0.1:1/", "X: very-secret $", "has a $ without a name"),
        ("http://127.0.0.1:1/", "X: very-secret $NOWHERE_SET", "names $NOWHERE_SET, which is not in the env"),
        ("file.json", "X: very-secret", "is for records that are at a URL"),
        (None, "X: very-secret", "is for records that are at a URL"),
    ],
)
def test_a_header_that_is_none_is_refused_and_not_shown(
    run: Run, place: str | None, header: str, told: str
) -> None:
    records = ("--agent-records", "a.json") if place is None else ("--service-records", place)
    refused = run("reconcile", "--agent", "bot", *records, "--service-header", header)
    assert (refused.code, "very-secret" in refused.out + refused.err) == (2, False)
    assert told in refused.err
    assert "--service-header" in refused.err


@pytest.mark.parametrize(
    "words",
    [(), ("--agent-records", "-", "--service-records", "-", "--agent", "a"), ("--service-records", "-")],
    ids=len,
)
def test_two_sides_are_needed(run: Run, words: tuple[str, ...]) -> None:
    refused = run("reconcile", *words, typed="[]")
    assert refused.code == 2
    assert "_records" not in refused.err, "options are named as they are typed"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "5",
        "[5]",
        '[{"units":1}]',
        '[{"id":"a"}]',
        '[{"id":"a","units":"x"}]',
        '[{"id":"a","units":1e999}]',
    ],
)
def test_what_is_no_list_of_records_is_refused(run: Run, home: Path, text: str) -> None:
    (home / "s.json").write_text(text, encoding="utf-8")
    refused = run("reconcile", "--service-records", str(home / "s.json"), "--agent", "bot")
    assert refused.code == 2
    assert "--service-records: " in refused.err


# Attesting


@pytest.fixture
def secrets(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = home / "secrets.toml"
    path.touch(0o600)
    path.write_text('[services]\napi = "apis-secret"\n', encoding="utf-8")
    monkeypatch.setenv("AGENT_METER_SECRETS", str(path))
    return path


def test_an_attestation_verifies_until_something_in_it_is_changed(
    run: Run, ok: Run, home: Path, secrets: Path
) -> None:
    ok("record", "--agent", "bot", "--service", "api", "--units", "2.5", "--metadata", '{"tiny": 1e-7}')
    made = ok("attest", "create", "--service", "api", "--window", "day")
    assert attest.verify("apis-secret", made.out).problems == ()
    (home / "day.json").write_text(made.out, encoding="utf-8")
    assert ok("attest", "verify", str(home / "day.json")).out == "1 record of api: what was signed\n"
    (home / "day.json").write_text(made.out.replace('"units":2.5', '"units":2.4'), encoding="utf-8")
    forged = run("attest", "verify", str(home / "day.json"), "--json")
    assert (forged.code, forged.data["ok"], len(forged.data["problems"])) == (6, False, 1)


def test_what_cannot_be_attested_is_one_line(run: Run, ok: Run, secrets: Path) -> None:
    ok("record", "--agent", "bot", "--service", "api")
    for words, code in (
        (("create",), 2),
        (("create", "--service", "api", "--day", "today"), 2),
        (("create", "--service", "api", "--day", "2020-01-01"), 2),
        (("create", "--service", "api", "--day", "2020-01-01", "--window", "day"), 2),
        (("create", "--service", "other"), 3),
        (("verify", "none.json"), 2),
    ):
        refused = run("attest", *words)
        assert (refused.code, refused.out, refused.err.count("\n")) == (code, "", 1)
    os.chmod(secrets, 0o644)
    open_to_all = run("attest", "create", "--service", "api")
    assert (open_to_all.code, "chmod 600" in open_to_all.err, "apis-secret" in open_to_all.err) == (
        2,
        True,
        False,
    )
