"""A client that says what it is told, message after message on one connection, and what it hears of each."""

from __future__ import annotations

import json
from typing import Any

from smtp_intercept.app.lab.network import Lab

SERVER = "192.0.2.20"
TALK = """
import json, smtplib, sys
from pathlib import Path
heard = []
with smtplib.SMTP(sys.argv[2], 25, local_hostname="c.example", timeout=20) as client:
    for sender, recipients, path in json.loads(sys.argv[1]):
        try:
            refused = client.sendmail(sender, recipients, Path(path).read_bytes())
            heard.append({address: code for address, (code, text) in refused.items()} or "accepted")
        except smtplib.SMTPRecipientsRefused as error:
            heard.append({address: code for address, (code, text) in error.recipients.items()})
        except smtplib.SMTPResponseException as error:
            heard.append(f"{error.smtp_code} {error.smtp_error.decode()}")
print(json.dumps(heard))
"""


def said(lab: Lab, *messages: tuple[str, list[str], bytes], server: str = SERVER) -> list[Any]:
    """Of (sender, recipients, content): "accepted", the codes of refused recipients, or the refusal."""
    client = lab.host("client")
    talk = []
    for number, (sender, recipients, content) in enumerate(messages):
        path = client.directory / f"message{number}"
        path.write_bytes(content)
        talk.append([sender, recipients, str(path)])
    heard: list[Any] = client.run([client.interpreter, "-c", TALK, json.dumps(talk), server], timeout_s=60).json()
    return heard
