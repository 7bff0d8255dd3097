"""Protected servers by name: the laws of keeping, and a real DNS server whose answers change, fail and come back."""

from __future__ import annotations

import ast
import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import dns.asyncresolver
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp_intercept.direction import Servers
from smtp_intercept.names import (
    GOOD,
    Answer,
    Limits,
    Outcome,
    Question,
    Standing,
    after,
    read_domain,
    read_server,
    retry_s,
    split,
    table,
)
from smtp_intercept.protected import NameState, ProtectedServers
from tests.smtp.nsd import ADDRESS, Nsd

LIMITS = Limits()
MAIL = Question("mail.example.com")

answers = st.builds(
    Answer,
    st.sampled_from([outcome for outcome in Outcome if outcome is not Outcome.PENDING]),
    st.frozensets(st.ip_addresses().map(str), max_size=3),
    st.floats(0, 1e6),
)


class TestServerItems:
    @pytest.mark.parametrize(
        ("item", "expected"),
        [
            ("192.0.2.20", "192.0.2.20"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("2001:db8::/64", "2001:db8::/64"),
            ("mail.example.com", Question("mail.example.com")),
            ("Mail.Example.COM.", Question("mail.example.com")),
            ("bücher.example", Question("xn--bcher-kva.example")),
            ("mx", Question("example.org", mx=True)),
            ("MX", Question("example.org", mx=True)),
            ("mx.example.com", Question("mx.example.com")),
        ],
    )
    def test_good(self, item: str, expected: str | Question) -> None:
        assert read_server(item, "Example.ORG.") == expected

    @pytest.mark.parametrize(
        ("item", "reason"),
        [
            ("", "does not appear to be"),
            ("192.0.2.256", "does not appear to be"),
            ("192.0.2.1/24", "has host bits set"),
            ("192.0.2.0/33", "does not appear to be"),
            ("2001:db8::1::2", "does not appear to be"),
            ("fe80::1%eth0", "zone"),
            ("mail.example.com:25", "does not appear to be"),
            ("mail", "is not a full name"),
            ("mail.example.com ", "is not a name"),
            ("-mail.example.com", "is not a name"),
            ("mail..example.com", "is not a name"),
            ("mail.example.1", "is not a name"),
            ("a" * 64 + ".example", "longer than a name may be"),
            ("a." * 126 + "example", "longer than a name may be"),
        ],
    )
    def test_bad(self, item: str, reason: str) -> None:
        with pytest.raises(ValueError, match=reason):
            read_server(item, "example.org")

    def test_a_name_of_253_octets_is_the_longest(self) -> None:
        longest = "a." * 125 + "com"
        assert len(longest) == 253
        assert read_domain(longest) == longest
        with pytest.raises(ValueError, match="longer"):
            read_domain("a" + longest)

    def test_names_are_asked_once_however_often_they_are_named(self) -> None:
        protected = [("example.com", ["mx", "192.0.2.1", "MX"]), ("example.org", ["mx", "192.0.2.1", "a.example"])]
        literals, questions = split(protected)
        assert literals == ("192.0.2.1",)
        assert questions == (Question("example.com", True), Question("example.org", True), Question("a.example"))


class TestKeeping:
    @pytest.mark.parametrize(
        ("ttl_s", "wait_s"), [(0, 30), (29, 30), (30, 30), (31, 31), (3600, 3600), (3601, 3600), (float("inf"), 3600)]
    )
    def test_an_answer_stands_for_its_ttl_within_limits(self, ttl_s: float, wait_s: float) -> None:
        standing = after(Standing(MAIL), Answer(Outcome.ANSWERED, frozenset({"192.0.2.1"}), ttl_s), 1000.0, LIMITS)
        assert standing.refresh_at == 1000.0 + wait_s

    def test_retries_grow_from_15_to_300_seconds(self) -> None:
        assert [retry_s(failures, LIMITS) for failures in range(7)] == [15, 30, 60, 120, 240, 300, 300]
        assert retry_s(10**9, LIMITS) == 300

    def test_a_good_answer_ends_the_row_of_failures(self) -> None:
        standing = Standing(MAIL)
        for answer in (
            Answer(Outcome.FAILED),
            Answer(Outcome.FAILED),
            Answer(Outcome.ANSWERED),
            Answer(Outcome.FAILED),
        ):
            standing = after(standing, answer, 0.0, LIMITS)
        assert (standing.failures, standing.refresh_at) == (1, 15.0)

    @given(st.lists(answers, max_size=12))
    def test_only_a_good_answer_takes_an_address_away(self, history: list[Answer]) -> None:
        standing, now = Standing(MAIL), 0.0
        for answer in history:
            before, standing = standing, after(standing, answer, now, LIMITS)
            if answer.outcome in GOOD:
                assert standing.addresses == answer.addresses
                assert standing.answered_at == now
            else:
                assert standing.addresses == before.addresses | answer.addresses
                assert standing.answered_at == before.answered_at
                assert standing.error
            wait_s = round(standing.refresh_at - now, 6)  # a sum of floats and its difference
            assert LIMITS.retry_min_s <= wait_s <= LIMITS.ttl_max_s
            now = standing.refresh_at

    def test_the_table_is_literals_and_all_names(self) -> None:
        standings = [
            Standing(MAIL, frozenset({"192.0.2.1"})),
            Standing(Question("b.example"), frozenset({"2001:db8::1"})),
        ]
        assert table(["10.0.0.0/8"], standings) == Servers.of(["10.0.0.0/8", "192.0.2.1", "2001:db8::1"])


FAST = Limits(ttl_min_s=0.2, ttl_max_s=1.0, retry_min_s=0.1, retry_max_s=0.4, query_timeout_s=0.5)

EXAMPLE = """\
@     MX 10 mail
@     MX 20 backup
mail  A    192.0.2.20
mail  AAAA 2001:db8::20
backup A   192.0.2.21
v6    AAAA 2001:db8::6
alias CNAME mail
far   CNAME host.example.org.
out   CNAME mail.unserved.example.
loop  CNAME loop.example.org.
empty TXT "no address here"
half  MX 10 mail
half  MX 20 mx.broken.example.
dead  MX 10 mx.broken.example.
gone  MX 10 nobody
toalias MX 10 alias
"""
ORG = """\
@     A 192.0.2.30
@     AAAA 2001:db8::30
host  A 192.0.2.31
loop  CNAME loop.example.com.
"""
ZONES = {
    "example.com": EXAMPLE,
    "example.org": ORG,
    "null.example": "@ MX 0 .\n@ A 192.0.2.99\n",
    "broken.example": None,
}


@pytest.fixture(scope="module")
def nsd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nsd]:
    server = Nsd(Path(tmp_path_factory.mktemp("nsd")))
    yield server
    server.stop()


