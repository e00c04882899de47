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
    rows = [job.train_rows[index] for index in range(len(job.train_rows))]
    listed = [{name: row[name].tolist() for name in ("input_ids", "labels")} for row in rows]
    base = transformers.AutoModelForCausalLM.from_pretrained(model.removeprefix("file://"), dtype="float32")
    found = train_peer(
        trl, base, listed, job.tokenizer, in_order=True,
        output_dir=str(job.folder / "trl"), max_steps=steps, per_device_train_batch_size=BATCH, learning_rate=RATE,
        use_cpu=True, bf16=False, packing=False, max_length=None, dataset_kwargs={"skip_prepare_dataset": True},
    )  # fmt: skip
    return {"losses": found["losses"], "rate": found["rate"]}


def train_peer(
    trl: str | None, base: Any, listed: list[dict[str, list[int]]], tokenizer: Any, *, in_order: bool = False,
    warm: int = 1, **arguments: Any,
) -> dict[str, Any]:  # fmt: skip
    """Train LoRA on rows of ids and labels with SFTTrainer; losses of each step, tokens/s after the first, the model.

    Args:
        trl: folder that holds TRL; None where it is installed.
        base: model of transformers.
        listed: rows.
        tokenizer: of the model.
        in_order: whether the order of the rows is ours.
        warm: steps that are not timed.
        arguments: of ``SFTConfig``.
    """
    if trl:
        sys.path.append(trl)
    import torch
    from trl import SFTConfig, SFTTrainer

    losses: list[Any] = []
    tokens: list[Any] = []
    marks: list[float] = []

    class Peer(SFTTrainer):  # type: ignore[misc]
        def _get_train_sampler(self, *args: Any) -> Any:
            return EpochSampler(len(listed), SEED) if in_order else super()._get_train_sampler(*args)

        def training_step(self, given: Any, inputs: Any, *args: Any, **options: Any) -> Any:
            # Read at the end: to read them now would wait for the device.
            mask = inputs.get("attention_mask")
            tokens.append(inputs["input_ids"].numel() if mask is None else mask.sum())
            loss = super().training_step(given, inputs, *args, **options)
            losses.append(loss.detach())
            return loss

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, *more: Any, **options: Any) -> None:
            if torch.cuda.is_available() and state.global_step in (warm, state.max_steps):
                torch.cuda.synchronize()
            marks.append(time.monotonic())

    transformers.set_seed(SEED)
    trainer = Peer(
        model=base,
        args=SFTConfig(
            weight_decay=0.01, seed=SEED, gradient_checkpointing=False, remove_unused_columns=False, report_to="none",
            save_strategy="no", disable_tqdm=True, loss_type="nll", **arguments,
        ),
        train_dataset=datasets.Dataset.from_list(listed),
        processing_class=tokenizer,
        peft_config=peft.LoraConfig(
            task_type="CAUSAL_LM", r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear"
        ),
        callbacks=[Clock()],
    )  # fmt: skip
    trainer.train()
    rate = sum(map(int, tokens[warm:])) / (marks[-1] - marks[warm - 1])
    return {"losses": [float(loss) for loss in losses], "rate": rate, "model": trainer.model}


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
