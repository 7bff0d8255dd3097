"""Figures over HTTP: what Prometheus's own tool says of them, and what others may try at the same address.

::

    daemon ─▶ figures ─▶ exporter ─ unix socket or TCP ─▶ promtool
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from smtp_intercept.app import exporter
from smtp_intercept.app.config import ConfigErrors, parse
from smtp_intercept.app.exporter import AT_ONCE, Server, Shown, opened
from smtp_intercept.watch import figures
from tests import tools
from tests.watch.test_figures import KERNEL, STATUS, WORDS

FILES = Path(exporter.__file__).parent / "packaging" / "files"
RULES, DASHBOARD = FILES / "prometheus-rules.yml", FILES / "grafana-dashboard.json"
NEVER_FULL = {"tollbridge_table_full_total"}  # the kernel of these figures counts none
# Figures for whoever asks himself; the others are in the dashboard or in a rule.
NOT_DRAWN = {
    *("tollbridge_start_time_seconds", "tollbridge_mta_sessions_open", "tollbridge_queue_bytes"),
    *("tollbridge_index_records_total", "tollbridge_index_bytes"),
}


def promtool(*words: str, stdin: str = "") -> str:
    path, environment = tools.program("promtool")
    done = subprocess.run([path, *words], input=stdin, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def page() -> dict[str, Any]:
    return figures.page(STATUS, KERNEL, True, WORDS)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Server, str]]:
    shown, place = Shown("1.2.3"), str(tmp_path / "m.sock")
    shown.take(page(), time.monotonic())
    one = Server(opened(place), shown)
    Thread(target=one.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield one, place
    one.shutdown()
    one.server_close()


def asked(place: str, request: bytes = b"GET /metrics HTTP/1.0\r\n\r\n") -> tuple[str, str]:
    """Head and body."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(20)
        asking.connect(place)
        asking.sendall(request)
        head, _, body = b"".join(iter(lambda: asking.recv(65536), b"")).partition(b"\r\n\r\n")
    return head.decode(), body.decode()


def test_promtool_finds_nothing_to_mend(server: tuple[Server, str]) -> None:
    head, body = asked(server[1])
    assert head.splitlines()[0].endswith("200 OK")
    assert "tollbridge_inspecting 1.0" in body.splitlines()
    assert 'tollbridge_rule_hits_total{rule="a \\"\\\\\\n"} 1.0' in body.splitlines()  # no line of its own
    promtool("check", "metrics", stdin=body)


def test_openmetrics_for_who_asks_for_it(server: tuple[Server, str]) -> None:
    accept = b"GET /metrics HTTP/1.0\r\nAccept: application/openmetrics-text; version=1.0.0\r\n\r\n"
    head, body = asked(server[1], accept)
    assert "application/openmetrics-text" in head
    assert body.endswith("# EOF\n")


def test_figures_that_are_old_are_none() -> None:
    shown = Shown("1")
    shown.take(page(), time.monotonic() - exporter.STALE_S - 1)
    assert [(sample.name, sample.value) for family in shown.collect() for sample in family.samples] == [
        ("tollbridge_up", 0.0)
    ]


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET /metrics/../etc/passwd HTTP/1.0\r\n\r\n",
        b"GET /\x1b[2J<script> HTTP/1.0\r\n\r\n",
        b"POST /metrics HTTP/1.0\r\nContent-Length: 99999999\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.0\r\n\r\n",
        b"GET /metrics HTTP/1.0\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"EHLO x\r\n",
        b"\x16\x03\x01\x00\xa5\x01\r\n\r\n",
    ],
)
def test_all_else_is_refused_and_it_goes_on(server: tuple[Server, str], request_: bytes) -> None:
    try:
        head, body = asked(server[1], request_)
    except (BrokenPipeError, ConnectionResetError):
        head = body = ""
    assert "tollbridge_" not in body
    assert "200 OK" not in head
    assert "<script>" not in body
    assert "tollbridge_up 1.0" in asked(server[1])[1]


