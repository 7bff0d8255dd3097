"""The bill of materials of the package: CycloneDX 1.6, JSON. What it brings, not what Debian has.

Pure: the same wheels make the same octets.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from smtp_intercept.app.packaging.bundled import Bundled, Part

SPEC = "1.6"


def bill(version: str, at: str, bundled: Iterable[Bundled], direct: Iterable[str], digests: Mapping[str, str]) -> str:
    """``at`` as RFC 3339 has it; ``direct`` names what the product itself needs; ``digests`` are the SHA-256 of the
    wheels, by name."""
    known = {one.name: one for one in bundled}
    own = f"pkg:generic/tollbridge@{version}"
    body: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "version": 1,
        "metadata": {
            "timestamp": at,
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": "tollbridge",
                "version": version,
                "purl": own,
                "licenses": [{"license": {"id": "GPL-2.0-or-later"}}],
            },
        },
        "components": [_component(one, digests) for one in known.values()],
        "dependencies": [
            {"ref": own, "dependsOn": sorted(known[name].purl for name in direct if name in known)},
            *(
                {"ref": one.purl, "dependsOn": sorted(known[name].purl for name in one.needs if name in known)}
                for one in known.values()
            ),
        ],
    }
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(body, sort_keys=True))
    return json.dumps({"serialNumber": number.urn, **body}, indent=1) + "\n"


def _component(one: Bundled, digests: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "library",
        "bom-ref": one.purl,
        "name": one.name,
        "version": one.version,
        "purl": one.purl,
        "licenses": _licences(one.licence),
        "copyright": "\n".join(one.copyrights),
    }
    if one.name in digests:
        found["hashes"] = [{"alg": "SHA-256", "content": digests[one.name]}]
    if one.home:
        found["externalReferences"] = [{"type": "website", "url": one.home}]
    if one.parts:
        found["components"] = [_part(one, part) for part in one.parts]
    return found


def _part(one: Bundled, part: Part) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "library", "bom-ref": f"{one.purl}#{part.purl}", "name": part.name}
    found |= {"version": part.version} if part.version else {}
    return {**found, "purl": part.purl, **({"licenses": _licences(part.licence)} if part.licence else {})}


def _licences(expression: str) -> list[dict[str, Any]]:
    """One licence by its name, more by an expression."""
    return [{"expression": expression}] if " " in expression else [{"license": {"id": expression}}]
