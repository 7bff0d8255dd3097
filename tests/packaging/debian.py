"""A Debian of its own for the package's tests: debootstrap once, then a copy booted under systemd by systemd-nspawn.

Its network is its own too: wires are veth pairs between it and network namespaces inside it.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from smtp_intercept.app.packaging import deb, elsewhere
from tests.tools import program
from tests.unshown import NOT_ROOT

RELEASES = ("bookworm", "trixie")
# What an installed Debian has, and what the package depends on.
INCLUDED = (
    "ca-certificates,dbus,iproute2,iptables,kmod,libnetfilter-queue1,logrotate,nftables,openssh-client,openssh-server,"
    "procps,python3,sudo,systemd,systemd-sysv"
)
LATER = ("network-manager",)  # debootstrap does not understand what it depends on
APT = ("apt-get", "install", "-qq", "--yes", "--no-install-recommends")
APT_S, BOOT_S, STOP_S = 600, 90, 60


class BootError(Exception):
    """The container does not come up."""


@dataclass
class Debian:
    """A container. ``leader`` is its PID 1 as seen from here, while it runs."""

    root: Path
    leader: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def run(self, *words: str, timeout_s: float = 60.0, check: bool = True) -> str:
        """One command's output, both streams."""
        output, pipe = subprocess.PIPE, subprocess.STDOUT
        done = subprocess.run(
            self._entered(words), check=False, stdout=output, stderr=pipe, text=True, timeout=timeout_s
        )
        assert done.returncode == 0 or not check, f"{words}: {done.stdout}\n{self.journal()}"
        return done.stdout

    def start(self, *words: str) -> subprocess.Popen[str]:
        """End it with `subprocess.Popen.communicate` and a time-out."""
        return subprocess.Popen(self._entered(words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def journal(self) -> str:
        command = self._entered(("journalctl", "--no-pager", "-b", "-u", "tollbridge*", "-n", "60"))
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=30).stdout

    def _entered(self, words: tuple[str, ...]) -> list[str]:
        return ["nsenter", "-t", str(self.leader), "-a", *words]

    # --- on and off ---------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Returns when systemd has started all that it is to start. Raises `BootError`."""
        nspawn, environment = program("systemd-nspawn")
        unified = {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"} | {"LD_LIBRARY_PATH": environment["LD_LIBRARY_PATH"]}
        where = ["-q", "-D", str(self.root), "--register=no", "--keep-unit", "--private-network"]
        with (self.root.parent / "console.log").open("a") as console:
            self.process = subprocess.Popen(
                [nspawn, *where, "--console=pipe", "-b"],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={**os.environ, **unified},
            )
        try:
            self.leader = _leader(self.process)
        except BaseException:
            self.off()
            raise

    def off(self, *, cut: bool = False) -> None:
        """In good order; or ``cut``: every process killed at once, as a cut of the power would."""
        if self.process is None:
            return
        if cut:
            os.kill(self.leader, signal.SIGKILL)
        else:
            self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_S)
        self.process = None

    def reboot(self, *, cut: bool = False) -> None:
        self.off(cut=cut)
        self.boot()


def base(codename: str) -> Path:
    """A Debian, freshly installed; made once and kept in .tools/."""
    NOT_ROOT.skip()
    root = elsewhere.build_root(codename, "debian", INCLUDED)
    if not (root / "usr/sbin/NetworkManager").exists():
        shutil.copyfile("/etc/resolv.conf", root / "etc/resolv.conf")
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
        for words in (("apt-get", "update", "-qq"), (*APT, *LATER)):
            command = ["chroot", str(root), *words]
            subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, timeout=APT_S)
    return root


def package(codename: str, work: Path) -> Path:
    """The package for it: built here if this machine is one, else inside one."""
    if platform.freedesktop_os_release().get("VERSION_CODENAME") == codename:
        return deb.build(work / "out", work / "work")
    return elsewhere.build(codename, work / "out")


def next_version(package: Path, work: Path) -> Path:
    """The same package with a higher version."""
    tree, target = work / "next", package.with_name("next.deb")
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True, timeout=120)
    control = tree / "DEBIAN/control"
    control.write_text(control.read_text().replace("\nVersion: 0", "\nVersion: 9"))
    words: list[str | Path] = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, target]
    subprocess.run(words, check=True, timeout=120, stdout=subprocess.DEVNULL)
    return target


@contextmanager
def booted(root: Path) -> Iterator[Debian]:
    """Until the context ends. Raises `BootError` where a container cannot be booted."""
    debian = Debian(root)
    debian.boot()
    try:
        yield debian
    finally:
        debian.off()


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
    raise BootError(f"no systemd boots in a container here (exit {process.poll()})")
