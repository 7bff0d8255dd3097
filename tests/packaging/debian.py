"""A Debian of its own for the package's tests: debootstrap once, then a copy booted under systemd by systemd-nspawn.

Its network is its own too: wires are veth pairs between it and network namespaces inside it.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.tools import TOOLS, program

MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
# What an installed Debian has, and what the package depends on.
INCLUDED = "ca-certificates,iproute2,iptables,kmod,libnetfilter-queue1,logrotate,nftables,procps,python3,systemd"
DEBOOTSTRAP_S, BOOT_S, STOP_S = 900, 60, 30


@dataclass
class Debian:
    """A booted one. ``leader`` is its PID 1 as seen from here."""

    root: Path
    leader: int

    def run(self, *words: str, timeout_s: float = 60.0, check: bool = True) -> str:
        """One command's output, both streams."""
        command = ["nsenter", "-t", str(self.leader), "-a", *words]
        output, pipe = subprocess.PIPE, subprocess.STDOUT
        done = subprocess.run(command, check=False, stdout=output, stderr=pipe, text=True, timeout=timeout_s)
        assert done.returncode == 0 or not check, f"{words}: {done.stdout}\n{self.journal()}"
        return done.stdout

    def start(self, *words: str) -> subprocess.Popen[str]:
        """End it with `subprocess.Popen.communicate` and a time-out."""
        command = ["nsenter", "-t", str(self.leader), "-a", *words]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def journal(self) -> str:
        command = ["nsenter", "-t", str(self.leader), "-a", "journalctl", "--no-pager", "-u", "tollbridge*", "-n", "40"]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=30).stdout


def base() -> Path:
    """This machine's Debian, freshly installed; made once and kept in .tools/. Skips where it cannot be made."""
    if os.geteuid() or shutil.which("debootstrap") is None:
        pytest.skip("needs root and debootstrap")
    codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
    root = TOOLS / f"debian-{codename}"
    if not (root / ".ready").exists():
        shutil.rmtree(root, ignore_errors=True)
        words = ["debootstrap", "--variant=minbase", f"--include={INCLUDED}", codename, str(root), MIRROR]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, timeout=DEBOOTSTRAP_S)
        (root / ".ready").touch()
    return root


@contextmanager
def booted(root: Path) -> Iterator[Debian]:
    """Until the context ends. Skips where a container cannot be booted."""
    nspawn, environment = program("systemd-nspawn")
    unified = {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"} | {"LD_LIBRARY_PATH": environment["LD_LIBRARY_PATH"]}
    words = [nspawn, "-q", "-D", str(root), "--register=no", "--keep-unit", "--private-network", "--console=pipe", "-b"]
    with (root.parent / "console.log").open("w") as console:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=console, stderr=console, env={**os.environ, **unified}
        )
        try:
            yield Debian(root, _leader(process))
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_S)


def _leader(process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + BOOT_S
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None and time.monotonic() < deadline:
        for child in children.read_text().split():
            words = ["nsenter", "-t", child, "-a", "systemctl", "is-system-running"]
            state = subprocess.run(words, check=False, capture_output=True, text=True, timeout=30).stdout
            if state.strip() in ("running", "degraded"):
                return int(child)
        time.sleep(0.2)
    pytest.skip(f"no systemd boots in a container here (exit {process.poll()})")
