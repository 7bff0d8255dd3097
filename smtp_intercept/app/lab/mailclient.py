"""A mail client (smtplib) that tells in JSON lines how each message fared: attempts, times, what it was answered.

Retries at once, as often as it was told, from a new connection; a message is lost only if no attempt was accepted.
Ends after ``--count`` messages, after ``--duration`` seconds, or on SIGTERM after the message in hand.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import random
import signal
import smtplib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

stopping = threading.Event()
printing = threading.Lock()


class Client(smtplib.SMTP):
    """smtplib, with the time of connect and banner noted."""

    def __init__(self, helo: str, source: str, timeout_s: float) -> None:
        super().__init__(local_hostname=helo, timeout=timeout_s, source_address=(source, 0) if source else None)
        self.notes: dict[str, Any] = {}
        self._dialled_at = time.monotonic()

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        sock = super()._get_socket(host, port, timeout)  # type: ignore[misc]
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or Nagle and a delayed ACK hide every other time
        self.notes["connect_s"] = time.monotonic() - self._dialled_at
        self.notes["client_port"] = sock.getsockname()[1]
        return sock  # type: ignore[no-any-return]

    def dial(self, server: str, port: int) -> None:
        """Connect and read the banner; `smtplib.SMTPConnectError` unless it is a 2xx."""
        self._dialled_at, self._host = time.monotonic(), server
        code, text = self.connect(server, port)
        self.notes |= {"banner_s": time.monotonic() - self._dialled_at, "banner": f"{code} {text.decode('latin-1')}"}
        if code // 100 != 2:
            raise smtplib.SMTPConnectError(code, text)


def attempt(arguments: argparse.Namespace, sender: str, messages: list[bytes]) -> dict[str, Any]:
    """One connection with one transaction for each message; how far it came."""
    began_at = time.monotonic()
    client = Client(arguments.helo, arguments.source, arguments.timeout)
    try:
        client.dial(arguments.server, arguments.port)
        if arguments.starttls:
            client.starttls()
        client.ehlo_or_helo_if_needed()
        if arguments.login:
            client.login(*arguments.login.split(":", 1))
        refused = [client.sendmail(sender, arguments.to, message) for message in messages]
        outcome: dict[str, Any] = {
            "outcome": "accepted",
            "refused": {address: list(_text(reply)) for entry in refused for address, reply in entry.items()},
        }
    except (OSError, smtplib.SMTPException) as error:
        outcome = {"outcome": _outcome(error), "error": repr(error)}
    outcome |= {"seconds": time.monotonic() - began_at, "at": time.time()}
    with contextlib.suppress(OSError, smtplib.SMTPException):
        client.quit() if outcome["outcome"] == "accepted" else client.close()
    return {**client.notes, **outcome}


def _text(reply: tuple[int, bytes]) -> tuple[int, str]:
    return reply[0], reply[1].decode("latin-1")


def _outcome(error: Exception) -> str:
    match error:
        case TimeoutError():
            return "timeout"
        case ConnectionRefusedError():
            return "refused"
        case smtplib.SMTPServerDisconnected() | ConnectionResetError():
            return "timeout" if "timed out" in str(error) else "closed"
        case smtplib.SMTPException():
            return "rejected"
        case _:
            return "error"


def compose(arguments: argparse.Namespace, number: int) -> bytes:
    """The message to send, with CRLF line ends: the file as it is, or random text of the size asked."""
    if arguments.message:
        return bytes(arguments.message.read_bytes())
    header = f"From: {arguments.sender}\r\nSubject: lab {number}\r\nMessage-ID: <{number}@lab.example>\r\n\r\n".encode()
    body = random.Random(number).randbytes(max(arguments.size - len(header), 0) // 2).hex().encode()  # noqa: S311
    lines = [body[at : at + 76] for at in range(0, len(body), 76)]
    return header + b"\r\n".join([*lines, b""])


def deliver(arguments: argparse.Namespace, number: int) -> dict[str, Any]:
    """Send one message (or ``--per-connection`` of them), retrying; the line to print."""
    sender = arguments.sender.replace("{n}", str(number))
    messages = [compose(arguments, number)] * arguments.per_connection
    attempts = []
    began_at = time.time()
    for _ in range(arguments.retries + 1):
        attempts.append(attempt(arguments, sender, messages))
        if attempts[-1]["outcome"] == "accepted" or stopping.is_set():
            break
        time.sleep(arguments.pause)
    return {
        "number": number,
        "sender": sender,
        "began_at": began_at,
        "accepted": attempts[-1]["outcome"] == "accepted",
        "sha256": hashlib.sha256(messages[0]).hexdigest(),
        "size_bytes": len(messages[0]),
        "attempts": attempts,
    }


def report(arguments: argparse.Namespace, number: int) -> None:
    line = json.dumps(deliver(arguments, number))
    with printing:
        print(line, flush=True)


def send_all(arguments: argparse.Namespace) -> None:
    """Send until told to stop, ``--parallel`` messages at once."""
    deadline_at = time.monotonic() + arguments.duration if arguments.duration else float("inf")
    numbers = iter(range(arguments.count)) if arguments.count else count()
    taking = threading.Lock()

    def work() -> None:
        while not stopping.is_set() and time.monotonic() < deadline_at:
            with taking:
                number = next(numbers, None)
            if number is None:
                return
            report(arguments, number)
            time.sleep(arguments.interval)

    with ThreadPoolExecutor(arguments.parallel) as pool:
        for worker in [pool.submit(work) for _ in range(arguments.parallel)]:
            worker.result()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", required=True)
    parser.add_argument("--port", type=int, default=25)
    parser.add_argument("--source", default="", help="client address")
    parser.add_argument("--helo", default="client.example.net")
    parser.add_argument("--sender", default="sender@example.net", help="{n} becomes the message's number")
    parser.add_argument("--to", action="append", required=True)
    parser.add_argument("--message", type=Path, help="a file with CRLF line ends")
    parser.add_argument("--size", type=int, default=2000, help="octets, about, of a made-up message")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds for each step of the dialogue")
    parser.add_argument("--retries", type=int, default=0)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds before a retry")
    parser.add_argument("--count", type=int, default=1, help="messages; 0: no end")
    parser.add_argument("--per-connection", type=int, default=1, help="transactions in each connection")
    parser.add_argument("--duration", type=float, default=0.0, help="seconds; 0: no end")
    parser.add_argument("--interval", type=float, default=0.0, help="seconds between messages")
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--starttls", action="store_true")
    parser.add_argument("--login", default="", metavar="USER:PASSWORD", help="AUTH before the first message")
    return parser.parse_args()


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    send_all(parse())


if __name__ == "__main__":
    main()
