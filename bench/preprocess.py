"""Tokenise and pack: ours against the tutorial's two ``map`` calls and against the bare fast tokenizer, in one run.

    python bench/preprocess.py [--rows 60000] [--folder DIR]

Every contender runs in a process of its own on the same generated corpus (60,000 rows are about 10 million tokens) and
the same trained tokenizer. Ours is timed whole: hashing and reading the file, split, tokenising, packing, writing.
The tutorial is timed for its two ``map`` calls alone, once in one process and once with its ``num_proc=4``, and the
faster counts. Bare is the fast tokenizer's own call over texts in memory, its ids read out; core is its fastest call
with the ids thrown away (ours can pass it, as it looks repeated words up). Memory is the peak resident set of ours, at
the corpus and at ten times that.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / folder) for folder in ("api", "jobimage", "tests")]
BLOCK_SIZE = 128
VOCABULARY = 16_000


class Stopwatch:
    """Seconds on the wall, and of all cores, this process's children included, while inside."""

    seconds = cpu = 0.0

    def __enter__(self) -> None:
        self.seconds, self.cpu = time.perf_counter(), self._cpu()

    def __exit__(self, *error: object) -> None:
        self.seconds, self.cpu = time.perf_counter() - self.seconds, self._cpu() - self.cpu

    def _cpu(self) -> float:
        usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(times.ru_utime + times.ru_stime for times in usage)


def ours(corpus: Path, tokenizer: Any, folder: Path, watch: Stopwatch) -> int:
    """The job's own preparation."""
    from lmft_api.spec import LMFineTuneSpec
    from lmft_api.spec.resolved import resolve
    from lmft_job.data.prepared import prepare

    files = [f"file://{path}" for path in sorted(corpus.glob("*.jsonl"))]
    dataset = {"files": files, "format": "json", "textField": "answers.text", "testPercent": 10}
    manifest = {"model": {"name": "toy"}, "dataset": {**dataset, "blockSize": BLOCK_SIZE}}
    settings = resolve(LMFineTuneSpec.model_validate_json(json.dumps(manifest)))
    with watch:
        prepared = prepare(settings, tokenizer, store=None, cache=folder)
    return prepared.figures.train_tokens + (prepared.figures.eval_tokens or 0)


def tutorial(corpus: Path, tokenizer: Any, folder: Path, watch: Stopwatch, processes: int | None = None) -> int:
    """The guide's recipe: tokenise in one ``map``, concatenate and cut in another."""
    import datasets

    datasets.disable_progress_bars()
    files = [str(path) for path in sorted(corpus.glob("*.jsonl"))]
    data = datasets.load_dataset("json", data_files=files, split="train", cache_dir=str(folder))
    data = data.train_test_split(test_size=0.1, seed=42).flatten()

    def tokenise(examples: dict[str, list[Any]]) -> Any:
        return tokenizer([" ".join(paragraphs) for paragraphs in examples["answers.text"]])

    def group(examples: dict[str, list[Any]]) -> dict[str, list[Any]]:
        joined: dict[str, list[int]] = {key: sum(examples[key], []) for key in examples}  # noqa: RUF017 (the guide's)
        whole = len(joined["input_ids"]) // BLOCK_SIZE * BLOCK_SIZE
        cut = {key: [ids[i : i + BLOCK_SIZE] for i in range(0, whole, BLOCK_SIZE)] for key, ids in joined.items()}
        return {**cut, "labels": list(cut["input_ids"])}

    with watch:
        tokenised = data.map(tokenise, batched=True, num_proc=processes, remove_columns=data["train"].column_names)
        blocks = tokenised.map(group, batched=True, num_proc=processes)
    return (len(blocks["train"]) + len(blocks["test"])) * BLOCK_SIZE


def tutorial4(corpus: Path, tokenizer: Any, folder: Path, watch: Stopwatch) -> int:
    """The same with the guide's ``num_proc=4``."""
    return tutorial(corpus, tokenizer, folder, watch, 4)


def bare(corpus: Path, tokenizer: Any, folder: Path, watch: Stopwatch) -> int:
    """The fast tokenizer alone: the Rust call that transformers makes, and its ids read out."""
    texts, encode, tokens = _texts(corpus), tokenizer.backend_tokenizer.encode_batch, 0
    with watch:
        for first in range(0, len(texts), 1000):
            tokens += sum(len(encoding.ids) for encoding in encode(texts[first : first + 1000]))
    return tokens


