"""One epoll for all connections: who is told of what, in which order, and who is not.

::

    a turn of the loop:  poll → each is told → what was asked for "soon" → the loop goes on
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack
from functools import partial

import pytest

from smtp_intercept.readiness import READ, WRITE, Readiness
from tests.smtp.box import Run


def pairs(stack: ExitStack, number: int) -> list[tuple[socket.socket, socket.socket]]:
    """Each a pair of connected sockets, of which the first is the one to be watched."""
    made = [socket.socketpair() for _ in range(number)]
    for pair in made:
        for sock in pair:
            stack.enter_context(sock)
    return made


def started(stack: ExitStack) -> Readiness:
    readiness = Readiness()
    readiness.start()
    stack.callback(readiness.stop)
    return readiness


def test_what_is_asked_for_soon_comes_when_all_have_been_told(run: Run) -> None:
    async def work() -> None:
        with ExitStack() as stack:
            readiness, seen = started(stack), list[str]()
            for number, (ours, theirs) in enumerate(pairs(stack, 3)):

                def told(events: int, ours: socket.socket = ours, number: int = number) -> None:
                    seen.append(f"told {number} {ours.recv(1).decode()}")
                    readiness.soon(lambda: seen.append(f"soon {number}"))

                theirs.send(b"x")
                readiness.watch(ours, READ, told)
            await asyncio.sleep(0.02)
            assert sorted(seen[:3]) == ["told 0 x", "told 1 x", "told 2 x"]
            assert sorted(seen[3:]) == ["soon 0", "soon 1", "soon 2"]
            readiness.soon(lambda: seen.append("idle"))
            await asyncio.sleep(0.02)
            assert seen[-1] == "idle"

    run(work())


def test_a_descriptor_opened_anew_in_a_turn_is_not_told_of_what_came_for_the_old_one(run: Run) -> None:
    async def work() -> None:
        with ExitStack() as stack:
            readiness, seen = started(stack), list[str]()
            watched = pairs(stack, 2)

            def replace_other(events: int, mine: int) -> None:
                """Close the other one, and have its descriptor taken by a socket that nothing has come for."""
                if not seen:
                    other, (_, its_peer) = watched[1 - mine][0], watched[1 - mine]
                    readiness.forget(other, closing=True)
                    other.close()
                    its_peer.close()
                    fresh, quiet = pairs(stack, 1)[0]
                    readiness.watch(fresh, READ, lambda events: seen.append("told of another's"))
                    stack.enter_context(quiet)
                seen.append("first")
                readiness.forget(watched[mine][0])

            for number, (ours, theirs) in enumerate(watched):
                theirs.send(b"x")
                readiness.watch(ours, READ, partial(replace_other, mine=number))
            await asyncio.sleep(0.02)
            assert "told of another's" not in seen

    run(work())


def test_a_mistake_of_ones_is_not_the_others(run: Run) -> None:
    async def work() -> None:
        with ExitStack() as stack:
            readiness, seen, complaints = started(stack), list[str](), list[object]()
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["exception"]))
            (one, _), (two, _) = pairs(stack, 2)

            def unsound(events: int) -> None:
                readiness.forget(one)
                raise ValueError

            def sound(events: int) -> None:
                readiness.forget(two)
                seen.append("two")

            readiness.watch(one, WRITE, unsound)
            readiness.watch(two, WRITE, sound)
            await asyncio.sleep(0.02)
            assert seen == ["two"]
            assert [type(each) for each in complaints] == [ValueError]

    run(work())


@pytest.mark.parametrize("events", [READ, WRITE])
def test_forgotten_is_not_told(run: Run, events: int) -> None:
    async def work() -> None:
        with ExitStack() as stack:
            readiness, seen = started(stack), list[int]()
            ours, theirs = pairs(stack, 1)[0]
            readiness.watch(ours, events, seen.append)
            readiness.forget(ours)
            theirs.send(b"x")
            theirs.close()
            await asyncio.sleep(0.02)
            assert not seen

    run(work())
