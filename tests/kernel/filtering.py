"""The product's command line on a kernel whose bridge brx filters VLANs while the run directory has a file ``filters``:
this one may not have been built with that. All else is as it is.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    from bridge import links

    said = Path(sys.argv[sys.argv.index("--run-dir") + 1], "filters")
    links._READ["vlan_filtering"] = lambda link, _: int(link.get_attr("IFLA_IFNAME") == "brx" and said.exists())
    from smtp_intercept.app import cli

    sys.exit(cli.main(sys.argv[1:]))
