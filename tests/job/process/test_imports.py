"""What a run does not need, it does not import: no timings, but the modules that made half of the time to start."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.tiny_bases import save_base

MANIFEST: dict[str, Any] = {
    "apiVersion": "lmfinetune.dev/v1alpha1",
    "kind": "LMFineTune",
    "metadata": {"name": "lean"},
    "spec": {
        "model": {
            "fromConfig": {"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 16},
            "tokenizer": {"trainVocabSize": 300},
        },
        "dataset": {"builtin": "PythonDocs", "textField": "answers.text", "blockSize": 16, "split": "train[:20]"},
        "training": {"maxSteps": 2, "perDeviceBatchSize": 2},
        "sample": {"prompts": ["The import"], "maxNewTokens": 2},
    },
}
UNNEEDED = {
    "torch._dynamo.convert_frame": "compiles, and nothing is compiled on a CPU",
    "torch._inductor": "the same",
    "torch.distributed.tensor": "divides weights among processes, and there is one",
    "torch.distributed.fsdp": "the same",
    "peft": "puts adapters on models",
    "bitsandbytes.functional": "quantizes",
    "boto3": "talks to S3; accelerate imports it for SageMaker",
    "botocore": "the same",
    "scipy": "comes with scikit-learn",
    "sklearn": "for metrics that we do not compute",
    "tensorboard": "reads the event files of trackers",
    "tensorboardX": "writes them",
    "mlflow": "a tracker",
    "kubernetes": "talks to clusters",
    "triton": "kernels for GPUs",
}
"""Modules that no local run of a small model needs, and why."""
LATER = {"torch.distributed.tensor", "torch.distributed.fsdp"}
"""What huggingface_hub imports to save weights, after the first step."""
RUN = """
import json, sys
from contextlib import contextmanager
from lmft_job.attempt.context import RunContext
from lmft_job.cli.__main__ import main
importing, at_first_step = RunContext.importing, []
@contextmanager
def counting(self):
    with importing(self):
        yield
    from torch.optim.optimizer import register_optimizer_step_post_hook
    register_optimizer_step_post_hook(lambda *_: at_first_step or at_first_step.extend(sys.modules))
RunContext.importing = counting
sys.argv = ["lmft", "run", {manifest!r}, "--output", {output!r}]
try:
    main()
except SystemExit as ending:
    assert not ending.code, ending.code
print(json.dumps([at_first_step, list(sys.modules)]))
"""


def _python(code: str, **environment: str) -> str:
    options: dict[str, Any] = {"capture_output": True, "text": True, "env": os.environ | environment}
    done = subprocess.run([sys.executable, "-c", code], **options)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def _modules_of_a_run(manifest: dict[str, Any], folder: Path) -> tuple[set[str], set[str]]:
    """Those imported at its first step, and at its end."""
    (folder / "lean.yaml").write_text(json.dumps(manifest))
    printed = _python(
        RUN.format(manifest=str(folder / "lean.yaml"), output=str(folder / "runs")), LMFT_CACHE=str(folder / "cache")
    )
    at_first_step, at_the_end = map(set, json.loads(printed.splitlines()[-1]))
    return at_first_step, at_the_end


def test_a_whole_run_imports_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    at_first_step, at_the_end = _modules_of_a_run(MANIFEST, tmp_path)

    assert at_first_step & UNNEEDED.keys() == set()
    assert at_the_end & UNNEEDED.keys() <= LATER
    assert {"torch", "transformers.trainer", "transformers.models.gpt2.modeling_gpt2"} <= at_first_step


def test_a_run_with_an_adapter_on_linear_layers_does_without_the_same(tmp_path: Path) -> None:
    # Given a base model with torch's own linear layers, which GPT-2 does not have
    base = save_base(tmp_path / "base", "llama")
    spec = MANIFEST["spec"] | {"model": {"name": base}, "training": MANIFEST["spec"]["training"] | {"adapter": {}}}

    # When an adapter is trained, merged and published in a process that has imported nothing before
    at_first_step, at_the_end = _modules_of_a_run(MANIFEST | {"spec": spec}, tmp_path)

    # Then only the adapters are imported beside what other runs need
    assert at_first_step & UNNEEDED.keys() == {"peft"}
    assert at_the_end & UNNEEDED.keys() <= LATER | {"peft"}


COMPILER = """
import sys
from lmft_job.process.imports import Unused, defer_slow_imports, leave_out
defer_slow_imports()
leave_out([Unused.DISTRIBUTED])
import torch, transformers
from accelerate.utils import is_compiled_module
from transformers.masking_utils import TransformGetItemToIndex

@torch.compiler.disable(reason="a test")
def outside(value):
    assert not torch.compiler.is_compiling()
    return value + 1

@torch.compiler.allow_in_graph
def kept(value):
    return value * 2

plain = torch.nn.Linear(2, 2)
assert not is_compiled_module(plain)
assert outside(1) == 2
parameter = torch.nn.Parameter(torch.ones(2))
optimizer = torch.optim.AdamW([parameter])
parameter.sum().backward()
optimizer.step()
assert "torch._dynamo.convert_frame" not in sys.modules

seen = []
def backend(graph, inputs):
    seen.append([node.target for node in graph.graph.nodes if node.op == "call_function"])
    return graph.forward

compiled = torch.compile(lambda value: outside(kept(value)) - 3, backend=backend)
assert compiled(torch.tensor(2.0)).item() == 2.0
assert "torch._dynamo.convert_frame" in sys.modules
assert kept in sum(seen, []), seen
assert len(seen) == 2, seen
assert is_compiled_module(torch.compile(plain, backend=backend))
assert torch._dynamo._trace_wrapped_higher_order_op.TransformGetItemToIndex is TransformGetItemToIndex
"""


def test_the_compiler_is_there_once_something_is_compiled_and_knows_what_was_marked_before() -> None:
    _python(COMPILER)


LEFT_OUT = """
import sys
from lmft_job.process.imports import Unused, leave_nothing_out, leave_out
{first}
leave_out(list(Unused))
import transformers.trainer
from transformers.utils import is_peft_available
from transformers.utils.import_utils import is_torch_distributed_available
print([is_peft_available(), is_torch_distributed_available()])
import peft, torch.distributed.tensor
"""


@pytest.mark.parametrize(("first", "expected"), [("", "False"), ("leave_nothing_out()", "True")])
def test_transformers_does_without_what_is_left_out_and_others_import_it(first: str, expected: str) -> None:
    assert _python(LEFT_OUT.format(first=first)).split() == [f"[{expected},", f"{expected}]"]


SCAN = """
from lmft_job.process.imports import leave_out
leave_out([])
import transformers.models
from transformers.utils import import_utils
found = import_utils.define_import_structure(transformers.models.__file__)
for name in ("create_import_structure_from_path",):
    import importlib.util
    spec = importlib.util.spec_from_file_location("transformers.utils.as_it_was", import_utils.__file__)
    as_it_was = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(as_it_was)
assert found == as_it_was.define_import_structure(transformers.models.__file__)
assert sum(map(len, found.values())) > 500
"""


def test_transformers_finds_the_same_models_when_it_looks_once() -> None:
    _python(SCAN)