@pytest.fixture
def served(nsd: Nsd) -> Nsd:
    nsd.start(ZONES)
    return nsd


def once(nsd: Nsd, domain: str, *items: str, limits: Limits = FAST) -> tuple[Servers, tuple[NameState, ...]]:
    async def look() -> tuple[Servers, tuple[NameState, ...]]:
        protected = ProtectedServers([(domain, items)], resolver=nsd.resolver, limits=limits)
        return await protected.resolve_once(), protected.state()

    return asyncio.run(look())


class TestOneLookUp:
    @pytest.mark.parametrize(
        ("domain", "item", "addresses"),
        [
            ("example.com", "mail.example.com", ["192.0.2.20", "2001:db8::20"]),
            ("example.com", "backup.example.com", ["192.0.2.21"]),
            ("example.com", "v6.example.com", ["2001:db8::6"]),
            ("example.com", "alias.example.com", ["192.0.2.20", "2001:db8::20"]),
            ("example.com", "far.example.com", ["192.0.2.31"]),
            ("example.com", "mx", ["192.0.2.20", "192.0.2.21", "2001:db8::20"]),
            ("toalias.example.com", "mx", ["192.0.2.20", "2001:db8::20"]),
            ("example.org", "mx", ["192.0.2.30", "2001:db8::30"]),  # the implicit MX
        ],
    )
    def test_answered(self, served: Nsd, domain: str, item: str, addresses: list[str]) -> None:
        servers, (state,) = once(served, domain, item)
        assert servers == Servers.of(addresses)
        assert state.addresses == tuple(addresses)
        assert (state.outcome, state.error) == (Outcome.ANSWERED, None)
        assert state.age_s is not None
        assert 0 < state.next_refresh_s <= 1.0

    @pytest.mark.parametrize(
        ("domain", "item", "outcome", "error"),
        [
            ("example.com", "nobody.example.com", Outcome.ABSENT, "does not exist"),
            ("nobody.example.com", "mx", Outcome.ABSENT, "does not exist"),
            ("gone.example.com", "mx", Outcome.ABSENT, "does not exist"),
            ("example.com", "empty.example.com", Outcome.EMPTY, "no address"),
            ("empty.example.com", "mx", Outcome.EMPTY, "no address"),
            ("broken.example", "mx", Outcome.FAILED, "SERVFAIL"),
            ("example.com", "mx.broken.example", Outcome.FAILED, "SERVFAIL"),
            ("dead.example.com", "mx", Outcome.FAILED, "SERVFAIL"),
            ("example.com", "mail.unserved.example", Outcome.FAILED, "REFUSED"),
            ("example.com", "out.example.com", Outcome.EMPTY, "no address"),
            ("example.com", "loop.example.com", Outcome.FAILED, "CNAME"),
            ("null.example", "mx", Outcome.NULL_MX, "takes no mail"),
        ],
    )
    def test_no_address_and_the_reason(self, served: Nsd, domain: str, item: str, outcome: Outcome, error: str) -> None:
        servers, (state,) = once(served, domain, item)
        assert servers == Servers()
        assert state.outcome is outcome
        assert error in (state.error or "")

    def test_half_an_answer_is_used_and_named(self, served: Nsd) -> None:
        servers, (state,) = once(served, "half.example.com", "mx")
        assert servers == Servers.of(["192.0.2.20", "2001:db8::20"])
        assert state.outcome is Outcome.INCOMPLETE
        assert "SERVFAIL" in (state.error or "")

    def test_a_bad_name_does_not_harm_the_others(self, served: Nsd) -> None:
        servers, states = once(served, "example.com", "nobody.example.com", "192.0.2.1", "backup.example.com")
        assert servers == Servers.of(["192.0.2.1", "192.0.2.21"])
        assert [state.outcome for state in states] == [Outcome.ABSENT, Outcome.ANSWERED]

    def test_no_resolver_at_all(self, tmp_path: Path) -> None:
        """A box that boots before its network has no resolv.conf yet."""

        def without_configuration() -> dns.asyncresolver.Resolver:
            return dns.asyncresolver.Resolver(filename=str(tmp_path / "resolv.conf"))

        protected = ProtectedServers([("example.com", ["mx", "192.0.2.1"])], resolver=without_configuration)
        assert asyncio.run(protected.resolve_once()) == Servers.of(["192.0.2.1"])
        assert protected.state()[0].outcome is Outcome.FAILED

    def test_whose_servers_they_are(self, served: Nsd) -> None:
        items = [("example.com", ["mail.example.com"]), ("example.net", ["192.0.2.0/24"]), ("example.org", ["mx"])]
        protected = ProtectedServers(items, resolver=served.resolver, limits=FAST)
        seen = [protected.serving]
        asyncio.run(protected.resolve_once())
        seen.append(protected.serving)
        for address, before, after_answers in (
            ("192.0.2.20", ("example.net",), ("example.com", "example.net")),
            ("192.0.2.30", ("example.net",), ("example.org", "example.net")),
            ("2001:db8::30", (), ("example.org",)),
            ("198.51.100.1", (), ()),
        ):
            packed = ip_address(address).packed
            assert [serving.by(packed) for serving in seen] == [before, after_answers]

    def test_literals_need_no_dns(self) -> None:
        def none_needed() -> dns.asyncresolver.Resolver:
            raise AssertionError

        protected = ProtectedServers([("example.com", ["192.0.2.1", "2001:db8::/64"])], resolver=none_needed)
        assert protected.servers == Servers.of(["192.0.2.1", "2001:db8::/64"])
        assert asyncio.run(protected.resolve_once()) == protected.servers


