"""What will surprise in the tables of TLS. Looks at the configuration only; its files are read in `tls_files`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from smtp_intercept.app.schema import Config
from smtp_intercept.app.tables import ways
from smtp_intercept.app.tls_schema import Minimum
from smtp_intercept.direction import Direction
from smtp_intercept.tls.manners import Way


def takes_part(config: Config) -> bool:
    """Some connection's encryption ends at the box."""
    return Way.TERMINATE in ways(config).all


def _warn_silent(config: Config) -> Iterator[str]:
    tls = config.tls
    if (tls.identity or tls.authority or tls.exempt) and not takes_part(config):
        yield 'tls: says nothing: intercept.starttls is "terminate" for no connection'


def _warn_nobody(config: Config) -> Iterator[str]:
    """Where there is nothing to show, all is left alone."""
    table, missing = ways(config), dict[Direction, str]()
    if not config.tls.identity:
        missing[Direction.INCOMING] = "[[tls.identity]]"
    if config.tls.authority is None:
        missing[Direction.OUTGOING] = "[tls.authority]"
    for direction, what in missing.items():
        if Way.TERMINATE in {table.default[direction], *table.by_port.values(), *table.by_domain.values()}:
            yield f"intercept.starttls: there is no {what}, so encrypted {direction.value} connections are left alone"


def _warn_old(config: Config) -> Iterator[str]:
    if takes_part(config) and config.tls.minimum in {Minimum.V10, Minimum.V11}:
        yield f"tls.minimum: TLS {config.tls.minimum.value} is not to be used any more (RFC 8996)"


WARNINGS: tuple[Callable[[Config], Iterable[str]], ...] = (_warn_silent, _warn_nobody, _warn_old)
