"""A Python environment with the transformers before ours, which takes torch and all else from ``.venv``."""

import hashlib
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]
_LOCK = ROOT / "requirements" / "compat.txt"


def interpreter() -> Path:
    """Its interpreter; the environment is made on first use, and again when the lock changes."""
    version = hashlib.sha256(_LOCK.read_bytes() + sys.version.encode()).hexdigest()[:12]
    top = ROOT / ".cache" / f"compat-{version}"
    python = top / "bin" / "python"
    if not (top / "ready").exists():
        for old in top.parent.glob("compat-*"):
            shutil.rmtree(old)
        print(f"Setting up {top.relative_to(ROOT)} (once)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(top)], check=True)
        subprocess.run(
            [
                sys.executable, "-m", "pip", f"--python={python}", "install", "--quiet", "--disable-pip-version-check",
                "--no-deps", "--require-hashes", "-r", str(_LOCK),
            ],
            check=True,
        )  # fmt: skip
        (top / "ready").touch()
    # Written each time, for .venv may have moved. Its packages come after the environment's own.
    packages = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    (Path(packages.stdout.strip()) / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python
