"""What is wanted of each figure, in one table, and how a figure is held against it; no torch is needed."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

YES = "yes"


@dataclass(frozen=True)
class Goal:
    """A row of the table.

    Attributes:
        row: its name in the JSON lines.
        part: of bench/gpu.sh, which measures it.
        shape: what is measured, for people.
        against: the peer, for people.
        bound: such as ``>= 2``, or ``yes`` for what must be so.
        loops: the two loops of bench/gpu/loops.py whose rates are divided.
        cases: how many lines it takes; each has a ``case`` of its own, and the worst counts.
        on_gpu: whether only a GPU can show it.
    """

    row: str
    part: str
    shape: str
    against: str
    bound: str
    loops: tuple[str, str] | None = None
    cases: int = 1
    on_gpu: bool = True

    def met(self, value: float | bool) -> bool:
        """Whether a figure reaches it."""
        if self.bound == YES:
            return value is True
        direction, number = self.bound.split()
        return value >= float(number) if direction == ">=" else value <= float(number)


def _loops(shape: str, words: str, *peers: tuple[str, str, str]) -> list[Goal]:
    parts = {"run_clm-fast": f"{shape}-fast", "bare": f"{shape}-bare"}
    return [Goal(f"{shape}/{peer}", parts.get(peer, shape), words, against, bound, ("ours", peer))
            for peer, against, bound in peers]  # fmt: skip


_DEFAULTS = ("run_clm", "run_clm's defaults", ">= 2")
_FAST = ("run_clm-fast", "run_clm with bf16 and torch_compile", ">= 1.1")

GOALS = (
    Goal("smoke/quickstart", "smoke", "the quickstart end to end, BF16", "", YES),
    Goal("smoke/peak", "smoke", "the peaks table knows the name that nvidia-smi gives", "", YES),
    Goal("equality/switches", "equality", "largest gap of a step's loss, FP32 on the CPU, each switch", "plain loop",
         "<= 1e-5", cases=6, on_gpu=False),
    Goal("equality/gpu", "equality", "mean gap of a step's loss, BF16 with all switches", "plain loop in BF16",
         "<= 0.005"),
    Goal("equality/bf16", "equality", "mean gap of a step's loss, BF16", "FP32, same rows", "<= 0.005", cases=2),
    Goal("equality/perplexity", "equality", "held-out perplexity after it, relative gap", "FP32, same rows",
         "<= 0.005", cases=2),
    *_loops("tutorial", "124M, 8 x 128", _DEFAULTS, ("ours-plain", "ours before", ">= 1.5")),
    *_loops("gpt2-124m", "124M, 16 x 1,024", _DEFAULTS, _FAST, ("bare", "a bare loop as nanoGPT writes it", ">= 0.9")),
    *_loops("llama-1.1b", "1.1B, 4 x 2,048", _DEFAULTS, _FAST, ("bare", "a bare loop as litgpt writes it", ">= 0.9")),
    Goal("llama-1.1b/mfu", "llama-1.1b", "1.1B, 4 x 2,048: MFU", "the device's peak", ">= 0.4"),
    Goal("lora/rate", "lora", "1.1B LoRA, conversations of varied length", "TRL's SFTTrainer with packing", ">= 1"),
    Goal("lora/loss", "lora", "its held-out loss after as many conversations, relative excess", "TRL's", "<= 0.01"),
    Goal("checkpoint/s3", "checkpoint", "a checkpoint every 100 steps to S3 on loopback", "none", "<= 1.03"),
    Goal("start/first-step", "start", "start of the process to the first step, warm", "bare HF", "<= 1.2"),
    Goal("memory/estimate", "memory", "estimated memory, relative error, ten shapes", "max_memory_allocated", "<= 0.2",
         cases=10),
    Goal("evaluation/peak", "evaluation", "peak of evaluating, vocabulary 128k, 8k tokens", "peak of training", "<= 1",
         cases=2),
    Goal("faults/missing", "faults", "no GPU: AcceleratorMissing", "", YES, on_gpu=False),
    Goal("faults/sigterm", "faults", "SIGTERM: exit 75, and the same command resumes", "", YES),
    Goal("faults/resumed", "faults", "the perplexity of that run, relative gap", "an undisturbed run", "<= 0.005"),
    Goal("shortage/batch", "shortage", "memory runs out: a batch that fits is found", "", YES),
    Goal("tutorials/run", "tutorials", "the three tutorials end to end, BF16", "", YES, cases=3),
    Goal("graphs/gain", "graphs", "CUDA graphs for steps of 8 x 128 (used only if they gain this)", "without",
         ">= 1.3"),
    Goal("varlen/loss", "varlen", "mean gap of a step's loss, attention within documents, BF16", "masks", "<= 0.005"),
)  # fmt: skip
BY_ROW = {goal.row: goal for goal in GOALS}


def judged(row: str, value: float | bool, *, tiny: bool, **figures: Any) -> dict[str, Any]:
    """The line of a figure: its goal, and whether that is met; None with the reason where a tiny run cannot say.

    Raises:
        KeyError: no goal has this name.
    """
    goal = BY_ROW[row]
    line = {"part": goal.part, "row": row, **figures, "value": value, "goal": goal.bound}
    if tiny and goal.on_gpu:
        return {**line, "met": None, "not_measured": "tiny, on a CPU: shows only that it runs"}
    return {**line, "met": goal.met(value)}


def left_out(row: str, why: str, **figures: Any) -> dict[str, Any]:
    """The line of a figure that cannot be had here."""
    goal = BY_ROW[row]
    return {"part": goal.part, "row": row, **figures, "goal": goal.bound, "met": None, "not_measured": why}


def ratios(lines: Iterable[dict[str, Any]], shape: str, *, tiny: bool) -> list[dict[str, Any]]:
    """The judged ratios of a shape's loops, of those whose rates are known; the last line of a loop counts."""
    found = {line["loop"]: line for line in lines if line.get("shape") == shape and line.get("tokens_per_s")}
    rows = []
    for goal in GOALS:
        if goal.loops and goal.row.startswith(f"{shape}/") and all(loop in found for loop in goal.loops):
            ours, peer = (found[loop]["tokens_per_s"] for loop in goal.loops)
            rows.append(judged(goal.row, round(ours / peer, 3), tiny=tiny, ours=ours, peer=peer, unit="tokens/s"))
    share = found.get("ours", {}).get("mfu")
    if share is not None and f"{shape}/mfu" in BY_ROW:
        rows.append(judged(f"{shape}/mfu", share, tiny=tiny, ours=share))
    return rows


def read(*paths: Path) -> list[dict[str, Any]]:
    """The JSON lines of some files; a line that was cut off with the machine is passed over."""
    lines = []
    for path in paths:
        for text in path.read_text().splitlines():
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                continue
    return [line for line in lines if isinstance(line, dict)]


def slug(device: str) -> str:
    """A card's name for a file: ``NVIDIA H100 80GB HBM3`` is h100."""
    found = re.search(r"\b([A-Z]+\d+[A-Z]*)\b", device.replace("NVIDIA ", ""))
    return (found[1] if found else device).lower().replace(" ", "-")
