"""`make stock TESTS="tests/kernel/test_vlan.py …"`: any of the tests, in a virtual machine with a Debian kernel."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.stock.guest import run_inside


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="tollbridge-stock-") as work:
        told = run_inside(sys.argv[1:], Path(work))
    print(f"{told.said}\n{told.kernel}")
    return (
        0 if told.results and all(result.startswith(("passed", "skipped")) for result in told.results.values()) else 1
    )


if __name__ == "__main__":
    sys.exit(main())
