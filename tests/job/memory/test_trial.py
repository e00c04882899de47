"""The estimate against training steps that are really executed, counted by torch's own tracker (bench/estimate.py)."""

import importlib.util
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from lmft_api.spec import AdapterType, Precision
from lmft_api.spec.resolved import AdapterSettings
from lmft_api.tasks import Task
from lmft_job.memory.plan import Plan
from lmft_job.memory.trial.hollow import Rules
from lmft_job.memory.trial.models import built
from lmft_job.memory.trial.step import step
from lmft_job.memory.trial.trials import Trials
from lmft_job.training.batch import ALL_LAYERS, Batch, Checkpointing

_FILE = Path(__file__).parents[3] / "bench/estimate.py"
NAMES = (
    "gpt2, accumulation", "gpt2, checkpointing 2 of 6", "llama, checkpointing", "llama, checkpointing 5 of 8",
    "llama, BF16", "bert, labels",
)  # fmt: skip


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    found = importlib.util.spec_from_file_location("bench_estimate", _FILE)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    import sys

    sys.modules["bench_estimate"] = module
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_the_predicted_peak_is_that_of_an_executed_step(bench: ModuleType, name: str) -> None:
    case = next(case for case in bench.CASES if case.name == name)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predicted, measured = bench.predicted(case), bench.measured(case)

    assert predicted == pytest.approx(measured, rel=0.1)


def test_a_few_layers_stand_for_all_of_them(bench: ModuleType) -> None:
    case = next(case for case in bench.CASES if case.name == "llama")
    plan = Plan(Task.CAUSAL_LM, 128, Batch(4))
    config = case.config

    extrapolated = Trials(config).moments(plan).peak.total
    config.layer_types = None
    whole = step(built(config, plan), Rules(), plan, 40)

    assert whole.peak.total == pytest.approx(extrapolated, rel=0.01)


def test_a_gpu_keeps_no_attention_scores_and_recomputes_with_the_same_kernels(bench: ModuleType) -> None:
    config = next(case for case in bench.CASES if case.name == "gpt2").config
    on_cpu = Plan(Task.CAUSAL_LM, 512, Batch(4))
    on_gpu = Plan(Task.CAUSAL_LM, 512, Batch(4), on_gpu=True)
    checkpointed = Plan(
        Task.CAUSAL_LM, 512, Batch(4), on_gpu=True, checkpointing=Checkpointing(ALL_LAYERS), precision=Precision.BF16
    )

    cpu, gpu, again = (Trials(config).moments(plan).peak.activations for plan in (on_cpu, on_gpu, checkpointed))

    assert cpu > 2 * gpu > 2 * again


@pytest.mark.parametrize("precision", [Precision.BF16, Precision.FP32])
def test_a_frozen_base_is_as_narrow_on_a_gpu_as_a_run_keeps_it(bench: ModuleType, precision: Precision) -> None:
    config = next(case for case in bench.CASES if case.name == "llama").config
    whole = Plan(Task.CAUSAL_LM, 128, Batch(4), on_gpu=True, precision=precision, pretrained=True)
    adapter = AdapterSettings(AdapterType.LORA, 8, 16, 0.0, ("all-linear",), False)

    trials = Trials(config)
    trained, frozen, packed = (
        trials.moments(plan).peak
        for plan in (whole, replace(whole, adapter=adapter), replace(whole, adapter=adapter, quantized=True))
    )

    assert trained.adapter == 0 < frozen.adapter
    assert frozen.weights == pytest.approx(trained.weights / (2 if precision == Precision.BF16 else 1), rel=0.01)
    assert packed.weights < frozen.weights


def test_an_adapter_of_one_layer_is_tried_with_all_layers(bench: ModuleType) -> None:
    config = next(case for case in bench.CASES if case.name == "llama").config
    last = f"layers.{config.num_hidden_layers - 1}.self_attn.q_proj"
    plan = Plan(Task.CAUSAL_LM, 128, Batch(4), adapter=AdapterSettings(AdapterType.LORA, 8, 16, 0.0, (last,), False))

    found = Trials(config).moments(plan).peak

    assert found.adapter == 2 * 8 * config.hidden_size * 4


def test_an_evaluation_without_logits_takes_less_than_training_with_a_large_vocabulary() -> None:
    import transformers

    config = transformers.AutoConfig.for_model(
        "llama", vocab_size=128_000, hidden_size=512, intermediate_size=1024, num_hidden_layers=2,
        num_attention_heads=8, max_position_embeddings=8192,
    )  # fmt: skip
    plan = Plan(Task.CAUSAL_LM, 8192, Batch(2), on_gpu=True, precision=Precision.BF16)

    with_logits, without = (Trials(config).moments(replace(plan, fused_loss=fused)) for fused in (False, True))

    training = max(without.forward.total, without.backward.total)
    assert without.evaluation.total < training < with_logits.evaluation.total
    assert without.evaluation.logits == 0 < with_logits.evaluation.logits


def test_the_estimate_agrees_with_the_one_figure_measured_on_a_gpu() -> None:
    """bench/results: GPT-2, 16 rows of 1,024 tokens, plain loop on an H100: 22.8 GiB allocated at most."""
    import transformers

    config = transformers.GPT2Config(attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0)
    plan = Plan(Task.CAUSAL_LM, 1024, Batch(16), on_gpu=True, precision=Precision.BF16)

    assert Trials(config).moments(plan).peak.total / 2**30 == pytest.approx(22.8, rel=0.05)


def test_a_process_that_is_forked_after_an_estimate_can_train() -> None:
    code = (
        "import os, sys, torch, transformers\n"
        "from lmft_api.tasks import Task\n"
        "from lmft_job.memory.plan import Plan\n"
        "from lmft_job.memory.trial.trials import Trials\n"
        "from lmft_job.training.batch import Batch\n"
        "config = transformers.GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2)\n"
        "Trials(config).moments(Plan(Task.CAUSAL_LM, 8, Batch(1)))\n"
        "child = os.fork()\n"
        "if child:\n"
        "    sys.exit(os.waitpid(child, 0)[1] != 0)\n"
        "torch.ones(3, requires_grad=True).sum().backward()\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
