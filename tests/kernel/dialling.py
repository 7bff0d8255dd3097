"""Dials many mail servers at once from one host and says how each dialling ended. Runs on a lab's host.

Arguments: ``source>server`` pairs. Prints one JSON object: pair → "banner", "refused", "reset" or "silent".
"""

from __future__ import annotations

import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

from smtp_intercept.app.lab.host import patient

TIMEOUT_S = patient(1.5)  # the SYN and its first repetition


def dial(pair: str) -> str:
    source, server = pair.split(">")
    try:
        with socket.create_connection((server, 25), TIMEOUT_S, (source, 0)) as sock:
            sock.recv(512)
            sock.sendall(b"QUIT\r\n")
            while sock.recv(512):
                pass
            return "banner"
    except ConnectionRefusedError:
        return "refused"
    except ConnectionResetError:
        return "reset"
    except TimeoutError:
        return "silent"


def main() -> None:
    pairs = sys.argv[1:]
    with ThreadPoolExecutor(max(len(pairs), 1)) as pool:
        print(json.dumps(dict(zip(pairs, pool.map(dial, pairs), strict=True))))


if __name__ == "__main__":
    main()
