"""Where the filters of the configuration listen, for those who make way to them.

Pure; loads nothing of what talks to filters.
"""

from __future__ import annotations

from pathlib import Path

from smtp_intercept.app.schema import Config
from smtp_intercept.milter.address import read_address


def asks_filters(config: Config) -> bool:
    """Whether any rule does."""
    return any(rule.then.filter for rule in config.rule)


def over_tcp(config: Config) -> bool:
    """Whether any filter is reached by an address, which a network namespace has its own of."""
    return asks_filters(config) and any(not isinstance(read_address(each.address), str) for each in config.filter)


def socket_directories(config: Config) -> list[Path]:
    """Of filters that have a path."""
    return [Path(path).parent for each in config.filter if isinstance(path := read_address(each.address), str)]
