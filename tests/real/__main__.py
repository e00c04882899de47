"""Fine-tune SmolLM2-135M-Instruct with LoRA, print what came out, and load it with ``pipeline()``."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from real.models import smollm2
from real.samples import redactions

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache/real"
PROMPT = "Explain the with statement in Python."


def manifest(model: Path, folder: Path) -> dict[str, Any]:
    """LoRA's defaults, on the questions and answers that examples/questions.py writes."""
    return {
        "apiVersion": "lmfinetune.dev/v1alpha1",
        "kind": "LMFineTune",
        "metadata": {"name": "real"},
        "spec": {
            "model": {"name": f"file://{model}"},
            "dataset": {
                "files": [f"file://{folder}/questions.csv"],
                "format": "csv",
                "promptField": "question",
                "completionField": "answer",
                "maxLength": 256,
                "testPercent": 20,
            },
            "training": {"maxSteps": 40, "perDeviceBatchSize": 2, "adapter": {}},
            "sample": {"prompts": [PROMPT], "maxNewTokens": 60},
        },
    }


def main() -> int:
    """Run it; 1 if perplexity did not fall, the published model does not load or drifts, or a sample is redacted."""
    model = smollm2(CACHE)
    with tempfile.TemporaryDirectory(prefix="lmft-real-") as name:
        folder = Path(name)
        subprocess.run([sys.executable, str(ROOT / "examples/questions.py"), str(folder)], check=True)
        (folder / "real.yaml").write_text(yaml.safe_dump(manifest(model, folder)))
        command = [sys.executable, "-m", "lmft_job.cli", "run", str(folder / "real.yaml"), "--output", str(folder)]
        subprocess.run(command, check=True)
        run = folder / "default/runs/real"
        results = json.loads((run / "report.json").read_text())
        wrong = judge(results, answer(run / "model"))
    samples, characters, changed = redactions(model)
    print(f"{samples} samples of {characters:,} characters, of which redaction would change {len(changed)}")
    for text in changed:
        print(f"  {text!r}")
    return int(bool(wrong or changed))


def answer(model: Path) -> str:
    """What ``pipeline()`` answers with the published folder."""
    from transformers import pipeline

    pipe = pipeline("text-generation", model=str(model))
    turns = pipe([{"role": "user", "content": PROMPT}], max_new_tokens=60)[0]["generated_text"]
    return str(turns[-1]["content"])


def judge(report: dict[str, Any], said: str) -> int:
    """Print the outcome; 1 if it is not what it should be."""
    results, adapter = report["results"], report["adapter"]
    drift = adapter["mergedLoss"] - adapter["adapterLoss"]
    before, after = results["baselinePerplexity"], results["perplexity"]
    print(f"\nperplexity of the answers: {before:.2f} before, {after:.2f} after")
    print(f"merging moved the held-out loss by {drift:+.6f} nats")
    print(f"{report['training']['tokensPerSecond']:.0f} tokens/s on {report['device']}")
    print(f"pipeline() says: {said}")
    return int(not (after < before and abs(drift) < 0.005 and said.strip()))


if __name__ == "__main__":
    sys.exit(main())
