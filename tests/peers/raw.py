"""A client that writes octets as it is told, in the pieces that it is told, and prints all that it was answered.

``{"server", "source", "patient", "sessions": [{"steps": [text, …], "pieces": [hex, …], "then": [text, …]}]}``

Each step waits for its reply, no piece does. ``then`` is sent at once; a patient client listens first, and if it is
answered goes on step by step. Several sessions at a time; prints a JSON list of texts.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# OpenSMTPD listens with a backlog of five: of sixteen SYNs at once the kernel drops some, and it greets those that come
# again a second later only when something else happens.
AT_A_TIME = 4
TIMEOUT_S = 5.0
LISTEN_S = 0.3  # a server that takes the message for whole has said so by then
PAUSE_S = 0.003  # what was written before has been read by then, on these wires


def reply(sock: socket.socket, seen: bytearray) -> bool:
    """Read up to the end of a reply; False at the connection's end."""
    start = len(seen)
    while not any(line[3:4] == b" " for line in bytes(seen[start:]).split(b"\r\n")[:-1]):
        data = sock.recv(65536)
        if not data:
            return False
        seen += data
    return True


def converse(job: dict[str, Any], session: dict[str, Any]) -> str:
    """One session; what the server said."""
    seen = bytearray()
    try:
        with socket.create_connection((job["server"], 25), TIMEOUT_S, (job["source"], 0)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            reply(sock, seen)
            if all(say(sock, step, seen) for step in session["steps"]):
                write(sock, session, seen, patient=job["patient"])
                while data := sock.recv(65536):
                    seen += data
    except OSError as error:
        seen += f"\n{type(error).__name__}".encode()
    return seen.decode(errors="replace")


def say(sock: socket.socket, step: str, seen: bytearray) -> bool:
    sock.sendall(step.encode())
    return reply(sock, seen)


def write(sock: socket.socket, session: dict[str, Any], seen: bytearray, *, patient: bool) -> None:
    """The pieces, and what comes behind them."""
    for piece in session["pieces"]:
        sock.sendall(bytes.fromhex(piece))
        time.sleep(PAUSE_S)
    if patient and select.select([sock], [], [], LISTEN_S)[0] and reply(sock, seen):
        all(say(sock, step, seen) for step in session["then"])
    else:
        sock.sendall("".join(session["then"]).encode())


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        talks = [pool.submit(converse, job, each) for each in job["sessions"]]
        print(json.dumps([talk.result() for talk in talks]))


if __name__ == "__main__":
    main()
