"""What vLLM needs to serve an adapter beside its base model, and what of it vLLM does not take.

From vLLM's sources (github.com/vllm-project/vllm): ranks of vllm/config/lora.py at 01230b4, features of
vllm/lora/peft_helper.py at 0214369, architectures of docs/models/supported_models.md at 0046f77 (2026). Warnings, never
refusals: another server, or a later version, may take more. Imports neither torch nor peft.
"""

from lmft_api.spec import AdapterType
from lmft_api.spec.resolved import AdapterSettings

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of --max-lora-rank."""
WITHOUT_ADAPTERS = frozenset({
    "ArcticForCausalLM", "BloomForCausalLM", "DbrxForCausalLM", "FalconForCausalLM", "FalconMambaForCausalLM",
    "FlexOlmoForCausalLM", "GPT2LMHeadModel", "GPTJForCausalLM", "GPTNeoXForCausalLM", "Gemma3nForCausalLM",
    "Mamba2ForCausalLM", "MambaForCausalLM", "MptForCausalLM", "OlmoeForCausalLM", "StableLmForCausalLM",
    "Zamba2ForCausalLM",
})  # fmt: skip
"""Architectures that vLLM serves, but without adapters."""


def max_lora_rank(rank: int) -> int:
    """The smallest --max-lora-rank that takes adapters of this rank."""
    return next(value for value in RANKS if value >= rank)


def serving_notes(wanted: AdapterSettings, *, architecture: str | None = None, heads: bool = False) -> list[str]:
    """What serving needs, then what does not work; one sentence each.

    Args:
        wanted: settings of the adapter.
        architecture: class of the model; None if it is not known yet.
        heads: whether a head is trained as a whole.
    """
    options = f"--enable-lora --max-lora-rank {max_lora_rank(wanted.rank)}"
    said = [f"vLLM serves the adapter beside its base model with {options}."]
    if wanted.type == AdapterType.DORA:
        said.append("vLLM does not take DoRA adapters: set output.merge: true, or type LoRA.")
    if heads:
        said.append("vLLM does not take adapters with a trained head: set output.merge: true.")
    if architecture in WITHOUT_ADAPTERS:
        said.append(f"vLLM takes no adapters for {architecture}: set output.merge: true.")
    return said