class TestBounds:
    def zone(self, nsd: Nsd, records: str) -> None:
        nsd.start({"example.com": records})

    def test_64_addresses_of_one_name_are_kept(self, nsd: Nsd) -> None:
        self.zone(
            nsd, "".join(f"{name} A 192.0.2.{n}\n" for name, count in (("a", 64), ("b", 65)) for n in range(count))
        )
        _, (a, b) = once(nsd, "example.com", "a.example.com", "b.example.com", limits=LIMITS)
        assert (len(a.addresses), a.error) == (64, None)
        assert len(b.addresses) == 64
        assert "65 addresses" in (b.error or "")

    def test_32_hosts_of_one_domain_are_asked_for_the_preferred_first(self, nsd: Nsd) -> None:
        hosts = "".join(f"@ MX {n} h{n}\nh{n} A 192.0.2.{n}\n" for n in range(33))
        self.zone(nsd, hosts)
        servers, (state,) = once(nsd, "example.com", "mx", limits=LIMITS)
        assert servers == Servers.of([f"192.0.2.{n}" for n in range(32)])
        assert "33 MX hosts" in (state.error or "")

    def test_8_queries_at_once(self, nsd: Nsd) -> None:
        self.zone(nsd, "".join(f"h{n} A 192.0.2.{n}\n" for n in range(20)))
        asking, most = 0, 0

        class Counted(dns.asyncresolver.Resolver):
            async def resolve(self, *args: Any, **kwargs: Any) -> Any:
                nonlocal asking, most
                asking += 1
                most = max(most, asking)
                try:
                    return await super().resolve(*args, **kwargs)
                finally:
                    asking -= 1

        def resolver() -> dns.asyncresolver.Resolver:
            counted = Counted(configure=False)
            counted.nameservers, counted.port = nsd.resolver().nameservers, nsd.resolver().port
            return counted

        names = [f"h{n}.example.com" for n in range(20)]
        protected = ProtectedServers([("example.com", names)], resolver=resolver)
        asyncio.run(protected.resolve_once())
        assert most == LIMITS.queries


