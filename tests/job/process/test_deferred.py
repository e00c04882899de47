"""What a library imports without need is imported when it is used."""

import os
import subprocess
import sys
from pathlib import Path


def _python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_a_run_starts_without_the_code_of_quantization_and_has_it_on_demand():
    printed = _python(
        "import sys\n"
        "from lmft_job.attempt.context import quiet_libraries\n"
        "quiet_libraries()\n"
        "import lmft_job.recipe\n"
        "print('peft' in sys.modules, 'bitsandbytes.functional' in sys.modules)\n"
        "import bitsandbytes\n"
        "bitsandbytes.nn.Linear4bit(4, 4, device='meta')\n"
        "print('bitsandbytes.functional' in sys.modules)\n"
    )
    assert printed.splitlines() == ["True False", "True"]


def test_an_adapter_without_nf4_is_trained_stored_and_merged_without_it(tmp_path: Path):
    printed = _python(
        "import sys\n"
        "from pathlib import Path\n"
        "from lmft_job.attempt.context import quiet_libraries\n"
        "quiet_libraries()\n"
        "import copy, torch, transformers\n"
        "from lmft_api.spec import AdapterType\n"
        "from lmft_api.spec.resolved import AdapterSettings\n"
        "from lmft_job import tasks\n"
        "from lmft_job.adapters.attach import Base, attach\n"
        "from lmft_job.adapters.merge import merged\n"
        "from lmft_job.adapters.state import restore, save\n"
        "from lmft_job.adapters.targets import find_targets\n"
        "config = transformers.LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1,\n"
        "                                  num_attention_heads=2)\n"
        "model = transformers.AutoModelForCausalLM.from_config(config)\n"
        "base = copy.deepcopy(model)\n"
        "wanted = AdapterSettings(AdapterType.DORA, 4, 32, 0.0, ('all-linear',), False)\n"
        "attach(model, find_targets(model, tasks.of('CausalLM'), wanted), wanted, Base('x'),\n"
        "       auto_class='AutoModelForCausalLM', seed=0)\n"
        "ids = torch.zeros((1, 4), dtype=torch.int64)\n"
        "model(input_ids=ids, labels=ids).loss.backward()\n"
        f"folder = Path({str(tmp_path / 'adapter')!r})\n"
        "save(model, folder)\n"
        "restore(model, folder)\n"
        "merged(base, folder, torch.bfloat16)\n"
        "print(type(sys.modules['bitsandbytes']).__name__, 'bitsandbytes.functional' in sys.modules)\n"
    )
    assert printed.splitlines()[-1] == "Deferred False"


def test_it_asks_no_hub_for_kernels_and_leaves_out_that_warning_alone(tmp_path: Path):
    # given a package that would ask the hub
    (tmp_path / "kernels.py").write_text("print('asked')\n")
    code = (
        "import logging, sys\n"
        "from lmft_job.process.imports import defer_slow_imports\n"
        "defer_slow_imports()\n"
        "import bitsandbytes\n"
        "from bitsandbytes.nn import Linear4bit\n"
        "import torch\n"
        "assert hasattr(torch.ops.bitsandbytes, 'quantize_4bit')\n"
        "logging.getLogger('bitsandbytes.backends.cpu.ops').warning('another warning')\n"
        "import kernels\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )

    # then only the last import found it
    assert done.stdout.splitlines() == ["asked"]
    assert [line for line in done.stderr.splitlines() if line] == ["another warning"]


def test_a_part_that_its_package_imports_itself_is_imported_once(tmp_path: Path):
    # given a package whose code imports a part of it, as torch._dynamo's does
    package = tmp_path / "slowly"
    package.mkdir()
    (package / "__init__.py").write_text("print('package')\nfrom slowly import part\nfrom slowly.part import one\n")
    (package / "part.py").write_text("print('part')\none = object()\n")
    code = (
        "import importlib, sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from lmft_job.process.imports.deferred import defer\n"
        "defer('slowly')\n"
        "import slowly\n"
        "print('deferred')\n"
        "from slowly.part import one\n"
        "assert one is slowly.one and slowly.part is sys.modules['slowly.part']\n"
        "assert slowly.part.__spec__.origin.endswith('part.py')\n"
        "importlib.reload(slowly.part)\n"
    )

    # when the part is asked for first, then it runs once, and again only where it is reloaded
    assert _python(code).splitlines() == ["deferred", "package", "part", "part"]
