"""`keys`: made, listed and revoked."""

from __future__ import annotations

import re

import pytest

from agent_meter_mcp.faces.errors import SHAPES

from .conftest import Run, process
from .terminal import in_terminal

TOKEN = re.compile(r"am_[A-Za-z0-9_-]{43}")


def test_a_key_is_shown_once_and_alone_on_stdout(ok: Run) -> None:
    made = ok("keys", "create", "--role", "agent", "--agent", "coder")
    token = made.out.removesuffix("\n")
    assert TOKEN.fullmatch(token)
    assert made.err.splitlines()[-1] == (
        "agent-meter: note: this is shown once, so keep it now. It lets in agent coder. "
        f"To end it: agent-meter keys revoke {token[:11]}"
    )
    for words in (("keys", "list"), ("keys", "list", "--json"), ("audit",), ("audit", "--json")):
        again = ok(*words)
        assert token[:11] in again.out
        assert token[11:] not in again.out + again.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--role", "agent", "--agent", "coder"), {"role": "agent", "agent": "coder"}),
        (("--role", "service", "--service", "search"), {"role": "service", "service": "search"}),
        (("--role", "viewer", "--name", "dashboard"), {"role": "viewer", "name": "dashboard"}),
        (("--role", "operator"), {"role": "operator"}),
    ],
)
def test_each_role_has_its_keys(ok: Run, options: tuple[str, ...], told: dict[str, str]) -> None:
    made = ok("keys", "create", *options, "--json").data
    token = made.pop("token")
    assert TOKEN.fullmatch(token)
    assert made == {
        "key_id": made["key_id"], "prefix": token[:11], "role": None, "agent": None, "service": None, "name": None,
        "status": "valid", "created_at": made["created_at"], "expires_at": None, "revoked_at": None,
        "last_used_at": None, **told,
    }  # fmt: skip
    assert ok("keys", "list", "--json").data == {"keys": [made]}


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--role", "agent"), "--agent: is required: a key in the role agent is for one agent"),
        (("--role", "service"), "--service: is required"),
        (("--role", "viewer", "--agent", "a"), "--agent: leave it out: a key in the role viewer is for no agent"),
        (("--role", "agent", "--agent", "a", "--service", "s"), "--service: leave it out"),
        (("--role", "operator", "--service", "s"), "--service: leave it out"),
        (("--role", "agent", "--agent", " a"), "--agent: must not begin or end with a space"),
        (("--role", "agent", "--agent", "*"), '--agent: "*" means each one'),
        (("--role", "viewer", "--name", "\x1b[2J"), "--name: must be printable"),
        (("--role", "viewer", "--expires", "0d"), "--expires: must be a length of time"),
        (("--role", "viewer", "--expires", "400d"), "--expires: must be a length of time, such as 12h or 30d"),
        (("--role", "viewer", "--expires", "2027-01-01"), "--expires: must be a length of time"),
        (("--role", "viewer", "--expires", "day"), "--expires: must be a length of time, such as 12h or 30d"),
        (("--role", "viewer", "--expires", "soon"), "--expires: "),
        (("--role", "king"), "Invalid value for '--role'"),
        ((), "Missing option '--role'"),
    ],
)  # fmt: skip
def test_a_key_that_cannot_be_is_refused(run: Run, options: tuple[str, ...], line: str) -> None:
    refused = run("keys", "create", *options)
    assert (refused.code, refused.out) == (2, "")
    assert f"agent-meter keys create: {line}" in refused.err
    assert run("keys", "list", "--json").data == {"keys": []}


def test_keys_are_listed_with_what_may_be_known(ok: Run) -> None:
    assert ok("keys", "list").out == "No key: the server takes every caller on this machine for its owner.\n"
    made = ok("keys", "create", "--role", "agent", "--agent", "coder", "--name", "ci", "--expires", "30d")
    assert re.search(r"It lets in agent coder, until 20\d\d-\d\d-\d\dT[0-9:.]+Z\.", made.err)
    other = ok("keys", "create", "--role", "viewer")
    ok("keys", "revoke", other.out[:11])
    head, first, second = ok("keys", "list").lines
    assert head.split() == [
        "Key",
        "Lets",
        "in",
        "Name",
        "Status",
        "Last",
        "used",
        "(UTC)",
        "Expires",
        "Created",
        "Id",
    ]
    assert first.split()[:6] == [made.out[:11], "agent", "coder", "ci", "valid", "never"]
    assert second.split()[:4] == [other.out[:11], "viewer", "revoked", "never"]


def test_a_list_of_keys_fits_a_terminal(ok: Run) -> None:
    ok("keys", "create", "--role", "agent", "--agent", "c" * 100, "--name", "n" * 100)
    screen = in_terminal("keys", "list", columns=80)
    assert max(map(len, screen.lines)) <= 80
    assert "valid" in screen.text


def test_a_key_is_revoked_by_its_prefix_or_its_id_and_for_good(run: Run, ok: Run) -> None:
    made = ok("keys", "create", "--role", "service", "--service", "search", "--json").data
    other = ok("keys", "create", "--role", "viewer", "--json").data
    assert ok("keys", "revoke", made["prefix"]).out == (
        f"revoked: {made['prefix']} no longer lets in service search\n"
    )
    revoked = ok("keys", "revoke", other["key_id"], "--json").data
    assert (revoked["status"], revoked["key_id"]) == ("revoked", other["key_id"])
    assert ok("keys", "revoke", other["prefix"], "--json").data == revoked
    assert {key["status"] for key in ok("keys", "list", "--json").data["keys"]} == {"revoked"}


def test_a_key_that_is_not_there_is_not_repeated(run: Run, ok: Run) -> None:
    """It could be a whole token."""
    token = ok("keys", "create", "--role", "viewer").out.strip()
    for unknown in (token, "am_nobody-"):
        refused = run("keys", "revoke", unknown)
        assert refused.code == SHAPES["not_found"].exit_code
        assert refused.err == (
            "agent-meter keys revoke: there is no such key. `agent-meter keys list` shows them.\n"
        )
    assert ok("keys", "list", "--json").data["keys"][0]["status"] == "valid"


def test_the_audit_tells_of_keys(ok: Run) -> None:
    prefix = ok("keys", "create", "--role", "agent", "--agent", "coder").out[:11]
    ok("keys", "revoke", prefix)
    rows = [" ".join(line.split()[1:]) for line in ok("audit").lines[1:]]
    assert rows == [f"olga revoke key key {prefix}", f"olga create key key {prefix} agent coder"]
    revoked, made = ok("audit", "--json").data["entries"]
    assert (made["before"], made["after"]["bound_to"]) == (None, "coder")
    assert {**revoked["before"], "revoked_at": revoked["at"]} == revoked["after"]


def test_an_agent_makes_no_keys(ok: Run) -> None:
    ok("agent", "set", "coder", "--tier", "t")
    for words in (("create", "--role", "operator"), ("list",), ("revoke", "x")):
        refused = process("keys", *words, AGENT_METER_AGENT="coder")
        assert (refused.code, refused.out) == (SHAPES["forbidden"].exit_code, "")
        assert "this needs the role operator" in refused.err
