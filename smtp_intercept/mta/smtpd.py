"""aiosmtpd's server as a server in everyone's path must be: nothing about mail, all about the connection.

One kind of I/O: one connection. aiosmtpd reads the lines, finds the verb and calls its method; RSET, NOOP and EXPN are
its own. Replaced is what it does to a stream's end, to time, to pipelines, to STARTTLS and to its replies.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable

from aiosmtpd.smtp import SMTP

from smtp_intercept import accounts
from smtp_intercept.answers import BYE, HOLDS_TOO_MUCH, NO_WEB, TIMED_OUT, TOO_MANY_COMMANDS, TOO_MANY_ERRORS, Answer
from smtp_intercept.dialogue import WEB
from smtp_intercept.limits import Limits, Phase
from smtp_intercept.mta.billing import Bill
from smtp_intercept.mta.inflow import Inflow
from smtp_intercept.mta.replies import HELO_FIRST, INJECTED, NO_TLS, TOO_MANY_UNKNOWN, VERIFIED, enhanced
from smtp_intercept.wire import clip, safe_text

# Replies held back for the rest of a pipeline (RFC 2920 §3.2); a longer one is answered in pieces.
HELD_BYTES = 8_192
# A client that does not take its last reply is left after this.
FLUSH_S = 1.0

_LOG = logging.getLogger("tollbridge")
# aiosmtpd would write down what every client says; what is to be known stands in the mail log.
logging.getLogger("mail.log").setLevel(logging.CRITICAL + 1)


class Smtpd(SMTP):  # type: ignore[misc]  # aiosmtpd is untyped
    """One session. ``outcome`` and ``reason`` tell how it ended; ``ended`` is called then, once."""

    def __init__(
        self,
        *,
        hostname: str,
        limits: Limits,
        keywords: tuple[str, ...],
        certificate: ssl.SSLContext | None,
        bill: Bill,
        ended: Callable[[], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(
            None,
            data_size_limit=None,
            enable_SMTPUTF8=True,
            hostname=hostname,
            ident="ESMTP",
            timeout=limits.patience_s[Phase.COMMAND],
            loop=loop,
        )
        self._reader = Inflow(loop)
        asyncio.StreamReaderProtocol.__init__(self, self._reader, self._cb_client_connected, loop)
        self.command_size_limit = limits.command_line_bytes
        self.command_size_limits = _Always(limits.command_line_bytes)
        self._limits, self._keywords, self._certificate, self._ended = limits, keywords, certificate, ended
        self._bill = bill
        self._held, self._mail_at = b"", loop.time()
        self._commands = self._idle_commands = self._errors = 0
        self._late = TIMED_OUT  # what a client hears that is not in time
        self._stopping: Answer | None = None
        self.helo, self.tls, self.tls_version = "", "none", ""
        self.bytes_sent = 0
        self.outcome = self.reason = ""

    def __dir__(self) -> list[str]:
        """aiosmtpd looks here for its verbs, three times for every connection."""
        return _VERBS

    # The connection.

    def eof_received(self) -> bool:
        """What the client sent before is still answered."""
        self._reader.feed_eof()
        return not self.tls_version

    def connection_lost(self, error: Exception | None) -> None:
        """What the client sent before is dropped; but a message on its way into the spool gets there."""
        if error is not None:
            self._decide("reset", "by the client" if isinstance(error, ConnectionError) else type(error).__name__)
        self._timeout_handle.cancel()
        self._reader.finish()
        asyncio.StreamReaderProtocol.connection_lost(self, error and ConnectionResetError())
        self.transport = None

    async def _handle_client(self) -> None:
        try:
            await self._bill.turns.metered(super()._handle_client(), lambda: self._bill.account)
        except ConnectionError:
            self._decide("closed", "by the client")
        except asyncio.CancelledError:
            self._decide("stopped", "the MTA was stopped")
        except Exception as mistake:
            self._decide("error", type(mistake).__name__)
            await self.handle_exception(mistake)
        finally:
            self._close()
            self._ended()

    async def handle_exception(self, error: Exception) -> str:
        """A mistake of ours: the client may try again."""
        _LOG.error("receiving: %s in a session", type(error).__name__, exc_info=error)
        return "451 4.3.0 Local error, try again"

    def _reset_timeout(self, duration: float | None = None) -> None:
        """``duration`` None: between messages."""
        limit_s = self._limits.without_mail_s
        if duration is None and limit_s:
            left_s = self._mail_at + limit_s - self.loop.time()
            duration = max(0.001, min(left_s, self._limits.patience_s[Phase.COMMAND]))
        super()._reset_timeout(duration)

    def _timeout_cb(self) -> None:
        self._leave(self._late)

    def _leave(self, answer: Answer) -> None:
        """With a last word, at once."""
        self._decide(answer.outcome, "" if answer is BYE else str(answer.reply))
        self._write(answer.line)
        self._close()

    def _close(self) -> None:
        self._timeout_handle.cancel()
        self._reader.finish()
        if (transport := self.transport) is not None:
            transport.close()
            self.loop.call_later(FLUSH_S, transport.abort)

    def _decide(self, outcome: str, reason: str) -> None:
        if not self.outcome:
            self.outcome, self.reason = outcome, reason

    # From outside.

    def stop(self, answer: Answer) -> None:
        """As soon as no transaction is under way."""
        self._stopping = answer
        if self._reader.waiting and not self.in_transaction:
            self._leave(answer)

    def abort(self) -> None:
        """Now."""
        if self._handler_coroutine is not None:
            self._handler_coroutine.cancel()
        if self.transport is not None:
            self.transport.abort()

    @property
    def held_bytes(self) -> int:
        """What is kept of its client's octets, about."""
        return self._reader.ahead_bytes + len(self._held)

    @property
    def in_transaction(self) -> bool:
        """MAIL was accepted, and what follows is not over."""
        return False

    def fields(self) -> dict[str, object]:
        """The fields of the session's log record that are known here."""
        return {"helo": self.helo, "tls": self.tls}

    # Replies.

    async def push(self, status: str) -> None:
        """aiosmtpd's own replies."""
        if status.startswith(_UNKNOWN):
            await self.answer(TOO_MANY_UNKNOWN)
        await self.say(enhanced(status))

    async def answer(self, answer: Answer, *, hold: bool = False) -> None:
        """``hold``: together with the next one, if its command is there already. `ConnectionResetError` if it was the
        last."""
        if answer.closes:
            self._leave(answer)
            raise ConnectionResetError
        await self.say(answer.line, hold=hold)

    async def say(self, line: bytes, *, hold: bool = False) -> None:
        """The reply to one command, and what it leads to."""
        excess = self._count(line)
        if hold and not excess and self._reader.has_line and len(self._held) < HELD_BYTES:
            self._held += line
        else:
            self._write(line)
            await self._writer.drain()
        if excess:
            await self.answer(excess)
        elif line[:1] == b"5" and (seconds := self._limits.penalty_s(self._errors)):
            await asyncio.sleep(seconds)
        elif self._bill.turns.over:
            await asyncio.sleep(0)
        await self.make_room()

    async def make_room(self) -> None:
        """While it holds too much it is not listened to, and left in the end."""
        if not self._bill.hold(self.held_bytes):
            return
        until = self.loop.time() + accounts.CROWDED_S
        while self._bill.hold(self.held_bytes):
            if self.loop.time() >= until:
                await self.answer(HOLDS_TOO_MUCH)
            await asyncio.sleep(accounts.CROWDED_EVERY_S)

    def _count(self, line: bytes) -> Answer | None:
        limits = self._limits
        self._commands += 1
        self._idle_commands += 1
        self._errors += line[:1] == b"5"
        if 0 < limits.commands_without_mail < self._idle_commands:
            return TOO_MANY_COMMANDS
        if 0 < limits.errors < self._errors:
            return TOO_MANY_ERRORS
        return None if self.in_transaction else self._stopping

    def _write(self, data: bytes) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        self.bytes_sent += len(self._held) + len(data)
        self._writer.write(self._held + data)
        self._held = b""

    # Verbs.

    async def smtp_HELO(self, hostname: str | None) -> None:
        await self._greet(hostname, ())

    async def smtp_EHLO(self, hostname: str | None) -> None:
        starttls = ("STARTTLS",) if self._certificate and not self.tls_version else ()
        if starttls and self.tls == "none":
            self.tls = "offered"
        await self._greet(hostname, (*self._keywords, *starttls), extended=True)

    async def _greet(self, hostname: str | None, keywords: tuple[str, ...], *, extended: bool = False) -> None:
        if not hostname:
            await self.push(f"501 Syntax: {'EHLO' if extended else 'HELO'} hostname")
            return
        self._set_rset_state()
        self.session.extended_smtp, self.session.host_name = extended, hostname
        self.helo = clip(safe_text(hostname.encode(errors="surrogateescape")))
        lines = [self.hostname, *keywords]
        marks = ["-"] * len(keywords) + [" "]
        await self.say("".join(f"250{mark}{line}\r\n" for mark, line in zip(marks, lines, strict=True)).encode())

    async def smtp_STARTTLS(self, arg: str | None) -> None:
        """RFC 3207. Octets behind the command, in clear, are not the client's (CVE-2011-0411)."""
        if self._certificate is None or self.tls_version or arg:
            await self.answer(NO_TLS)
        elif not self._reader.empty:
            await self.answer(INJECTED)
        else:
            await self._start_tls(self._certificate)

    async def _start_tls(self, certificate: ssl.SSLContext) -> None:
        self._write(b"220 2.0.0 Ready to start TLS\r\n")
        try:
            await self._writer.start_tls(certificate)
        except OSError as failure:  # ssl.SSLError is one
            self.tls = "refused"
            self._decide("aborted", f"TLS: {getattr(failure, 'reason', None) or type(failure).__name__}")
            raise ConnectionResetError from failure
        transport = self._writer.transport
        self.transport = transport
        self._reader.move(transport)
        self.tls, self.tls_version = "started", self._writer.get_extra_info("ssl_object").version()
        self._set_rset_state()
        self.session = self._create_session()  # RFC 3207 §4.2
        self.helo = ""

    async def smtp_QUIT(self, arg: str | None) -> None:
        await self.answer(BYE)

    async def smtp_VRFY(self, arg: str | None) -> None:
        await self.answer(VERIFIED)

    async def smtp_HELP(self, arg: str | None) -> None:
        await self.say(b"214 2.0.0 RFC 5321 describes what is spoken here\r\n")

    async def smtp_AUTH(self, arg: str | None) -> None:
        await self.push("502 AUTH not implemented")

    async def smtp_web(self, arg: str | None) -> None:
        """A browser that was made to post a message; its first line is its last."""
        await self.answer(NO_WEB)

    async def check_helo_needed(self, helo: str = "HELO") -> bool:
        """True if it was, and the client has been told."""
        if self.session.host_name:
            return False
        await self.answer(HELO_FIRST)
        return True


class _Always(dict[str, int]):
    """One limit for every verb; aiosmtpd's own table is shared by all sessions and grows with each strange verb."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def __missing__(self, verb: str) -> int:
        return self._limit


_UNKNOWN = "502 5.5.1 Too many"  # aiosmtpd's, behind five unknown verbs
for _verb in WEB:
    setattr(Smtpd, f"smtp_{_verb.decode()}", Smtpd.smtp_web)
_VERBS = [name for name in dir(Smtpd) if name.startswith("smtp_")]
