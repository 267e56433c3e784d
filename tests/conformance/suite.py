"""The conformance suite's program and the Node.js that runs it: found or installed, listed, run, read.

Both come from npm, as it is set up on the machine, into a cache folder with one subfolder for each version.
An installation is made beside its place and moved there when it is complete.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGE = "@modelcontextprotocol/conformance"
NODE = "node@24"
NODE_MAJOR_MIN = 22
INSTALL_TIMEOUT_S = 600
SCENARIO_TIMEOUT_S = 120
SUITE_TIMEOUT_S = 900
EXTENSION_SPEC = "2026-07-28"  # extensions are on no spec's list; this is the revision they belong to
LISTED = re.compile(r"^\s+- (?P<name>\S+) \[(?P<specs>[^\]]+)\]$", re.MULTILINE)
RESULT = re.compile(r"server-(?P<name>.+)-\d{4}-\d{2}-\d{2}T[\d-]+Z")  # the folder of one scenario's result


class SuiteError(Exception):
    """The suite or its Node.js cannot be had, or did not do what it was asked."""


@dataclass(frozen=True)
class Check:
    """One line of a scenario's result; `status` is SUCCESS, FAILURE, WARNING, SKIPPED or INFO."""

    id: str
    status: str
    message: str


@dataclass(frozen=True)
class Suite:
    """An installed suite and the Node.js to run it with."""

    node: Path
    program: Path

    def scenarios(self, spec: str) -> list[str]:
        """The server scenarios that apply to `spec`, extensions with their revision, in the suite's order."""
        tag = {spec, "extension"} if spec == EXTENSION_SPEC else {spec}
        done = self._run("list", "--server")
        names = [
            match["name"] for match in LISTED.finditer(done.stdout) if tag & set(match["specs"].split(","))
        ]
        if not names:
            raise SuiteError(f"the suite lists no server scenario for {spec}\n{done.stderr}".strip())
        return names

    def run_all(self, spec: str, url: str, results: Path) -> dict[str, list[Check]]:
        """Run what applies to `spec`, extensions apart, in one process; if it dies, some are missing."""
        folder = results / spec
        shutil.rmtree(folder, ignore_errors=True)
        self._run(*_against(url, spec, folder), "--suite", "all", timeout_s=SUITE_TIMEOUT_S)
        files = {RESULT.fullmatch(file.parent.name): file for file in folder.glob("*/checks.json")}
        return {match["name"]: _checks(file) for match, file in files.items() if match}

    def run(self, scenario: str, spec: str, url: str, results: Path) -> list[Check]:
        """Run one scenario at `spec`; without a result there is one failing check that says so."""
        folder = results / spec / scenario
        shutil.rmtree(folder, ignore_errors=True)
        done = self._run(*_against(url, spec, folder), "--scenario", scenario, "--force")
        for file in folder.glob("*/checks.json"):
            return _checks(file)
        return [Check("no-result", "FAILURE", (done.stderr or done.stdout).strip()[-500:])]

    def _run(
        self, *arguments: str, timeout_s: float = SCENARIO_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        command = [str(self.node), str(self.program), *arguments]
        try:
            return _output(command, timeout_s)
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 1, "", f"no end within {timeout_s} s")


def _against(url: str, spec: str, folder: Path) -> tuple[str, ...]:
    return ("server", "--url", url, "--spec-version", spec, "--output-dir", str(folder))


def _checks(file: Path) -> list[Check]:
    checks: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return [Check(check["id"], check["status"], check.get("errorMessage") or "") for check in checks]


def find_suite(cache: Path, version: str, node: Path | None) -> Suite:
    """The suite at `version` and a Node.js for it: `node`, or one on the path that will do, or the cache's.

    Raises:
        SuiteError: npm is missing or failed, or `node` is too old.
    """
    if node is not None and _node_major(node) < NODE_MAJOR_MIN:
        raise SuiteError(f"{node} is not a Node.js of version {NODE_MAJOR_MIN} or later")
    cache = cache.expanduser().resolve()
    package = f"{PACKAGE}@{version}"
    program = _installed(cache, package, Path(PACKAGE, "dist", "index.js"), ["--ignore-scripts"])
    return Suite(node or _find_node(cache), program)


def _find_node(cache: Path) -> Path:
    on_path = shutil.which("node")
    if on_path is not None and _node_major(Path(on_path)) >= NODE_MAJOR_MIN:
        return Path(on_path)
    return _installed(cache, NODE, Path("node", "bin", "node"), [])


def _node_major(node: Path) -> int:
    try:
        version = _output([str(node), "--version"], SCENARIO_TIMEOUT_S).stdout
    except OSError:
        return 0
    match = re.match(r"v(\d+)\.", version)
    return int(match[1]) if match else 0


def _installed(cache: Path, package: str, wanted: Path, options: Sequence[str]) -> Path:
    """The file `wanted` of `package`, which npm installs into `cache` if it is not there."""
    place = cache / re.sub(r"[^\w.]+", "-", package).strip("-")
    file = place / "node_modules" / wanted
    if file.is_file():
        return file
    npm = shutil.which("npm")
    if npm is None:
        raise SuiteError(f"npm is needed to install {package}, and is not on the path")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        new = Path(folder, "new")
        new.mkdir()
        command = [npm, "install", "--prefix", str(new), "--no-audit", "--no-fund", *options, package]
        try:
            done = _output(command, INSTALL_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise SuiteError(f"npm did not install {package} within {INSTALL_TIMEOUT_S} s") from None
        if done.returncode != 0 or not (new / "node_modules" / wanted).is_file():
            raise SuiteError(f"npm did not install {package}:\n{done.stderr.strip()[-2000:]}")
        shutil.rmtree(place, ignore_errors=True)
        new.rename(place)
    return file


def _output(command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", timeout=timeout_s, check=False
    )
