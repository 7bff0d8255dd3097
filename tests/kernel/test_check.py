"""`check` finds what `up` and `run` would refuse, all of it, and what it finds nothing wrong with starts.

::

    each objection of the table ── check: refused, named ── up or run: refused in the same words
    configurations drawn from the schema ── check says OK ⇔ up and run start

What stands in a file that is not even valid is `tests/app/test_config_mistakes.py`'s.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from smtp_intercept.app import objections
from smtp_intercept.app.exits import Exit
from smtp_intercept.app.lab import namespaces
from smtp_intercept.app.lab.host import Result
from smtp_intercept.app.lab.network import Lab
from smtp_intercept.app.lab.snapshot import settled_difference, snapshot

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("lanes")]

PROTECTED = [{"domain": "example.com", "servers": ["192.0.2.20"]}]
IN_HOST = {"namespace": "host"}
REAL = 5  # configurations that are tried for real, some three seconds each


@pytest.fixture(scope="module")
def box(lanes: None) -> Iterator[Lab]:
    with Lab() as lab:
        lab.gateway.run(["ip", "link", "set", "lo", "up"])
        yield lab


@pytest.fixture(scope="module")
def files(box: Lab) -> Path:
    """Good ones and bad ones, by their names; the MTA's user may enter."""
    there = box.gateway.directory / "files"
    there.mkdir()
    for name in ("good", "other"):
        subject = [
            "-subj",
            f"/CN={name}.test",
            "-keyout",
            str(there / f"{name}.key"),
            "-out",
            str(there / f"{name}.pem"),
        ]
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", *subject], check=True, capture_output=True
        )
    locked = ["-aes256", "-passout", "pass:secret", "-in", str(there / "good.key"), "-out", str(there / "locked.key")]
    subprocess.run(["openssl", "pkey", *locked], check=True, capture_output=True)
    (there / "empty").touch()
    (there / "password").write_text("secret\n")
    (there / "password").chmod(0o600)
    (there / "mistaken").write_text("example.com\n@\n")
    (there / "open").write_text("secret\n")
    (there / "open").chmod(0o644)
    os.mkfifo(there / "pipe")
    (there / "damaged").mkdir()
    (there / "damaged" / "queue.db").write_bytes(b"no database" * 1000)
    (there / "foreign").mkdir()
    (there / "foreign" / "mail").touch()
    return there


def identity(**files: str) -> dict[str, Any]:
    return {"intercept": {"starttls": "terminate"}, "tls": {"identity": [files]}}


def with_mta(**mta: Any) -> dict[str, Any]:
    return {"intercept": {"incoming": "mta"}, "mta": {"hostname": "box.test", **mta}, "protected": PROTECTED}


def relayed(password: str) -> dict[str, Any]:
    relay = {"host": "192.0.2.25", "username": "u", "password_file": f"FILES/{password}", "tls": "verified"}
    return {**with_mta(spool="FILES/spool"), "relay": relay}


def ruled(file: str) -> dict[str, Any]:
    return {"rule": [{"name": "r", "when": {"sender": f"@FILES/{file}"}, "then": {"accept": True}}]}


@dataclass(frozen=True)
class Row:
    """``FILES`` in the configuration is the directory of `files`; ``says`` is a regular expression."""

    verb: str
    config: dict[str, Any]
    says: str
    host: tuple[str, ...] = ()


