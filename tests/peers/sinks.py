"""The receivers that are no MTA: aiosmtpd with a recording handler, and Postfix's smtp-sink. Both store at once."""

from __future__ import annotations

from pathlib import Path

from smtp_intercept.app.lab.host import Host
from tests.peers.peer import Delivery, Peer, Routes, six, stored
from tests.tools import program

RECORDER = Path(__file__).with_name("recorder.py")
BACKLOG = "512"


def start_aiosmtpd(host: Host, address: str, certificate: str, routes: Routes = ()) -> Peer:
    """aiosmtpd on ``address``. It cannot pass mail on."""
    return _recorder("aiosmtpd", host, address, certificate)


def start_binary(host: Host, address: str, certificate: str, routes: Routes = ()) -> Peer:
    """An aiosmtpd that knows CHUNKING and BINARYMIME, which no server does that can be had here."""
    return _recorder("binary", host, address, certificate, "--chunking")


def _recorder(name: str, host: Host, address: str, certificate: str, *options: str) -> Peer:
    folder = _folder(host, name)
    pem = host.directory / f"{name}.pem"
    pem.write_text(certificate)
    where = [address, six(address), "--folder", str(folder), "--certificate", str(pem)]
    process = host.spawn([host.interpreter, str(RECORDER), *where, *options])
    return Peer(name, host, address, process, read=lambda _: _files(folder))


def start_smtp_sink(host: Host, address: str, certificate: str, routes: Routes = ()) -> Peer:
    """smtp-sink on ``address``, one file a message. It knows no STARTTLS and cannot pass mail on."""
    folder = _folder(host, "smtp-sink")
    path, environment = program("smtp-sink")
    settings = [f"{name}={value}" for name, value in environment.items()]
    template = f"{folder}/%Y%m%d%H%M%S."
    sink = ["env", *settings, path, "-u", "nobody", "-d", template]
    process = host.spawn([*sink, f"inet:{address}:25", BACKLOG])
    host.spawn([*sink, f"inet:[{six(address)}]:25", BACKLOG])
    return Peer("smtp-sink", host, address, process, read=lambda _: _files(folder))


def _folder(host: Host, name: str) -> Path:
    folder = host.directory / f"{name}-mail"
    folder.mkdir()
    folder.chmod(0o777)  # smtp-sink insists on being nobody
    return folder


def _files(folder: Path) -> list[Delivery]:
    return [stored(path.read_bytes()) for path in sorted(folder.glob("[!.]*"))]
