"""The command as a process of its own. Imports nothing large before a signal can end it without a traceback."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from smtp_intercept.app import streams


def main() -> int:
    """The entry point: an exit status."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    streams.open_standard()
    os.umask(os.umask(0o077) | 0o022)  # what root undoes by, and the configuration, are nobody else's to write
    status = status_of(sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done, and Python takes its time to end
    return streams.finished(status)


def status_of(words: Sequence[str]) -> int:
    """What the command with these words ends with; raises nothing that the world around it may cause."""
    try:
        from smtp_intercept.app import cli

        return cli.main(words)
    except SystemExit as end:  # argparse's
        return end.code if isinstance(end.code, int) else 2
    except OSError:  # its last words find no reader
        return 1
    except MemoryError:
        print("tollbridge: out of memory; free some, and run it again (ulimit -v)", file=sys.stderr)
        return 1