# The function of the table → what it refuses.
ROWS = {
    "_plan": [
        Row("up", {"bridge": {"ports": ["p0", "eth9"]}}, r":2: bridge\.ports: there is no interface eth9; present are"),
        Row(
            "up",
            {"bridge": {"ports": ["p0", "other"]}},
            r"bridge\.ports: other is a bridge itself, and cannot be a port",
            ("ip link add other type bridge",),
        ),
        Row(
            "up",
            {"bridge": {"ports": ["p0", "t0"]}},
            r"bridge\.ports: t0 is not Ethernet, and cannot be a port",
            ("ip tuntap add t0 mode tun",),
        ),
        Row("run", {"bridge": {"adopt": True, "namespace": "host"}}, r"bridge\.adopt: there is no bridge br0 to adopt"),
    ],
    "_lists": [
        Row("run", ruled("none"), r"rule\[0\]\.when: .*/none"),
        Row("run", ruled("pipe"), r"rule\[0\]\.when: .*/pipe"),
        Row("run", ruled("mistaken"), r"rule\[0\]\.when: .*/mistaken:2: "),
        Row("run", ruled("password"), r"rule\[0\]\.when: .*/password is not for every user to read; chmod o\+r "),
    ],
    "_mail_log": [
        Row("run", {"log": {"mail": "/var/log"}}, r"log\.mail: /var/log is a directory; choose another file"),
        Row("run", {"log": {"mail": "/proc/nowhere/mail.log"}}, r"log\.mail: .* cannot be made: /proc is the kernel's"),
        Row("run", {"log": {"mail": "FILES/empty/mail.log"}}, r"log\.mail: .* cannot be .*[Nn]ot a directory"),
        Row("run", {"log": {"mail": "FILES/pipe"}}, r"log\.mail: .*/pipe is not a file"),
    ],
    "_secrets": [
        Row("run", with_mta(certificate="FILES/none", key="FILES/good.key"), r"mta\.certificate: .*/none is not there"),
        Row("run", with_mta(certificate="FILES/good.pem", key="FILES/none"), r"mta\.key: .*/none is not there; name"),
        Row("run", with_mta(certificate="FILES/good.pem", key="FILES/pipe"), r"mta\.key: .*/pipe is not a file"),
        Row(
            "run", with_mta(certificate="FILES/good.pem", key="FILES/other.key"), r"mta\.certificate: .*cannot be used"
        ),
        Row("run", with_mta(certificate="FILES/good.pem", key="FILES/locked.key"), r"mta\.certificate: .* pass phrase"),
        Row("run", with_mta(certificate="FILES/empty", key="FILES/good.key"), r"mta\.certificate: .*cannot be used"),
        Row("run", relayed("none"), r"relay\.password_file: .*/none cannot be read: No such file"),
        Row("run", relayed("open"), r"relay\.password_file: .*/open can be read by every user of this host; chmod 600"),
    ],
    "_spool": [
        Row("run", with_mta(spool="FILES/empty"), r"mta\.spool: .*/empty is not a directory"),
        Row("run", with_mta(spool="FILES/none/spool"), r"mta\.spool: .* cannot be made: there is no directory .*/none"),
        Row("run", with_mta(spool="/proc/spool"), r"mta\.spool: /proc/spool cannot be made: /proc is the kernel's own"),
        Row("run", with_mta(spool="FILES/foreign"), r"mta\.spool: .*/foreign belongs to user 0, and the mail in it"),
    ],
    "_tls": [
        Row(
            "run",
            identity(certificate="FILES/none", key="FILES/good.key"),
            r"tls\.identity\[0\]\.certificate: .*/none cannot be",
        ),
        Row(
            "run",
            identity(certificate="FILES/good.pem", key="FILES/none"),
            r"tls\.identity\[0\]\.key: .*/none cannot be",
        ),
        Row(
            "run",
            identity(certificate="FILES/good.pem", key="FILES/other.key"),
            r"certificate: .*other.key cannot be used",
        ),
        Row(
            "run",
            identity(certificate="FILES/empty", key="FILES/good.key"),
            r"tls\.identity\[0\]\.certificate: .*empty",
        ),
    ],
}
CASES = [(name, row) for name, rows in ROWS.items() for row in rows]
# Refused by what no lab can be without: `tests/kernel/test_bad_input.py` takes it away.
ELSEWHERE = {"_features", "_ipv6", "_user", "_mail_ports", "_queues"}


def test_every_refusal_of_the_table_is_tried() -> None:
    assert {objection.find.__name__ for objection in objections.OBJECTIONS} == ROWS.keys() | ELSEWHERE


@pytest.mark.parametrize(("name", "row"), CASES, ids=[f"{name[1:]}: {row.says[:40]}" for name, row in CASES])
def test_check_refuses_what_up_or_run_refuses(box: Lab, files: Path, name: str, row: Row) -> None:
    gateway = box.gateway
    for command in row.host:
        gateway.run(command.split())
    try:
        gateway.configure(filled(row.config, files))
        before = (snapshot(gateway.namespace), sorted(map(str, files.rglob("*"))))
        checked = gateway.tollbridge("check", check=False)
        assert (settled_difference(gateway.namespace, before[0]), sorted(map(str, files.rglob("*")))) == ([], before[1])
        refused = gateway.tollbridge(row.verb, check=False)
    finally:
        for command in row.host:
            gateway.run(["ip", "link", "del", command.split()[3]])
    (line,) = [line for line in checked.stderr.splitlines() if re.search(row.says, line)]
    assert checked.returncode == refused.returncode == Exit.FAILED
    assert line in refused.stderr.splitlines()
    assert line.startswith(f"tollbridge: {gateway.config}:"), "with its line"
    assert verdict(checked) == "refused: 1 mistake"


def filled(config: Any, files: Path) -> Any:
    match config:
        case dict():
            return {key: filled(value, files) for key, value in config.items()}
        case list():
            return [filled(value, files) for value in config]
        case str():
            return config.replace("FILES", str(files))
    return config


def verdict(checked: Result) -> str:
    """The last line, which is there once."""
    lines = checked.stdout.splitlines()
    assert len([line for line in lines if line == "OK" or line.startswith("refused: ")]) == 1
    return lines[-1]


def test_the_mail_port_and_the_queue_belong_to_others(box: Lab) -> None:
    """In the host. Not so where a service has them on another link than the lane's, or where they are our own."""
    gateway = box.gateway
    gateway.configure({"bridge": IN_HOST, "protected": PROTECTED})
    with namespaces.inside(gateway.namespace, lambda: socket.create_server(("127.0.0.1", 25))):
        checked = gateway.tollbridge("check", check=False)
        assert verdict(checked) == "refused: 1 mistake"
        assert "listens on 127.0.0.1:25" in checked.stderr
        assert "intercept.ports" in gateway.tollbridge("run", check=False).stderr
    with namespaces.inside(gateway.namespace, lambda: bound_to("lo")):
        assert verdict(gateway.tollbridge("check")) == "OK"
    with gateway.running({"bridge": IN_HOST, "protected": PROTECTED}):
        assert verdict(gateway.tollbridge("check")) == "OK"


