"""`tollbridge doctor`: looks at the gateway and at the host around it, and says what is wrong and what to do.

Reads only. What it cannot look at it names, and goes on.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from bridge import firewall
from bridge.libc import libc
from hwprofiles.shown import on_one_line
from smtp_intercept.app import config as configuration
from smtp_intercept.app import diagnosis, here, lentlogs, naming, seen, status
from smtp_intercept.app.config import Config, ConfigErrors
from smtp_intercept.app.daemon import needs_mta
from smtp_intercept.app.diagnosis import Certificate, Disk, Finding, MailLog, Port, Seen
from smtp_intercept.app.exits import Exit
from smtp_intercept.app.rundir import RunDir
from smtp_intercept.lookup import read_nameservers
from smtp_intercept.watch.index import record_in

MERGING = ("rx-lro", "rx-gro-hw")  # of the card itself: the kernel's own GRO is undone when a frame is sent on
HEAD_OCTETS = 1 << 16  # of a log's first line
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_OCTETS = 256  # struct timex has 208
_NET, _FILTERS = Path("/sys/class/net"), Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
_T = TypeVar("_T")


def doctor(arguments: argparse.Namespace) -> int:
    """The verb: `Exit.NOT_INSPECTING` where mail is not inspected or does not cross, `Exit.FAILED` for all else."""
    looked = look(RunDir(arguments.run_dir), arguments.config)
    found = diagnosis.findings(looked)
    if arguments.json:
        print(json.dumps({"findings": [asdict(each) for each in found], "unread": looked.unread}))
    else:
        print("\n".join(_lines(found, looked.unread)))
    return verdict(found)


def verdict(found: Iterable[Finding]) -> Exit:
    weights = [finding.mail for finding in found]
    return Exit.NOT_INSPECTING if any(weights) else Exit.FAILED if weights else Exit.DONE


def _lines(found: list[Finding], unread: Iterable[str]) -> Iterator[str]:
    for each in found:
        yield f"{'!!' if each.mail else '! '} {on_one_line(each.what)}"
        yield f"   {on_one_line(each.remedy)}"
    for what in unread:
        yield f"?  not looked at: {on_one_line(what)}"
    if not found:
        yield "nothing is wrong that this command knows of"


# --- facts ---------------------------------------------------------------------------------------------------------


class _Look:
    """What cannot be looked at is remembered, and the next is looked at."""

    def __init__(self) -> None:
        self.unread: list[str] = []

    def at(self, what: str, work: Callable[[], _T]) -> _T | None:
        try:
            return work()
        except ConfigErrors as errors:
            self.unread.append(f"{what}: {errors.count} mistakes in the configuration (tollbridge check)")
        except Exception as error:  # of another program, a driver, a file: whatever it is, the rest is looked at
            self.unread.append(f"{what}: {type(error).__name__}: {error}")
        return None


def look(run_dir: RunDir, file: Path) -> Seen:
    """At everything, by the configuration in force, else by the file."""
    one, path = _Look(), run_dir.effective if run_dir.holder("run") else file
    settings = one.at("the configuration", lambda: naming.load(path))
    page = one.at("the gateway", lambda: status.read(run_dir, status.spool_of(run_dir.effective, file), file))
    found = Seen(time.time(), synchronised=one.at("the clock", synchronised))
    if page is not None:
        found = replace(found, status=page, headline=status.headline(page), inspecting=status.inspecting(page))
        if not page["namespace"]:
            found = replace(found, filters=one.at("other firewalls", _filters) or ())
    if settings is not None:
        pid = (page or {}).get("processes", {}).get("supervisor", 0)
        found = replace(
            found,
            ports=one.at("the ports", lambda: ports(settings.bridge.ports)) or (),
            name_servers=one.at("the name servers", lambda: _name_servers(settings)),
            certificates=one.at("the certificate", lambda: tuple(_certificates(settings))) or (),
            log=one.at("the mail log", lambda: mail_log(settings, pid)),
            disks=one.at("the disks", lambda: tuple(disks(settings))) or (),
        )
    return replace(found, unread=tuple(one.unread))


def ports(names: Iterable[str]) -> tuple[Port, ...]:
    """In the host, or in the wire's own network namespace."""
    wanted = list(names)
    merging = {nic.name: tuple(m for m in MERGING if nic.features.get(m)) for nic in seen.box(wanted).nics}
    there = {port.name: port for port in here.ask(lambda: _ports(wanted)) or _ports(wanted)}
    return tuple(
        Port(name, port.carrier, port.mtu_bytes, port.half_duplex, merging.get(name, ()))
        for name, port in there.items()
    )


