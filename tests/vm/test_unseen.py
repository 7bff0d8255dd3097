"""Nobody on the machines' wires can tell that there is a box: `tests/kernel/test_invisible.py`, captured over SSH."""

from __future__ import annotations

import pytest

from tests.kernel.test_invisible import (  # noqa: F401 (collected here)
    CONFIG,
    servers,
    test_under_a_mail_load,
    test_when_the_lane_forgets_in_the_middle_of_a_session,
)

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]
