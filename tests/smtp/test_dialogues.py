"""SMTP dialogues as text files (`script` says how they are written), each run whole, byte by byte and in random cuts;
and the law behind them: how the octets were cut makes no difference to anything.
"""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from smtp_intercept.answers import IN_DOUBT, INJECTED
from smtp_intercept.events import SERVERS, Doubt, Side
from smtp_intercept.extensions import HANDLED
from smtp_intercept.limits import Limits
from smtp_intercept.policy import Close, Defer, Discard, Need, Pass, Question, Refuse, Ruling, Stage, Verdict
from smtp_intercept.rules import TRANSPARENT, Rules
from smtp_intercept.session import Session
from tests.smtp.cuts import bytewise, in_pieces, whole
from tests.smtp.script import FILES, PROTECTION, Event, Played, check, play, read_script
from tests.smtp.script import Side as End

RANDOM_CUTS = 40
UNRULED = [path for path in FILES if not read_script(path).rulings]


def test_there_are_dialogues() -> None:
    assert len(FILES) >= 20


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_dialogue(path: Path) -> None:
    script = read_script(path)
    check(script, play(script.events, whole, script.rules))
    check(script, play(script.events, bytewise, script.rules))
    for seed in range(RANDOM_CUTS):
        check(script, play(script.events, in_pieces(random.Random(seed)), script.rules))


@pytest.mark.parametrize("path", [path for path in FILES if read_script(path).rulings], ids=lambda path: path.stem)
def test_a_judge_may_take_its_time(path: Path) -> None:
    """While nobody has decided, the client says what it likes, and nothing comes out otherwise."""
    script = read_script(path)
    for seed in range(RANDOM_CUTS):
        chance = random.Random(seed)
        check(script, play(script.events, in_pieces(chance), script.rules, slowness=chance))


@pytest.mark.parametrize("path", UNRULED, ids=lambda path: path.stem)
def test_a_judge_that_only_looks_changes_nothing(path: Path) -> None:
    """Not an octet, in any cut. But a session ends with the stream of its server, and a MAIL inside a transaction is
    answered here: the server would pair the recipients with the first sender, and the judge with the second."""
    script = read_script(path)
    if Event("s", None) in script.events or path.stem == "sender_refused":
        return
    rules = replace(script.rules, ask=lambda asked: Ruling(need=Need.LOOK, token="t"))
    for cut in (whole, bytewise, in_pieces(random.Random(path.stem))):
        check(script, play(script.events, cut, rules))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_dialogue_cut_off_anywhere_still_tells_its_message(path: Path) -> None:
    script = read_script(path)
    told = play(script.events, whole, script.rules).messages
    for end in range(len(script.events)):
        messages = play(script.events[:end], whole, script.rules).messages
        assert [m["number"] for m in messages] == list(range(1, len(messages) + 1))
        assert len(messages) <= len(told) or not told


def test_no_credential_is_logged() -> None:
    for path in FILES:
        script = read_script(path)
        played = play(script.events, whole, script.rules)
        assert "c2VjcmV0" not in str(played.messages) + str(played.session), path.stem


def test_every_doubt_has_a_dialogue_that_says_whose_it_is() -> None:
    """And ends, by default, if it is the client's."""
    provoked = set()
    for path in FILES:
        script = read_script(path)
        doubt, doubted = (script.log[-1].get(name) for name in ("doubt", "doubted"))
        assert (doubt is None) == (doubted is None), path.stem
        if doubted == "client" and "on_client_doubt" not in script.settings:
            assert script.leave == f"aborted, in doubt: {doubt}", path.stem
        provoked.add((doubt, doubted))
    for each in Doubt:
        assert (each.value, ("server" if each in SERVERS else "client")) in provoked, each


def test_every_extension_that_changes_a_dialogue_has_one() -> None:
    texts = {path.stem: path.read_text("utf-8").upper() for path in FILES}
    for keyword, stem in HANDLED.items():
        assert keyword.decode() in texts[stem], keyword


# Words of both sides, in an order that no honest peer would have: the law holds for nonsense too.
CLIENT = [
    "EHLO c.example", "HELO c.example", "MAIL FROM:<a@c.example>", "RCPT TO:<b@example.com>", "DATA", ".", "text", "",
    "Subject: x", "\r\n.", "\n.", ".\r", "\x16\x03\x01", "\0", "PROXY UNKNOWN",
    "BDAT 5", "BDAT 7 LAST", "BDAT 0 LAST", "BDAT x", "AUTH LOGIN", "STARTTLS", "RSET", "NOOP", "QUIT", "ATRN x",
    "MAIL FROM:<a@c.example> PRDR", "LHLO c", "BURL u LAST", "VERB", "XEXCH50 4 2", "SAML FROM:<s@c>", "GET / HTTP/1.1",
    "AUTH GSSAPI", "\0\0\0\4", "BDAT 4294967297 LAST", "NOOP\rNOOP", "\r\n\r\n\0\r\nQUIT\n",
    "PROXY TCP4 192.0.2.1 192.0.2.2 1 2", "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
]  # fmt: skip
SERVER = [
    "220 mx", "250 ok", "250-mx", "250 CHUNKING", "250-STARTTLS", "354 go", "334 x", "421 bye", "450 no", "500 what",
    "502 no", "503 no", "550 no", "235 ok", "221 bye", "junk", "353 each", "250-PRDR", "050 so", "451 late", "\0\0\0\1",
]  # fmt: skip
HONEST = [
    Event("s", b"220 mx\r\n"),
    Event("c", b"EHLO c.example\r\n"),
    Event("s", b"250-mx\r\n250-STARTTLS\r\n250 CHUNKING\r\n"),
    Event("c", b"MAIL FROM:<a@c.example>\r\nRCPT TO:<b@example.com>\r\n"),
    Event("s", b"250 ok\r\n250 ok\r\n"),
    Event("c", b"DATA\r\n"),
    Event("s", b"354 go\r\n"),
]
PREFIXES = st.sampled_from([0, 4, 5, 7])  # of HONEST: nothing, a pipeline under way, an envelope, content


