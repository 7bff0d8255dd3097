"""`tollbridge tls`: makes an authority, shows what the box has to show, asks a server what it shows.

Changes no configuration; overwrites no file.
"""

from __future__ import annotations

import argparse
import json
import os
import smtplib
import time
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from hwprofiles.shown import shown
from smtp_intercept.app import naming, tls_files
from smtp_intercept.app.config import Config
from smtp_intercept.app.exits import FailedError, UsageError
from smtp_intercept.app.mistakes import MistakeError
from smtp_intercept.app.rundir import RunDir
from smtp_intercept.app.served import protected_table
from smtp_intercept.app.status import read
from smtp_intercept.app.tls_status import WORDS
from smtp_intercept.direction import Direction, connection_direction
from smtp_intercept.names import read_domain
from smtp_intercept.tls.certificates import Certificate, UnmintableError
from smtp_intercept.tls.contexts import towards_server
from smtp_intercept.tls.layer import chain_of
from smtp_intercept.tls.manners import Asked, Identity, Why
from smtp_intercept.tls.part import Part
from smtp_intercept.tls.x509 import fingerprint, make_authority

ASK_S = 20.0  # a server that says nothing for so long says nothing


def create(arguments: argparse.Namespace) -> int:
    """The verb: two files, neither of which was there, or none."""
    try:
        only = [read_domain(name.lstrip(".")) for name in arguments.only]
    except ValueError as error:
        raise UsageError(f"--only: {error}") from None
    if not arguments.name.isprintable() or not 0 < len(arguments.name) <= 64:
        raise UsageError(f"--name: {shown(arguments.name)} is not a name of 1 to 64 letters")
    certificate, key = make_authority(arguments.name, arguments.days, only, time.time())
    _write(arguments.key, key, 0o600)
    try:
        _write(arguments.certificate, certificate, 0o644)
    except FailedError:
        arguments.key.unlink()
        raise
    print(f"{arguments.key}: the key; whoever has it can speak for every server to your clients")
    print(f"{arguments.certificate}: the certificate; give it to the clients that are to trust the box")
    print(f'[tls.authority]\ncertificate = "{arguments.certificate}"\nkey = "{arguments.key}"')
    return 0


def _write(path: Path, octets: bytes, mode: int) -> None:
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(octets)
    except FileExistsError:
        raise FailedError(f"{path} is there already: name another file, or move it away") from None
    except OSError as error:
        raise FailedError(f"{path}: cannot be written: {error.strerror}") from None


def show(arguments: argparse.Namespace) -> int:
    """The verb: what is in the configuration, and what the running daemon says."""
    config = naming.load(arguments.config)
    page: dict[str, Any] = {"identities": list(_identities(config)), "authority": _authority(config)}
    running = read(RunDir(arguments.run_dir))
    page |= {key: running[key] for key in ("tls", "tls_left")}
    if arguments.json:
        print(json.dumps(page))
        return 0
    for each in (*page["identities"], *filter(None, [page["authority"]])):
        print("  ".join(f"{name}: {value}" for name, value in each.items()))
    for name, number in page["tls"].items():
        print(f"{number} {WORDS[name]}")
    for left in page["tls_left"]:
        until = time.strftime("%Y-%m-%d %H:%M", time.localtime(left["until"]))
        print(f"{left['name']}: until {until} {WORDS[left['why']]}")
    return 0


def _identities(config: Config) -> Iterator[dict[str, Any]]:
    for entry in config.tls.identity:
        servers = ", ".join(map(str, entry.servers)) or "every protected server"
        yield {"identity": str(entry.certificate), "servers": servers, **_facts(tls_files.facts(entry.certificate))}


def _authority(config: Config) -> dict[str, Any] | None:
    entry = config.tls.authority
    if entry is None:
        return None
    return {"authority": str(entry.certificate), **_facts(tls_files.facts(entry.certificate))}


def _facts(certificate: Certificate | None) -> dict[str, Any]:
    if certificate is None:
        return {"names": "cannot be read"}
    names = ", ".join(certificate.names) or certificate.common_name
    return {"names": names, "until": tls_files.day(certificate.not_after)}


def test(arguments: argparse.Namespace) -> int:
    """The verb: one connection from the box itself, which gives no mail."""
    config = naming.load(arguments.config)
    try:
        part = tls_files.part(config)
    except MistakeError as error:
        raise FailedError(str(error)) from None
    name = arguments.sni if arguments.sni is not None else "" if _is_address(arguments.host) else arguments.host
    address, chain, asked_back = _ask(arguments, name, config)
    certificate, verified = part.judge(chain, name)
    page = {
        "server": address,
        "name": name,
        "fingerprint": fingerprint(chain[0]),
        "names": list(certificate.names),
        "until": tls_files.day(certificate.not_after),
        "verified": verified.value,
        "asks_for_client_certificate": asked_back,
        **_would_show(part, config, address, arguments.smtp_port, name, chain, certificate, asked_back),
    }
    if arguments.json:
        print(json.dumps(page))
    else:
        for key, value in page.items():
            print(f"{key.replace('_', ' ')}: {', '.join(value) if isinstance(value, list) else value}")
    return 0 if verified.sound else 1


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _ask(arguments: argparse.Namespace, name: str, config: Config) -> tuple[str, list[bytes], bool]:
    """The server's address, its chain, and whether it wants one of its clients."""
    try:
        with smtplib.SMTP(arguments.host, arguments.smtp_port, timeout=ASK_S) as server:
            assert server.sock is not None
            address = str(server.sock.getpeername()[0])
            server._host = name or arguments.host  # type: ignore[attr-defined] # what STARTTLS asks for
            server.starttls(context=towards_server(tls_files.VERSIONS[config.tls.minimum]))
            secured: Any = server.sock
            chain = chain_of(secured)
            asked_back = bool(getattr(secured, "certificate_asked", False))
            with suppress(smtplib.SMTPException, OSError):
                server.quit()
            return address, chain, asked_back
    except (smtplib.SMTPException, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise FailedError(f"{arguments.host}:{arguments.smtp_port}: {reason}") from None


def _would_show(
    part: Part,
    config: Config,
    address: str,
    port: int,
    name: str,
    chain: list[bytes],
    certificate: Certificate,
    asked_back: bool,
) -> dict[str, Any]:
    packed = ip_address(address).packed
    table, _ = protected_table(config)
    direction = connection_direction(packed, frozenset(), table)
    direction = Direction.OUTGOING if direction is Direction.LOCAL else direction
    decision = part.decide(Asked(direction, b"", "", packed, port, name))
    if asked_back:
        decision = Why.CLIENT_CERTIFICATE
    page: dict[str, Any] = {"direction": direction.value}
    if isinstance(decision, Why):
        return {**page, "clients_see": WORDS[decision.value]}
    try:
        seen = part.show(decision, chain, certificate)
    except UnmintableError as error:
        return {**page, "clients_see": f"nothing: {error}"}
    if isinstance(decision, Identity):
        same = "the server's own" if seen.own else "another than the server shows"
        return {**page, "clients_see": f"tls.identity[{decision.number}]: {same}"}
    return {**page, "clients_see": "a leaf of the authority's" if certificate.trusted else "a leaf that nobody trusts"}
