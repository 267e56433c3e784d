"""`python -m tests.frameworks.run`: Litestar, Django and FastMCP, each with our middleware, as real servers.

They install beside us, but nobody else needs them: so they are in a virtual environment in a cache folder.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from pathlib import Path

FRAMEWORKS = ("django==5.2.19", "fastmcp==4.2.3", "litestar==2.25.0")
ROOT = Path(__file__).parent.parent.parent


def interpreter(cache: Path) -> Path:
    """The Python of the environment with the frameworks and this package; made the first time."""
    home = cache / "-".join(FRAMEWORKS).replace("==", "-")
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not (home / "ready").exists():
        sys.stderr.write(f"installing {', '.join(FRAMEWORKS)} into {home}\n")
        venv.create(home, with_pip=True, clear=True)
        pip = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, ROOT, *FRAMEWORKS, "-c", ROOT / "constraints.txt"], check=True)
        (home / "ready").touch()
    return python


def main() -> int:
    """Exit code 0 when all went as it should. What runs is the package of this folder."""
    parser = argparse.ArgumentParser(prog="python -m tests.frameworks.run", description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "agent-meter-frameworks")
    python = interpreter(parser.parse_args().cache)
    return subprocess.run([python, "-m", "tests.frameworks.checks"], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
