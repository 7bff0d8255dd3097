"""Sockets that speak for others, over loopback: every 127/8 address is everybody's."""

from __future__ import annotations

import asyncio
import socket
import struct
from ipaddress import IPv4Interface, IPv6Interface

import pytest
import uvloop

from smtp_intercept.transparent import DIVERTED, Dialled, Dialler, dial, listen, reset_on_close
from tests import vacant
from tests.unshown import NOT_ROOT

pytestmark = NOT_ROOT.mark  # transparent sockets need CAP_NET_RAW, marks CAP_NET_ADMIN

LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
CLIENT = "127.0.7.1"


def free_port(address: str = CLIENT) -> int:
    return vacant.port(address)


def dialled(loop: object, *arguments: object, **options: object) -> Dialled:
    with asyncio.Runner(loop_factory=loop) as runner:  # type: ignore[arg-type]
        return runner.run(dial(*arguments, **options))  # type: ignore[arg-type]


@LOOPS
def test_a_server_sees_the_clients_own_address_and_port(loop: object) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = free_port()
        result = dialled(loop, (CLIENT, port), server.getsockname(), None)
        assert result.source_port_kept
        assert result.hidden
        accepted, seen = server.accept()
        assert seen == (CLIENT, port)
        assert result.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert not result.sock.getblocking()
        accepted.close()
        result.sock.close()


@LOOPS
def test_of_ipv6_as_well_with_flow_and_scope(loop: object) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        port = free_port()
        result = dialled(loop, ("::1", port, 0, 0), server.getsockname(), None)
        accepted, seen = server.accept()
        assert result.source_port_kept
        assert seen[:2] == ("::1", port)
        accepted.close()
        result.sock.close()


@LOOPS
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_port_that_is_taken_is_replaced_and_told(loop: object, family: socket.AddressFamily) -> None:
    own, home = (CLIENT, "127.0.0.1") if family == socket.AF_INET else ("::1", "::1")
    with socket.create_server((home, 0), family=family) as server, socket.socket(family) as squatter:
        squatter.bind((own, 0))
        port = squatter.getsockname()[1]
        result = dialled(loop, (own, port), server.getsockname(), None)
        accepted, seen = server.accept()
        assert not result.source_port_kept
        assert seen[0] == own
        assert seen[1] != port
        accepted.close()
        result.sock.close()


@LOOPS
def test_a_connection_that_exists_already_is_not_dialled_again(loop: object) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = free_port()
        results = [dialled(loop, (CLIENT, port), server.getsockname(), None) for _ in range(2)]
        assert [result.source_port_kept for result in results] == [True, False]
        for result in results:
            result.sock.close()


@LOOPS
def test_one_port_of_a_client_reaches_two_servers(loop: object) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.2", 0)) as two:
        port = free_port()
        results = [dialled(loop, (CLIENT, port), server.getsockname(), None) for server in (one, two)]
        assert [result.source_port_kept for result in results] == [True, True]
        for result in results:
            result.sock.close()


@LOOPS
def test_a_refusal_is_the_servers(loop: object) -> None:
    with pytest.raises(ConnectionRefusedError):
        dialled(loop, (CLIENT, free_port()), ("127.0.0.1", free_port("127.0.0.1")), None)


def test_the_mark_is_on_the_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        result = dialled(asyncio.new_event_loop, (CLIENT, free_port()), server.getsockname(), DIVERTED)
        assert result.sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == DIVERTED
        result.sock.close()


@pytest.mark.parametrize(
    ("own", "seen_from"),
    [((), "127.0.0.1"), ((IPv6Interface("2001:db8::1/64"), IPv4Interface("127.0.9.9/8")), "127.0.9.9")],
)
def test_not_hidden_the_box_speaks_for_itself(own: tuple[IPv4Interface | IPv6Interface, ...], seen_from: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        result = Dialler(hidden=False, own=own)((CLIENT, 40_000), server.getsockname())
        accepted, seen = server.accept()
        assert seen[0] == seen_from
        assert not result.hidden
        assert not result.source_port_kept
        assert result.sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == 0
        accepted.close()
        result.sock.close()


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.7.9"), (socket.AF_INET6, "::1")])
def test_a_listener_takes_what_any_address_was_dialled_for(family: socket.AddressFamily, address: str) -> None:
    with listen(family, 0, "lo", DIVERTED) as listener:
        port = listener.getsockname()[1]
        assert not listener.getblocking()
        with socket.create_connection((address, port), 5) as client:
            listener.setblocking(True)
            accepted, seen = listener.accept()
            assert accepted.getsockname()[:2] == (address, port)
            assert seen[:2] == client.getsockname()[:2]
            accepted.close()


def test_both_families_listen_on_one_port_and_a_third_is_an_error() -> None:
    with listen(socket.AF_INET6, 0, "lo", None) as six:
        port = six.getsockname()[1]
        with listen(socket.AF_INET, port, "lo", None), pytest.raises(OSError, match="in use"):
            listen(socket.AF_INET, port, "lo", None)


def test_a_socket_closes_with_a_reset_when_told_to() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted, _ = server.accept()
        reset_on_close(accepted)
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == struct.pack("ii", 1, 0)
        accepted.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        reset_on_close(accepted)  # dead: stays as it is
