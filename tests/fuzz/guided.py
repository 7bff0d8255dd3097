"""One target under atheris: the coverage of our own code guides what Hypothesis builds. Ends as libFuzzer does.

``python -m tests.fuzz.guided TARGET [libFuzzer's options] [CORPUS | CRASH]``
"""

from __future__ import annotations

import sys

import atheris
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

with atheris.instrument_imports(include=["smtp_intercept"]):
    from tests.fuzz.targets import TARGETS


def main(name: str, options: list[str]) -> None:
    @settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def run(data: st.DataObject) -> None:
        TARGETS[name](data)

    atheris.Setup([name, *options], run.hypothesis.fuzz_one_input)  # type: ignore[attr-defined]
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
