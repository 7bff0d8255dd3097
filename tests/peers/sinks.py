"""The receivers that are no MTA: aiosmtpd with a recording handler, and Postfix's smtp-sink. Both store at once."""

from __future__ import annotations

from pathlib import Path

from smtp_intercept.app.lab.host import Host
from tests.peers.peer import Delivery, Peer, Routes, stored
from tests.tools import program

RECORDER = Path(__file__).with_name("recorder.py")
BACKLOG = "512"


def start_aiosmtpd(host: Host, address: str, certificate: str, routes: Routes | None = None) -> Peer:
    """aiosmtpd on ``address``. It cannot pass mail on."""
    folder = _folder(host, "aiosmtpd")
    pem = host.directory / "aiosmtpd.pem"
    pem.write_text(certificate)
    process = host.spawn([host.interpreter, str(RECORDER), address, str(folder), str(pem)])
    return Peer("aiosmtpd", host, address, process, read=lambda _: _files(folder))


def start_smtp_sink(host: Host, address: str, certificate: str, routes: Routes | None = None) -> Peer:
    """smtp-sink on ``address``, one file a message. It knows no STARTTLS and cannot pass mail on."""
    folder = _folder(host, "smtp-sink")
    path, environment = program("smtp-sink")
    settings = [f"{name}={value}" for name, value in environment.items()]
    template = f"{folder}/%Y%m%d%H%M%S."
    process = host.spawn(["env", *settings, path, "-u", "nobody", "-d", template, f"inet:{address}:25", BACKLOG])
    return Peer("smtp-sink", host, address, process, read=lambda _: _files(folder))


def _folder(host: Host, name: str) -> Path:
    folder = host.directory / f"{name}-mail"
    folder.mkdir()
    folder.chmod(0o777)  # smtp-sink insists on being nobody
    return folder


def _files(folder: Path) -> list[Delivery]:
    return [stored(path.read_bytes()) for path in sorted(folder.glob("[!.]*"))]