def bound_to(link: str) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
    sock.bind(("0.0.0.0", 25))
    sock.listen()
    return sock


def test_all_mistakes_are_listed_and_what_surprises_is_said(box: Lab) -> None:
    gateway = box.gateway
    gateway.configure(
        {
            "bridge": {"ports": ["p0", "eth8", "eth9"], "management": ["192.0.2.20/24"]},
            "log": {"mail": "/var/log"},
            "protected": [{"domain": "example.com", "servers": ["192.0.2.20", "0.0.0.0/1", "128.0.0.0/1", "::/0"]}],
        }
    )
    checked = gateway.tollbridge("check", check=False)
    assert verdict(checked) == "refused: 3 mistakes"
    for said in (
        r"warning: protected\[0\]\.servers: 0\.0\.0\.0/0: every IPv4 host is a protected server",
        r"warning: protected\[0\]\.servers: ::/0: every IPv6 host",
        r"warning: protected\[0\]\.servers\[0\]: 192\.0\.2\.20 is this box itself \(bridge\.management\): mail to",
        r"there is no interface eth8",
        r"there is no interface eth9",
        r"log\.mail: /var/log is a directory",
    ):
        assert re.search(said, checked.stderr), said
    page = gateway.tollbridge("check", "--json", check=False).json()
    assert (page["verdict"], len(page["mistakes"])) == ("refused: 3 mistakes", 3)


# --- the law ----------------------------------------------------------------------------------------------------------

OPTIONAL = st.booleans()


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """Valid files, about half of which this host refuses."""
    mta = draw(st.booleans())
    certificate = draw(
        st.sampled_from([None, None, ("good.pem", "good.key"), ("good.pem", "other.key"), ("none", "empty")])
    )
    config: dict[str, Any] = {
        "bridge": {
            "ports": draw(st.sampled_from([["p0", "p1"], ["p1", "p0"], ["p0", "p1"], ["p0", "eth9"]])),
            "name": draw(st.sampled_from(["br0", "wire"])),
            "namespace": draw(st.sampled_from(["own", "host"])),
            "stp": draw(st.booleans()),
            "on_failure": draw(st.sampled_from(["pass", "block"])),
            "management": draw(st.sampled_from([[], ["198.51.100.2/24"], ["198.51.100.2/24", "2001:db8:1::2/64"]])),
            "profile": draw(st.sampled_from(["auto", "generic", "apu2"])),
        },
        "intercept": {
            "ports": draw(st.sampled_from([[25], [25, 587], [2525]])),
            "incoming": "mta" if mta else "proxy",
            "starttls": draw(st.sampled_from(["pass", "strip"])),
            "on_overload": draw(st.sampled_from(["pass", "defer"])),
        },
        "pickup": {"outgoing": draw(st.sampled_from(["intercept", "pass", "drop", "reject"])), "local": "allow"},
        "protected": [{"domain": "example.com", "servers": draw(st.sampled_from([["192.0.2.20"], ["192.0.2.0/24"]]))}],
        "mta": {
            "hostname": "box.test",
            "spool": f"FILES/{draw(st.sampled_from(['spool', 'spool', 'empty', 'foreign']))}",
        },
        "log": {"mail": draw(st.sampled_from(["FILES/logs/mail.log", "FILES/mail.log", "/dev/null", "/var/log"]))},
        "limits": {"drain_s": 0, "sessions": draw(st.sampled_from([1, 100, 2000]))},
        "interceptor": {"workers": draw(st.sampled_from([1, 2]))},
        "diverter": {"queues": draw(st.sampled_from([1, 2]))},
    }
    if certificate:
        config["mta"] |= {"certificate": f"FILES/{certificate[0]}", "key": f"FILES/{certificate[1]}"}
    if draw(st.booleans()):
        config["relay"] = {"host": "192.0.2.25", "tls": "verified", "username": "u", "password_file": "FILES/password"}
    return config


@settings(max_examples=REAL, deadline=None, phases=[Phase.generate], suppress_health_check=[*HealthCheck])
@given(config=configurations())
def test_check_is_green_if_and_only_if_up_and_run_start(box: Lab, files: Path, config: dict[str, Any]) -> None:
    gateway = box.gateway
    gateway.configure(filled(config, files))
    checked = gateway.tollbridge("check", check=False)
    if verdict(checked) == "OK":
        assert checked.returncode == Exit.DONE
        try:
            gateway.start()
            assert gateway.tollbridge("status", check=False).returncode == Exit.DONE
        finally:
            gateway.stop()
    else:
        refused = [gateway.tollbridge(verb, check=False) for verb in ("up", "run")]
        gateway.stop()
        assert Exit.FAILED in [each.returncode for each in refused]
        mistakes = [line for line in checked.stderr.splitlines() if "warning: " not in line]
        told = "".join(each.stderr for each in refused)
        assert [line for line in mistakes if line not in told] == []