def core(corpus: Path, tokenizer: Any, folder: Path, watch: Stopwatch) -> int:
    """The fastest Rust call, ids thrown away unseen."""
    texts, encode, tokens = _texts(corpus), tokenizer.backend_tokenizer.encode_batch_fast, 0
    with watch:
        for first in range(0, len(texts), 1000):
            tokens += sum(map(len, encode(texts[first : first + 1000])))
    return tokens


def _texts(corpus: Path) -> list[str]:
    texts: list[str] = []
    for path in sorted(corpus.glob("*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            texts += [" ".join(json.loads(line)["answers"]["text"]) for line in lines]
    return texts


CONTENDERS: dict[str, Callable[[Path, Any, Path, Stopwatch], int]] = {
    "ours": ours,
    "tutorial": tutorial,
    "tutorial4": tutorial4,
    "bare": bare,
    "core": core,
}


def contend(name: str, corpus: Path, folder: Path) -> None:
    """One contender, in this process; its figures as JSON on the last line."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder / "tokenizer"))
    watch = Stopwatch()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        tokens = CONTENDERS[name](corpus, tokenizer, Path(scratch), watch)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": watch.seconds, "cpu": watch.cpu, "tokens": tokens, "peak": peak}))


def measure(name: str, corpus: Path, folder: Path) -> dict[str, float]:
    """One contender, in a process of its own."""
    environment = {
        **os.environ,
        "TOKENIZERS_PARALLELISM": "true",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    command = [sys.executable, "-P", __file__, "--contender", name, "--corpus", str(corpus), "--folder", str(folder)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    rate = figures["tokens"] / figures["seconds"] / 1e6
    print(
        f"{name:10} {figures['tokens'] / 1e6:7.1f} M tokens  {figures['seconds']:7.2f} s  {rate:5.2f} M tokens/s"
        f"  CPU {figures['cpu']:6.1f} s"
        f"  peak {figures['peak']:6.0f} MiB",
        flush=True,
    )
    return figures


def main() -> None:
    """Generate, measure, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--corpus", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        contend(options.contender, options.corpus, options.folder)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        compare(Path(name), options.rows)


def compare(folder: Path, rows: int) -> None:
    """All contenders on one corpus; ours on ten times the corpus too."""
    from support.corpora import write_json

    from lmft_api.tasks import Task
    from lmft_job.models import tokenizers

    one, ten = folder / "one", folder / "ten"
    one.mkdir()
    ten.mkdir()
    first = write_json(one / "part-0.jsonl", rows, seed=1, vocabulary=50_000)
    for part in range(10):  # different first lines, so that they are ten files and not one ten times
        (ten / f"part-{part}.jsonl").write_text(
            json.dumps({"answers": {"text": [str(part)]}}) + "\n" + first.read_text()
        )
    with first.open() as lines:
        sample = [" ".join(json.loads(next(lines))["answers"]["text"]) for _ in range(min(rows, 5000))]
    tokenizers.train(iter([sample]), VOCABULARY, Task.CAUSAL_LM).save_pretrained(str(folder / "tokenizer"))

    # Two rounds, the better of each: neighbours on the machine hit both contenders of a round alike.
    best: dict[str, dict[str, float]] = {}
    for name in ("bare", "core", "ours", "tutorial", "tutorial4") * 2:
        run = measure(name, one, folder)
        best[name] = min(run, best.get(name, run), key=lambda figures: figures["seconds"])
    speed = {name: run["tokens"] / run["seconds"] for name, run in best.items()}
    large = measure("ours", ten, folder)
    print(f"ours / tutorial  {speed['ours'] / max(speed['tutorial'], speed['tutorial4']):5.2f}   (goal at least 3)")
    print(f"ours / bare      {speed['ours'] / speed['bare']:5.2f}   (goal at least 0.85)")
    cost = {name: run["cpu"] / run["tokens"] for name, run in best.items()}
    by_cpu = {name: cost[name] / cost["ours"] for name in ("tutorial", "bare", "core")}
    print(f"ours / core      {speed['ours'] / speed['core']:5.2f}")
    print("by CPU time: " + ", ".join(f"ours / {name} {ratio:.2f}" for name, ratio in by_cpu.items()))
    print(f"peak memory 10x / 1x  {large['peak'] / best['ours']['peak']:5.2f}   (goal at most 1.20)")


if __name__ == "__main__":
    main()
