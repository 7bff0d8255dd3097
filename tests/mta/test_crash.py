"""Every message that was answered 250 is delivered or bounced, once, whatever ends the MTA.

| the MTA, put together as it runs, under load | ends, or has to wait                              |
|----------------------------------------------|---------------------------------------------------|
| kill -9                                      | at 200 random instants, those of its start too    |
| a full disk                                  | filled and emptied by another program; and killed |
| a disk gone read-only                        | as ext4 does it; killed; repaired; started again  |

A second copy is allowed where a kill came between the next hop's taking the first and our writing that down: the 250
was lost. Each is counted, and shown to be of that kind: from another life, the earlier one killed, and no line of the
log says that it was settled before. What was unheard arrives whole or not at all, what was refused never.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from smtp_intercept.app.lab.host import Host
from tests.unshown import NOT_ROOT

KILLS = 200
SEED = 1
ROOT = Path(__file__).parents[2]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return Host("here", (), tmp_path)


def survived(host: Host, way: str, many: int, timeout_s: float) -> dict[str, int]:
    """What was seen; fails if a promise was broken."""
    words = ["-m", "tests.mta.crash", way, str(host.directory), str(many), str(SEED)]
    told = host.run([sys.executable, *words], timeout_s=timeout_s).json()
    print(f"{way}, seed {SEED}: {told['counts']}")
    assert told["broken"] == []
    assert not told["counts"].get("refused and kept", 0)
    counts: dict[str, int] = told["counts"]
    return counts


@pytest.mark.alone
def test_kill_9_at_any_instant(host: Host) -> None:
    counts = survived(host, "kills", KILLS, 170)
    assert counts["kills"] == KILLS
    assert min(counts["accepted"], counts["delivered"], counts["unheard"]) > KILLS, "or this says nothing"
    assert min(counts["notices"], counts["duplicates"], counts["unheard and kept"]) > 10, "nor this"


@NOT_ROOT.mark
def test_a_full_disk(host: Host) -> None:
    counts = survived(host, "full", 12, 100)
    assert counts["kills"] > 4
    assert min(counts["accepted"], counts["delivered"]) > 50
    assert counts["refused"] > 5


@NOT_ROOT.mark
def test_a_disk_that_goes_read_only(host: Host) -> None:
    many = 8
    counts = survived(host, "read-only", many, 100)
    assert counts["refused to start"] == many
    assert min(counts["accepted"], counts["delivered"]) > many
    assert counts["refused"] > many
