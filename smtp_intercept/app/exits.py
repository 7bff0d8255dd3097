"""The exit statuses of the command, all of them, what each means, and the errors that a verb ends with. Data only."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    DONE = 0
    FAILED = 1
    MISUSE = 2
    NOT_INSPECTING = 3


MEANS = {
    Exit.DONE: "done",
    Exit.FAILED: "failed or refused",
    Exit.MISUSE: "misuse (of `run --boot` and `hw keep` also: only a person can mend the configuration)",
    Exit.NOT_INSPECTING: "`status`: mail, or a part of it, is not being inspected",
}
# What a shell reports of a signal: SIGINT, which Ctrl-C sends, is 130 and SIGTERM 143.
INTERRUPTED = "128 + the signal's number: interrupted, and what was begun is taken back"


class FailedError(Exception):
    """What was asked cannot be done now; the message says why and names the remedy."""

    status = Exit.FAILED


class UsageError(FailedError):
    """The words are well-formed but ask for what there is not."""

    status = Exit.MISUSE


def listed() -> str:
    """The table in a line, for the help and the manual."""
    table = "; ".join(f"{status.value} {meaning}" for status, meaning in MEANS.items())
    return f"{table}; {INTERRUPTED}."
