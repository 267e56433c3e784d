"""Who imports whom, and what a start costs.

The contracts are in pyproject.toml under `tool.importlinter`. The rest is what a contract cannot say: which
modules a process has loaded after it did one thing. A bare interpreter starts in 22 ms; `dataclasses` takes
35 more, `typing` 20, `re` 14, `mcp` 1,200.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = ROOT / "agent_meter_mcp" / "core"

SLOW = ["typing", "dataclasses", "enum", "re", "json", "inspect", "asyncio"]
SERVERS = ["mcp", "starlette", "uvicorn", "textual"]
HEAVY = [*SERVERS, "anyio", "click", "genai_prices", "pydantic", "sqlite_utils"]
RECORDING = [f"agent_meter_mcp.core.{path.stem}" for path in sorted(CORE.glob("[a-z]*.py"))]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache", "--no-logo"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_every_contract_is_kept() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


PRODUCT = "agent_meter_mcp"
VIOLATIONS = {
    "imports go inward": (f"{PRODUCT}/core/planted.py", "import agent_meter_mcp.ledger"),
    "faces and tui never touch the store": (f"{PRODUCT}/faces/planted.py", "import agent_meter_mcp.store"),
    "tui knows a reader, no face": ("tui/planted.py", "def later():\n    import agent_meter_mcp.faces"),
    "only the cli starts the tui": (f"{PRODUCT}/store/planted.py", "import tui"),
    "faces do not import each other": (f"{PRODUCT}/faces/planted2.py", "from . import planted"),
    "core is pure": (f"{PRODUCT}/core/planted2.py", "import sqlite3"),
    "the store is synchronous and knows no protocol": (f"{PRODUCT}/store/planted2.py", "import anyio"),
}


def test_a_violation_of_each_contract_is_found(tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in (PRODUCT, "tui"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    for path, code in VIOLATIONS.values():
        (tmp_path / path).write_text(code + "\n", encoding="utf-8")

    result = lint_imports(tmp_path)

    assert result.returncode == 1, result.stdout + result.stderr
    verdicts = result.stdout.splitlines()
    assert [
        name for name in VIOLATIONS if not any(line.startswith(f"{name} BROKEN") for line in verdicts)
    ] == []


def test_every_contract_has_a_violation_that_proves_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert {contract["name"] for contract in project["tool"]["importlinter"]["contracts"]} == set(VIOLATIONS)


@pytest.mark.parametrize("path", sorted(CORE.glob("*.py")), ids=lambda path: path.stem)
def test_core_imports_itself_and_the_standard_library(path: Path) -> None:
    imported: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level != 1:
            imported.append("." * node.level + (node.module or ""))
    assert {name for name in imported if name.split(".")[0] not in sys.stdlib_module_names} == set()


def loaded_after(code: str, *arguments: str, home: Path | None = None) -> set[str]:
    """The modules of a fresh interpreter that ran `code`, without `site`, whose `.pth` files load things."""
    report = "sys.stderr.write('\\nLOADED ' + ' '.join(sys.modules))"
    program = f"import sys\ntry:\n    {code}\nfinally:\n    {report}"
    environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])}
    if home:
        environment |= {"AGENT_METER_DB": str(home / "usage.db"), "HOME": str(home), "PATH": os.defpath}
    result = subprocess.run(
        [sys.executable, "-S", "-c", program, *arguments],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return set(result.stderr.rpartition("LOADED ")[2].split())


@pytest.mark.parametrize("module", [*RECORDING, "agent_meter_mcp.store.sqlite", "agent_meter_mcp.oneshot"])
def test_the_path_of_a_one_shot_record_imports_nothing_slow(module: str) -> None:
    loaded = loaded_after(f"import {module}")
    assert module in loaded
    assert loaded.intersection(SLOW + HEAVY) == set()


@pytest.mark.parametrize("command", ["--help", "summary"])
def test_a_report_does_not_pay_for_the_servers(command: str, tmp_path: Path) -> None:
    loaded = loaded_after("from agent_meter_mcp.cli import main; main()", command, home=tmp_path)
    assert "agent_meter_mcp.cli" in loaded
    assert loaded.intersection(SERVERS) == set()


def test_an_api_that_is_metered_gets_no_server_and_no_models_with_it() -> None:
    loaded = loaded_after("from agent_meter_mcp import MeterMiddleware")
    assert "agent_meter_mcp.faces.middleware.answers" in loaded
    assert loaded.intersection(HEAVY) == {"anyio"}, "which their server has loaded anyway"