def said(side: End, words: list[str]) -> st.SearchStrategy[Event]:
    ends = st.sampled_from(["\r\n", "\r\n", "\r\n", "\n", ""])
    line = st.builds(lambda word, end: (word + end).encode(), st.sampled_from(words), ends)
    lines = st.lists(line, min_size=1, max_size=6).map(b"".join).filter(bool)
    return lines.map(lambda data: Event(side, data))


NONSENSE = st.lists(st.one_of(said("c", CLIENT), said("s", SERVER)), max_size=12)


VERDICTS: tuple[Verdict, ...] = (
    *[Pass()] * 6, Refuse(550, "5.7.1 no"), Defer(450, "4.7.1 later"), Close(421, "4.7.0 bye"), Discard(),
)  # fmt: skip
NOTHING_TO_DISCARD = {Stage.CONNECT, Stage.HELO}


@st.composite
def any_rules(draw: st.DrawFn) -> Rules:
    """Every rule, and a judge whose verdict and needs depend on what it is asked."""
    seed = draw(st.none() | st.integers(0, 10_000))

    def judge(asked: Question) -> Ruling:
        chance = random.Random(f"{seed} {asked}")
        verdict, need = chance.choice(VERDICTS), chance.choice(list(Need))
        nothing = verdict == Discard() and asked.stage in NOTHING_TO_DISCARD
        return Ruling(Pass() if nothing else verdict, by=("r",), need=need, token="t")

    limits = Limits(
        command_line_bytes=draw(st.sampled_from([20, 12_288])),
        header_bytes=draw(st.sampled_from([6, 1_000])),
        held_message_bytes=draw(st.sampled_from([5, 1_000])),
        recipients=draw(st.sampled_from([0, 1])),
        commands_without_mail=draw(st.sampled_from([0, 3])),
        errors=draw(st.sampled_from([0, 3])),
    )
    strip, reject, close, trust, balancer = (draw(st.booleans()) for _ in range(5))
    ask = None if seed is None else judge
    return Rules(ask, None, strip, reject, close, trust, balancer, limits)


@settings(max_examples=600, deadline=None)
@given(
    PREFIXES, NONSENSE, st.sampled_from([None, "c", "s"]), st.randoms(use_true_random=False),
    st.just(TRANSPARENT) | any_rules(),
)  # fmt: skip
def test_no_cut_makes_a_difference(
    honest: int, nonsense: list[Event], closed: End | None, chance: random.Random, rules: Rules
) -> None:
    events = [*HONEST[:honest], *nonsense, *([Event(closed, None)] if closed else [])]
    expected = play(events, whole, rules)
    assert play(events, bytewise, rules) == expected
    assert play(events, in_pieces(chance), rules) == expected


# What the box answers itself is another dialogue's.
ANSWERED = re.compile(rb"BDAT|\0|\r(?!\n)", re.IGNORECASE)


@settings(max_examples=300, deadline=None)
@given(PREFIXES, NONSENSE, st.booleans())
def test_no_byte_changes(honest: int, nonsense: list[Event], trust: bool) -> None:
    """What crosses is what was sent, from its start; and all of it, where nothing waits for a reply or has ended."""
    events = [*HONEST[:honest], *nonsense]
    sent = {side: b"".join(event.data or b"" for event in events if event.side == side) for side in ("c", "s")}
    assume(not ANSWERED.search(sent["c"]))
    played = play([*events, Event("s", None)], whole, Rules(pass_client_doubt=trust))
    heard = played.to_client
    if played.leave:
        heard = heard.removesuffix(IN_DOUBT.line).removesuffix(INJECTED.line)
    assert sent["c"].startswith(played.to_server)
    assert sent["s"].startswith(heard)
    assert heard == sent["s"] or played.leave or played.abort


@settings(max_examples=300, deadline=None)
@given(PREFIXES, NONSENSE)
def test_no_client_ends_inspection(honest: int, nonsense: list[Event]) -> None:
    """Whatever both say, octets cross unread only for a doubt of the server's, or where it agreed to encryption."""
    rules = Rules(reject_bare_newline=True)
    played, session = Played(), Session(PROTECTION, rules)
    played.take(session.opened(0.0))
    for event in [*HONEST[:honest], *nonsense]:
        if played.leave is not None or played.abort is not None:
            break
        assert event.data is not None
        played.take((session.client_sent if event.side == "c" else session.server_sent)(event.data, 0.0))
    assert not session.unread or session.doubted is Side.SERVER