class Running:
    """`ProtectedServers.run` beside a story; what the story does to the DNS server happens in a thread."""

    def __init__(self, nsd: Nsd, *items: str) -> None:
        self.tables: list[Servers] = []
        self.protected = ProtectedServers(
            [("example.com", items)], self.tables.append, resolver=nsd.resolver, limits=FAST
        )

    async def until(self, condition: Callable[[], bool], within_s: float = 10.0) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline, self.protected.state()
            await asyncio.sleep(0.02)

    async def until_outcome(self, outcome: Outcome) -> NameState:
        await self.until(lambda: self.protected.state()[0].outcome is outcome)
        return self.protected.state()[0]

    def tell(self, story: Coroutine[Any, Any, None]) -> None:
        async def both() -> None:
            run = asyncio.create_task(self.protected.run())
            try:
                await story
                assert not run.done()
            finally:
                run.cancel()
                await asyncio.gather(run, return_exceptions=True)

        asyncio.run(both())


class TestOverTime:
    def test_an_answer_that_changes_is_noticed(self, nsd: Nsd) -> None:
        nsd.start({"example.com": "mail A 192.0.2.20\n"})
        running = Running(nsd, "mail.example.com", "10.0.0.1")

        async def story() -> None:
            await running.until(lambda: running.tables == [Servers.of(["10.0.0.1", "192.0.2.20"])])
            await asyncio.to_thread(nsd.start, {"example.com": "mail A 192.0.2.40\nmail AAAA 2001:db8::40\n"})
            await running.until(lambda: len(running.tables) == 2)

        running.tell(story())
        assert running.tables[1] == Servers.of(["10.0.0.1", "192.0.2.40", "2001:db8::40"]) == running.protected.servers

    def test_the_dns_goes_down_and_the_last_good_answer_stays(self, nsd: Nsd, caplog: pytest.LogCaptureFixture) -> None:
        nsd.start({"example.com": "@ MX 10 mail\nmail A 192.0.2.20\n"})
        running = Running(nsd, "mx")
        good = Servers.of(["192.0.2.20"])

        async def story() -> None:
            await running.until_outcome(Outcome.ANSWERED)
            await asyncio.to_thread(nsd.stop)
            down = await running.until_outcome(Outcome.FAILED)
            assert (down.name, down.addresses) == ("MX of example.com", ("192.0.2.20",))
            assert down.error
            await running.until(lambda: (running.protected.state()[0].age_s or 0) > 2)
            assert running.protected.servers == good
            await asyncio.to_thread(nsd.start, {"example.com": "@ MX 10 mail\nmail A 192.0.2.20\n"})
            back = await running.until_outcome(Outcome.ANSWERED)
            assert back.error is None

        running.tell(story())
        assert running.tables == [good]
        assert [record.levelname for record in caplog.records if record.name == "smtp_intercept.protected"] == [
            "WARNING"
        ]

    @pytest.mark.parametrize(
        ("records", "outcome"),
        [
            (None, Outcome.FAILED),  # SERVFAIL
            ("", Outcome.ABSENT),  # NXDOMAIN
            ('mail TXT "moved"\n', Outcome.EMPTY),  # NoAnswer
        ],
    )
    def test_a_name_that_fails_or_vanishes_keeps_its_last_good_answer(
        self, nsd: Nsd, records: str | None, outcome: Outcome
    ) -> None:
        nsd.start({"example.com": "mail A 192.0.2.20\n"})
        running = Running(nsd, "mail.example.com")

        async def story() -> None:
            await running.until_outcome(Outcome.ANSWERED)
            await asyncio.to_thread(nsd.start, {"example.com": records})
            state = await running.until_outcome(outcome)
            assert state.addresses == ("192.0.2.20",)

        running.tell(story())
        assert running.tables == [Servers.of(["192.0.2.20"])]

    def test_a_null_mx_is_an_answer_and_takes_the_addresses_away(self, nsd: Nsd) -> None:
        nsd.start({"example.com": "@ MX 10 mail\nmail A 192.0.2.20\n"})
        running = Running(nsd, "mx")

        async def story() -> None:
            await running.until_outcome(Outcome.ANSWERED)
            await asyncio.to_thread(nsd.start, {"example.com": "@ MX 0 .\nmail A 192.0.2.20\n"})
            await running.until_outcome(Outcome.NULL_MX)

        running.tell(story())
        assert running.tables == [Servers.of(["192.0.2.20"]), Servers()]

    def test_a_dead_name_does_not_delay_a_living_one(self, nsd: Nsd) -> None:
        nsd.start({**ZONES, "example.com": "mail A 192.0.2.20\n"})
        running = Running(nsd, "x.broken.example", "mail.example.com")
        running.tell(running.until(lambda: running.tables == [Servers.of(["192.0.2.20"])], within_s=3))


