"""The words of `tollbridge tls`: its verbs and options, and nothing of what they do."""

from __future__ import annotations

from pathlib import Path

from smtp_intercept.app.subcommands import Parser, add_group, add_verb, place, whole

MOST_DAYS = 36_500


def add(parser: Parser) -> None:
    """To the parser of the verb `tls`."""
    verbs = parser.add_verbs("tls_verb", "WHAT", "what to do")
    authority = add_group(verbs, "authority", "make an authority of the organisation's own")
    making = authority.add_verbs("authority_verb", "WHAT", "what to do with it")
    create = add_verb(making, "create", "tls_verbs.create", "make a key, and a certificate that may sign others")
    for name in ("certificate", "key"):
        default = Path(f"/etc/tollbridge/authority.{'crt' if name == 'certificate' else 'key'}")
        create.add_argument(f"--{name}", type=place, default=default, metavar="FILE", help=f"[{default}]")
    create.add_argument("--name", default="Tollbridge mail gateway", metavar="N", help='["Tollbridge mail gateway"]')
    create.add_argument("--days", type=whole(1, MOST_DAYS), default=3_650, metavar="D", help="it is valid for [3650]")
    create.add_argument(
        "--only", action="append", default=[], metavar="DOMAIN", help="it may speak for this domain; repeated [all]"
    )
    add_verb(verbs, "show", "tls_verbs.show", "show identities, authority, and who is left alone", json=True)
    test = add_verb(verbs, "test", "tls_verbs.test", "ask a server, and show what its clients would see", json=True)
    test.add_argument("host", metavar="HOST", help="its name or address")
    test.add_argument("--smtp-port", type=whole(1, 65_535), default=25, metavar="P", help="[25]")
    test.add_argument("--sni", metavar="NAME", help="the name that clients ask for [HOST, if it is a name]")
