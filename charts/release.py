"""Writes a release into the chart: its version, and the images by the digests that the registry gave them.

Usage: release.py CHART --version 1.2.3 operator=FILE job=FILE. Each file is what ``docker buildx build`` has written as
its metadata file, or the same key alone. Only the release workflow names images; in the tree the digests are empty, and
``make generate`` writes the version.
"""

import argparse
import json
import re
from pathlib import Path

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?")
PLACES = {"operator": r"^image:\n(?:  .*\n)*?  digest: ", "job": r"^job:\n  image:\n(?:    .*\n)*?    digest: "}


def digest_of(metadata: str) -> str:
    """The digest of what was pushed, in a metadata file of buildx; ValueError where it tells none."""
    found = json.loads(metadata).get("containerimage.digest", "")
    if not isinstance(found, str) or not DIGEST.fullmatch(found):
        raise ValueError("the metadata holds no containerimage.digest")
    return found


def with_digest(values: str, image: str, digest: str) -> str:
    """The text of values.yaml with an image's digest filled in; ValueError where its place is not empty."""
    filled, count = re.subn(f'({PLACES[image]})""$', rf'\g<1>"{digest}"', values, count=1, flags=re.MULTILINE)
    if count != 1:
        raise ValueError(f"values.yaml has no empty digest of the {image} image")
    return filled


def with_version(chart: str, version: str) -> str:
    """The text of Chart.yaml with version, appVersion and tags of the images of the release."""
    if not VERSION.fullmatch(version):
        raise ValueError(f"{version!r} is no version such as 1.2.3")
    chart = re.sub(r"^(version|appVersion): .*$", rf"\g<1>: {version}", chart, flags=re.MULTILINE)
    return re.sub(r"^(      image: \S+:)\S+$", rf"\g<1>{version}", chart, flags=re.MULTILINE)


def main() -> None:
    """Change Chart.yaml and values.yaml in place."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chart", type=Path)
    parser.add_argument("--version", required=True)
    parser.add_argument("images", nargs="*", metavar="IMAGE=FILE")
    arguments = parser.parse_intermixed_args()
    values, chart = arguments.chart / "values.yaml", arguments.chart / "Chart.yaml"
    text = values.read_text(encoding="utf-8")
    for pair in arguments.images:
        image, _, file = pair.partition("=")
        text = with_digest(text, image, digest_of(Path(file).read_text(encoding="utf-8")))
    values.write_text(text, encoding="utf-8")
    chart.write_text(with_version(chart.read_text(encoding="utf-8"), arguments.version), encoding="utf-8")


if __name__ == "__main__":
    main()
