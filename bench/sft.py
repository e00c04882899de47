"""LoRA on questions and answers: ours beside TRL's SFTTrainer, on equal rows, masks, order and seed, in one run.

TRL is no dependency: ``pip install --target FOLDER --no-deps trl``, then
``PYTHONPATH=tests .venv/bin/python bench/sft.py FOLDER [--model FOLDER] [--steps 20]``; ``make real`` makes a model.
Rows are those of examples/questions.py, one conversation each and padded, since TRL packs otherwise; no dropout, whose
random numbers would differ. Printed: the largest difference of a step's loss, tokens/s of each, and their ratio.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path
from typing import Any

import datasets
import peft
import transformers
from support.forked import complete, run_folder
from support.tiny_bases import save_base

from lmft_job.data.rows import EpochSampler

ROOT = Path(__file__).parents[1]
TEMPLATE = (
    "{% for message in messages %}{{ message.role + ':\\n' + message.content + eos_token + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:\\n' }}{% endif %}"
)
"""For a model without special tokens for turns."""
SEED, BATCH, RATE = 42, 2, 2e-4


def spec(model: str, home: Path, steps: int) -> dict[str, Any]:
    """The manifest of ours."""
    return {
        "model": {"name": model},
        "dataset": {
            "files": [f"file://{home}/questions.csv"], "format": "csv", "promptField": "question",
            "completionField": "answer", "maxLength": 256, "packing": "None",
            **({} if "SmolLM2" in model else {"chatTemplate": {"text": TEMPLATE}}),
        },
        "training": {
            "maxSteps": steps, "perDeviceBatchSize": BATCH, "learningRate": str(RATE),
            "adapter": {"dropout": "0"},
        },
        "checkpoint": {"everySteps": 100_000},
        "output": {"uri": (home / "out").as_uri()},
    }  # fmt: skip


def beside_trl(trl: str, model: str, steps: int, target: Path) -> Any:
    """A patch of the recipe: SFTTrainer trains on the run's rows first, and writes its losses and its rate."""

    def patch(teller: Any) -> None:
        from lmft_job import recipe

        ours = recipe.train

        def both(job: Any, resumed: Any) -> Any:
            target.write_text(json.dumps(train_with_trl(trl, model, steps, job)))
            return ours(job, resumed)

        recipe.train = both

    return patch


def train_with_trl(trl: str, model: str, steps: int, job: Any) -> dict[str, Any]:
    """Losses of each step, and tokens/s of all steps but the first."""
    sys.path.append(trl)
    from trl import SFTConfig, SFTTrainer

    rows = [job.train_rows[index] for index in range(len(job.train_rows))]
    listed = [{name: row[name].tolist() for name in ("input_ids", "labels")} for row in rows]
    losses: list[float] = []
    marks: list[float] = []
    tokens: list[int] = []

    class Peer(SFTTrainer):  # type: ignore[misc]
        def _get_train_sampler(self, *args: Any) -> Any:
            return EpochSampler(len(listed), SEED)

        def training_step(self, given: Any, inputs: Any, *args: Any, **options: Any) -> Any:
            tokens.append(int(inputs["attention_mask"].sum()))
            loss = super().training_step(given, inputs, *args, **options)
            losses.append(float(loss))
            return loss

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *args: Any, **options: Any) -> None:
            marks.append(time.monotonic())

    base = transformers.AutoModelForCausalLM.from_pretrained(model.removeprefix("file://"), dtype="float32")
    transformers.set_seed(SEED)
    Peer(
        model=base,
        args=SFTConfig(
            output_dir=str(job.folder / "trl"), max_steps=steps, per_device_train_batch_size=BATCH, learning_rate=RATE,
            weight_decay=0.01, seed=SEED, use_cpu=True, bf16=False, gradient_checkpointing=False, packing=False,
            max_length=None, remove_unused_columns=False, report_to="none", save_strategy="no", disable_tqdm=True,
            dataset_kwargs={"skip_prepare_dataset": True}, loss_type="nll",
        ),
        train_dataset=datasets.Dataset.from_list(listed),
        processing_class=job.tokenizer,
        peft_config=peft.LoraConfig(
            task_type="CAUSAL_LM", r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear"
        ),
        callbacks=[Clock()],
    ).train()  # fmt: skip
    return {"losses": losses, "rate": sum(tokens[1:]) / (marks[-1] - marks[0])}


def main() -> None:
    """Run it and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trl", help="folder that holds TRL")
    parser.add_argument("--model", type=Path, help="folder of a chat model; a small Llama is made if there is none")
    parser.add_argument("--steps", type=int, default=20)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lmft-sft-") as name:
        home = Path(name)
        subprocess.run([sys.executable, str(ROOT / "examples/questions.py"), str(home)], check=True)
        small = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4}
        model = (
            f"file://{chosen.model.absolute()}"
            if chosen.model
            else save_base(home / "base", "llama", max_position_embeddings=512, num_key_value_heads=4, **small)
        )
        patch = beside_trl(chosen.trl, model, chosen.steps, home / "trl.json")
        complete(home, spec(model, home, chosen.steps), patch=patch)
        theirs = json.loads((home / "trl.json").read_text())
        [file] = run_folder(home).glob("checkpoints/*/*/*/lmft_losses.f64")
        report = json.loads((run_folder(home) / "report.json").read_text())
        mine = array("d")
        mine.frombytes(file.read_bytes())
    apart = max(abs(one - other) for one, other in zip(mine, theirs["losses"], strict=True))
    rate = report["training"]["tokensPerSecond"]
    print(f"{len(mine)} steps; losses differ by at most {apart:.2e}")
    print(f"ours {rate:,.0f} tokens/s, TRL {theirs['rate']:,.0f} tokens/s: ratio {rate / theirs['rate']:.2f}")


if __name__ == "__main__":
    main()
