"""The datapath, the pick-up and the fail-open tests of tests/kernel once more, on a Debian kernel as it is shipped.

::

    this machine ─ QEMU ─ Debian's kernel, just booted ─ pytest ─ network namespaces: client ── gateway ── server

What such a kernel has and a bare one may lack: modules that must be loaded first, nft's ``queue``, VLANs.
"""

from __future__ import annotations

import json

import pytest

from tests.stock.guest import Told, run_inside
from tests.unshown import DEBIAN_KERNEL, NOT_ROOT

# One guest for all of them; the first finds a kernel that has loaded nothing yet.
MODULES = {
    "test_modules.py": ("test_the_kernel_is_the_distributions_own", "test_whatever_is_needed_is_loaded_and_nft_queues"),
    "test_failing.py": (
        "test_who_dials_again_gets_through[interceptor killed]",
        "test_what_crossed_meanwhile_was_not_inspected[interceptor killed]",
        "test_the_status_names_the_restarts[interceptor killed-restarts1]",
    ),
    "test_vlan.py": ("test_one_connection_in_three_places_at_once_is_three",),
    "test_vlan_mta.py": ("test_in_the_clients_name_it_stays_in_its_vlan[4]",),
    "test_vlan_ring.py": ("test_tagged_mail_leaves_by_the_port_that_forwards_only",),
    "test_up_down.py": ("test_down_gives_back_what_up_took[managed through a port]",),
}
TESTS = [f"tests/kernel/{module}::{test}" for module, tests in MODULES.items() for test in tests]

pytestmark = [pytest.mark.stock, pytest.mark.timeout(5700)]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    NOT_ROOT.skip()
    DEBIAN_KERNEL.skip()
    return run_inside(TESTS, tmp_path_factory.mktemp("stock"))


@pytest.mark.parametrize("test", TESTS)
def test_passes_on_a_stock_kernel(told: Told, test: str) -> None:
    module, _, name = test.partition("::")
    result = told.results.get(f"{module.removeprefix('tests/kernel/').removesuffix('.py')}::{name}")
    assert result == "passed", f"{told.kernel}\n{json.dumps(told.results, indent=1)}\n{told.said}"
