"""aiosmtpd as a receiver: stores every message, its envelope in the header, in a folder. Relays nothing."""

from __future__ import annotations

import argparse
import asyncio
import signal
import ssl
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


async def serve(arguments: argparse.Namespace) -> None:
    """Serve until SIGTERM."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(arguments.certificate)
    recorder, loop, ended = Recorder(arguments.folder), asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)

    def conversation() -> SMTP:
        return SMTP(
            recorder,
            hostname="aiosmtpd.test",
            tls_context=context,
            enable_SMTPUTF8=True,
            data_size_limit=0,
            loop=loop,
        )

    await loop.create_server(conversation, arguments.address, 25, backlog=512)
    await ended.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("folder", type=Path)
    parser.add_argument("certificate")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
