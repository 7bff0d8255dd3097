"""The protected servers as they are now: those given by name are asked for, once."""

from __future__ import annotations

from collections.abc import Iterable

from smtp_intercept.app import config as configuration
from smtp_intercept.app.config import Config
from smtp_intercept.app.streams import warn
from smtp_intercept.direction import Servers, Serving
from smtp_intercept.names import serving, split
from smtp_intercept.names import table as table_of


def protected_table(config: Config) -> tuple[Servers, Serving]:
    """The protected servers, and which domain's each is; the DNS is asked about those that are given by name."""
    given = configuration.protected_servers(config)
    literals, questions = split(given)
    if not questions:
        return table_of(literals, ()), serving(given, ())
    return _looked_up(given)


def _looked_up(given: Iterable[tuple[str, Iterable[str]]]) -> tuple[Servers, Serving]:
    import asyncio
    import logging

    from smtp_intercept import protected  # and a DNS library, which addresses alone need not wait for

    logging.getLogger(protected.__name__).setLevel(logging.ERROR)  # said below, once
    servers = protected.ProtectedServers(given)
    table = asyncio.run(servers.resolve_once())
    warn(f"{known.name}: {known.error}" for known in servers.state() if known.error)
    return table, servers.serving
