"""What serving an adapter takes: ranks, and what vLLM does not take."""

from pathlib import Path

import pytest

from lmft_api.spec import AdapterType
from lmft_api.spec.resolved import AdapterSettings
from lmft_job.adapters.serving import RANKS, max_lora_rank, serving_notes
from lmft_job.cli.validate import report_problems


def lora(rank: int = 16, kind: AdapterType = AdapterType.LORA) -> AdapterSettings:
    return AdapterSettings(kind, rank, 32, 0.05, ("all-linear",), False)


@pytest.mark.parametrize(
    ("rank", "needed"), [(1, 1), (2, 8), (8, 8), (9, 16), (16, 16), (65, 128), (257, 320), (512, 512)]
)
def test_the_smallest_rank_that_takes_it(rank: int, needed: int) -> None:
    assert max_lora_rank(rank) == needed


def test_every_rank_of_a_manifest_can_be_served() -> None:
    assert all(max_lora_rank(rank) in RANKS for rank in range(1, 513))


@pytest.mark.parametrize(
    ("kind", "architecture", "heads", "said"),
    [
        (AdapterType.LORA, "LlamaForCausalLM", False, []),
        (AdapterType.DORA, None, False, ["DoRA"]),
        (AdapterType.LORA, "GPT2LMHeadModel", False, ["GPT2LMHeadModel"]),
        (AdapterType.DORA, "BertForSequenceClassification", True, ["DoRA", "trained head"]),
    ],
)
def test_what_it_does_not_take_is_a_sentence_each(
    kind: AdapterType, architecture: str | None, heads: bool, said: list[str]
) -> None:
    first, *rest = serving_notes(lora(kind=kind), architecture=architecture, heads=heads)
    assert "--max-lora-rank 16" in first
    assert len(rest) == len(said)
    assert all(word in note for word, note in zip(said, rest, strict=True))


@pytest.mark.parametrize(("output", "noted"), [("{merge: false}", True), ("{merge: true}", False)])
def test_validate_says_what_an_adapter_alone_needs(
    output: str, noted: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "run.yaml"
    manifest.write_text(
        "apiVersion: lmfinetune.dev/v1alpha1\nkind: LMFineTune\nmetadata: {name: a}\nspec:\n"
        "  model: {name: gpt2}\n  dataset: {builtin: PythonDocs}\n"
        f"  training: {{adapter: {{type: DoRA, rank: 20}}}}\n  output: {output}\n"
    )
    assert report_problems([manifest]) == 0
    printed = capsys.readouterr().out
    assert (
        "note: vLLM serves the adapter beside its base model with --enable-lora --max-lora-rank 32." in printed
    ) == noted
    assert ("DoRA" in printed) == noted
