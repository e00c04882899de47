"""Which card and which versions a measurement was made with, as one JSON line; --tiny is kept in it."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time

import torch

from lmft_job.memory.duration import peak_tflops


def name_by_driver() -> str | None:
    """The first GPU as nvidia-smi calls it; None where there is none, or no nvidia-smi."""
    try:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return said.splitlines()[0].strip() if said.strip() else None


def main() -> None:
    """Print the line."""
    cuda = torch.cuda.is_available()
    sys.path += [folder for folder in [os.environ.get("LMFT_BENCH_TRL")] if folder]
    versions = {}
    for name in ("torch", "triton", "transformers", "accelerate", "datasets", "tokenizers", "peft", "trl", "boto3"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "none"
    versions["torch"] = torch.__version__
    line = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "device": torch.cuda.get_device_name() if cuda else "CPU",
        "memory_gib": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1) if cuda else None,
        "nvidia_smi": name_by_driver(),
        "peak_tflops": peak_tflops(torch.cuda.get_device_name()) if cuda else None,
        "python": platform.python_version(),
        **versions,
        **({"tiny": True} if "--tiny" in sys.argv else {}),
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
