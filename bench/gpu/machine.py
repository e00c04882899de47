"""Which card and which versions a measurement was made with, as one JSON line."""

import importlib.metadata
import json
import platform
import time

import torch


def main() -> None:
    """Print the line."""
    cuda = torch.cuda.is_available()
    versions = {}
    for name in ("torch", "triton", "transformers", "accelerate", "datasets", "tokenizers"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "none"
    versions["torch"] = torch.__version__
    line = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "device": torch.cuda.get_device_name() if cuda else "CPU",
        "memory_gib": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1) if cuda else None,
        "python": platform.python_version(),
        **versions,
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
