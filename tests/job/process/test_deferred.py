"""What a library imports without need is imported when it is used."""

import subprocess
import sys


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
