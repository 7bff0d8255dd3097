"""What `check` sees of filters that have a path."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from smtp_intercept.app.config import parse
from smtp_intercept.app.filter_places import unreached


def listening(path: Path, mode: int, above: int = 0o755) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
    path.chmod(mode)
    path.parent.chmod(above)


PLACES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no directory": (lambda path: path.parent.rmdir(), "is not there yet"),
    "nobody": (lambda path: None, "nobody listens at"),
    "a file": (lambda path: path.touch(), "is not a socket"),
    "its own": (lambda path: listening(path, 0o755), "user tollbridge-smtp may not write to"),
    "a closed directory": (lambda path: listening(path, 0o666, 0o700), "user tollbridge-smtp may not look into"),
    "everybody's": (lambda path: listening(path, 0o666), ""),
}


@pytest.mark.parametrize("name", PLACES)
def test_each(tmp_path: Path, name: str) -> None:
    path = tmp_path / "f" / "socket"
    path.parent.mkdir()
    make, wanted = PLACES[name]
    make(path)
    text = f"""
[bridge]
ports = ["a", "b"]
[[filter]]
name = "by port"
address = "127.0.0.1:8891"
[[filter]]
name = "by path"
address = "unix:{path}"
"""
    found = [*unreached(parse(text, Path("/etc/t.toml")), ["interceptor"])]
    assert len(found) == bool(wanted)
    for said in found:
        assert said.startswith("filter[1].address: ")
        assert wanted in said
        assert str(path if "directory" not in name else path.parent) in said
