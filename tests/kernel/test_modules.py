"""On a kernel that was booted a moment ago and has loaded nothing yet, as in a guest of `tests.stock`.

::

    booted ── up, run: what the lanes need is loaded, nft queues ── mail is inspected, and nobody can tell ── down:
    br_netfilter is gone
"""

from __future__ import annotations

import platform
import re
from pathlib import Path

import pytest

from smtp_intercept.app.lab.mail import MailServer, send
from smtp_intercept.app.lab.network import Lab
from tests.kernel.conftest import DEFAULT, STOCK_KERNEL
from tests.kernel.frames import give_away
from tests.unshown import GUEST

pytestmark = [
    pytest.mark.usefixtures("namespaces"),
    GUEST.mark,
]

NEEDED = {
    *("nf_tables", "nft_fwd_netdev", "nft_dup_netdev", "nft_socket", "nft_queue", "nfnetlink_queue"),
    *("bridge", "br_netfilter"),
}
# By which the product queues where nft cannot.
INSTEAD = {"xt_NFQUEUE", "nft_compat", "iptable_raw"}


def loaded() -> set[str]:
    return {line.split()[0] for line in Path("/proc/modules").read_text().splitlines()}


def test_the_kernel_is_the_distributions_own() -> None:
    assert platform.release() == STOCK_KERNEL
    assert "Debian" in platform.version()


def test_whatever_is_needed_is_loaded_and_nft_queues() -> None:
    with Lab() as lab:
        assert loaded() & (NEEDED | INSTEAD) == set(), "this test comes first"
        client, server = lab.host("client"), lab.host("server")
        MailServer.start(server)
        with lab.gateway.running(DEFAULT):
            assert NEEDED - loaded() == set()
            assert INSTEAD & loaded() == set()
            assert re.search(r"queue flags bypass to 25", lab.gateway.room.run(["nft", "list", "ruleset"]).stdout)
            with lab.capture() as frames:
                sent = [send(client, to) for to in (server.ipv4, server.ipv6)]
            assert [delivery["accepted"] for (delivery,) in sent] == [True] * 2
            assert give_away(lab, frames) == []
            sessions = lab.gateway.mail_log("session")
            assert [entry["outcome"] for entry in sessions] == ["completed"] * 2
        assert "br_netfilter" not in loaded()
