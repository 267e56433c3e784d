"""`doctor`: what could be wrong with this installation, and how to put it right."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from agent_meter_mcp.core.errors import MeterError, StoreReadOnly
from agent_meter_mcp.core.figures import counted, length, stopped
from agent_meter_mcp.core.text import shown
from agent_meter_mcp.faces.errors import text_of
from agent_meter_mcp.runtime import open_store, price_book, system_clock_us
from agent_meter_mcp.settings import FOLDER, VARIABLES, sound_settings

from . import options
from .dashboard import KEY_VARIABLE
from .exits import DONE, PROBLEMS
from .figures import named
from .table import screen_width, styled
from .times import exact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent_meter_mcp.settings import Settings
    from agent_meter_mcp.store.sqlite import SqliteStore

    from .session import Session

    State = Literal["ok", "warning", "problem"]

CLOCK_AHEAD_US = 60_000_000
"""How far ahead of this clock the newest entry may be before it is a problem."""
SOON_US = 7 * 86_400_000_000
"""How long before its end a key is worth a warning."""
NETWORK_FILE_SYSTEMS = (
    "nfs", "nfs4", "cifs", "smb", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "virtiofs",
    "fuse.sshfs", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs",
)  # fmt: skip
_STYLES = {"ok": "good", "warning": "warn", "problem": "alarm"}


class Finding(NamedTuple):
    """`facts` are for programs, `text` says the same for people."""

    name: str
    state: State
    text: str
    facts: dict[str, Any]


@options.command("doctor", "agent-meter doctor", "agent-meter doctor --json")
@options.as_json
@options.pass_session
def doctor(session: Session, as_json: bool) -> int:
    """Look for problems of the file, SQLite, the clock, the keys, the prices, the secrets and the settings.

    It changes nothing, and does not make a file. Exit code 7 when there is a problem; a warning is none.
    """
    settings, wrong = sound_settings(options=session.options)
    mistakes = {error.field: error.problem for error in wrong}
    findings = [_sqlite()]
    # Where a variable is wrong its default is in its place, and nothing uses that.
    if "AGENT_METER_SYNCHRONOUS" not in mistakes:
        findings.append(_synchronous(settings))
    if "AGENT_METER_DB" not in mistakes:
        findings += _ledger(settings)
    if "AGENT_METER_PRICES" not in mistakes:
        findings.append(_prices(settings))
    if "AGENT_METER_SECRETS" not in mistakes:
        findings.append(_secrets(settings))
    findings += _spools()
    findings += _settings(session, mistakes)
    has_problem = any(finding.state == "problem" for finding in findings)
    if as_json:
        from .document import print_document

        print_document({"ok": not has_problem, "findings": [finding._asdict() for finding in findings]})
    else:
        click.echo("\n".join(_lines(findings)))
    return PROBLEMS if has_problem else DONE


def _lines(findings: list[Finding]) -> Iterator[str]:
    """A finding is one line in a pipe; in a terminal it goes on below where it is too long."""
    import textwrap

    width = max(len(finding.name) for finding in findings)
    screen = screen_width()
    for finding in findings:
        text = shown(finding.text)
        lines = [text] if screen is None else textwrap.wrap(text, max(screen - width - 11, 20)) or [""]
        state = styled(finding.state.ljust(8), _STYLES[finding.state])
        yield f"{state} {finding.name.ljust(width)}  {lines[0]}"
        yield from (" " * (width + 11) + line for line in lines[1:])


def _sqlite() -> Finding:
    from agent_meter_mcp.store.sqlite import driver

    facts = {
        "version": driver.SQLITE_VERSION,
        "library": driver.LIBRARY,
        "is_sound": driver.wal_reset_is_sound(),
    }
    text = f"{driver.SQLITE_VERSION}, by {driver.LIBRARY}"
    if facts["is_sound"]:
        return Finding("sqlite", "ok", text, facts)
    text += ": it can lose a commit that meets a checkpoint; install pysqlite3, or SQLite 3.51.3"
    return Finding("sqlite", "warning", text, facts)


def _synchronous(settings: Settings) -> Finding:
    survives = "a power cut" if settings.synchronous == "FULL" else "a crash of the process, not a power cut"
    text = f"{settings.synchronous}: what is written survives {survives}"
    return Finding("synchronous", "ok", text, {"mode": settings.synchronous})


def _refuse_closed_folder(path: str) -> None:
    """Raises StoreReadOnly where the file, or the folder that is made with it, could not be made."""
    folder = os.path.dirname(os.path.realpath(path))
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    if not (os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)):
        raise StoreReadOnly(f"{path} is not there yet, and cannot be made in {folder}. Check its rights.")


def _ledger(settings: Settings) -> Iterator[Finding]:
    """Whatever needs the file. One that is not there yet, or is older, is left as it is."""
    from agent_meter_mcp.store.sqlite.schema import refuse_missing_folder, refuse_orphaned_log

    yield _file_system(settings.db)
    exists = os.path.exists(settings.db)
    try:
        if not exists:
            refuse_orphaned_log(settings.db)
            if os.path.dirname(settings.db) != os.path.expanduser(FOLDER):  # which is made with the file
                refuse_missing_folder(settings.db)
            _refuse_closed_folder(settings.db)
            text = f"{settings.db} is not there yet; the first record makes it"
            yield Finding("file", "warning", text, {"path": settings.db, "exists": False})
            return
        if not _is_up_to_date(settings):
            text = (
                f"{settings.db} is empty or of an older format: the next command that opens it brings it up"
                " to date, and programs of the older version that use it stop then"
            )
            yield Finding("file", "warning", text, {"path": settings.db, "exists": True})
            return
        store = open_store(settings)
    except MeterError as error:
        yield Finding(
            "file", "problem", text_of(error), {"path": settings.db, "exists": exists, "error": error.code}
        )
        return
    try:
        yield _file(settings.db)
        yield from _contents(store)
    except MeterError as error:
        yield Finding("ledger", "problem", text_of(error), {"error": error.code})
    finally:
        store.close()


def _is_up_to_date(settings: Settings) -> bool:
    """Raises StoreError."""
    from agent_meter_mcp.store.sqlite import driver, schema

    def connect() -> driver.Connection:
        return driver.connect(
            settings.db, synchronous=settings.synchronous, busy_timeout_s=settings.busy_timeout_s
        )

    return schema.is_up_to_date(settings.db, connect)


def _file(path: str) -> Finding:
    size, log = os.path.getsize(path), 0
    if os.path.exists(f"{path}-wal"):
        log = os.path.getsize(f"{path}-wal")
    facts = {"path": path, "exists": True, "bytes": size, "wal_bytes": log}
    text = f"{path}, {_bytes(size)}" + (f" and {_bytes(log)} of log" if log else "")
    folder = os.path.dirname(os.path.abspath(path))
    for place in (path, folder):
        if not os.access(place, os.W_OK):
            return Finding("file", "problem", f"{text}: {place} cannot be written", facts)
    if os.name == "posix" and os.stat(path).st_mode & 0o077:
        return Finding("file", "warning", f"{text}: others may read it; chmod 600 would stop that", facts)
    return Finding("file", "ok", text, facts)


def _file_system(path: str) -> Finding:
    folder = os.path.realpath(os.path.dirname(os.path.abspath(path)))
    kind = _file_system_kind(folder)
    facts = {"folder": folder, "kind": kind}
    if kind in NETWORK_FILE_SYSTEMS:
        text = f"{folder} is on a network ({kind}), where SQLite's locks do not hold: keep it on a local disk"
        return Finding("file system", "problem", text, facts)
    return Finding("file system", "ok", kind or "unknown", facts)


def _file_system_kind(folder: str) -> str | None:
    """What the folder is mounted as; None where that cannot be known cheaply."""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
            fields = [line.split(" ") for line in mounts]
    except OSError:
        return None
    found = ("", None)
    for _, place, kind, *_ in fields:
        mounted = place.replace("\\040", " ")
        is_inside = folder == mounted or folder.startswith(mounted.rstrip("/") + "/")
        if is_inside and len(mounted) >= len(found[0]):
            found = (mounted, kind)
    return found[1]


def _contents(store: SqliteStore) -> Iterator[Finding]:
    from agent_meter_mcp.store.sqlite.schema import VERSION

    info, policy, now_us = store.info(), store.policy(), system_clock_us()
    is_log = info.journal_mode == "wal"
    yield Finding(
        "format",
        "ok" if is_log else "problem",
        f"{info.format_version} of {VERSION}, journal {info.journal_mode}"
        + ("" if is_log else " (it should be wal)"),
        {"version": info.format_version, "newest": VERSION, "journal_mode": info.journal_mode},
    )
    yield _clock(info.newest_seq, now_us)
    yield _keys(store, now_us)
    held = store.reservations(now_us)
    counts = {
        "events": info.events,
        "agents": info.agents,
        "limits": len(policy.limits),
        "reservations": len(held),
        "switches": len(policy.switches),
    }
    yield Finding(
        "ledger",
        "ok",
        f"{counted(info.events, 'event')}, {counted(info.agents, 'agent')}, "
        f"{counted(len(policy.limits), 'limit')}, {counted(len(held), 'open reservation')}",
        counts,
    )
    for switch in policy.switches:
        facts = {
            "kind": switch.kind,
            "name": switch.name,
            "reason": switch.reason,
            "engaged_by": switch.engaged_by,
        }
        yield Finding("kill switch", "warning", stopped(switch, named), facts)


def _keys(store: SqliteStore, now_us: int) -> Finding:
    """Whom the HTTP server lets in."""
    made = store.keys()
    valid = [key for key in made if key.is_valid(now_us)]
    ending = [key for key in valid if key.expires_at_us is not None and key.expires_at_us < now_us + SOON_US]
    facts = {"made": len(made), "in_force": len(valid), "expire_soon": [key.prefix for key in ending]}
    if not made:
        return Finding("keys", "ok", "none: over HTTP, every caller on this machine is its owner", facts)
    if not valid:
        text = "none in force: over HTTP, nobody is let in. `agent-meter keys create` makes one"
        return Finding("keys", "warning", text, facts)
    text = f"{len(valid)} in force"
    if ending:
        soon = ", ".join(f"{key.prefix} ({key.holder}) {exact(key.expires_at_us or 0)}" for key in ending)
        return Finding("keys", "warning", f"{text}; these expire within a week: {soon}", facts)
    return Finding("keys", "ok", text, facts)


def _clock(newest_us: int, now_us: int) -> Finding:
    ahead_us = max(newest_us - now_us, 0)
    facts = {
        "now": exact(now_us),
        "newest_entry": exact(newest_us) if newest_us else None,
        "ahead_s": ahead_us / 1e6,
    }
    if ahead_us > CLOCK_AHEAD_US:
        text = (
            f"the newest entry is {length(ahead_us)} ahead of this clock: until it gets there, what is "
            "recorded counts at that moment. Set the clock right; if it is right, one was wrong before"
        )
        return Finding("clock", "problem", text, facts)
    return Finding(
        "clock", "ok", f"{exact(now_us // 1_000_000 * 1_000_000)}, not behind the newest entry", facts
    )


def _prices(settings: Settings) -> Finding:
    book = price_book(settings)
    try:
        book.preload()
        own = os.path.exists(settings.prices)
        text = book.version + (f" (own prices in {settings.prices})" if own else "")
        return Finding(
            "prices", "ok", text, {"version": book.version, "own_file": settings.prices if own else None}
        )
    except MeterError as error:
        return Finding("prices", "problem", text_of(error), {"version": None, "own_file": settings.prices})


def _secrets(settings: Settings) -> Finding:
    """Says how many there are, and nothing of what they are."""
    from agent_meter_mcp.secrets import NO_SECRETS, SecretsFile

    path = settings.secrets
    try:
        secrets = SecretsFile(path).read()
    except MeterError as error:
        return Finding("secrets", "problem", text_of(error), {"path": path, "exists": True})
    if secrets is NO_SECRETS:
        return Finding("secrets", "ok", "no file: nobody signs", {"path": path, "exists": False})
    agents, services = len(secrets.agents), len(secrets.services)
    has_receipt = secrets.receipt is not None
    text = f"{path}, of {counted(agents, 'agent')} and {counted(services, 'service')}"
    facts = {"path": path, "exists": True, "agents": agents, "services": services, "receipt": has_receipt}
    return Finding("secrets", "ok", text + (", and for receipts" if has_receipt else ""), facts)


def _spools() -> Iterator[Finding]:
    """What programs here could not send to a meter behind a URL; mostly there is none, and nothing to say."""
    from agent_meter_mcp.client.spool import REFUSED, entries_below

    folder = Path(FOLDER, "spool").expanduser()
    try:
        waiting = entries_below(folder)
    except OSError as error:
        text = f"{folder} cannot be read ({error.strerror})"
        yield Finding("spool", "problem", text, {"folder": str(folder), "entries": None})
        return
    for spool, entries in sorted(waiting.items()):
        text = (
            f"{counted(entries, 'record')} in {spool} for a meter behind a URL: the next program that uses"
            " the same URL and key sends them"
        )
        yield Finding("spool", "warning", text, {"folder": str(spool), "entries": entries})
    for refused in sorted(folder.glob(f"*/{REFUSED}")):
        text = f"usage that its meter has refused for good is in {refused}: look at it, and remove it"
        yield Finding("refused", "warning", text, {"file": str(refused)})


def _settings(session: Session, mistakes: dict[str, str]) -> Iterator[Finding]:
    """`mistakes` are what the variables that are wrong must be."""
    for variable in VARIABLES:
        if variable.name in session.options:
            value, source = session.options[variable.name], "command line"
        elif os.environ.get(variable.name):
            value, source = os.environ[variable.name], "environment"
        else:
            value, source = variable.default, "default"
        text = f"{'not set' if value is None else value} ({source})"
        facts = {"value": value, "source": source}
        if variable.name in mistakes:
            text += (
                f": {mistakes[variable.name]}. Set it right or unset it: until then no other command works"
            )
            yield Finding(variable.name, "problem", text, facts)
        else:
            yield Finding(variable.name, "ok", text, facts)
    yield from _mistyped()
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding(
        "python", "ok", f"{version}, {sys.executable}", {"version": version, "executable": sys.executable}
    )


def _mistyped() -> Iterator[Finding]:
    """A variable that nobody reads, such as AGENT_METER_DATABASE, leaves its owner with the default."""
    from difflib import get_close_matches

    known = {variable.name for variable in VARIABLES} | {KEY_VARIABLE}
    for name in sorted(name for name in os.environ if name.startswith("AGENT_METER_") and name not in known):
        meant = "".join(f"; did you mean {close}?" for close in get_close_matches(name, known, 1))
        yield Finding(shown(name), "warning", f"is no setting, and changes nothing{meant}", {"known": False})


def _bytes(size: float) -> str:
    if size < 1000:
        return f"{size:.0f} B"
    for unit in ("kB", "MB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:,.1f} GB"
