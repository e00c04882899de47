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


def test_it_asks_no_hub_for_kernels_and_leaves_out_that_warning_alone(tmp_path: Path):
    # given a package that would ask the hub
    (tmp_path / "kernels.py").write_text("print('asked')\n")
    code = (
        "import logging, sys\n"
        "from lmft_job.process.deferred import defer_slow_imports\n"
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
