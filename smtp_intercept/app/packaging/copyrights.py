"""debian/copyright, machine-readable (DEP-5): a paragraph for each distribution that the package brings, with its text.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from smtp_intercept.app.packaging.bundled import Bundled

# Whose text every Debian has, by a line of it: a copy of it is an error of lintian's.
_COMMON = {
    "Apache-2.0": ("Apache License", "Version 2.0, January 2004"),
    "GPL-2": ("GNU GENERAL PUBLIC LICENSE", "Version 2, June 1991"),
    "GPL-3": ("GNU GENERAL PUBLIC LICENSE", "Version 3, 29 June 2007"),
}
# What the licence of one means for the others.
_NOTES = {
    "scapy": "GPL version 2 and no later one. `tollbridge demo` alone loads it, and no process that sees mail.",
}
_HEAD = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: tollbridge
Comment:
 Made from what the libraries below /{home} say of themselves when the
 package was built; sbom.cdx.json beside this file has the same for machines.

Files: *
Copyright: the authors of Tollbridge
License: GPL-2.0-or-later
 On Debian systems the full text is in /usr/share/common-licenses/GPL-2.
"""


def copyright_file(home: str, site: str, bundled: Iterable[Bundled]) -> str:
    """``home`` and ``site``: where the virtual environment and its site-packages are installed."""
    return "\n".join([_HEAD.format(home=home), *("\n".join(_paragraph(site, one)) + "\n" for one in bundled)])


def _paragraph(site: str, one: Bundled) -> Iterator[str]:
    yield "Files:"
    yield from (f" {site}/{place}{'*' if place.endswith('/') else ''}" for place in one.places)
    yield "Copyright:"
    yield from (f" {line}" for line in one.copyrights)
    yield f"License: {one.licence.replace(' OR ', ' or ').replace(' AND ', ' and ')}"
    for path, text in one.texts.items():
        yield from (f" {line}" if line.strip() else " ." for line in [f"{path}:", "", *_shown(text), ""])
    yield "Comment:"
    yield from (f" {line}" for line in _comment(one))


def _shown(text: str) -> list[str]:
    for name, marks in _COMMON.items():
        if all(mark in text for mark in marks):
            return [f"The text is in /usr/share/common-licenses/{name}."]
    lines = [line.rstrip().replace("\t", "    ") for line in text.strip().splitlines()]
    if "Apache License, Version 2.0" in text:
        lines += ["", "On Debian systems that is in /usr/share/common-licenses/Apache-2.0."]
    return lines


def _comment(one: Bundled) -> Iterator[str]:
    yield " ".join(filter(None, (one.name, one.version, one.home)))
    if one.name in _NOTES:
        yield _NOTES[one.name]
    if one.parts:
        yield "Compiled into it, without texts of their own in its wheel:"
        yield from (f"{part.name} {part.version or '(version unknown)'} ({part.licence})" for part in one.parts)
