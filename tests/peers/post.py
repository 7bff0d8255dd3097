"""Sends messages by Python's smtplib, all in one session; reads a JSON job and prints a JSON list of the outcomes.

``{"server", "source", "helo", "tls", "mails": [
{"path", "sender", "recipients", "options", "bdat_bytes", "pipelined"}]}``

``bdat_bytes``: in chunks of so many octets (RFC 3030); 0: by DATA. ``pipelined``: the envelope and all chunks at once.
What the server does not offer or refuses is an outcome, no error.
"""

from __future__ import annotations

import json
import smtplib
import ssl
import sys
from pathlib import Path
from typing import Any

TIMEOUT_S = 60.0
NEEDED = {
    "BODY=8BITMIME": "8bitmime",
    "BODY=BINARYMIME": "binarymime",
    "SMTPUTF8": "smtputf8",
    "RET=HDRS": "dsn",
    "ENVID=QQ314159": "dsn",
}


def post(client: smtplib.SMTP, item: dict[str, Any]) -> str:
    """One message; what became of it in a word, or the server's refusal."""
    lacking = [name for name in map(NEEDED.get, item["options"]) if name and not client.has_extn(name)]
    if lacking or (item["bdat_bytes"] and not client.has_extn("chunking")):
        return "not offered"
    # smtplib offers no UTF-8 in commands but for SMTPUTF8, which it takes for its own business.
    client.command_encoding = "utf-8"
    content = Path(item["path"]).read_bytes()
    if item["pipelined"]:
        return ahead(client, content, item)
    code, text = client.mail(
        item["sender"],
        [each for each in item["options"] if each != "SMTPUTF8"] + ["SMTPUTF8"] * ("SMTPUTF8" in item["options"]),
    )
    for recipient in item["recipients"]:
        if code == 250:
            code, text = client.rcpt(recipient)
    if code == 250:
        code, text = bdat(client, content, item["bdat_bytes"]) if item["bdat_bytes"] else client.data(content)
    if code != 250:
        client.rset()
    return f"{code}" if code == 250 else f"{code} {text.decode(errors='replace')}"


def ahead(client: smtplib.SMTP, content: bytes, item: dict[str, Any]) -> str:
    """Envelope and chunks without waiting for any reply; all the codes."""
    size_bytes, commands = item["bdat_bytes"], [b"MAIL FROM:<%b>\r\n" % item["sender"].encode()]
    commands += [b"RCPT TO:<%b>\r\n" % each.encode() for each in item["recipients"]]
    chunks = [content[start : start + size_bytes] for start in range(0, len(content), size_bytes)]
    commands += [b"BDAT %d\r\n%b" % (len(chunk), chunk) for chunk in chunks[:-1]]
    client.send(b"".join([*commands, b"BDAT %d LAST\r\n%b" % (len(chunks[-1]), chunks[-1])]))
    return " ".join(str(client.getreply()[0]) for _ in range(len(commands) + 1))


def bdat(client: smtplib.SMTP, content: bytes, size_bytes: int) -> tuple[int, bytes]:
    """The content in chunks, the last one empty."""
    reply = (250, b"")
    for start in range(0, len(content), size_bytes):
        chunk = content[start : start + size_bytes]
        client.send(b"BDAT %d\r\n" % len(chunk) + chunk)
        reply = client.getreply()
        if reply[0] != 250:
            return reply
    return client.docmd("BDAT 0 LAST")


def unverified() -> ssl.SSLContext:
    """Any certificate will do."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def run(job: dict[str, Any]) -> list[str]:
    """All messages in one session."""
    outcomes = []
    with smtplib.SMTP(job["server"], 25, job["helo"], TIMEOUT_S, (job["source"], 0)) as client:
        client.ehlo()
        if job["tls"]:
            client.starttls(context=unverified())
            client.ehlo()
        for item in job["mails"]:
            outcomes.append(post(client, item))
    return outcomes


if __name__ == "__main__":
    print(json.dumps(run(json.loads(Path(sys.argv[1]).read_text()))))