def _ports(names: Iterable[str]) -> list[Port]:
    return [
        Port(
            name,
            None if (carrier := _text(_NET / name / "carrier")) is None else carrier == "1",
            int(mtu) if (mtu := _text(_NET / name / "mtu")) else None,
            _text(_NET / name / "duplex") == "half",
        )
        for name in names
        if (_NET / name).exists()
    ]


def _text(path: Path) -> str | None:
    """None for what is not there, or does not say: a link that is down has no carrier."""
    with suppress(OSError):
        return path.read_text("ascii").strip()
    return None


def _filters() -> tuple[str, ...]:
    if _text(_FILTERS) != "1":
        return ()
    return tuple(chain for version in (4, 6) for chain in firewall.strangers("forward", version) if "drop" in chain)


def _name_servers(settings: Config) -> int:
    return len(read_nameservers(map(str, configuration.resolvers(settings)))) or len(_resolv_conf())


def _resolv_conf() -> list[str]:
    lines = (_text(Path("/etc/resolv.conf")) or "").splitlines()
    return [line for line in lines if line.split()[:1] == ["nameserver"]]


def synchronised() -> bool | None:
    """By the kernel's own word, whoever keeps the clock (adjtimex(2)); None where it may not be asked."""
    asked = ctypes.create_string_buffer(_TIMEX_OCTETS)  # modes 0: nothing is set
    said = int(libc.adjtimex(asked))
    return None if said < 0 else said != _TIME_ERROR


def _certificates(settings: Config) -> Iterator[Certificate]:
    if settings.mta.certificate is not None and settings.mta.key is not None:
        yield certificate(Path(settings.mta.certificate), Path(settings.mta.key))


def certificate(path: Path, key: Path) -> Certificate:
    """By a handshake with itself, in memory: what a client would be shown, and when it ends."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    try:
        server.load_cert_chain(path, key, password=lambda: "")
        client.load_verify_locations(path)
        client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN  # itself is trusted, whoever signed it
        shown = _handshake(server, client)
    except ssl.SSLCertVerificationError as error:
        return Certificate(str(path), why=error.verify_message)
    except (OSError, ValueError) as error:
        return Certificate(str(path), why=getattr(error, "reason", None) or str(error))
    return Certificate(str(path), ssl.cert_time_to_seconds(str(shown["notAfter"])))


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, object]:
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True)]
    for end in ends * 3:
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
    return dict(ends[0].getpeercert() or {})


def mail_log(settings: Config, supervisor: int) -> MailLog | None:
    """``supervisor``: the process that has it open; 0 if none runs."""
    path = Path(settings.log.mail)
    if not path.exists():
        return None
    return MailLog(
        str(path),
        path.stat().st_size,
        len(lentlogs.copies(path)),
        _began_at(path),
        settings.log.mail_bytes,
        _elsewhere(path, supervisor),
    )


def _began_at(path: Path) -> float | None:
    with path.open("rb") as log:
        record = record_in(log.readline(HEAD_OCTETS)) or {}
    with suppress(ValueError):
        return datetime.fromisoformat(str(record.get("time"))).timestamp()
    return None


def _elsewhere(path: Path, pid: int) -> str:
    """ "" if the process has this very file open, or none that is called like it."""
    own, named = path.stat(), list[str]()
    for fd in Path(f"/proc/{pid}/fd").iterdir() if pid else ():
        with suppress(OSError):
            target, found = str(fd.readlink()), fd.stat()
            if (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino):
                return ""
            if target.startswith(str(path)):
                named.append(target)
    return next(iter(named), "")


def disks(settings: Config) -> Iterator[Disk]:
    """Of what the gateway writes, and that is there."""
    log, mta = settings.log, settings.mta
    places = [("log.mail", Path(log.mail).parent, log.reserve_bytes, "log.reserve_bytes")]
    if needs_mta(settings):
        places.append(("mta.spool", Path(mta.spool), mta.reserve_bytes, "mta.reserve_bytes"))
    if settings.tracking.index is not None:
        places.append(("tracking.index", Path(settings.tracking.index), log.reserve_bytes, "log.reserve_bytes"))
    for key, path, reserve_bytes, reserved_by in places:
        if path.exists():
            disk = os.statvfs(path)
            yield Disk(key, str(path), disk.f_bavail * disk.f_frsize, reserve_bytes, reserved_by)
