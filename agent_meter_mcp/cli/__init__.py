"""`agent-meter`: the command line.

program    the commands, each in a module of its kind, and what becomes of errors
exits      what the exit codes mean
options    options that several commands share
times      what a person may write for a time
session    the settings, the caller and the ledger of one command
doubts     what to ask about a name that nobody has heard of
figures    limits and kill switches in words for people
table      columns that fit the terminal
document   what programs read in place of them
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
