"""What the configuration says of sessions: the rules that they get, their defaults, and what `check` warns of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smtp_intercept.app.config import parse, rules, warnings, ways
from smtp_intercept.app.fields import OnDoubt
from smtp_intercept.direction import Direction
from smtp_intercept.limits import DEFAULT_LIMITS, PATIENCE_S, RFC_SECONDS, Phase
from smtp_intercept.rules import Rules

LEAST = '[bridge]\nports = ["enp1s0", "enp2s0"]\n[[protected]]\ndomain = "example.com"\nservers = ["192.0.2.20"]\n'


def test_by_default_only_doubtful_ends_are_refused_and_only_an_own_server_is_trusted() -> None:
    config = parse(LEAST)
    assert rules(config) == Rules(reject_bare_newline=True, limits=DEFAULT_LIMITS)
    assert rules(config, Direction.OUTGOING) == replace(rules(config), close_in_doubt=True)


@pytest.mark.parametrize("choice", OnDoubt)
def test_what_is_said_of_doubt_counts_both_ways(choice: OnDoubt) -> None:
    config = parse(LEAST + f'[intercept]\non_doubt = "{choice}"\n')
    for direction in (Direction.INCOMING, Direction.OUTGOING):
        assert rules(config, direction).close_in_doubt is (choice is OnDoubt.CLOSE)


def test_each_key_arrives() -> None:
    config = parse(
        LEAST + '[intercept]\nstarttls = "strip"\nbare_newline = "pass"\non_doubt = "close"\n'
        "[limits]\nrecipients = 100\nerrors = 5\nerrors_free = 2\nerror_delay_s = 3\nwait_command_s = 300\n"
    )
    it = rules(config, way=ways(config).choose("", Direction.INCOMING))
    assert (it.strip_starttls, it.reject_bare_newline, it.close_in_doubt) == (True, False, True)
    limits = it.limits
    assert (limits.recipients, limits.errors, limits.errors_free, limits.error_delay_s) == (100, 5, 2, 3)
    assert limits.patience_s == {**PATIENCE_S, Phase.COMMAND: 300.0}


def test_the_least_patience_is_the_rfcs_and_ours_is_longer() -> None:
    assert all(PATIENCE_S[phase] >= 2 * RFC_SECONDS[phase] for phase in Phase)


def test_what_takes_something_from_mail_is_warned_of() -> None:
    assert not warnings(parse(LEAST))
    text = '[intercept]\nstarttls = "strip"\nbare_newline = "pass"\non_client_doubt = "pass"\n'
    text += "[limits]\nerrors = 5\nreply_line_bytes = 12288\n"
    keys = [warning.partition(":")[0] for warning in warnings(parse(LEAST + text))]
    assert keys == [
        *("intercept.starttls", "intercept.on_client_doubt", "limits.reply_line_bytes"),
        *("intercept.bare_newline", "limits.errors"),
    ]


def test_the_reference_error_penalty() -> None:
    limits = rules(parse(LEAST + "[limits]\nerrors = 5\n")).limits
    assert [limits.penalty_s(errors) for errors in range(1, 5)] == [0, 4, 8, 12]
    assert DEFAULT_LIMITS.penalty_s(100) == 0
