"""The three tutorials' manifests end to end on a GPU: their models from their configurations, with random weights.

    python bench/gpu/tutorials.py       # one JSON line a run; --tiny for a CPU

Neither the models' weights nor the data sets are at hand without a network: the texts are Python's documentation, and
for the classifier rows that say which of two words they contain. Everything else is as the manifests have it, so
precision Auto is BF16. The figures are not the tutorials'; that each run ends, what it used and how fast it was is.
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from attempts import FailedError, attempt
from commands import QUICKSTART, judge, say

MODELS: dict[str, dict[str, Any]] = {
    "causal-lm-eli5": {"model_type": "gpt2", "n_layer": 6, "n_head": 12, "n_embd": 768, "n_positions": 1024},
    "masked-lm-eli5": {"model_type": "roberta", "num_hidden_layers": 6, "max_position_embeddings": 514},
    "classification-rotten-tomatoes": {"model_type": "distilbert"},
}
"""The configurations of distilgpt2, distilroberta-base and distilbert-base, but for the vocabulary."""
SMALL: dict[str, dict[str, Any]] = {
    "gpt2": {"n_layer": 1, "n_head": 2, "n_embd": 32},
    "roberta": {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 64},
    "distilbert": {"n_layers": 1, "n_heads": 2, "dim": 32, "hidden_dim": 64},
}


def spec_of(folder: Path, name: str, tiny: bool) -> dict[str, Any]:
    """An example that needs no network."""
    spec: dict[str, Any] = yaml.safe_load((QUICKSTART.parent / f"{name}.yaml").read_text())["spec"]
    config = MODELS[name]
    if tiny:
        config = {**config, **SMALL[config["model_type"]]}
        spec["resources"] = {"gpusPerNode": 0}
        spec["training"] = {"maxSteps": 5}
    spec["model"] = {"fromConfig": config, "tokenizer": {"trainVocabSize": 400 if tiny else 8000}}
    if spec["task"] == "SequenceClassification":
        data = folder / "rows.jsonl"
        write_rows(data, 200 if tiny else 8000)
        spec["dataset"] = {"files": [data.as_uri()], "format": "json", "testPercent": 10}
    else:
        kept = ("blockSize", "maskProbability", "testPercent")
        spec["dataset"] = {"builtin": "PythonDocs", **{k: v for k, v in spec["dataset"].items() if k in kept}}
    if tiny:
        spec["dataset"]["testPercent"] = 2
    spec["output"] = {"uri": (folder / "runs").as_uri()}
    return spec


def write_rows(path: Path, count: int) -> None:
    """Rows of words, with a label that one of them decides."""
    draw = random.Random(0)
    words = [f"word{number}" for number in range(300)]
    with path.open("w") as file:
        for _ in range(count):
            said = draw.choices(words, k=draw.randint(5, 50))
            label = draw.choice(("good", "bad"))
            said[draw.randrange(len(said))] = label
            file.write(json.dumps({"text": " ".join(said), "label": label}) + "\n")


def main() -> None:
    """Run each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    tiny = parser.parse_args().tiny
    for name in MODELS:
        with tempfile.TemporaryDirectory() as scratch:
            folder, began = Path(scratch), time.perf_counter()
            line: dict[str, Any] = {"part": "tutorials", "case": name}
            try:
                found = attempt(spec_of(folder, name, tiny), folder, name)
            except FailedError as error:
                say(**line, said=str(error))
                judge("tutorials/run", False, tiny=tiny, case=name)
                continue
            results = {key: found["results"].get(key) for key in ("baselineEvalLoss", "evalLoss", "accuracy")}
            say(
                **line, precision=found["precision"], used=found.get("acceleration"), **results,
                tokens_per_s=found["training"].get("tokensPerSecond"), timings=found["timings"],
                seconds=round(time.perf_counter() - began, 1),
            )  # fmt: skip
            better = results["evalLoss"] < results["baselineEvalLoss"]
            good = tiny or (better and found["precision"] == "BF16")
            judge("tutorials/run", good, tiny=tiny, case=name, better=better)


if __name__ == "__main__":
    main()
