"""A virtual machine with a Debian kernel as it is shipped, and this machine's own files: its root directory over 9p,
read-only under a layer in memory. No network card: nothing gets in or out.

Emulated, so that it runs everywhere; it is up in three seconds, and ten times slower than its host.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from smtp_intercept.app.lab.host import LabError, Process
from tests.tools import TOOLS, MissingError, program

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
PATIENCE = 10
PACKAGES = ("bridge", "hwprofiles", "smtp_intercept", "tests")
MEMORY_MB = 1536
# What mounting the root takes; all else is loaded by whoever needs it, as on any Debian.
BOOT_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
# One processor: emulated ones wait for each other, minutes on a busy machine.
EMULATION = "-accel tcg,thread=single,tb-size=512 -cpu qemu64,-cx16,-svm -smp 1"
BARE = "-nodefaults -no-user-config -display none -no-reboot -device virtio-rng-pci"
APPEND = "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check selinux=0 apparmor=0 audit=0"
# Three minutes where nothing else runs; an emulator on a busy machine gets what is left of it.
EACH_S, ALL_S, STEP_S = 2700, 5400, 300


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel package unpacked in .tools/."""

    image: Path
    modules: Path

    @property
    def root(self) -> Path:
        """Where kmod's programs look for ``lib/modules``."""
        return self.modules.parents[1]

    @property
    def release(self) -> str:
        """As `uname -r` says it, e.g. ``6.1.0-56-amd64``."""
        return self.image.name.removeprefix("vmlinuz-")


def kernel() -> Kernel:
    """The newest one there is; `MissingError` if there is none."""
    images = sorted((TOOLS / "boot").glob("vmlinuz-*"), key=lambda image: image.stat().st_mtime)
    if not images:
        raise MissingError("no Debian kernel is unpacked in .tools/: make tools")
    places = [place for name in ("lib", "usr/lib") if (place := TOOLS / name / "modules").exists()]
    found = Kernel(images[-1], places[0])
    if not (found.modules / found.release / "modules.dep").exists():
        run(["depmod", "-b", str(found.root), found.release])
    return found


def initramfs(found: Kernel, work: Path) -> Path:
    """busybox, `BOOT_MODULES` with what they need, and ``init.sh``."""
    root = work / "initramfs"
    (root / "bin").mkdir(parents=True)
    (root / "modules").mkdir()
    shutil.copy(busybox(), root / "bin")
    (root / "bin/sh").symlink_to("busybox")
    shutil.copy(HERE / "init.sh", root / "init")
    (root / "init").chmod(0o755)
    order = needed(found)
    for module in order:
        shutil.copy(module, root / "modules")
    (root / "modules/order").write_text("".join(f"{module.name}\n" for module in order))
    names = "\n".join(str(path.relative_to(root)) for path in root.rglob("*"))
    archive = work / "initrd"
    archive.write_bytes(packed(root, names))
    return archive


def packed(root: Path, names: str) -> bytes:
    cpio, libraries = program("cpio")
    words, env = [cpio, "-o", "-H", "newc", "--quiet"], os.environ | libraries
    return subprocess.run(
        words, cwd=root, input=names.encode(), stdout=subprocess.PIPE, check=True, timeout=STEP_S, env=env
    ).stdout


def busybox() -> Path:
    """The static one, from where Debian 12 or later has it; never the machine's own, which may not be static."""
    found = [place for name in ("usr/bin", "bin") if (place := TOOLS / name / "busybox").exists()]
    if not found:
        raise MissingError("no static busybox is unpacked in .tools/: make tools")
    return found[0]


def needed(found: Kernel) -> list[Path]:
    """The files of `BOOT_MODULES` and all they depend on, in the order in which they can be loaded."""
    words = ["modprobe", "-d", str(found.root), "-S", found.release, "--show-depends"]
    lines = [line for name in BOOT_MODULES for line in run([*words, name]).splitlines()]
    return [Path(line.split()[1]) for line in dict.fromkeys(lines) if line.startswith("insmod ")]


def run(words: Sequence[str]) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=STEP_S).stdout


@dataclass(frozen=True, slots=True)
class Told:
    """What the guest said."""

    kernel: str
    said: str
    results: dict[str, str]
    """Test → "passed", or the kind of its failure and the first line of it."""


def run_inside(tests: Sequence[str], work: Path) -> Told:
    """Run pytest with these node ids in a guest. Raises `LabError` with all it said if it does not come to an end."""
    found, told = kernel(), work / "told"
    told.mkdir()
    # Read by a guest that keeps no file: what is not compiled here it compiles at every start of a program.
    run([sys.executable, "-m", "compileall", "-q", *(str(CHECKOUT / name) for name in PACKAGES)])
    options = ["-p", "no:cacheprovider", "-o", "faulthandler_timeout=0", f"--timeout={EACH_S}", "--durations=10"]
    options.append("--junit-xml=/told/results.xml")
    (told / "tests").write_text("\n".join([*options, *tests]))
    (told / "environment").write_text(environment(found))
    shutil.copy(HERE / "inside.sh", told)
    qemu, libraries = program("qemu-system-x86_64")
    words = ["setpriv", "--pdeathsig", "KILL", qemu, *machine(found, work, told)]  # it does not outlive a killed run
    process = Process(words, words, work / "qemu", os.environ | libraries)
    try:
        process.wait(ALL_S)
        return Told((told / "kernel").read_text().strip(), (told / "said").read_text(), results(told / "results.xml"))
    except (LabError, OSError) as error:
        heard = [path.read_text(errors="replace") for path in (work / "console", told / "said") if path.exists()]
        raise LabError("\n".join([str(error), *heard])) from error
    finally:
        process.end()


def machine(found: Kernel, work: Path, told: Path) -> list[str]:
    """QEMU's arguments. Whatever the guest shall say is a file in ``told``."""
    return [
        *places(),
        *f"{EMULATION} {BARE} -m {MEMORY_MB}".split(),
        *("-kernel", str(found.image), "-initrd", str(initramfs(found, work)), "-append", APPEND),
        *("-serial", f"file:{work / 'console'}"),
        *share("root", Path("/"), ",readonly=on,multidevs=remap"),
        *share("told", told, ""),
    ]


def places() -> list[str]:
    """Where an unpacked QEMU finds its firmware."""
    return [word for place in ("qemu", "seabios") for word in ("-L", str(TOOLS / "usr/share" / place))]


def share(tag: str, path: Path, options: str) -> list[str]:
    fsdev = f"local,id={tag},path={path},security_model=none{options}"
    return ["-fsdev", fsdev, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]


def environment(found: Kernel) -> str:
    variables = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "MODULES": str(found.modules),
        "CHECKOUT": str(CHECKOUT),
        "INTERPRETER": sys.executable,
        "PYTHONPATH": str(CHECKOUT),
        "TOLLBRIDGE_TOOLS": str(TOOLS),
        "TOLLBRIDGE_LAB_PATIENCE": str(PATIENCE),
        "TOLLBRIDGE_STOCK_KERNEL": found.release,
    }
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())


def results(path: Path) -> dict[str, str]:
    """By pytest's JUnit report."""
    found: dict[str, str] = {}
    for case in ElementTree.parse(path).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        kinds = [
            f"{child.tag}: {child.get('message')}" for child in case if child.tag in ("failure", "error", "skipped")
        ]
        found[name] = kinds[0] if kinds else "passed"
    return found
