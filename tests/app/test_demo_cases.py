"""The demo's eye for a password in the mail log; that it sees one where there is one."""

from __future__ import annotations

import json

import pytest

from smtp_intercept.app.lab.cases import leaked

LOGIN = "mua:open sesame"


@pytest.mark.parametrize("said", ["open sesame", "AG11YQBvcGVuIHNlc2FtZQ==", "b3BlbiBzZXNhbWU="])
def test_a_password_in_the_log_is_seen(said: str) -> None:
    assert leaked(json.dumps([{"sender": f"<{said}>"}]), LOGIN) == said


def test_the_users_name_is_none() -> None:
    assert leaked(json.dumps([{"sender": "mua@example.net"}]), LOGIN) == ""
