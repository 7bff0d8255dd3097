"""Whole configurations for usual places, which `tollbridge setup --preset` puts somebody's answers into."""

from __future__ import annotations

PRESETS = ("protect-servers", "isp-outbound", "hub")


def text(name: str) -> str:
    """As it is shipped."""
    from importlib import resources  # which only `setup` waits for

    return (resources.files(__name__) / f"{name}.toml").read_text(encoding="utf-8")
