"""Writes the plugin of kubectl, ``kubectl lmft``: its archive, and the manifest by which krew installs it.

Usage: krew.py VERSION FOLDER. The archive holds a launcher, which runs that version of the Python package with uv or
pipx; so one archive serves every platform on which Python does.
"""

import gzip
import hashlib
import io
import sys
import tarfile
from pathlib import Path

TOP = Path(__file__).parents[1]
HOME = "https://github.com/lmfinetune/lmfinetune"
PLATFORMS = [("linux", "amd64"), ("linux", "arm64"), ("darwin", "amd64"), ("darwin", "arm64")]
LAUNCHER = """#!/bin/sh
# Runs kubectl-lmft of the package lmfinetune, which uv or pipx fetches on first use and keeps.
if command -v uvx >/dev/null 2>&1; then exec uvx --from "lmfinetune=={version}" kubectl-lmft "$@"; fi
if command -v pipx >/dev/null 2>&1; then exec pipx run --spec "lmfinetune=={version}" kubectl-lmft "$@"; fi
echo "kubectl lmft needs uv (https://docs.astral.sh/uv/) or pipx (https://pipx.pypa.io) on the PATH" >&2
exit 2
"""


def archive(version: str) -> bytes:
    """A .tar.gz with launcher and licence; the same bytes for the same version."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as files:
        for name, mode, content in (
            ("LICENSE", 0o644, (TOP / "LICENSE").read_bytes()),
            ("kubectl-lmft", 0o755, LAUNCHER.format(version=version).encode()),
        ):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            files.addfile(entry, io.BytesIO(content))
    return gzip.compress(packed.getvalue(), mtime=0)


def manifest(version: str, digest: str) -> str:
    """The manifest for krew's index.

    Args:
        version: such as 1.2.3.
        digest: SHA-256 of the archive, in hex.
    """
    platforms = "".join(
        f"""  - selector: {{matchLabels: {{os: {system}, arch: {processor}}}}}
    uri: {HOME}/releases/download/v{version}/kubectl-lmft-v{version}.tar.gz
    sha256: {digest}
    bin: kubectl-lmft
"""
        for system, processor in PLATFORMS
    )
    return f"""apiVersion: krew.googlecontainertools.github.com/v1alpha2
kind: Plugin
metadata: {{name: lmft}}
spec:
  version: v{version}
  homepage: {HOME}
  shortDescription: Follow and steer LMFineTune runs
  description: |
    Lists, watches, suspends, resumes, cancels and compares runs that fine-tune language models,
    prints their logs and opens their reports.
  caveats: |
    Needs uv (https://docs.astral.sh/uv/) or pipx (https://pipx.pypa.io) on the PATH.
  platforms:
{platforms}"""


def main() -> None:
    """See the module."""
    version, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    packed = archive(version)
    (folder / f"kubectl-lmft-v{version}.tar.gz").write_bytes(packed)
    (folder / "lmft.yaml").write_text(manifest(version, hashlib.sha256(packed).hexdigest()), encoding="utf-8")


if __name__ == "__main__":
    main()
