"""The same code gets the same answer: laws are tried on examples that their test alone decides. `make fuzz` looks
further."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")
