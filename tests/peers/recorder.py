"""aiosmtpd as a receiver: stores every message, its envelope in the header, in a folder. Relays nothing."""

from __future__ import annotations

import argparse
import asyncio
import signal
import ssl
from functools import partial
from itertools import count
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session


class Recorder:
    """aiosmtpd's hooks: every recipient and every message is accepted."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._serials = folder, count(1)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        head = [f"X-Mail-Args: <{envelope.mail_from}> {' '.join(envelope.mail_options)}"]
        head += [f"X-Rcpt-Args: <{address}>" for address in envelope.rcpt_tos]
        text = "\n".join([*head, f"X-Helo: {session.host_name}", ""]).encode("utf-8", "surrogateescape")
        partial = self._folder / f".{next(self._serials):06}"
        partial.write_bytes(text + (envelope.original_content or b""))
        partial.rename(self._folder / partial.name[1:])  # a reader sees whole files only
        return "250 2.0.0 stored"


class Offering(Recorder):
    """Says besides that it knows RFC 3030."""

    async def handle_EHLO(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        return [*responses[:-1], "250-CHUNKING", "250-BINARYMIME", responses[-1]]


class Chunking(SMTP):  # type: ignore[misc]
    """RFC 3030, for those who do as it says."""

    def _getparams(self, options: list[str]) -> dict[str, str | bool] | None:
        found: dict[str, str | bool] | None = super()._getparams(options)
        if found and found.get("BODY") == "BINARYMIME":
            found["BODY"] = "8BITMIME"  # the other one that makes no difference here
        return found

    async def smtp_BDAT(self, argument: str) -> None:
        size, _, last = argument.partition(" ")
        chunk = await self._reader.readexactly(int(size))
        if not self.envelope.rcpt_tos:
            await self.push("503 5.5.1 RCPT first")
            return
        self.envelope.original_content = (self.envelope.original_content or b"") + chunk
        if not last:
            await self.push(f"250 2.0.0 {size} octets")
            return
        status = await self._call_handler_hook("DATA")
        self._set_post_data_state()
        await self.push(status)


async def serve(arguments: argparse.Namespace) -> None:
    """Serve until SIGTERM."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(arguments.certificate)
    recorder = (Offering if arguments.chunking else Recorder)(arguments.folder)
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)

    conversation = partial(
        Chunking if arguments.chunking else SMTP,
        recorder,
        hostname="aiosmtpd.test",
        tls_context=context,
        enable_SMTPUTF8=True,
        data_size_limit=0,
        loop=loop,
    )
    await loop.create_server(conversation, arguments.addresses, 25, backlog=512)
    await ended.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("addresses", nargs="+")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--certificate", required=True)
    parser.add_argument("--chunking", action="store_true", help="offer CHUNKING and BINARYMIME")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
