"""A dead gateway is a wire: every way to fail, under a load of clients that dial again.

    what fails                       with "pass"                    with "block"     afterwards
    interceptor, diverter or both    mail crosses uninspected       none crosses     inspected again by itself;
      killed                           within 3 s                                      status counts the restarts
    either or both stopped           the same                       none crosses     inspected again at SIGCONT
    both hang for good                                              none crosses     killed and started after 15 s
    supervisor killed                its children go too; crosses                    inspected by the next `run`
    supervisor stopped               inspected all the while
    restarted in good order          crosses                                         inspected
    one interceptor of two killed    inspected by the other
      or stopped
    one diverter of two stopped      of its pairs of hosts                           inspected again at SIGCONT
                                       uninspected, of the others inspected

Two promises are checked on every message of the load: with "pass" it is accepted within 3 s of its client's first
SYN; with "block" what was accepted is in the mail log.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from smtp_intercept.app.ended import lives
from smtp_intercept.app.lab.host import SOON_S, patient
from smtp_intercept.app.lab.mail import MailServer, deliveries, sending
from smtp_intercept.app.lab.network import Lab

pytestmark = [pytest.mark.kernel, pytest.mark.alone, pytest.mark.usefixtures("lanes")]

THROUGH_S = patient(3.0)  # the promise, on a machine
ATTEMPT_S = patient(0.9)  # a client that waits longer for a banner measures itself
STOPPED_S = 5.0
HUNG_S = 15.0  # smtp_intercept.app.daemon.HUNG_S
AGAIN_S = patient(SOON_S)  # a restart's wait, Python's start on a busy machine, a beat
BOTH = ("interceptor", "diverter")
SERVER = "192.0.2.20"
PROTECTED = {"protected": [{"domain": "example.com", "servers": [SERVER]}]}


class Load:
    """A gateway, and clients that send through it one message after the other."""

    def __init__(self, lab: Lab, config: dict[str, Any]) -> None:
        self.lab, self.gateway = lab, lab.gateway
        self.server = MailServer.start(lab.host("server"), SERVER)
        self.gateway.configure({**PROTECTED, **config})
        self.gateway.start()
        pace: dict[str, Any] = {
            "interval": patient(0.08),
            "parallel": 2,
            "timeout": ATTEMPT_S,
            "retries": 100,
            "pause": 0.05,
        }
        self.clients = sending(lab.host("client"), SERVER, sender="{n}@example.net", count=0, **pace)
        self.wait_inspected(0.0)

    @property
    def pids(self) -> dict[str, int]:
        return self.gateway.pids()

    @property
    def logged(self) -> set[str]:
        return {record["sender"] for record in self.gateway.mail_log("message")}

    def signal(self, number: signal.Signals, *names: str) -> dict[str, int]:
        """Send it; the pids as they were."""
        pids = self.pids
        for name in names:
            os.kill(pids[name], number)
        return pids

    def wait_inspected(self, since: float) -> None:
        """Until a message that was begun after ``since`` is in the mail log."""

        def inspected() -> bool:
            logged = self.logged
            return any(m["began_at"] > since and m["sender"] in logged for m in deliveries(self.clients))

        self.wait_until(inspected, AGAIN_S)

    def wait_until(self, true: Callable[[], bool], timeout_s: float) -> None:
        deadline_at = time.monotonic() + timeout_s
        while not true():
            assert time.monotonic() < deadline_at, self.gateway.run_process and self.gateway.run_process.stderr
            time.sleep(0.05)

    def end(self) -> None:
        self.clients.end(grace_s=10)


Failure = Callable[[Load], None]  # does it, and undoes it unless the gateway mends itself


def killed(*names: str) -> Failure:
    def fail(load: Load) -> None:
        before = load.signal(signal.SIGKILL, *names)
        load.wait_until(lambda: all(load.pids.get(name, before[name]) != before[name] for name in names), AGAIN_S)

    return fail


def stopped(*names: str) -> Failure:
    def fail(load: Load) -> None:
        load.signal(signal.SIGSTOP, *names)
        time.sleep(STOPPED_S)
        load.signal(signal.SIGCONT, *names)

    return fail


def hang(load: Load) -> None:
    before = load.signal(signal.SIGSTOP, *BOTH)
    load.wait_until(lambda: all(load.pids.get(name, before[name]) != before[name] for name in BOTH), HUNG_S + AGAIN_S)


def one_after_the_other(load: Load) -> None:
    def reported(name: str) -> bool:
        """The new one is at work, and not only started."""
        report = load.gateway.state()["each"]["interceptor"][name]
        return bool(report) and report["pid"] == load.pids[name]

    for name in SEVERAL:
        killed(name)(load)
        load.wait_until(lambda name=name: reported(name), AGAIN_S)  # type: ignore[misc]


def orphan(load: Load) -> None:
    before = load.signal(signal.SIGKILL, "supervisor")
    load.wait_until(lambda: not any(lives(pid) for pid in before.values()), THROUGH_S)
    time.sleep(THROUGH_S)
    load.gateway.spawn_daemon()


def restart(load: Load) -> None:
    load.gateway.stop(down=False)
    time.sleep(1.0)
    load.gateway.spawn_daemon()


@dataclass(frozen=True)
class Outcome:
    """What became of the messages of which a part fell between the failure and the first one inspected again."""

    messages: list[dict[str, Any]]
    failed_at: float
    mended_at: float
    logged: set[str]
    before: dict[str, int]
    after: dict[str, int]
    status: str

    @property
    def restarts(self) -> dict[str, int]:
        """Of this story alone, whichever were told before it; a new supervisor counts anew."""
        if any(self.after[name] < self.before[name] for name in self.before):
            return self.after
        return {name: times - self.before[name] for name, times in self.after.items()}

    @property
    def slowest_s(self) -> float:
        return max(accepted_at(message) - float(message["began_at"]) for message in self.messages)

    @property
    def lost(self) -> list[dict[str, Any]]:
        return [message for message in self.messages if not message["accepted"]]

    @property
    def unseen(self) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["sender"] not in self.logged]


def accepted_at(message: dict[str, Any]) -> float:
    return float(message["attempts"][-1]["at"])


def watch(load: Load, failure: Failure) -> Outcome:
    before, failed_at = load.gateway.state()["restarts"], time.time()
    failure(load)
    mended_at = time.time()
    load.wait_inspected(mended_at)
    until = time.time()
    # A message that a client still has in hand is told only when it has been accepted.
    load.wait_until(lambda: sum(m["began_at"] > until for m in deliveries(load.clients)) >= 4, AGAIN_S)
    messages = [m for m in deliveries(load.clients) if m["began_at"] < until and accepted_at(m) > failed_at]
    status = load.gateway.tollbridge("status").stdout
    return Outcome(messages, failed_at, mended_at, load.logged, before, load.gateway.state()["restarts"], status)


# Four gateways, side by side: most of it is waiting.
GATEWAYS: dict[str, dict[str, Any]] = {
    "stopped": {},
    "killed": {},
    "blocking": {"bridge": {"on_failure": "block"}},
    "several": {"interceptor": {"workers": 2}, "diverter": {"queues": 2}},
}
SEVERAL = ("interceptor-1", "interceptor-2")
STORIES: dict[str, tuple[str, Failure]] = {
    "interceptor stopped": ("stopped", stopped("interceptor")),
    "diverter stopped": ("stopped", stopped("diverter")),
    "both stopped": ("stopped", stopped(*BOTH)),
    "supervisor stopped": ("stopped", stopped("supervisor")),
    "interceptor killed": ("killed", killed("interceptor")),
    "diverter killed": ("killed", killed("diverter")),
    "both killed": ("killed", killed(*BOTH)),
    "supervisor killed": ("killed", orphan),
    "restarted": ("killed", restart),
    "blocking, interceptor stopped": ("blocking", stopped("interceptor")),
    "blocking, diverter stopped": ("blocking", stopped("diverter")),
    "blocking, both killed": ("blocking", killed(*BOTH)),
    "blocking, both hang": ("blocking", hang),
    "one interceptor stopped": ("several", stopped(SEVERAL[0])),
    "one diverter stopped": ("several", stopped("diverter-1")),
    "the other diverter stopped": ("several", stopped("diverter-2")),
    "one interceptor killed": ("several", killed(SEVERAL[0])),
    "one after the other killed": ("several", one_after_the_other),
    "all interceptors killed": ("several", killed(*SEVERAL)),
}
OTHERS_GO_ON = ("one interceptor stopped", "one interceptor killed", "one after the other killed")
# One pair of hosts has one of the diverters.
ONE_OF_TWO = ("one diverter stopped", "the other diverter stopped")
PASSING = [name for name, (gateway, _) in STORIES.items() if gateway != "blocking"]
BLOCKING = [name for name, (gateway, _) in STORIES.items() if gateway == "blocking"]


def asked_for(request: pytest.FixtureRequest) -> list[str]:
    """The stories that the tests of this run name, and no others: each takes its time."""
    tests = [item.nodeid for item in request.session.items if item.path == request.path]
    return [name for name in STORIES if any(name in test for test in tests)]


def tell(gateway: str, load: Load, names: list[str]) -> Iterator[tuple[str, Future[Outcome]]]:
    """One gateway's stories, one after the other; one that fails does not keep the next from being told."""
    for name in names:
        where, failure = STORIES[name]
        if where == gateway:
            future: Future[Outcome] = Future()
            try:
                future.set_result(watch(load, failure))
            except Exception as error:
                future.set_exception(error)
            yield name, future


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, lanes: None) -> Iterator[dict[str, Future[Outcome]]]:
    names = asked_for(request)
    gateways = {STORIES[name][0] for name in names}
    with ExitStack() as labs, ThreadPoolExecutor(len(gateways)) as pool:
        loads = {name: Load(labs.enter_context(Lab()), GATEWAYS[name]) for name in gateways}
        told = [pool.submit(lambda *about: dict(tell(*about)), name, load, names) for name, load in loads.items()]
        yield {name: outcome for stories in told for name, outcome in stories.result().items()}
        for load in loads.values():
            load.end()


