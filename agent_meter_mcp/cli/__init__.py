"""`agent-meter`: the command line.

program    the commands, and what becomes of errors
options    options that several commands share
times      what a person may write for a time
session    the settings, the caller and the ledger of one command
figures    amounts, times and limits in words for people
table      columns that fit the terminal
"""

from __future__ import annotations

import gc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; answers its exit code. Arguments are the process's own if none are given."""
    gc.disable()  # until all is imported: there is no garbage in that
    try:
        from .program import program

        return program.run(arguments)
    except KeyboardInterrupt:  # while something was being imported
        return 130
