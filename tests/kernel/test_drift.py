"""A file that was edited after `up` and `run` is not in force, and everybody who asks is told so."""

from __future__ import annotations

import re

import pytest

from smtp_intercept.app.exits import Exit
from smtp_intercept.app.lab.network import Lab

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("lanes")]

BEFORE = {"pickup": {"outgoing": "pass"}, "protected": [{"domain": "example.com", "servers": ["192.0.2.20"]}]}
AFTER = {**BEFORE, "pickup": {"outgoing": "intercept"}}
ASKED = ("explain", "--from", "192.0.2.10", "--to", "203.0.113.5")


def test_file_and_running_configuration_differ(lanes: None) -> None:
    with Lab() as lab:
        gateway = lab.gateway
        gateway.configure(BEFORE)
        assert gateway.tollbridge(*ASKED, "--running", check=False).stderr.startswith(
            "tollbridge: --running: no daemon"
        )
        up = gateway.tollbridge("up").stdout.splitlines()[-1]
        assert up.endswith("crosses uninspected until `tollbridge run` inspects it")
        daemon = gateway.spawn_daemon()
        # `up` beside it: the mail is inspected.
        up = gateway.tollbridge("up").stdout.splitlines()[-1]
        assert re.search(
            rf"; mail is inspected by the daemon that runs \(process {gateway.pids()['supervisor']}\)$", up
        )
        assert gateway.status()["drift"] is None
        assert gateway.tollbridge(*ASKED).stderr == ""

        gateway.configure(AFTER)
        said = "pickup.outgoing is 'intercept', in force is 'pass'"
        page = gateway.status()
        assert page["drift"] == {"file": str(gateway.config), "run": [said], "up": []}
        shown = " ".join(gateway.tollbridge("status").stdout.split())
        assert "differs from what is in force, until: restart `tollbridge run`" in shown
        assert said in shown
        of_file, of_running = (gateway.tollbridge(*ASKED, *more) for more in ((), ("--running",)))
        assert "action      intercept, decided by pickup.outgoing" in of_file.stdout
        assert said in of_file.stderr
        assert "explain --running" in of_file.stderr
        assert "action      pass, decided by pickup.outgoing" in of_running.stdout
        assert of_running.stderr == ""
        assert said in gateway.tollbridge("up").stderr

        gateway.configure({**AFTER, "bridge": {"on_failure": "block"}})
        assert [len(gateway.status()["drift"][verb]) for verb in ("run", "up")] == [2, 1]
        gateway.configure("[bridge]\n")
        assert gateway.status()["drift"]["run"] == ["it has 1 mistake now (tollbridge check)"]
        assert gateway.tollbridge("status", check=False).returncode == Exit.DONE, "mail is inspected all the same"
        gateway.config.unlink()
        assert gateway.status()["drift"]["run"] == ["it cannot be read now (tollbridge check)"]
        assert gateway.tollbridge(*ASKED, "--running").stdout == of_running.stdout
        daemon.end()
        gateway.configure(BEFORE)
        assert gateway.status()["drift"] is None
        gateway.configure({**BEFORE, "bridge": {"on_failure": "block"}})
        assert gateway.status()["drift"]["up"] == ["bridge.on_failure is 'block', in force is 'pass'"]
        gateway.tollbridge("down")
        assert gateway.status()["drift"] is None
