"""What we use of aiosmtpd and it does not promise, each by its name: an update that has it no more fails here."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator

import pytest
from aiosmtpd.smtp import SMTP

from smtp_intercept.mta import receiver, smtpd

PRIVATE = {
    "_cb_client_connected",  # given to the stream's protocol once more, with a reader of our own
    "_create_envelope",  # each transaction is a submission of ours
    "_create_session",  # made anew behind STARTTLS
    "_handle_client",  # goes round, so that every end has its reason
    "_handler_coroutine",  # cancelled when the MTA stops
    "_reader",  # ours, in which the end of the stream is an error
    "_reset_timeout",  # the patience of each phase
    "_set_post_data_state",  # the end of a transaction
    "_set_rset_state",  # and its beginning
    "_timeout_cb",  # what is said to who is late
    "_timeout_handle",  # cancelled with the connection
    "_writer",  # replies leave by it, some together
}
OVERRIDDEN = {"_handle_client", "_reset_timeout", "_timeout_cb"}


def private(source: str) -> Iterator[str]:
    """Of `self`, in the source of a class: what is read, called, set or defined."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Name(id="self"), attr=name) if name.startswith("_"):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if name.startswith("_"):
                yield name


THEIRS = {name for name in private(inspect.getsource(SMTP)) if not name.startswith("__")}


@pytest.mark.parametrize("name", sorted(PRIVATE))
def test_aiosmtpd_has_it(name: str) -> None:
    assert name in THEIRS


@pytest.mark.parametrize("name", sorted(OVERRIDDEN))
def test_what_we_replace_takes_what_it_took(name: str) -> None:
    """The same arguments as aiosmtpd's own."""
    ours, theirs = (list(inspect.signature(getattr(cls, name)).parameters) for cls in (smtpd.Smtpd, SMTP))
    assert ours == theirs


def test_no_other_is_used() -> None:
    ours = {name for module in (smtpd, receiver) for name in private(inspect.getsource(module))}
    assert ours & THEIRS == PRIVATE
