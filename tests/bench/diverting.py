"""The real diverter without an interceptor: the bench itself gives the proof of life in its place, so that another
proxy can listen on the lane. Runs until SIGTERM.
"""

from __future__ import annotations

import argparse
import os
import pwd
import signal
import subprocess
import sys
import time
from pathlib import Path

from smtp_intercept.app import channel


def command(effective: Path, ports: list[str], proofs: int, reports: int) -> list[str]:
    """As the daemon starts it."""
    nobody = pwd.getpwnam("nobody")
    words = [sys.executable, "-m", "smtp_intercept.app.diverter", "--effective", str(effective)]
    words += ["--uid", str(nobody.pw_uid), "--gid", str(nobody.pw_gid), "--parent", str(os.getpid())]
    words += [word for port in ports for word in ("--port", port)]
    return [*words, "--proofs", str(proofs), "--reports", str(reports)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("effective", type=Path)
    parser.add_argument("ports", nargs="+")
    arguments = parser.parse_args()
    prove, proofs = channel.pair()
    tell, hear = channel.pair()
    fds = proofs.fileno(), tell.fileno()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    diverter = subprocess.Popen(command(arguments.effective, arguments.ports, *fds), pass_fds=fds)
    print(diverter.pid, flush=True)
    try:
        while diverter.poll() is None:
            channel.tell(prove, {"at": time.monotonic(), "accepting": True})
            if any(report.get("beating") for report in channel.hear(hear)):
                print("beating", flush=True)
            time.sleep(channel.PROVE_EVERY_S)
    finally:
        diverter.terminate()
        diverter.wait()
    sys.exit(1)


if __name__ == "__main__":
    main()
