"""What the documents say is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agent_meter_mcp.settings import VARIABLES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_generated_parts_of_the_readme_are_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, env=environment, timeout=60).returncode == 0, "run python docs/generate.py"


def test_the_readme_names_every_variable() -> None:
    assert [variable.name for variable in VARIABLES if variable.name not in README] == []


def test_every_command_of_the_readme_does_what_it_says(tmp_path: Path) -> None:
    block = next(found for found in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) if "limit set" in found)
    environment = {**os.environ, "AGENT_METER_DB": str(tmp_path / "meter.db"), "HOME": str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    environment.pop("AGENT_METER_AGENT", None)
    for line in block.strip().splitlines():
        done = subprocess.run(
            ["sh", "-c", line.replace("agent-meter ", f"{sys.executable} -m agent_meter_mcp ", 1)],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "docs/semantics.md", "CHANGELOG.md"])
def test_every_link_and_every_path_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [
        link
        for link in re.findall(r"\]\(([^)#:]+)\)", text)
        if not (ROOT / page).parent.joinpath(link).exists()
    ]
    paths: list[str] = re.findall(r"`((?:agent_meter_mcp|tui|tests|docs)/[\w/.]+)`", text)
    assert links == []
    assert [path for path in paths if not (ROOT / path).exists()] == []
