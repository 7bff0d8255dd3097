"""What `status` tells of TLS that the box takes part in. Data in, data out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from rich.table import Table

# By the values of `tls.manners.Why`, and what is counted beside them.
WORDS: Mapping[str, str] = MappingProxyType(
    {
        "taken_part_in": "taken part in: what was said has been read",
        "exempt": "left alone: tls.exempt",
        "no_identity": "left alone: no [[tls.identity]] for the server",
        "no_authority": "left alone: no [tls.authority]",
        "not_the_authoritys_name": "left alone: the authority may not speak for the server's name",
        "tlsa": "left alone: the server has TLSA records",
        "mta_sts": "left alone: the server's name is under an MTA-STS policy",
        "client_certificate_asked_for": "left alone: the server asks clients for certificates",
        "client_refused": "left alone: the client has refused our certificate",
        "no_handshake_with_server": "left alone: no handshake with the server",
    }
)

_KEYS = ("tls", "tls_remembered", "tls_left")


def page(report: Mapping[str, Any]) -> dict[str, Any]:
    """Its part of the page."""
    return {"tls": {}, "tls_remembered": {}, "tls_left": []} | {key: report[key] for key in _KEYS if key in report}


def table(page: Mapping[str, Any]) -> Table:
    """For people."""
    tls = Table("encrypted sessions", "number", "left alone now")
    for name, number in page["tls"].items():
        tls.add_row(WORDS[name], str(number), str(page["tls_remembered"].get(name, "")))
    return tls
