"""Training throughput: ours against the tutorial's own Trainer call, on the same model, blocks and batch, in one run.

    python bench/train.py                       # a small GPT-2 on whatever device is there
    python bench/train.py --layers 6 --width 768 --vocabulary 50257 --batch 8 --steps 100

Rounds alternate, so that a machine that slows down slows both. Printed: tokens/s of each, their ratio, and model FLOPs
utilisation (6 x parameters x tokens plus attention's 12 x layers x width x length, after PaLM's appendix B) against
the GPU's peak in 16 bits, whatever the precision; ``--peak-tflops`` names the peak of a device that is not in the
table. On a GPU ours computes in BF16 where the tutorial's call stays in FP32; ``--precision FP32`` makes both the same.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers.trainer_callback import PrinterCallback

from lmft_api.manifest.validation import parse_spec
from lmft_api.spec.resolved import resolve
from lmft_job.attempt.context import quiet_transformers
from lmft_job.data.rows import BlockRows, BlockWriter, stack_blocks
from lmft_job.memory.duration import peak_tflops
from lmft_job.models.device import arithmetic_for
from lmft_job.observers.events import Observer
from lmft_job.process.signals import Interrupt
from lmft_job.training.batch import Batch
from lmft_job.training.history import TrainingHistory
from lmft_job.training.loop import TrainingInputs, TrainingLoop
from lmft_job.training.trainer import build_trainer


class NoUploads:
    """Checkpoints are another benchmark's."""

    def submit(self, folder: Path, step: int, into: str = "") -> None:
        """Nothing."""

    def check(self) -> None:
        """Nothing."""

    def wait(self) -> None:
        """Nothing."""


class NoSaves(transformers.TrainerCallback):
    """Neither evaluation nor checkpoint: the loop alone."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by Trainer, after our own callback."""
        control.should_save = control.should_evaluate = False

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by Trainer, after our own callback."""
        control.should_save = control.should_evaluate = False


class PlainRows(torch.utils.data.Dataset[Any]):
    """The tutorial's data set: Python lists of ids, as ``datasets`` gives them, collated by transformers."""

    def __init__(self, path: Path) -> None:
        import datasets

        self.rows = datasets.Dataset.from_file(str(path))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        ids = self.rows[index]["input_ids"]
        return {"input_ids": ids, "labels": list(ids), "attention_mask": [1] * len(ids)}


def model_of(options: argparse.Namespace) -> Any:
    """The same fresh weights for both."""
    transformers.set_seed(1)
    if options.model == "llama":
        settings = transformers.LlamaConfig(
            num_hidden_layers=options.layers, hidden_size=options.width, intermediate_size=4 * options.width,
            num_attention_heads=options.heads, vocab_size=options.vocabulary, max_position_embeddings=options.block,
        )  # fmt: skip
        return transformers.LlamaForCausalLM(settings)
    config = transformers.GPT2Config(
        n_layer=options.layers,
        n_embd=options.width,
        n_head=options.heads,
        vocab_size=options.vocabulary,
        n_positions=options.block,
    )
    return transformers.GPT2LMHeadModel(config)


def ours(
    options: argparse.Namespace,
    path: Path,
    folder: Path,
    observer: Observer = Observer(),  # noqa: B008
    adjust: Callable[[TrainingInputs], TrainingInputs] = lambda job: job,
) -> float:
    """Seconds of our loop; ``adjust`` may change its inputs."""
    spec = {
        "model": {"fromConfig": {"model_type": "gpt2"}, "tokenizer": {"trainVocabSize": 256}},
        "dataset": {"builtin": "PythonDocs", "blockSize": options.block},
        "training": {"maxSteps": options.steps, "perDeviceBatchSize": options.batch, "precision": options.precision},
    }
    settings = resolve(parse_spec(spec))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    job = TrainingInputs(
        settings=settings, model=model_of(options).to(device), tokenizer=None, train_rows=BlockRows(path),
        eval_rows=BlockRows(path), collate=stack_blocks, arithmetic=arithmetic_for(settings, device),
        batch=Batch(options.batch), folder=folder, uploads=NoUploads(), interrupt=Interrupt(),
        observer=observer, callbacks=[NoSaves()],
    )  # fmt: skip
    job = adjust(job)
    trainer = build_trainer(job, TrainingLoop(job, TrainingHistory()))
    return timed(trainer, options.clock)


