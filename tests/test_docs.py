"""The manual: short enough to be read, and every link in it alive."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.links import anchors, dead, links

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "CHANGELOG.md",
    "vagrant/README.md",
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
]
WORDS = 700  # of README: what somebody reads who has ten minutes


def test_readme_is_short() -> None:
    """As wc -w counts, captures included."""
    assert len((ROOT / "README.md").read_text().split()) <= WORDS


@pytest.mark.parametrize("page", PAGES)
def test_every_link_is_alive(page: str) -> None:
    assert list(dead(ROOT, page, lambda name: (ROOT / name).exists())) == []


def test_every_page_is_reached_from_the_readme() -> None:
    seen, waiting = set[str](), ["README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or not page.endswith(".md"):
            continue
        seen.add(page)
        found = [link.partition("#")[0] for link in links((ROOT / page).read_text())]
        waiting += [str((ROOT / page).parent.joinpath(name).resolve().relative_to(ROOT)) for name in found if name]
    assert set(PAGES) - {"CHANGELOG.md"} <= seen


def test_a_dead_link_is_seen(tmp_path: Path) -> None:
    page = (
        "# A page\n[a](b.md), [c](#a-page), [d](#nowhere), [e](https://e.example/), `[f](g)`\n```\n[h](i)\n# j\n```\n"
    )
    (tmp_path / "README.md").write_text(page)
    assert list(dead(tmp_path, "README.md", lambda name: (tmp_path / name).exists())) == [
        "README.md: b.md: no such file",
        "README.md: #nowhere: no such heading",
    ]
    assert anchors("## Why `x.y` is, and\n") == {"why-xy-is-and"}
