"""A message is its number's, and survives being stuffed; sender and receiver agree by every way of offering it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.app.lab.host import Host
from tests.soak.letters import SHARES, SUBJECT, Words, below, letter, name_of, stuffed


@given(seed=st.integers(0, 9), number=st.integers(0, 10_000))
def test_a_letter_is_its_numbers(seed: int, number: int) -> None:
    made = letter(seed, "live", number)
    assert made == letter(seed, "live", number)
    assert made.content.endswith(b"\r\n")
    assert name_of(made.sender("senders.example")) == made.name == f"live{number}"


def test_all_sorts_of_them() -> None:
    made = [letter(1, "live", number) for number in range(500)]
    assert {each.words for each in made} == set(SHARES) == set(Words)
    assert min(each.octets for each in made) < 4096 < 1_000_000 < max(each.octets for each in made)
    assert len({each.content for each in made}) == len(made)


@given(st.lists(st.sampled_from([b"", b".", b"..", b".a", b"a."]), min_size=1))
def test_stuffing(lines: list[bytes]) -> None:
    content = b"".join(line + b"\r\n" for line in lines)
    wire = stuffed(content)
    assert (b"\r\n" + wire).index(b"\r\n.\r\n") == len(wire) - 3  # the only end that there is
    assert (b"\r\n" + wire[:-3]).replace(b"\r\n.", b"\r\n")[2:] == content


def test_below_is_what_its_author_wrote() -> None:
    content = letter(1, "queue", 7).content
    trace = b"Received: by somebody\r\nreceived: from them\r\n\tby others;\r\n Monday\r\nReturn-path: <a@b>\r\n"
    assert below(trace + content) == below(content) == content


@pytest.mark.parametrize("put", [b"Date: now\r\n", b"\r\n", b"Received\r\n", b"Received: bare\n", SUBJECT])
def test_nothing_else_may_be_put_above_it(put: bytes) -> None:
    content = letter(1, "queue", 7).content
    assert below(put + content) == put + content
    assert below(b"Received: by somebody\r\n" + put + b"Received: by others\r\n" + content) != content


def test_a_change_below_the_header_shows() -> None:
    content = letter(1, "queue", 7).content
    for changed in (content[:-2], content + b"\r\n", content.replace(b".a line", b"a line", 1), content + content):
        assert below(b"Received: by somebody\r\n" + changed) == changed


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Host]:
    host = Host("here", (), tmp_path)
    yield host
    host.end()


def test_sender_and_receiver_agree(here: Host, tmp_path: Path) -> None:
    pem, port = tmp_path / "pem", str(free_port())
    words = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=x", "-keyout", pem, "-out", pem]
    subprocess.run(list(map(str, words)), check=True, capture_output=True)
    sent, taken = tmp_path / "sent", tmp_path / "taken"
    receiver = ["-m", "tests.soak.receiver", "--record", str(taken), "--certificate", str(pem), "--port", port]
    here.spawn([sys.executable, *receiver, "127.0.0.1"]).wait_for("ready")
    route = "live,127.0.0.1,example.com,200,127.0.0.1"
    sender = here.spawn([sys.executable, "-m", "tests.soak.sender", "--record", str(sent), "--port", port, route])
    sender.wait_for("ready")
    while sent.read_text().count("\n") < 150:
        assert sender.running
    sender.end(30.0).check()
    told = [json.loads(line) for line in sent.read_text().splitlines()]
    arrived = {each["name"]: each["digest"] for each in map(json.loads, taken.read_text().splitlines())}
    later = [each["said"] for each in told if each["outcome"] != "accepted"]
    assert {each["name"]: each["digest"] for each in told if each["outcome"] == "accepted"} == arrived
    assert set(later) == {"RefusedError 451 4.7.1 Later"}
    assert {each["words"] for each in told} == {*Words}