def tutorial(
    options: argparse.Namespace,
    path: Path,
    folder: Path,
    report_to: str = "none",
    make_model: Callable[[argparse.Namespace], Any] = model_of,
) -> float:
    """Seconds of the tutorial's loop."""
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=options.steps, per_device_train_batch_size=options.batch,
        learning_rate=2e-5, weight_decay=0.01, save_strategy="no", report_to=report_to, disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),  # without it Trainer's processes on CPUs do not exchange gradients
    )  # fmt: skip
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=_empty_tokenizer(), pad_token="<p>")  # noqa: S106
    collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)
    trainer = transformers.Trainer(
        model=make_model(options), args=arguments, train_dataset=PlainRows(path), data_collator=collator
    )
    trainer.remove_callback(PrinterCallback)
    return timed(trainer, options.clock)


def _empty_tokenizer() -> Any:
    from tokenizers import Tokenizer, models

    return Tokenizer(models.WordLevel({"<p>": 0}, unk_token="<p>"))  # noqa: S106


def timed(trainer: Any, clock: Callable[[], float]) -> float:
    """Seconds of train(), the device's queue included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = clock()
    trainer.train()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - began


def command_line() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("layers", 2), ("width", 64), ("heads", 2), ("vocabulary", 2000), ("block", 128), ("batch", 8), ("steps", 60),
        ("rounds", 5),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--model", choices=["gpt2", "llama"], default="gpt2")
    parser.add_argument("--precision", choices=["Auto", "FP32", "BF16"], default="Auto")
    parser.add_argument("--peak-tflops", type=float, default=None, help="of the device, if not in the table")
    parser.add_argument(
        "--cpu-time",
        action="store_const",
        dest="clock",
        const=time.process_time,
        default=time.perf_counter,
        help="count CPU seconds instead of wall seconds: fairer where others share a CPU-only machine",
    )
    return parser


def main() -> None:
    """Measure and print."""
    options = command_line().parse_args()
    quiet_transformers()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "blocks.arrow"
        rows = options.steps * options.batch
        with BlockWriter(path, options.block, options.vocabulary) as writer:
            writer.add(np.random.default_rng(0).integers(0, options.vocabulary, rows * options.block))
        warm = argparse.Namespace(**{**vars(options), "steps": 5})
        ours(warm, path, folder / "ours")
        tutorial(warm, path, folder / "tutorial")
        pairs = []
        for turn in range(options.rounds):
            runs = [ours, tutorial] if turn % 2 else [tutorial, ours]
            seconds = {run: run(options, path, folder / run.__name__) for run in runs}
            pairs.append((seconds[ours], seconds[tutorial]))
    tokens = rows * options.block
    parameters = sum(weight.numel() for weight in model_of(options).parameters())
    flops = 6 * parameters + 12 * options.layers * options.width * options.block
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    peak = options.peak_tflops or peak_tflops(device)
    for label, index in (("ours", 0), ("tutorial", 1)):
        rate = tokens / statistics.median(pair[index] for pair in pairs)
        used = f"  MFU {rate * flops / peak / 1e12:.1%}" if peak else ""
        print(f"{label:9} {rate:12,.0f} tokens/s  {rate * flops / 1e9:10,.1f} GFLOP/s{used}")
    print(f"MFU       of {peak:g} TFLOP/s, {device}" if peak else f"MFU       none: no peak is known of this {device}")
    ratios = sorted(theirs / mine for mine, theirs in pairs)
    print(
        f"ratio     {statistics.median(ratios):.3f} (median of {len(ratios)} pairs, {ratios[0]:.3f}-{ratios[-1]:.3f})"
    )


if __name__ == "__main__":
    main()
