"""From the start of the process to the end of the first step, on a GPU: ``lmft run`` beside a bare Trainer script.

    python bench/gpu/start.py       # --tiny: on the CPU, where bench/start.py says more

bench/start.py with its data prepared and its files read before; as many rounds as there is time for, a line for each.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from commands import judge, leave_out, say, seconds_left

sys.path.insert(0, str(Path(__file__).parents[1]))  # before this folder, whose start.py is this file
from start import FailedError, child, figures, prepare_rows

KINDS = ("ours", "bare")


def main() -> None:
    """Warm both, then run them in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    tiny = parser.parse_args().tiny
    seen: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as name:
        folder, longest, number = Path(name), 0.0, 0
        prepare_rows(folder)
        try:
            for kind in KINDS:
                cold = figures(child(kind, folder, gpu=not tiny))["wall"]
                say(part="start", loop=kind, warm=False, seconds=round(cold, 2))
            while not number or (number < 5 and not tiny and seconds_left() > 1.2 * longest):
                began = time.perf_counter()
                for kind in KINDS if number % 2 == 0 else reversed(KINDS):
                    found = figures(child(kind, folder, gpu=not tiny))
                    seen[kind].append(found["wall"])
                    rounded = {key: round(value, 2) for key, value in found["phases"].items()}
                    say(part="start", loop=kind, warm=True, seconds=round(found["wall"], 2), cpu_seconds=rounded)
                longest, number = max(longest, time.perf_counter() - began), number + 1
                ours, peer = (round(statistics.median(seen[kind]), 3) for kind in KINDS)
                judge(
                    "start/first-step", round(ours / peer, 3), tiny=tiny, ours=ours, peer=peer, unit="s", rounds=number
                )
        except FailedError as error:
            if not number:
                leave_out("start/first-step", str(error)[-600:])
            print(error, file=sys.stderr)
            sys.exit(1)


if __name__ == "__main__":
    main()
