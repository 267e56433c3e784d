"""What holds for every file of the project, and the one version it has."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import agent_meter_mcp

ROOT = Path(__file__).parent.parent
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 59


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def project_files() -> Iterator[Path]:
    """Files that are in the repository or could be added to it; without git, those outside hidden folders."""
    git = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30).stdout
        paths = [ROOT / name for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        paths = [
            path
            for path in ROOT.rglob("*")
            if not re.search(r"/(\.(?!ci/)|__pycache__/)", "/" + name_of(path))
        ]
    return (path for path in paths if path.is_file())


def text_of(path: Path) -> str:
    """The text of a file; nothing if it is not text."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


FILES = sorted(project_files())
PYTHON = [path for path in FILES if path.suffix == ".py"]
PRODUCT = [path for path in PYTHON if name_of(path).startswith(("agent_meter_mcp/", "tui/", "demo.py"))]


def found_in_lines(paths: list[Path], pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if pattern.search(line)
    ]


def test_no_module_is_long() -> None:
    lengths = {name_of(path): len(text_of(path).splitlines()) for path in PRODUCT}
    assert {name: lines for name, lines in lengths.items() if lines > MODULE_LINES_MAX} == {}


def test_no_function_is_long() -> None:
    lengths = {
        f"{name_of(path)}:{node.lineno} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path in PRODUCT
        for node in ast.walk(ast.parse(text_of(path)))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES_MAX} == {}


# Words that must not occur are split here, so that this file does not find itself.
HOSTS = ["py" + "pi.org", "npm" + "js.org", "npm" + "js.com", "python" + "hosted.org", "deb." + "debian.org"]
MACHINE = r"(?<![\w.~-])/(?:work|root|home)/|" + "|".join(map(re.escape, HOSTS))
UNDONE = ["TO" + "DO", "FIX" + "ME", "X" + "XX", "NotImpl" + "ementedError"]


def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    assert found_in_lines(FILES, re.compile(MACHINE)) == []


@pytest.mark.parametrize(
    ("line", "is_found"),
    [
        ("cd " + "/wo" + "rk/main", True),
        ("'/ho" + "me/alice/x'", True),
        ("see https://example.com/ho" + "me/x", False),
        ("a frame" + "work/part", False),
    ],
)
def test_a_machine_path_is_told_from_a_part_of_a_longer_one(line: str, is_found: bool) -> None:
    assert bool(re.search(MACHINE, line)) is is_found


def test_nothing_is_left_to_do() -> None:
    written = [path for path in FILES if path.suffix in {".py", ".md", ".toml", ".tcss", ".txt", ""}]
    assert found_in_lines(written, re.compile(rf"\b(?:{'|'.join(UNDONE)})\b")) == []


def test_no_file_has_a_name_that_says_nothing() -> None:
    empty_words = {"util", "utils", "helper", "helpers", "manager", "misc", "common"}
    assert [name_of(path) for path in FILES if empty_words & set(path.stem.lower().split("_"))] == []


CODES = r"(?:\s*:?\s*\[[^\]]*\]|\s*:\s*[A-Z]+\d+(?:[\s,]+[A-Z]+\d+)*)?"
SILENCERS = re.compile(
    r"(?:\bnoqa|\btype:\s*ignore|\bpyright:\s*ignore|\bpragma:\s*no\s+(?:cover|branch))" + CODES
)


def is_unexplained(comment: str) -> bool:
    """Whether a comment silences a checker and no words follow."""
    silencers = list(SILENCERS.finditer(comment))
    return bool(silencers) and len(re.findall(r"[^\W\d_]{2,}", comment[silencers[-1].end() :])) < 2


def test_whoever_silences_a_checker_says_why() -> None:
    comments = [
        (path, token.start[0], token.string)
        for path in PYTHON
        for token in tokenize.generate_tokens(io.StringIO(text_of(path)).readline)
        if token.type == tokenize.COMMENT
    ]
    assert [f"{name_of(path)}:{line}: {text}" for path, line, text in comments if is_unexplained(text)] == []


@pytest.mark.parametrize(
    ("comment", "unexplained"),
    [
        ("# no" + "qa", True),
        ("# no" + "qa: E501, B008", True),
        ("# no" + "qa: E501 - a URL cannot be broken", False),
        ("# type: " + "ignore[arg-type]", True),
        ("# type: " + "ignore[arg-type]  # the stub is wrong", False),
        ("# pyright: " + "ignore[reportPrivateUsage]  # no" + "qa: SLF001", True),
        ("# pragma: " + "no cover - only on Windows", False),
        ("# an ordinary comment", False),
    ],
)
def test_an_unexplained_silencer_is_recognised(comment: str, unexplained: bool) -> None:
    assert is_unexplained(comment) is unexplained


def test_there_is_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[?v?(\d+\.\d+\.\d+)", changelog, re.MULTILINE)
    assert newest, "CHANGELOG.md has no entry like '## 0.1.0'"
    assert agent_meter_mcp.__version__ == project["version"] == newest[1]
