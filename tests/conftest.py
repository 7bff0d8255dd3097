"""The same code gets the same answer: laws are tried on examples that their test alone decides. `make fuzz` looks
further."""

from __future__ import annotations

from hypothesis import settings

# No deadline: a slow machine is no fault of the code.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
