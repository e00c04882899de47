"""``make sweep``: every model type that transformers lists for the three tasks, trained from a tiny configuration."""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

import transformers
from sweep import table
from sweep.independent import AUTO
from sweep.trial import Verdict, try_type


def types() -> list[tuple[str, str]]:
    """Task and model type, as the Auto classes list them."""
    found = []
    for task, factory in AUTO.items():
        kinds = {config.model_type for config in factory._model_mapping}
        found += [(task, kind) for kind in sorted(kinds)]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "kinds", nargs="*", help="model types, whose rows of the page are written anew; all when there are none"
    )
    parser.add_argument("--task", choices=list(AUTO))
    parser.add_argument("--keep", action="store_true", help="keep the folders of the runs")
    chosen = parser.parse_args()
    partial = bool(chosen.kinds or chosen.task)
    top = Path(tempfile.mkdtemp(prefix="lmft-sweep-"))
    verdicts: dict[tuple[str, str], Verdict] = {}
    for task, kind in types():
        if (chosen.kinds and kind not in chosen.kinds) or (chosen.task and task != chosen.task):
            continue
        home = top / f"{task}-{kind}"
        home.mkdir()
        began = time.monotonic()
        verdicts[task, kind] = verdict = try_type(task, kind, home)
        print(f"{verdict.outcome:8} {task:22} {kind:24} {time.monotonic() - began:5.1f} s  {verdict.words}", flush=True)
        if not chosen.keep:
            shutil.rmtree(home)
    print(Counter(verdict.outcome for verdict in verdicts.values()))
    known = table.read(table.PAGE.read_text()) if partial and table.PAGE.exists() else {}
    table.PAGE.write_text(table.page({**known, **verdicts}, types(), transformers.__version__))
    return int(any(verdict.outcome not in ("equal", "refused") for verdict in verdicts.values()))


if __name__ == "__main__":
    sys.exit(main())
