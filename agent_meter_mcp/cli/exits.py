"""What the exit codes mean: those of errors are in the one table of `faces.errors`, these are of answers."""

from __future__ import annotations

from agent_meter_mcp.faces.errors import SHAPES

DONE = 0
NOT_ALLOWED = 5
DIFFERENCES = 6
PROBLEMS = 7
INTERRUPTED = 130
READER_GONE = 141

ANSWERS = {
    DONE: "done; for check: allowed",
    NOT_ALLOWED: "check: not allowed now",
    DIFFERENCES: "verify, reconcile, attest verify: something differs",
    PROBLEMS: "doctor: there is a problem",
    INTERRUPTED: "interrupted",
    READER_GONE: "whoever read the output is gone",
}


def exit_codes() -> list[tuple[int, str]]:
    """Every exit code with its meaning, in order."""
    meanings: dict[int, list[str]] = {code: [meaning] for code, meaning in ANSWERS.items()}
    for error, shape in SHAPES.items():
        words = "internal error" if error == "error" else error.replace("_", " ")
        meanings.setdefault(shape.exit_code, []).append(words)
    return [(code, ", ".join(words)) for code, words in sorted(meanings.items())]
