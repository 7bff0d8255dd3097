"""The product's command line with shorter lifetimes in its tables, so that a test sees several of each go by."""

from __future__ import annotations

import sys

SECONDS = {"REST_S": 2, "LEARNED_S": 2, "ADMITTED_S": 2, "HEARD_S": 6}

if __name__ == "__main__":
    from bridge import lane

    vars(lane).update(SECONDS)
    from smtp_intercept.app import cli  # after them: some are imported by name

    sys.exit(cli.main(sys.argv[1:]))
