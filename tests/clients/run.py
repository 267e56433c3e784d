"""`python -m tests.clients.run`: the whole session by a client of the 1.x line, over stdio and over HTTP.

The SDK of the 1.x line cannot be installed beside ours, so it gets a virtual environment in a cache folder.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from .serving import command, http_server

SDK = "mcp==1.30.0"


def interpreter(cache: Path) -> Path:
    """The Python of the environment that has the older SDK; made the first time."""
    home = cache / SDK.replace("==", "-")
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not (home / "ready").exists():
        sys.stderr.write(f"installing {SDK} into {home}\n")
        venv.create(home, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", SDK], check=True)
        (home / "ready").touch()
    return python


def main() -> int:
    """Exit code 0 when both sessions went as they should."""
    parser = argparse.ArgumentParser(prog="python -m tests.clients.run", description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "agent-meter-clients")
    python = interpreter(parser.parse_args().cache)
    script = Path(__file__).with_name("legacy.py")
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        stdio = subprocess.run([python, script, "stdio", *command(Path(folder) / "stdio.db")], check=False)
        sys.stdout.write(f"{SDK} over stdio: {'ok' if stdio.returncode == 0 else 'FAILED'}\n")
        with http_server(Path(folder) / "http.db") as url:
            http = subprocess.run([python, script, "http", url], check=False)
        sys.stdout.write(f"{SDK} over HTTP: {'ok' if http.returncode == 0 else 'FAILED'}\n")
        failed = stdio.returncode or http.returncode
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