CONFINED = """
import asyncio, sys
import dns.asyncresolver
from smtp_intercept.protected import ProtectedServers

def resolver():
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = [sys.argv[1]], int(sys.argv[2])
    return resolver

class Unreadable:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in sys.stdlib_module_names:
            raise ImportError(name)

protected = ProtectedServers([("example.com", ["mx"]), ("example.org", ["mail.example.com"])], resolver=resolver)
sys.meta_path.insert(0, Unreadable())
asyncio.run(protected.resolve_once())
print([(state.name, len(state.addresses), state.error) for state in protected.state()])
"""


def test_names_are_resolved_by_a_process_that_may_not_read_its_own_program_any_more(served: Nsd) -> None:
    """As the interceptor is, when it is nobody and the checkout root's."""
    command = [sys.executable, "-c", CONFINED, ADDRESS, str(served.port)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    names = ast.literal_eval(done.stdout or "None")
    assert names, done.stderr
    assert [(count > 0, error) for _, count, error in names] == [(True, None)] * 2, names


def test_without_names_run_ends_by_cancellation_only() -> None:
    async def run() -> None:
        protected = ProtectedServers([("example.com", ["192.0.2.1"])])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(protected.run(), 0.1)

    asyncio.run(run())


def test_limits_are_ordered() -> None:
    assert LIMITS.ttl_min_s < LIMITS.ttl_max_s
    assert LIMITS.retry_min_s < LIMITS.retry_max_s < LIMITS.ttl_max_s
