"""Prints the software bill of materials of the Python package, in CycloneDX 1.6, from the lock of what training needs.

Usage: sbom.py VERSION LOCK. The images have their own, which buildx makes of what is in them.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)


def components(lock: str) -> list[dict[str, Any]]:
    """A component for each pinned package, with the SHA-256 of every file that may be installed for it."""
    pins = list(_PIN.finditer(lock))
    ends = [pin.start() for pin in pins[1:]] + [len(lock)]
    return [
        {
            "type": "library",
            "name": pin[1],
            "version": pin[2],
            "purl": f"pkg:pypi/{pin[1]}@{pin[2]}",
            "bom-ref": f"pkg:pypi/{pin[1]}@{pin[2]}",
            "externalReferences": [
                {
                    "type": "distribution",
                    "url": f"pkg:pypi/{pin[1]}@{pin[2]}",
                    "hashes": [
                        {"alg": "SHA-256", "content": digest}
                        for digest in re.findall(r"sha256:([0-9a-f]{64})", lock[pin.end() : end])
                    ],
                }
            ],
        }
        for pin, end in zip(pins, ends, strict=True)
    ]


def bill(version: str, lock: str) -> dict[str, Any]:
    """The whole document."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "name": "lmfinetune",
                "version": version,
                "purl": f"pkg:pypi/lmfinetune@{version}",
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            }
        },
        "components": components(lock),
    }


if __name__ == "__main__":
    json.dump(bill(sys.argv[1], Path(sys.argv[2]).read_text(encoding="utf-8")), sys.stdout, indent=1)
