"""The unprivileged process that shows figures to Prometheus: over HTTP, at one address or socket, nothing else.

Is told the figures by the daemon and asks nobody; dies or hangs without mail being the worse for it.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from threading import BoundedSemaphore, Thread, Timer
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import CollectorRegistry

from smtp_intercept.app import channel, config, processlog
from smtp_intercept.app.child import read_arguments, settle_in
from smtp_intercept.app.sandbox import myself
from smtp_intercept.mta.nexthop import place_of
from smtp_intercept.watch import figures
from smtp_intercept.watch.figures import PREFIX, Metric, Sort

AT_ONCE = 8  # requests; a scraper is one, and whoever opens more waits for nobody else
PATIENCE_S = 5.0  # for a request that does not come, or an answer that is not read
STALE_S = 10.0  # older figures are none: the daemon stands still
NICE = 10
PATH = "/metrics"
SOCKET_MODE = 0o660
_FAMILIES: dict[Sort, type[CounterMetricFamily] | type[GaugeMetricFamily]] = {
    Sort.COUNTER: CounterMetricFamily,
    Sort.GAUGE: GaugeMetricFamily,
}
_LOG = logging.getLogger("tollbridge")


class Shown:
    """The latest figures, as a collector of `prometheus_client`."""

    def __init__(self, version: str) -> None:
        self._version, self._page, self._at = version, dict[str, Any](), float("-inf")

    def take(self, page: dict[str, Any], now: float) -> None:
        self._page, self._at = page, now

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Nothing of figures that are old."""
        fresh = time.monotonic() - self._at < STALE_S
        yield family(Metric("up", Sort.GAUGE, "Whether the daemon has told figures lately.", (("", float(fresh)),)))
        for metric in figures.metrics(self._page, self._version) if fresh else ():
            if metric.samples:
                yield family(metric)


def family(metric: Metric) -> CounterMetricFamily | GaugeMetricFamily:
    labels = [metric.label] if metric.label else []
    made = _FAMILIES[metric.sort](f"{PREFIX}{metric.name}", metric.text, labels=labels)
    for value, number in metric.samples:
        made.add_metric([value] if metric.label else [], number)
    return made


class Server(ThreadingHTTPServer):
    """Serves a listener that was opened with privilege; `AT_ONCE` requests, each within `PATIENCE_S`."""

    daemon_threads = True

    def __init__(self, listener: socket.socket, shown: Shown) -> None:
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket, self.registry = listener, CollectorRegistry()
        self.registry.register(shown)
        self._places = BoundedSemaphore(AT_ONCE)

    def get_request(self) -> tuple[socket.socket, Any]:
        request, address = super().get_request()
        return request, address or ("a local program", 0)  # who connects to a unix socket has no name

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        end = Timer(2 * PATIENCE_S, _cut, [request])  # of one that comes octet by octet, or is read so
        end.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            end.cancel()
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever goes away, or says nothing, is no news."""


def _cut(request: socket.socket) -> None:
    with suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = PATIENCE_S
    server_version, sys_version = "tollbridge", ""

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != PATH:
            self.send_error(404, explain=f"Figures are at {PATH}.")
            return
        encode, kind = choose_encoder(self.headers.get("Accept", ""))
        body = encode(self.server.registry)
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its caller's name for it
        """Requests are not logged."""


def opened(at: str) -> socket.socket:
    """The listener of `metrics.listen`, with privilege. OSError."""
    if at.startswith("/"):
        listener = _local(Path(at))
    else:
        place = place_of(at)
        listener = socket.socket(socket.AF_INET6 if ":" in place.host else socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((place.host, place.port))
    listener.listen(AT_ONCE)
    return listener


def _local(path: Path) -> socket.socket:
    """One that an earlier life has left is taken away; nothing else is. Its group is the directory's, if that is
    setgid: whom it is for."""
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(SOCKET_MODE)
    return listener


def main(argv: list[str] | None = None) -> int:
    """Started by the daemon, with the ends of its channels."""
    processlog.begin()
    arguments = read_arguments("exporter", argv, "figures")
    settings = config.load(arguments.effective)
    stopping, shown = list[int](), Shown(metadata.version("tollbridge"))
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    told, reports = channel.adopt(arguments.figures), channel.adopt(arguments.reports)
    try:
        server = Server(opened(str(settings.metrics.listen)), shown)
        os.nice(NICE)
        settle_in("exporter", arguments, settings)
    except OSError as error:
        _LOG.error("metrics.listen: cannot listen at %s: %s", settings.metrics.listen, error)
        return 1
    Thread(target=server.serve_forever, daemon=True).start()
    while not stopping:
        for page in channel.hear(told):
            shown.take(page, time.monotonic())
        channel.report(reports, myself())
        time.sleep(channel.REPORT_EVERY_S / 4)
    return 0


if __name__ == "__main__":
    sys.exit(main())
