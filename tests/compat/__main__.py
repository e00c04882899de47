"""``make compat``: what ``lmft run`` publishes, loaded by the transformers before ours and by ours."""

import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

from compat.cases import CASES, Case
from compat.environment import interpreter
from support.local_runs import manifest, run_here

TOLERANCE = 1e-5
TEXTS = ["The river of Ghent is wide", "The  ship of Lund, isn't it: Käse ☃ 12,345", "garden"]
WAYS = {
    "CausalLM": ("AutoModelForCausalLM", "text-generation"),
    "MaskedLM": ("AutoModelForMaskedLM", "fill-mask"),
    "SequenceClassification": ("AutoModelForSequenceClassification", "text-classification"),
}
_OF_OURS = {
    "local_files_only",
    "is_local",
    "name_or_path",
    "_name_or_path",
    "cache_dir",
    "tokenizer_file",
    "vocab_file",
}


def main() -> int:
    """Train, load with both, print a table; 1 where anything is wrong."""
    older = interpreter()
    wrong: dict[str, list[str]] = {}
    asked: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="lmft-compat-") as top:
        for number, (name, case) in enumerate(CASES.items()):
            home = Path(top) / str(number)
            home.mkdir()
            try:
                model = train(case, home)
            except RuntimeError as error:
                wrong[name] = [str(error)]
                continue
            wrong[name] = judge_files(case, model, home)
            auto, pipeline = WAYS[case.task]
            asked[name] = {"folder": str(model), "auto": auto, "pipeline": pipeline, "texts": TEXTS}
        before, ours = (examine(python, asked) for python in (older, Path(sys.executable)))
    if before["version"] == ours["version"]:
        raise RuntimeError(f"both interpreters have transformers {ours['version']}")
    for name in asked:
        wrong[name] += compare(before[name], ours[name])
    print(f"published by transformers {ours['version']}, loaded by it and by {before['version']}\n")
    for name, problems in wrong.items():
        loss = f"{before[name].get('loss', math.nan):.6f}" if name in asked else "-"
        kind = before[name].get("class", "-") if name in asked else "-"
        print(f"{name:28} {CASES[name].task:22} {kind:24} loss {loss:9}  {'equal' if not problems else 'WRONG'}")
        for problem in problems:
            print(f"    {problem}")
    print(f"\n{sum(not problems for problems in wrong.values())} of {len(wrong)} load and answer alike in both")
    return int(any(wrong.values()))


def train(case: Case, home: Path) -> Path:
    """The published folder of a run.

    Raises:
        RuntimeError: it was not done.
    """
    toy: dict[str, Any] = {"model": {"fromConfig": None}, "training": {"epochs": 1}, "sample": {"prompts": []}}
    path = manifest(home, task=case.task, **toy)
    body = json.loads(path.read_text())
    body["spec"]["model"] = case.model(home)
    del body["spec"]["sample"]
    path.write_text(json.dumps(body))
    done = run_here(home, path)
    if done.returncode:
        raise RuntimeError(f"lmft run ended with {done.returncode}: {(done.stdout + done.stderr)[-800:]}")
    [model] = home.glob("runs/*/runs/*/model")
    return model


def judge_files(case: Case, model: Path, home: Path) -> list[str]:
    """What is wrong with the settings that a folder holds."""
    problems = []
    for path in sorted(model.rglob("*.json")):
        text = path.read_text(encoding="utf-8")
        if str(home) in text:
            problems.append(f"{path.name} names the folder of the run")
        if path.name != "tokenizer.json":  # whose tokens may look like anything
            problems += [f"{path.name}: {found}" for found in local_words(json.loads(text))]
    tokenizer = json.loads((model / "tokenizer_config.json").read_text()).get("tokenizer_class")
    if tokenizer != case.tokenizer:
        problems.append(f"tokenizer_class is {tokenizer}, not {case.tokenizer}")
    if case.task == "CausalLM":
        generation = json.loads((model / "generation_config.json").read_text())
        for name, value in case.generation.items():
            if generation.get(name) != value:
                problems.append(f"generation_config.json: {name} is {generation.get(name)}, not {value}")
    return problems


def local_words(value: Any) -> list[str]:
    """Names and values that mean something on the machine of the run only."""
    if isinstance(value, list):
        return [word for item in value for word in local_words(item)]
    if isinstance(value, dict):
        named = [name for name in value if name in _OF_OURS]
        return named + [word for item in value.values() for word in local_words(item)]
    return [value] if isinstance(value, str) and value.startswith(("/", "file:")) and len(value) > 1 else []


def examine(python: Path, asked: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What an interpreter's transformers makes of the folders."""
    script = Path(__file__).with_name("examine.py")
    done = subprocess.run(
        [python, script], input=json.dumps(asked), stdout=subprocess.PIPE, text=True, check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"},
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def compare(before: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """Where the two disagree, or either fails."""
    errors = [f"transformers {said}: {found['error']}" for said, found in
              (("before ours", before), ("ours", ours)) if "error" in found]  # fmt: skip
    if errors:
        return errors
    problems = [f"{name}: {before[name]!r} before, {ours[name]!r} with ours"
                for name in ("ids", "decoded", "special", "limit", "side", "labels", "answer")
                if before[name] != ours[name]]  # fmt: skip
    for said, found in (("before", before), ("with ours", ours)):
        problems += [f"{name} {said}: {keys}" for name, keys in found["keys"].items()]
    # 4.57 fills in defaults where ours leaves None: what ours has, the one before must have too.
    for name, value in ours["generation"].items():
        if before["generation"].get(name) != value:
            problems.append(f"generation settings: {name} is {before['generation'].get(name)} before, not {value}")
    pairs = [("loss", [before["loss"]], [ours["loss"]]), ("logits", before["logits"], ours["logits"])]
    for name, one, other in pairs:
        furthest = max(map(abs, map(float.__sub__, one, other))) if len(one) == len(other) else math.inf
        if not furthest <= TOLERANCE:
            problems.append(f"{name} differ by {furthest:.2g}")
    return problems


if __name__ == "__main__":
    sys.exit(main())
