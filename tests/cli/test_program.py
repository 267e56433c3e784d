"""Help, exit codes, errors, completion: what holds for every command."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import click
import pytest

from agent_meter_mcp import __version__
from agent_meter_mcp.cli import main
from agent_meter_mcp.cli.exits import ANSWERS, exit_codes
from agent_meter_mcp.cli.options import Command
from agent_meter_mcp.cli.program import COMMANDS, OTHER_WORDS, program
from agent_meter_mcp.faces.errors import SHAPES
from agent_meter_mcp.store.sqlite import driver

from .conftest import Run, environment, process
from .terminal import in_terminal


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], click.Command]:
    """Every command that does something, by its words."""
    found: dict[tuple[str, ...], click.Command] = {}
    with click.Context(group) as context:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            if isinstance(command, click.Group):
                found |= leaves(command, (*path, name))
            else:
                found[*path, name] = command
    return found


LEAVES = leaves(program)
GROUPS = [(), ("limit",), ("agent",), ("kill",), ("resume",), ("keys",), ("attest",)]
NO_LEDGER = [("doctor",), ("attest", "verify")]
REPORTS = [path for path, command in LEAVES.items() if any(one.name == "as_json" for one in command.params)]


def test_the_commands_are_these() -> None:
    assert {" ".join(path) for path in LEAVES} == {
        "record", "check", "import", "reconcile", "demo", "attest create", "attest verify", "summary", "events", "agents", "reservations", "alerts", "audit", "export",
        "limit set", "limit list", "limit remove", "agent set", "kill agent", "kill service", "kill everything",
        "resume agent", "resume service", "resume everything", "verify", "doctor", "mcp", "serve", "completion",
        "dashboard", "keys create", "keys list", "keys revoke",
    }  # fmt: skip


@pytest.mark.parametrize("path", [*LEAVES, *GROUPS], ids=" ".join)
def test_every_help_page_fits_80_columns_and_has_examples(run: Run, path: tuple[str, ...]) -> None:
    page = run(*path, "--help")
    assert page.code == 0
    assert page.lines[0].startswith(" ".join(["Usage: agent-meter", *path]))
    assert max(map(len, page.lines)) <= 80
    assert run(*path, "-h").out == page.out
    if path in LEAVES:
        assert f"    agent-meter {' '.join(path)}" in page.out.partition("Examples:")[2]


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_option_says_what_it_is(path: tuple[str, ...]) -> None:
    command = LEAVES[path]
    assert isinstance(command, Command)
    unexplained = [
        option.opts for option in command.params if isinstance(option, click.Option) and not option.help
    ]
    assert unexplained == []


def test_the_overview_names_every_command_and_every_exit_code(run: Run) -> None:
    page = run("--help")
    words = {tuple(line.split()[:1]) for line in page.lines if line.startswith("  ")}
    assert {(name,) for name in COMMANDS} <= words
    codes = {
        int(line.split()[0])
        for line in page.out.partition("Exit codes:")[2].splitlines()
        if line[2:6].strip().isdigit()
    }
    assert codes == {*ANSWERS, *(shape.exit_code for shape in SHAPES.values())}


def test_answers_and_errors_have_different_exit_codes() -> None:
    assert {*ANSWERS} & {shape.exit_code for shape in SHAPES.values()} == set()
    assert 1 not in dict(exit_codes()), "what Python itself ends with"


@pytest.mark.parametrize("path", GROUPS, ids=" ".join)
def test_a_group_alone_shows_its_help_as_an_error(run: Run, path: tuple[str, ...]) -> None:
    alone = run(*path)
    assert (alone.code, alone.out) == (2, "")
    assert alone.err == run(*path, "--help").out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["version"], "agent-meter: No such command 'version'. Did you mean '--version'? (see agent-meter --help)"),
        (["help"], "agent-meter: No such command 'help'. Did you mean '--help'? (see agent-meter --help)"),
        (["sumary"], "agent-meter: No such command 'sumary'. Did you mean 'summary'? (see agent-meter --help)"),
        (["summary", "--agnet", "a"], "agent-meter summary: No such option '--agnet'."),
        (["record", "--requests", "x"], "agent-meter record: Invalid value for '--requests': 'x' is not a valid integer"),
        (["summary", "extra"], "agent-meter summary: Got unexpected extra argument"),
        (["limit", "set", "--max", "1", "--window", "day"], "agent-meter limit set: Missing option '--metric'"),
        (["summary", "--db", ""], "agent-meter summary: Invalid value for '--db': must not be empty"),
        (["check", "--agent", "a", "--input-tokens", "-1"], "agent-meter check: --input-tokens: must be between 0 and"),
        (["kill", "agent", " a", "--reason", "x"], "agent-meter kill agent: AGENT: must not begin or end with a space"),
    ],
    ids=str,
)  # fmt: skip
def test_a_mistake_is_one_line_with_code_2(run: Run, words: list[str], line: str) -> None:
    refused = run(*words)
    assert (refused.code, refused.out) == (2, "")
    (told,) = [one for one in refused.err.splitlines() if "making a new ledger" not in one]
    assert told.startswith(line)


@pytest.mark.parametrize(
    ("word", "command"),
    [
        ("usage", "summary"), ("stats", "summary"), ("report", "summary"), ("reports", "summary"),
        ("event", "events"), ("log", "events"), ("status", "agents"), ("top", "dashboard"), ("budget", "limit"),
        ("block", "kill"), ("stop", "kill"), ("unblock", "resume"), ("unkill", "resume"), ("exprot", "export"),
    ],
)  # fmt: skip
def test_whoever_calls_a_command_otherwise_is_told_its_name(run: Run, word: str, command: str) -> None:
    assert f"No such command {word!r}. Did you mean {command!r}?" in run(word).err


def test_every_other_word_leads_to_a_command_and_is_none_itself() -> None:
    words = [word for words in OTHER_WORDS.values() for word in words.split()]
    assert set(OTHER_WORDS) <= set(COMMANDS)
    assert not set(words) & set(COMMANDS)
    assert len(words) == len(set(words))


@pytest.mark.parametrize(
    ("words", "code", "exit_code"),
    [
        (["sumary", "--json"], "invalid_input", 2),
        (["summary", "--json", "--agnet", "a"], "invalid_input", 2),
        (["check", "--json", "--agent", "a", "--input-tokens", "-1"], "invalid_input", 2),
        (["limit", "remove", "nope", "--json"], "not_found", 3),
        (["events", "--json", "--db", "/dev/null/x"], "store_unusable", 65),
    ],
    ids=str,
)
def test_whoever_asked_for_json_reads_what_went_wrong_as_json(
    run: Run, words: list[str], code: str, exit_code: int
) -> None:
    refused = run(*words)
    error = refused.data["error"]
    assert (refused.code, error["code"], error["exit_code"]) == (exit_code, code, exit_code)
    assert refused.err.endswith(f": {error['message']}\n")


def test_the_file_may_be_named_before_or_after_the_command(run: Run, home: Path) -> None:
    for words in (("--db", str(home / "x.db"), "record"), ("record", "--db", str(home / "y.db"))):
        assert run(*words, "--agent", "a", "--service", "s").code == 0
    assert (home / "x.db").exists()
    assert (home / "y.db").exists()
    assert not (home / "meter.db").exists()


def broken(path: Path) -> None:
    path.write_bytes(b"not a database, but long enough to be looked at" * 40)


def foreign(path: Path) -> None:
    connection = driver.sqlite3.connect(path)
    connection.execute("CREATE TABLE other (x)")
    connection.close()


def newer(path: Path) -> None:
    connection = driver.sqlite3.connect(path)
    connection.executescript(
        "CREATE TABLE other (x); PRAGMA application_id = 0x414D4554; PRAGMA user_version = 99"
    )
    connection.close()


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (broken, "store_unusable"),
        (foreign, "store_unusable"),
        (newer, "store_too_new"),
        (Path.mkdir, "store_unusable"),
    ],
)
@pytest.mark.parametrize("path", [path for path in REPORTS if path not in NO_LEDGER], ids=" ".join)
def test_a_file_that_is_no_ledger_is_one_line(
    run: Run, home: Path, path: tuple[str, ...], make: object, error: str
) -> None:
    assert callable(make)
    make(home / "meter.db")
    needed = {
        "record": ("--agent", "a", "--service", "s"),
        "check": ("--agent", "a"),
        "limit set": ("--metric", "requests", "--window", "day", "--max", "1"),
        "limit remove": ("x",),
        "agent set": ("a", "--tier", "x"),
        "kill agent": ("a", "--reason", "x"),
        "kill service": ("a", "--reason", "x"),
        "kill everything": ("--yes", "--reason", "x"),
        "resume agent": ("a",),
        "resume service": ("a",),
        "resume everything": ("--yes",),
        "keys create": ("--role", "viewer"),
        "keys revoke": ("x",),
        "import": (str(home / "spend.jsonl"),),
        "reconcile": ("--agent", "a", "--service-records", str(home / "records.json")),
    }
    (home / "spend.jsonl").touch()
    (home / "records.json").write_text("[]", encoding="utf-8")
    refused = run(*path, *needed.get(" ".join(path), ()))
    assert (refused.code, refused.out) == (SHAPES[error].exit_code, "")
    assert len(refused.err.splitlines()) == 1
    assert refused.err.startswith(f"agent-meter {' '.join(path)}: {home / 'meter.db'}")


def test_a_folder_that_is_missing_is_one_line(run: Run, home: Path) -> None:
    refused = run("--db", str(home / "nowhere" / "x.db"), "summary")
    assert refused.code == SHAPES["store_unusable"].exit_code
    (told,) = refused.err.splitlines()
    assert told.startswith("agent-meter summary: the folder of ")


def test_a_file_that_another_process_holds_is_worth_another_try(
    run: Run, ok: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ok("record", "--agent", "a", "--service", "s")
    monkeypatch.setenv("AGENT_METER_BUSY_TIMEOUT", "0.05")
    holder = driver.connect(str(home / "meter.db"), synchronous="FULL", busy_timeout_s=1)
    holder.execute("BEGIN IMMEDIATE")
    try:
        refused = run("record", "--agent", "a", "--service", "s")
        assert run("summary").code == 0
    finally:
        holder.close()
    assert refused.code == SHAPES["store_busy"].exit_code
    assert "Nothing was written" in refused.err


@pytest.mark.parametrize("setting", ["AGENT_METER_PORT", "AGENT_METER_TIMEZONE", "AGENT_METER_SYNCHRONOUS"])
def test_a_setting_that_cannot_be_is_named(run: Run, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv(setting, "no/such\nthing")
    refused = run("summary")
    assert refused.code == 2
    assert refused.err.startswith(f"agent-meter summary: {setting}: must be ")


def test_a_failure_of_ours_is_one_line_that_says_where(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("first\nsecond \x1b[31m")

    monkeypatch.setattr("agent_meter_mcp.cli.session.load_settings", fail)
    failed = run("summary")
    assert (failed.code, failed.out) == (SHAPES["error"].exit_code, "")
    assert failed.err.startswith(
        r"agent-meter: internal error: RuntimeError: first\nsecond \x1b[31m at test_program.py:"
    )
    assert len(failed.err.splitlines()) == 1


def test_the_entry_point_answers_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"agent-meter {__version__}\n"
    assert main(["nope"]) == 2


def test_a_process_ends_with_the_code_of_its_command() -> None:
    assert process("--version").out == f"agent-meter {__version__}\n"
    assert process("record", "--agent", "a", "--service", "s").code == 0
    assert process("record", "--agent", "a").code == 2
    assert process("summary").out.splitlines()[1:2] == ["Agent  Requests  Tokens  Cost  No price"]
    process("limit", "set", "--agent", "a", "--metric", "requests", "--window", "day", "--max", "1")
    assert process("check", "--agent", "a").code == 5


def test_a_reader_that_goes_away_is_no_error(ok: Run) -> None:
    for number in range(40):
        ok("record", "--agent", f"{'a' * 100}{number}", "--service", "s" * 100, "--operation", "o" * 200)
    ours, theirs = os.pipe()
    os.close(ours)
    with open(theirs, "w", encoding="utf-8") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "agent_meter_mcp", "export"],
            stdout=gone,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            env=environment(),
        )
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full")
def test_an_output_that_is_full_is_told() -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "agent_meter_mcp", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            env=environment(),
        )
    assert (done.returncode, done.stderr) == (74, "agent-meter: the output failed: No space left on device\n")


def test_an_output_that_is_closed_is_none(home: Path) -> None:
    done = subprocess.run(
        f'"{sys.executable}" -m agent_meter_mcp summary >&-', shell=True, stderr=subprocess.PIPE, text=True, timeout=60,
        env=environment(),
    )  # fmt: skip
    assert (done.returncode, len(done.stderr.splitlines())) == (0, 1)


def test_a_terminal_without_the_letters_gets_their_escapes() -> None:
    process("record", "--agent", "你好", "--service", "s")
    shown = process("summary", PYTHONIOENCODING="latin-1")
    assert shown.code == 0
    assert "\\u4f60\\u597d" in shown.out


def test_an_interruption_is_one_line() -> None:
    """Ctrl-C at the question: there the command waits."""
    shown = in_terminal("kill", "everything", "--reason", "x", at=r"\[y/N\]", typed="\x03")
    assert shown.code == 130
    assert shown.lines[0].startswith("Stop every agent at every service? [y/N]: ^C")
    assert shown.lines[-1] == "agent-meter: interrupted"
    assert len(shown.lines) == 2


def test_who_starts_the_mcp_server_by_hand_is_told_what_it_is_for() -> None:
    shown = in_terminal("mcp", at="Ctrl-C ends it", typed="\x03", columns=120)
    assert shown.code == -signal.SIGINT
    assert "is for an MCP client to start, such as: claude mcp add" in shown.text
    # By its whole path: who starts it later has another PATH.
    assert str(Path(sys.executable).with_name("agent-meter-mcp")) in "".join(shown.text.split())


def test_a_dashboard_without_a_terminal_says_what_it_needs(home: Path) -> None:
    ran = process("dashboard")
    assert (ran.code, ran.out) == (2, "")
    assert "dashboard: standard input: must be a terminal; --web shows it in a browser" in ran.err


@pytest.mark.parametrize("kind", ["dumb", "unknown"])
def test_a_dashboard_in_a_terminal_that_cannot_show_it_says_so(kind: str) -> None:
    """It took 80x25 for the size there, laid the page out without end, and heard no key."""
    shown = in_terminal("dashboard", columns=130, TERM=kind)
    assert shown.code == 2
    assert f"dashboard: TERM: is {kind}: such a terminal cannot show it; --web does" in shown.text


def test_an_interruption_of_a_server_ends_it() -> None:
    serving = subprocess.Popen(
        [sys.executable, "-m", "agent_meter_mcp", "serve", "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    with serving:
        assert serving.stderr is not None
        port = int(re.findall(r":(\d+)/mcp", serving.stderr.readline())[0])
        with pytest.raises(urllib.error.HTTPError, match="406"):  # it serves, if not browsers
            urllib.request.urlopen(f"http://127.0.0.1:{port}/mcp", timeout=30)
        serving.send_signal(signal.SIGINT)
        rest = serving.stderr.read()
        assert serving.wait(30) in (0, 130)
    assert "Traceback" not in rest


def test_mcp_is_served_for_the_agent_that_is_named() -> None:
    refused = process("mcp", "--agent", " a")
    assert refused.code == 2
    assert refused.err.startswith("agent-meter mcp: --agent: must not begin")
    assert process("mcp", "--agent", "a").code == 0, "stdin is at its end, so it has nothing to do"


def test_a_server_listens_on_no_address_that_others_reach(run: Run) -> None:
    refused = run("serve", "--host", "0.0.0.0", "--port", "0")
    assert refused.code == SHAPES["forbidden"].exit_code
    assert "agent-meter keys create" in refused.err
    for given, missing in (("--tls-cert", "--tls-key"), ("--tls-key", "--tls-cert")):
        refused = run("serve", given, "x.pem")
        assert (refused.code, refused.out) == (2, "")
        assert refused.err.startswith(f"agent-meter serve: {missing}: is needed")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("serve --port x", "serve: --port: must be a whole number"),
        ("serve --port -1", "serve: --port: must be a whole number"),
        ("serve --port 65536", "serve: --port: must be a whole number"),
        ("serve --port=", "serve: --port: must not be empty"),
        ("serve --host=", "serve: --host: must not be empty"),
        ("serve --host http://localhost", "serve: --host: must be an address"),
        ("mcp --agent=", "mcp: --agent: must not be empty"),
        ("mcp --agent *", "mcp: --agent: "),
        ("mcp --db=", "mcp: Invalid value for '--db': must not be empty"),
        ("summary --db :memory:", "summary: --db: must be the path of a file"),
    ],
)
def test_an_option_that_cannot_be_is_named_as_it_was_given(run: Run, words: str, told: str) -> None:
    """An empty one is a variable of a script that is not set: it must not make an agent the operator."""
    refused = run(*words.split())
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith(f"agent-meter {told}")
    assert refused.err.count("\n") == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_printed(run: Run, shell: str) -> None:
    script = run("completion", shell).out
    assert "_AGENT_METER_COMPLETE" in script
    assert "agent-meter" in script


def test_the_scripts_mind_commas_in_fish_and_a_fresh_zsh(run: Run) -> None:
    """fish showed "Set" for "Set, list and remove limits"; zsh said "command not found: compdef"."""
    assert 'set -l metadata (string split --max 1 "," $completion)' in run("completion", "fish").out
    script = run("completion", "zsh").out
    assert 0 < script.index("autoload -Uz compinit && compinit") < script.index("    compdef _agent_meter")


def completed(*words: str) -> list[str]:
    asked = process(
        _AGENT_METER_COMPLETE="bash_complete",
        COMP_WORDS=" ".join(["agent-meter", *words]),
        COMP_CWORD=str(len(words)),
    )
    return [line.partition(",")[2] for line in asked.out.splitlines() if line]


def test_the_shell_completes_commands_options_choices_and_names(ok: Run) -> None:
    for agent in ("coder", "code review", "critic"):
        ok("record", "--agent", agent, "--service", "s")
    assert completed("su") == ["summary"]
    assert completed("al") == ["alerts"]
    assert completed("alerts", "--a") == ["--after"]
    assert completed("limit", "") == ["list", "remove", "set"]
    assert completed("summary", "--until", "now", "--or") == ["--order-by"]
    assert completed("summary", "--order-by", "co") == ["cost_usd"]
    assert completed("summary", "--agent", "c") == ["coder", "critic"]
    assert completed("kill", "agent", "cr") == ["critic"]


IN_BASH = """
source <(agent-meter completion bash)
COMP_WORDS=(agent-meter check --agent e) COMP_CWORD=3 COMPREPLY=()
_agent_meter_completion agent-meter
for line in "${COMPREPLY[@]}"; do eval "printf '%s\\n' $line"; done
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_what_bash_completes_is_a_name_and_never_a_command(ok: Run, home: Path) -> None:
    """It puts it into the line as it is, and an agent chooses its name."""
    names = [
        "e$(touch${IFS}made)",
        "e*",
        "e;touch${IFS}made",
        "e[bot]",
        "e`touch${IFS}made`",
        "eins",
        "eé'\"\\",
    ]
    for name in names:
        ok("record", "--agent", name, "--service", "s")
    (home / "e-file").touch()
    meter = home / "agent-meter"
    meter.write_text(f'#!/bin/sh\nexec {sys.executable} -m agent_meter_mcp "$@"\n')
    meter.chmod(0o755)
    searched = os.pathsep.join([str(home), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", IN_BASH],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(PATH=searched, LC_ALL="C.UTF-8"),
    )
    assert (done.stdout.splitlines(), done.stderr) == (sorted(names), "")
    assert not (home / "made").exists()


@pytest.mark.parametrize(
    "words",
    ["--db", "summary --db", "export --output", "import", "attest verify", "dashboard --key-file",
     "serve --tls-cert", "serve --tls-key"],
)  # fmt: skip
def test_the_shell_completes_files(words: str) -> None:
    asked = process(
        _AGENT_METER_COMPLETE="bash_complete",
        COMP_WORDS=f"agent-meter {words} some/fi",
        COMP_CWORD=str(len(words.split()) + 1),
    )
    assert asked.out == "file,some/fi\n"


def test_completion_makes_no_file_and_no_noise(home: Path) -> None:
    assert completed("summary", "--agent", "c") == []
    assert not (home / "meter.db").exists()
    broken(home / "meter.db")
    assert completed("summary", "--agent", "c") == []


COLLECTING = """
import gc, os, sys, threading, time
from agent_meter_mcp.cli import main

def watch():
    while not gc.isenabled():
        time.sleep(0.01)
    tell()

def tell():
    if gc.isenabled():
        os.write(int(sys.argv[1]), b"collects")

def disable(really=gc.disable):
    really()
    threading.Thread(target=watch, daemon=True).start()

gc.disable = disable
main(sys.argv[2:])
tell()
"""


@pytest.mark.parametrize(
    "command", [("verify",), ("mcp",), ("serve", "--port", "0"), ("dashboard", "--web", "--port", "0")]
)
def test_garbage_is_collected_once_all_is_imported(tmp_path: Path, command: tuple[str, ...]) -> None:
    told, tells = os.pipe()
    running = subprocess.Popen(
        [sys.executable, "-c", COLLECTING, str(tells), *command],
        env=environment(AGENT_METER_DB=str(tmp_path / "meter.db")),
        pass_fds=[tells],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        os.close(tells)
        readable, _, _ = select.select([told], [], [], 60)
        assert readable and os.read(told, 8) == b"collects"
    finally:
        running.kill()
        running.communicate()
        os.close(told)