def test_who_says_nothing_holds_no_place_for_long(server: tuple[Server, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter._Handler, "timeout", 0.3)
    silent = [socket.socket(socket.AF_UNIX) for _ in range(AT_ONCE)]
    for each in silent:
        each.connect(server[1])
    deadline_at = time.monotonic() + 60
    while "tollbridge_up" not in _tried(server[1]):
        assert time.monotonic() < deadline_at
        time.sleep(0.05)
    for each in silent:
        each.close()


def test_who_speaks_octet_by_octet_is_cut_off(server: tuple[Server, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "PATIENCE_S", 0.2)
    with socket.socket(socket.AF_UNIX) as slow:
        slow.settimeout(5)
        slow.connect(server[1])
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            _drip(slow, time.monotonic() + 60)


def _drip(slow: socket.socket, until_at: float) -> None:
    while time.monotonic() < until_at:
        slow.sendall(b"G")
        time.sleep(0.02)


def _tried(place: str) -> str:
    try:
        return asked(place)[1]
    except OSError:
        return ""


def test_a_socket_of_an_earlier_life_is_taken_and_nothing_else(tmp_path: Path) -> None:
    opened(str(tmp_path / "m.sock")).close()
    opened(str(tmp_path / "m.sock")).close()
    assert (tmp_path / "m.sock").stat().st_mode & 0o777 == exporter.SOCKET_MODE
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="in use"):
        opened(str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "mine"


def test_at_an_address() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    listener = opened(f"127.0.0.1:{port}")
    assert listener.getsockname() == ("127.0.0.1", port)
    listener.close()


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("127.0.0.1", "127.0.0.1:9725"),
        ("198.51.100.2:9000", "198.51.100.2:9000"),
        ("[2001:db8::2]:9000", "[2001:db8::2]:9000"),
        ("/run/tollbridge/metrics.sock", "/run/tollbridge/metrics.sock"),
        *((bad, "") for bad in ("0.0.0.0:9725", "[::]:9725", "224.0.0.1", "host.example.com", "", "m.sock", "/", "9")),
    ],
)
def test_where_it_may_listen(given: str, found: str, tmp_path: Path) -> None:
    text = f'[bridge]\nports = ["p0", "p1"]\n[metrics]\nlisten = "{given}"\n'
    if found:
        assert parse(text, tmp_path).metrics.listen == found
        return
    with pytest.raises(ConfigErrors, match=r"metrics\.listen"):
        parse(text, tmp_path)


def known() -> set[str]:
    shown = Shown("1")
    shown.take(page(), time.monotonic())
    return {sample.name for family in shown.collect() for sample in family.samples}


def words(text: str) -> set[str]:
    return set(re.findall(r"\btollbridge_[a-z_]+", text))


def test_rules_and_dashboard_ask_for_what_there_is() -> None:
    names, panels = known(), json.loads(DASHBOARD.read_text())["panels"]
    rules = words(RULES.read_text())
    drawn = words("\n".join(target["expr"] for panel in panels for target in panel["targets"]))
    assert (rules | drawn) - names == NEVER_FULL
    assert names - drawn - rules == NOT_DRAWN
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_promtool_reads_the_rules() -> None:
    assert "13 rules found" in promtool("check", "rules", str(RULES))


CASES = """
rule_files: [RULES]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'tollbridge_inspecting{instance="box"}', values: '1x5 0x30'}
      - {series: 'tollbridge_not_inspected_total{instance="box", reason="rate"}', values: '0+60x40'}
      - {series: 'tollbridge_not_inspected_total{instance="box", reason="encrypted"}', values: '0+600x40'}
      - {series: 'tollbridge_connections_total{instance="box", action="incoming.intercept"}', values: '0+600x40'}
      - {series: 'tollbridge_queue_oldest_seconds{instance="box"}', values: '60x40'}
    alert_rule_test:
      - {eval_time: 4m, alertname: TollbridgeNotInspecting, exp_alerts: []}
      - eval_time: 8m
        alertname: TollbridgeNotInspecting
        exp_alerts:
          - exp_labels: {severity: critical, instance: box}
            exp_annotations:
              summary: box does not inspect mail
              description: Mail crosses unread, or with on_failure = "block" not at all. tollbridge doctor says why
      - {eval_time: 30m, alertname: TollbridgeQueueOld, exp_alerts: []}
      - eval_time: 30m
        alertname: TollbridgeUninspected
        exp_alerts:
          - exp_labels: {severity: warning, instance: box}
            exp_annotations:
              summary: "box: more than one connection in twenty is not inspected"
              description: tollbridge status counts them by reason
"""


def test_the_rules_do_what_they_say(tmp_path: Path) -> None:
    (tmp_path / "cases.yml").write_text(CASES.replace("RULES", str(RULES)))
    assert "SUCCESS" in promtool("test", "rules", str(tmp_path / "cases.yml"))
