"""The relay host's password, read from its file while there is privilege.

Keeps it out of the configuration, of what `check` prints, and of every error's text.
"""

from __future__ import annotations

import codecs
import stat
from pathlib import Path

from smtp_intercept.app.mistakes import Mistake, MistakeError
from smtp_intercept.app.schema import Config

MAX_PASSWORD_BYTES = 1_024  # AUTH's line (RFC 4954 §4.5 has 12,288 octets); more is the wrong file


def relay_password(config: Config) -> str | None:
    """The first and only line of relay.password_file, None without one. `MistakeError` says what is wrong with it."""
    if config.relay is None or config.relay.password_file is None:
        return None
    path = Path(config.relay.password_file)
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise _mistake(path, "is not a file", "name the file that has the password as its only line")
        with path.open("rb") as file:
            content = file.read(MAX_PASSWORD_BYTES + 1)
    except OSError as error:
        raise _mistake(
            path, f"cannot be read: {error.strerror}", "create it, with the password as its only line"
        ) from None
    if mode & stat.S_IROTH:
        raise _mistake(path, "can be read by every user of this host", f"chmod 600 {path}")
    if content.startswith(codecs.BOM_UTF8):  # no server takes it for a part of the password
        raise _mistake(path, "begins with a byte order mark", "save it as UTF-8 without one")
    line = content.removesuffix(b"\n").removesuffix(b"\r")
    if not line or len(content) > MAX_PASSWORD_BYTES or any(octet < ord(" ") for octet in line):
        raise _mistake(path, f"is not one line of 1 to {MAX_PASSWORD_BYTES} octets", "is it the right file?")
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise _mistake(path, "is not UTF-8", "save it as UTF-8") from None


def _mistake(path: Path, reason: str, remedy: str) -> MistakeError:
    return MistakeError(Mistake(("relay", "password_file"), f"{path} {reason}", remedy))