@pytest.mark.parametrize("name", PASSING)
def test_who_dials_again_gets_through(outcomes: dict[str, Future[Outcome]], name: str) -> None:
    outcome = outcomes[name].result()
    assert len(outcome.messages) > 4
    assert outcome.lost == []
    assert outcome.slowest_s <= THROUGH_S


@pytest.mark.parametrize(
    "name", [name for name in PASSING if name not in ("supervisor stopped", *OTHERS_GO_ON, *ONE_OF_TWO)]
)
def test_what_crossed_meanwhile_was_not_inspected(outcomes: dict[str, Future[Outcome]], name: str) -> None:
    """It was dead indeed."""
    assert outcomes[name].result().unseen != []


@pytest.mark.parametrize("name", ["supervisor stopped"])
def test_the_supervisor_is_in_nobodys_way(outcomes: dict[str, Future[Outcome]], name: str) -> None:
    assert outcomes[name].result().unseen == []


@pytest.mark.parametrize("name", OTHERS_GO_ON)
def test_while_one_interceptor_of_two_lives_all_mail_is_inspected(
    outcomes: dict[str, Future[Outcome]], name: str
) -> None:
    assert outcomes[name].result().unseen == []


@pytest.mark.parametrize("names", [ONE_OF_TWO], ids=[", ".join(ONE_OF_TWO)])
def test_of_two_diverters_a_dead_one_opens_its_own_queue_alone(
    outcomes: dict[str, Future[Outcome]], names: tuple[str, ...]
) -> None:
    unseen = [bool(outcomes[name].result().unseen) for name in names]
    assert sorted(unseen) == [False, True]


