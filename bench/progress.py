"""What live progress costs a step when its server takes connections and never answers.

    python bench/progress.py [--steps 200] [--rounds 5] [--interval 0.05]

One run, contenders taking turns: our loop without progress; our loop with the reporter that a pod has, posting far more
often than in a pod, to a silent server; and the peer, transformers' own KubeflowCallback in a plain Trainer with the
same server, for a few steps. Printed: steps/s of each, and the ratio of silent to none; 1 is free.
"""

import argparse
import os
import statistics
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / folder) for folder in ("api", "jobimage", "tests")]

import train  # noqa: E402
from support.progress_double import server  # noqa: E402

from lmft_api.wire.progress import SERVER_URL_VARIABLE, TOKEN_VARIABLE  # noqa: E402
from lmft_job.attempt.context import quiet_transformers  # noqa: E402
from lmft_job.data.rows import BlockWriter  # noqa: E402
from lmft_job.observers.reporter import Endpoint, ProgressReporter  # noqa: E402

PEER_STEPS = 3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("steps", 200), ("rounds", 5), ("batch", 8), ("block", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--interval", type=float, default=0.05, help="seconds between two posts; a pod has 10")
    given = parser.parse_args()
    options = train.command_line().parse_args([])
    options.steps, options.batch, options.block = given.steps, given.batch, given.block
    quiet_transformers()
    with tempfile.TemporaryDirectory() as name, server(silent=threading.Event()) as (url, _):
        folder = Path(name)
        path = folder / "blocks.arrow"
        with BlockWriter(path, options.block, options.vocabulary) as writer:
            ids = np.random.default_rng(0).integers(
                0, options.vocabulary, options.steps * options.batch * options.block
            )
            writer.add(ids)

        def none() -> float:
            return train.ours(options, path, folder / "none")

        def silent() -> float:
            reporter = ProgressReporter(Endpoint(url, None, None), interval=given.interval)
            with reporter:
                return train.ours(options, path, folder / "silent", reporter)

        none()
        pairs = []
        for turn in range(given.rounds):
            seconds = {run: run() for run in ((none, silent) if turn % 2 else (silent, none))}
            pairs.append((seconds[none], seconds[silent]))
        token = folder / "token"
        token.write_text("bench")
        os.environ |= {SERVER_URL_VARIABLE: url, TOKEN_VARIABLE: str(token), "DISABLE_KUBEFLOW_INTEGRATION": "FALSE"}
        options.steps = PEER_STEPS
        peer = train.tutorial(options, path, folder / "peer", report_to="kubeflow")
    for label, rate in (
        ("none", given.steps / statistics.median(pair[0] for pair in pairs)),
        ("silent", given.steps / statistics.median(pair[1] for pair in pairs)),
        ("peer, silent", PEER_STEPS / peer),
    ):
        print(f"{label:13} {rate:8.2f} steps/s")
    ratios = sorted(without / with_silent for without, with_silent in pairs)
    print(f"ratio         {statistics.median(ratios):8.3f} ({ratios[0]:.3f}-{ratios[-1]:.3f}, {len(ratios)} pairs)")


if __name__ == "__main__":
    main()
