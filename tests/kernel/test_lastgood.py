"""The last configuration that mail was inspected with is in force again where the units find a broken one.

::

    run, ready ── kept, root's alone ── the file is broken ── boot: up --boot, run --boot ── inspected, and said so
                                              └── typed: up, run ── refused, as ever
"""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtp_intercept.app.lab.host import Result
from smtp_intercept.app.lab.mail import MailServer, send
from smtp_intercept.app.lab.network import Lab

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("lanes")]

GOOD = {
    "bridge": {"management": ["192.0.2.222/24"]},
    "protected": [{"domain": "example.com", "servers": ["192.0.2.20"]}],
}
# What can be wrong with a file → it, and what is said of it.
BROKEN = {
    "no TOML": ("[bridge]\nports = [p0, p1]\n", "Invalid value"),
    "a key that is none": ('[bridge]\nports = ["p0", "p1"]\nmanagment = []\n', "managment"),
    "a port that is none": ('[bridge]\nports = ["p0", "p9"]\n', "there is no interface p9"),
}
NOT_IN_FORCE = "IS NOT IN FORCE"
# The product, which here waits for a missing port for a second and not for a minute.
HASTY = """\
import sys
from smtp_intercept.app import boot, cli
boot.PORTS_S = 1.0
sys.exit(cli.main(sys.argv[1:]))
"""
KEPT_S = 20.0


@pytest.fixture(scope="module")
def box(lanes: None) -> Iterator[Lab]:
    """One that has run with `GOOD`, and is off."""
    with Lab() as lab:
        with lab.gateway.running(GOOD):
            wait_for(kept(lab))
        MailServer.start(lab.host("server"))
        yield lab


@pytest.fixture(autouse=True)
def off(box: Lab) -> Iterator[None]:
    yield
    box.gateway.stop()
    box.gateway.configure(GOOD)


def kept(lab: Lab) -> Path:
    return lab.gateway.state_dir / "last-good.toml"


def wait_for(path: Path) -> None:
    deadline_at = time.monotonic() + KEPT_S
    while not path.exists():
        assert time.monotonic() < deadline_at, f"no {path}"
        time.sleep(0.05)


def wait_written(path: Path) -> None:
    """Again: what is kept is kept when the status is."""
    before, deadline_at = path.stat().st_mtime_ns, time.monotonic() + KEPT_S
    while path.stat().st_mtime_ns == before:
        assert time.monotonic() < deadline_at, f"{path} is old"
        time.sleep(0.05)


def at_boot(lab: Lab) -> Result:
    interpreter, _, _, *words = lab.gateway.command("up", "--boot")
    return lab.gateway.run([interpreter, "-c", HASTY, *words], check=False, timeout_s=60.0)


def wait_for_message(lab: Lab, before: int) -> None:
    deadline_at = time.monotonic() + KEPT_S
    while inspected(lab) == before:
        assert time.monotonic() < deadline_at, "not in the mail log"
        time.sleep(0.05)


def inspected(lab: Lab) -> int:
    return len(lab.gateway.mail_log("message"))


def test_it_is_kept_as_it_was_written_and_for_root_alone(box: Lab) -> None:
    assert kept(box).read_text() == box.gateway.config.read_text()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (kept(box), kept(box).parent)] == [0o600, 0o700]


@pytest.mark.parametrize("kind", BROKEN)
def test_at_boot_the_last_good_one_is_in_force(box: Lab, kind: str) -> None:
    text, said = BROKEN[kind]
    box.gateway.configure(text)
    done = at_boot(box)
    assert (done.returncode, "up: br0 over p0, p1" in done.stdout) == (0, True), done.stderr
    assert said in done.stderr
    assert NOT_IN_FORCE in done.stderr
    assert kept(box).read_text() != text


def test_mail_is_inspected_with_it_until_the_file_is_mended(box: Lab) -> None:
    gateway, (text, said) = box.gateway, BROKEN["a key that is none"]
    gateway.configure(text)
    assert at_boot(box).returncode == 0
    assert NOT_IN_FORCE in gateway.spawn_daemon("--boot").stderr
    before = inspected(box)
    (mail,) = send(box.host("client"), box.host("server").ipv4)
    assert mail["accepted"]
    wait_for_message(box, before)
    page = gateway.status()
    assert page["instead"]["in_force"] == str(kept(box))
    assert said in page["instead"]["why"]
    first, second, *_ = [line for line in gateway.tollbridge("status").stdout.splitlines() if line.startswith("! ")]
    assert NOT_IN_FORCE in first
    assert said in second
    gateway.configure(GOOD)
    gateway.tollbridge("up")
    assert gateway.status()["instead"], "the daemon has it still"
    gateway.stop(down=False)
    gateway.spawn_daemon("--boot")
    assert gateway.status()["instead"] is None


@pytest.mark.parametrize("verb", ["up", "run"])
def test_who_types_it_is_told(box: Lab, verb: str) -> None:
    text, said = BROKEN["a key that is none"]
    box.gateway.configure(text)
    done = box.gateway.tollbridge(verb, check=False)
    assert (done.returncode, said in done.stderr, NOT_IN_FORCE in done.stderr) == (1, True, False)


def test_without_one_the_broken_file_is_an_error(box: Lab) -> None:
    good = kept(box).read_text()
    box.gateway.configure(BROKEN["no TOML"][0])
    try:
        kept(box).unlink()
        assert at_boot(box).returncode == 1
        kept(box).write_text(box.gateway.config.read_text())
        assert at_boot(box).returncode == 1, "nor helps it to try the same again"
    finally:
        kept(box).write_text(good)


def test_what_is_not_confirmed_is_not_kept(box: Lab) -> None:
    kept(box).unlink()
    box.gateway.tollbridge("up", "--confirm", "120")
    box.gateway.spawn_daemon()
    for _ in range(2):
        wait_written(box.gateway.run_dir / "status.json")
    assert not kept(box).exists()
    box.gateway.tollbridge("confirm")
    wait_for(kept(box))