@pytest.mark.parametrize("name", BLOCKING)
def test_with_block_none_crosses_unseen(outcomes: dict[str, Future[Outcome]], name: str) -> None:
    outcome = outcomes[name].result()
    assert len(outcome.messages) > 0
    assert outcome.lost == []
    assert outcome.unseen == []


@pytest.mark.parametrize("name", ["blocking, interceptor stopped", "blocking, both hang"])
def test_with_block_none_crosses_at_all_while_it_stands_still(outcomes: dict[str, Future[Outcome]], name: str) -> None:
    outcome = outcomes[name].result()
    until = outcome.failed_at + (STOPPED_S if "stopped" in name else HUNG_S)
    assert [m for m in outcome.messages if outcome.failed_at + 0.2 < accepted_at(m) < until - 0.2] == []


@pytest.mark.parametrize(
    ("name", "restarts"),
    [
        ("interceptor stopped", {"interceptor": 0, "diverter": 0}),
        ("interceptor killed", {"interceptor": 1, "diverter": 0}),
        ("diverter killed", {"interceptor": 0, "diverter": 1}),
        ("both killed", {"interceptor": 1, "diverter": 1}),
        ("restarted", {"interceptor": 0, "diverter": 0}),
        ("blocking, both hang", {"interceptor": 1, "diverter": 1}),
        ("one interceptor stopped", {**dict.fromkeys(SEVERAL, 0), "diverter-1": 0, "diverter-2": 0}),
        ("all interceptors killed", {SEVERAL[0]: 1, SEVERAL[1]: 1, "diverter-1": 0, "diverter-2": 0}),
    ],
)
def test_the_status_names_the_restarts(
    outcomes: dict[str, Future[Outcome]], name: str, restarts: dict[str, int]
) -> None:
    outcome = outcomes[name].result()
    assert outcome.restarts == {**restarts, "resolver": 0}
    for process, times in outcome.after.items():
        assert (f"! {process} was started again {times} times" in outcome.status) is bool(times)
