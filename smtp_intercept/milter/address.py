"""Where a filter listens, as the configuration has it.

Pure.
"""

from __future__ import annotations

from ipaddress import ip_address

MAX_PATH_BYTES = 107  # unix(7): sun_path
# Who asks a filter sees the directory of its socket: not one in which a host is told what to do (D-Bus, containers).
SHARED = {"", "dev", "etc", "home", "root", "run", "tmp", "var", "var/lib", "var/run", "var/spool"}


def read_address(text: object) -> str | tuple[str, int]:
    """A socket's path (``unix:/run/f/x`` or ``/run/f/x``), or (IP address, port) of ``127.0.0.1:8891``, with or without
    ``inet:``. ValueError says why not."""
    if not isinstance(text, str):
        raise ValueError("it is not a text")
    kind, colon, rest = text.partition(":")
    if text.startswith("/") or (colon and kind in ("unix", "local")):
        return _path(text if text.startswith("/") else rest)
    rest = rest if kind in ("inet", "inet6") else text
    host, _, port = rest.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise ValueError(f"{text!r} has no port from 1 to 65535")
    try:
        return str(ip_address(host.strip("[]"))), int(port)
    except ValueError:
        raise ValueError(f"{text!r} has no IP address; names are not asked for") from None


def _path(path: str) -> str:
    if not path.startswith("/") or "\0" in path or len(path.encode()) > MAX_PATH_BYTES:
        raise ValueError(f"{path!r} is not the absolute path of a socket, of at most {MAX_PATH_BYTES} octets")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or "/".join(parts[:-1]) in SHARED:
        raise ValueError(f"{path!r} is not in a directory of its own")
    return path
