"""Nobody on the machines' wires can tell that there is a box: `tests/kernel/test_invisible.py`, captured over SSH."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from smtp_intercept.app.lab.remote import RemoteLab
from tests.kernel.test_invisible import (  # noqa: F401 (collected here)
    CONFIG,
    servers,
    test_under_a_mail_load,
    test_when_the_lane_forgets_in_the_middle_of_a_session,
)
from tests.vm.conftest import Machines, laboratory

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def gateway_lab(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteLab]:
    with laboratory(machines, CONFIG, tmp_path_factory.mktemp("unseen")) as lab:
        yield lab
