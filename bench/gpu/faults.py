"""Faults on a GPU: SIGTERM in the middle with a resumed run after it, and no GPU at all.

python bench/gpu/faults.py       # --tiny for a CPU; shortage.py is the third fault
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from commands import QUICKSTART, judge, manifest, report, say, start


def interruption(folder: Path, steps: int, *, tiny: bool) -> None:
    """SIGTERM once a checkpoint is there; the same command resumes, and the figures are those of an undisturbed run.

    The undisturbed run trains meanwhile: only figures are compared, no times but that from the signal to the end.
    """
    shape: dict[str, dict[str, Any]] = {
        "training": {"epochs": None, "maxSteps": steps}, "checkpoint": {"everySteps": steps // 8},
        "resources": {"gpusPerNode": 1},
        **({"dataset": {"testPercent": 2}, "sample": {"maxNewTokens": 4}, "resources": {"gpusPerNode": 0}}
           if tiny else {}),
    }  # fmt: skip
    paths = {name: manifest(folder, name, **shape) for name in ("undisturbed", "disturbed")}
    # A cache each: the one would wait for the data that the other prepares.
    undisturbed = start(folder, paths["undisturbed"], LMFT_CACHE=str(folder / "other-cache"))
    process = start(folder, paths["disturbed"])
    checkpoints = folder / "runs" / "default" / "runs" / "disturbed" / "checkpoints"
    while process.poll() is None and not any(checkpoints.rglob("MANIFEST.json")):
        time.sleep(0.05)
    asked = time.perf_counter()
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate()
    seconds = round(time.perf_counter() - asked, 2)
    again = start(folder, paths["disturbed"])
    text, _ = again.communicate()
    other, _ = undisturbed.communicate()
    exits = [process.returncode, again.returncode, undisturbed.returncode]
    from_step = None
    if exits[1:] == [0, 0]:
        both = {name: report(folder, name) for name in paths}
        from_step = both["disturbed"]["training"].get("resumedFromStep")
        ours, peer = (both[name]["results"]["perplexity"] for name in ("disturbed", "undisturbed"))
        judge("faults/resumed", abs(ours / peer - 1), tiny=tiny, ours=ours, peer=peer)
    else:
        say(fault="SIGTERM", said=(said + text + other)[-900:])
    ended = exits == [75, 0, 0] and bool(from_step)
    judge("faults/sigterm", ended, tiny=tiny, exits=exits, seconds=seconds, resumed_from_step=from_step)


def reason_without_gpu(folder: Path) -> None:
    """In a process that sees no GPU, run as a pod does what asks for one; print why it ended."""
    from attempts import FailedError, attempt  # torch; the parent needs none of it

    spec = yaml.safe_load(QUICKSTART.read_text())["spec"]
    spec |= {"resources": {"gpusPerNode": 1}, "output": {"uri": (folder / "missing").as_uri()}}
    try:
        attempt(spec, folder, "missing", in_pod=True)
        found = "it ran to its end"
    except FailedError as error:
        found = error.reason
    print(json.dumps({"reason": found}), flush=True)


def main() -> None:
    """Provoke each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--tiny", action="store_true", help="few steps, on a CPU")
    parser.add_argument("--without-gpu", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.without_gpu:
        reason_without_gpu(options.without_gpu)
        return
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, __file__, "--without-gpu", name]
        without = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        missing = subprocess.Popen(command, env=without, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        interruption(Path(name), 80 if options.tiny else options.steps, tiny=options.tiny)
        out, err = missing.communicate()
        reason = json.loads(out.splitlines()[-1])["reason"] if out.strip() else err[-600:]
        judge("faults/missing", reason == "AcceleratorMissing", tiny=options.tiny, reason=reason)


if __name__ == "__main__":
    main()
