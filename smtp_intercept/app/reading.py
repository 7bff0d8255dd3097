"""A configuration's text, from the file."""

from __future__ import annotations

from pathlib import Path

from smtp_intercept.app.mistakes import ConfigError, ConfigErrors

MAX_FILE_BYTES = 1 << 20  # thousands of protected domains; more is the wrong file


def read(path: Path) -> str:
    """The file's text. Raises `ConfigErrors` if it has none."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise whole_file(
            path, f"cannot be read: {error.strerror}", "create it, or name another with --config"
        ) from None
    if len(content) > MAX_FILE_BYTES:
        raise whole_file(path, f"is larger than {MAX_FILE_BYTES} bytes", "is it the right file?")
    try:
        return content.decode("utf-8-sig")  # some editors begin with a byte order mark
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise whole_file(path, f"byte {content[error.start]:#04x} is not UTF-8", "save it as UTF-8", line) from None


def whole_file(path: Path, reason: str, remedy: str, line: int | None = None) -> ConfigErrors:
    """A mistake that is the whole file's."""
    return ConfigErrors([ConfigError("", reason, remedy, line, path)])
